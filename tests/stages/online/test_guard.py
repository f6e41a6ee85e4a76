"""What a run does on an alarm: go on, stop, or go back and let the KL weigh more."""

import signal

import pytest
import torch
from safetensors.torch import load_file
from tests.stages.conftest import WORDS

from plaudit.algorithms.grpo import GRPO
from plaudit.algorithms.online_dpo import OnlineDPO
from plaudit.algorithms.ppo import PPO
from plaudit.config.sections import CheckpointSection, DataSection, LoraSection, OptimizerSection
from plaudit.errors import Ended, Stopped
from plaudit.jobs.online import GRPOJob, OnlineDPOJob
from plaudit.records import RewardResult
from plaudit.runs.files import METRICS, read_json, read_lines
from plaudit.stages.online.rl import run_rl

FLAT = OptimizerSection(lr=1e-3, schedule="constant", warmup_fraction=0.0)
"""A rate that does not depend on how long the run is to be."""
EVENTS = ("alarm", "gone back", "rolled back")


def counts_good(rollouts):
    """A reward that pays for a word: that is seen after the first iteration."""
    return [RewardResult(float(rollout.response.count("good"))) for rollout in rollouts]


def true(rollouts):
    """The gold reward: it likes nothing that the reward pays for."""
    return [RewardResult(-float(rollout.response.count("good"))) for rollout in rollouts]


def job(world, out, **changes):
    settings = {"iterations": 6, "prompts_per_iteration": 8, "eval_every": 1, "eval_prompts": 6}
    settings |= {"data": DataSection(eval_fraction=0.5), "algorithm": GRPO(group_size=16, kl_coef=0.0)} | changes
    kind = OnlineDPOJob if isinstance(settings["algorithm"], OnlineDPO) else GRPOJob
    made = world.rl(out, **{name: value for name, value in settings.items() if name != "algorithm"})
    given = {name: getattr(made, name) for name in made.model_fields_set - {"algorithm"}}
    return kind(**(given | {"algorithm": settings["algorithm"]}))


def events(run):
    return [row for row in read_lines(run / "events.jsonl") if row["event"] in EVENTS]


def test_by_default_an_alarm_changes_nothing(world, tmp_path):
    run = run_rl(job(world, tmp_path / "run"), reward=counts_good)
    assert [row["kind"] for row in events(run) if row["event"] == "alarm"][0] == "paid_words"
    summary = read_json(run / "summary.json")
    assert summary["ended"] == "finished" and summary["model_step"] == 6
    assert {row["objective/kl_coef"] for row in read_lines(run / "metrics.jsonl")} == {0.0}


def test_stop_hands_out_the_weights_before_the_alarm(world, tmp_path):
    with pytest.raises(Ended, match="stopped on the alarm paid_words") as caught:
        run_rl(job(world, tmp_path / "run", on_alarm="stop"), reward=counts_good)
    assert caught.value.exit_code == 3
    run = tmp_path / "run"
    summary = read_json(run / "summary.json")
    assert (summary["ended"], summary["model_step"]) == ("alarm", 1)
    assert [(row["event"], row.get("kind", row.get("to"))) for row in events(run)] == [
        ("alarm", "paid_words"), ("rolled back", 1)]  # fmt: skip
    assert (run / "model" / "model.safetensors").is_file()


def test_with_a_gold_reward_the_best_weights_are_handed_out(world, tmp_path):
    many = [f"say {a} {b}" for a in WORDS for b in WORDS]  # so that there are enough to be sure of a fall
    settings = {"data": DataSection(eval_fraction=0.6), "eval_prompts": 40, "optimizer": OptimizerSection(lr=1e-2)}
    with pytest.raises(Ended, match="proxy_gold"):
        run_rl(job(world, tmp_path / "run", on_alarm="stop", **settings), reward=counts_good, gold=true, prompts=many)
    summary = read_json(tmp_path / "run" / "summary.json")
    assert summary["ended"] == "alarm" and summary["model_step"] == 0, "it was best at its start"


@pytest.mark.parametrize(("algorithm", "name", "first"), [
    (GRPO(group_size=16, kl_coef=0.0), "objective/kl_coef", [0.05, 0.1, 0.2]),
    (OnlineDPO(group_size=16, beta=0.1), "", [0.2, 0.4, 0.8]),
])  # fmt: skip
def test_back_goes_back_three_times_with_twice_the_coefficient_and_then_stops(
    world, tmp_path, algorithm, name, first
):
    with pytest.raises(Ended, match="after going back 3 times"):
        run_rl(job(world, tmp_path / "run", on_alarm="back", algorithm=algorithm), reward=counts_good)
    back = [row for row in events(tmp_path / "run") if row["event"] == "gone back"]
    assert [row["why"].split("kl_coef ")[1] for row in back] == [f"{coef:g}" for coef in first]
    if name:
        seen = {row["step"]: row[name] for row in read_lines(tmp_path / "run" / "metrics.jsonl")}
        assert [seen[row["step"] + 1] for row in back] == first


def test_going_back_puts_the_weights_back(world, tmp_path):
    models = []
    for on_alarm in ("stop", "back"):
        run = tmp_path / on_alarm
        with pytest.raises(Ended):
            run_rl(job(world, run, on_alarm=on_alarm), reward=counts_good)
        models.append(load_file(run / "model" / "model.safetensors"))
    to = [row["to"] for row in events(run) if row["event"] == "gone back"]
    assert to == [1, 1, 1], "nothing was calm after the first iteration"
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])


ENVIRONMENT = """
class Twice:
    max_turns, stop = 2, ()
    def reply(self, rollout):
        return " big"
"""


@pytest.mark.parametrize("kind", ["lora", "trunk", "environment"])
def test_adapters_a_shared_trunk_and_turns_are_put_back_as_well(world, tmp_path, kind):
    (tmp_path / "twice.py").write_text(ENVIRONMENT)
    changes = {
        "lora": {"lora": LoraSection(rank=2)},
        "trunk": {"algorithm": PPO(group_size=16, kl_coef=0.0, critic="trunk", critic_warmup=0)},
        "environment": {"environment": f"{tmp_path / 'twice.py'}:Twice"},
    }[kind]

    def made(name, **more):
        given = {"iterations": 6, "prompts_per_iteration": 8, "eval_every": 1, "eval_prompts": 6, "optimizer": FLAT}
        given |= changes | more
        if "algorithm" in changes:
            return world.rl(tmp_path / name, data=DataSection(eval_fraction=0.5), **given)
        return job(world, tmp_path / name, **given)

    with pytest.raises(Ended, match="stopped on the alarm"):
        run_rl(made("stop", on_alarm="stop"), reward=counts_good)
    step = read_json(tmp_path / "stop" / "summary.json")["model_step"]
    assert step >= 1
    with pytest.raises(Ended, match="after going back 3 times"):
        run_rl(made("back", on_alarm="back"), reward=counts_good)
    run_rl(made("short", iterations=step), reward=counts_good)
    one, two, three = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("stop", "back", "short"))
    for name, tensor in three.items():
        assert torch.equal(one[name], tensor) and torch.equal(two[name], tensor), name


def test_at_the_last_iteration_a_run_does_not_go_back_but_chooses(world, tmp_path):
    run = run_rl(job(world, tmp_path / "run", on_alarm="back", iterations=2), reward=counts_good)
    assert [row["event"] for row in events(run)] == ["alarm", "rolled back"], "the alarm is of iteration 2"
    summary = read_json(run / "summary.json")
    assert (summary["ended"], summary["model_step"]) == ("finished", 1)


def test_an_interrupted_run_hands_out_what_was_before_the_alarm_too(world, tmp_path):
    def interrupt(iteration, metrics, rollouts):
        if iteration == 4:
            signal.raise_signal(signal.SIGTERM)

    run = tmp_path / "run"
    with pytest.raises(Stopped):
        run_rl(job(world, run, on_alarm="back"), reward=counts_good, on_iteration=interrupt)
    with pytest.raises(Ended):
        run_rl(job(world, tmp_path / "stop", on_alarm="stop"), reward=counts_good)
    assert read_json(run / "summary.json")["model_step"] == 1
    one, two = (load_file(path / "model" / "model.safetensors") for path in (run, tmp_path / "stop"))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_resumed_run_goes_back_as_it_would_have(world, tmp_path):
    every = CheckpointSection(every=1, keep=10)
    with pytest.raises(Ended):
        run_rl(job(world, tmp_path / "whole", on_alarm="back", checkpoint=every), reward=counts_good)

    class Halt(Exception):
        pass

    def halt(iteration, metrics, rollouts):
        if iteration == 4:
            raise Halt

    with pytest.raises(Halt):
        run_rl(job(world, tmp_path / "cut", on_alarm="back", checkpoint=every), reward=counts_good, on_iteration=halt)
    again = every.model_copy(update={"resume": True})
    with pytest.raises(Ended):
        run_rl(job(world, tmp_path / "cut", on_alarm="back", checkpoint=again), reward=counts_good)
    one, two = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    figures = [
        [(row["step"], row["reward/mean"], row["objective/kl_coef"]) for row in read_lines(tmp_path / name / METRICS)]
        for name in ("whole", "cut")
    ]
    assert figures[0] == figures[1]
