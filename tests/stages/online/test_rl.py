"""The RL stage on a tiny model: exactness at the first minibatch, resume, LoRA, and what it refuses."""

import contextlib
import copy
import json
import re
import signal
import time
from collections import Counter

import pytest
import torch
from safetensors.torch import load_file
from tests.stages.conftest import WORDS
from transformers import AutoModelForCausalLM, AutoTokenizer

from plaudit.algorithms.grpo import DAPO
from plaudit.algorithms.ppo import PPO
from plaudit.config.sections import (
    CheckpointSection,
    DataSection,
    LoraSection,
    OptimizerSection,
    SamplingSection,
)
from plaudit.errors import ConfigError, DataError, Ended, ModelError, RewardError, Stopped, TrainingError
from plaudit.evaluation.kinds import policy_card
from plaudit.evaluation.report import write_report
from plaudit.generation.native import NativeGenerator
from plaudit.jobs.online import GRPOJob
from plaudit.records import Prompt, RewardResult
from plaudit.runs.files import read_json, read_lines
from plaudit.runtime import Runtime
from plaudit.stages.online.again import evaluate_again
from plaudit.stages.online.rl import run_rl


def likes_good(rollouts):
    return [RewardResult(float(r.response.count("good"))) for r in rollouts]


def metrics(run):
    return read_lines(run / "metrics.jsonl")


def events(run):
    return [row["event"] for row in read_lines(run / "events.jsonl")]


@pytest.mark.parametrize("lora", [LoraSection(), LoraSection(rank=2)])
def test_ratio_is_one_at_the_first_minibatch(world, tmp_path, lora):
    job = world.rl(tmp_path / "run", iterations=1, lora=lora, algorithm=PPO(epochs=1, critic_warmup=0))
    first = metrics(run_rl(job, reward=likes_good))[0]
    assert first["policy/ratio_max"] == pytest.approx(1, abs=1e-5)
    assert first["policy/ratio_mean"] == pytest.approx(1, abs=1e-5)
    assert first["rollout/logprob_diff_max"] < 1e-5, "what the generator recorded is what the trainer computes"
    assert first["objective/kl"] == pytest.approx(0, abs=1e-5)
    assert first["policy/clip_fraction"] == 0


def test_what_samples_is_as_precise_as_what_is_trained(world, tmp_path):
    compute = world.rl("x").compute.model_copy(update={"precision": "bf16"})
    job = world.rl(tmp_path / "run", iterations=1, compute=compute, algorithm=PPO(epochs=1, critic_warmup=0))
    first = metrics(run_rl(job, reward=likes_good))[0]
    assert first["rollout/logprob_diff_max"] < 0.05 and first["policy/ratio_max"] == pytest.approx(1, abs=1e-5)


def test_files_and_the_saved_model_loads_with_plain_transformers(world, tmp_path):
    run = run_rl(world.rl(tmp_path / "run", lora=LoraSection(rank=2)), reward=likes_good)
    for name in ("config.toml", "manifest.json", "metrics.jsonl", "samples.jsonl", "events.jsonl", "summary.json"):
        assert (run / name).is_file(), name
    tokenizer = AutoTokenizer.from_pretrained(run / "model")
    model = AutoModelForCausalLM.from_pretrained(run / "model")
    ids = tokenizer("say red", return_tensors="pt")
    assert model.generate(**ids, max_new_tokens=3, do_sample=False).shape[1] > ids["input_ids"].shape[1]
    assert {row["step"] for row in read_lines(run / "evaluation.jsonl")} == {0, 2, 4}
    cautions = [row["message"] for row in read_lines(run / "events.jsonl") if row["event"] == "caution"]
    assert any("evaluations sample" in words and "training 16" in words for words in cautions)


def test_both_models_learn(world, tmp_path):
    job = world.rl(tmp_path / "run", algorithm=PPO(critic_warmup=1))
    run_rl(job, reward=likes_good)
    before = load_file(f"{world.lm}/model.safetensors")
    after = load_file(tmp_path / "run" / "model" / "model.safetensors")
    assert all(not torch.equal(before[name], after[name]) for name in after), "every parameter moves"
    assert len({row["critic/loss"] for row in metrics(tmp_path / "run")}) == 4


def without_clock(rows):
    return [{k: v for k, v in row.items() if not k.startswith(("time", "throughput", "memory"))} for row in rows]


def test_resumed_equals_uninterrupted_bit_for_bit(world, tmp_path):
    algorithm = PPO(kl_target=6.0, critic_warmup=1)
    whole = run_rl(world.rl(tmp_path / "whole", algorithm=algorithm), reward=likes_good)
    job = world.rl(tmp_path / "cut", algorithm=algorithm, checkpoint=CheckpointSection(every=2))

    def stop_in_the_third(iteration, metrics_, rollouts_):
        if iteration == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_rl(job, reward=likes_good, on_iteration=stop_in_the_third)
    resumed = job.model_copy(update={"checkpoint": CheckpointSection(every=2, resume=True)})
    cut = run_rl(resumed, reward=likes_good)
    assert "resumed" in events(cut)
    assert without_clock(metrics(cut)) == without_clock(metrics(whole))
    assert read_lines(cut / "evaluation.jsonl") == read_lines(whole / "evaluation.jsonl"), "no step twice"
    first, second = (load_file(r / "model" / "model.safetensors") for r in (whole, cut))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_stop_saves_and_says_how_to_go_on(world, tmp_path):
    import signal

    def interrupt(iteration, metrics_, rollouts_):
        if iteration == 1:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Stopped, match="after step 1") as caught:
        run_rl(world.rl(tmp_path / "run"), reward=likes_good, on_iteration=interrupt)
    assert "--resume" in caught.value.cure and caught.value.exit_code == 75
    assert (tmp_path / "run" / "checkpoints" / "step-000001" / "MANIFEST.json").is_file()


def souring(rollouts):
    """The older the policy, the worse."""
    return [RewardResult(float(len(r.response_ids)) - 10 * r.policy_version) for r in rollouts]


def best_at(step):
    """A reward that is highest after so many iterations."""

    def reward(rollouts):
        return [RewardResult(0.1 * len(r.response_ids) - abs(r.policy_version - step)) for r in rollouts]

    return reward


MANY = [f"say {a} {b}" for a in WORDS for b in WORDS]
"""Prompts, so that there are enough of them on each side of an evaluation."""


def many(world, out, **changes):
    return world.rl(out, **({"data": DataSection(eval_fraction=0.6), "eval_every": 1} | changes))


def test_a_policy_that_ends_worse_is_put_back(world, tmp_path):
    run = run_rl(many(world, tmp_path / "run"), reward=souring, prompts=MANY)
    [event] = [row for row in read_lines(run / "events.jsonl") if row["event"] == "rolled back"]
    assert event["to"] == 0 and re.search(r"at its start .* after iteration 4, both sampled anew", event["why"])
    summary = read_json(run / "summary.json")
    assert (summary["model_step"], summary["peak_step"], summary["end_step"]) == (0, 0, 4)
    start = load_file(f"{world.lm}/model.safetensors")
    end = load_file(run / "model" / "model.safetensors")
    assert all(torch.equal(start[name], end[name]) for name in end)
    assert policy_card.card(run)["verdict"] == "no_change"


def test_a_lost_peak_is_handed_out_even_where_the_end_is_above_the_start(world, tmp_path):
    run = run_rl(many(world, tmp_path / "run"), reward=best_at(3), prompts=MANY)
    summary = policy_card.card(run)
    assert (summary["evaluated_step"], summary["verdict"]) == (3, "better")
    assert read_json(run / "summary.json")["end_selection"] == pytest.approx(
        read_json(run / "summary.json")["peak_selection"] - 1, abs=0.3
    )
    assert summary["reward_peak_step"] == 3 and summary["reward_model"] == summary["reward_peak"]
    assert summary["reward_model"] - summary["reward_start"] == pytest.approx(3, abs=0.3)


def test_a_best_evaluation_that_was_luck_gives_way_to_the_start(world, tmp_path):
    """Iteration 2 shines at its evaluation only; sampled anew it is below the start, and the end is lower still."""

    def reward(rollouts):
        watched = len(rollouts) / len({r.prompt.id for r in rollouts}) == 2  # four responses each where it is judged
        levels = {0: 0.0, 1: -0.5, 2: 5.0 if watched else -1.0, 3: -2.0, 4: -3.0}
        return [RewardResult(0.01 * len(r.response_ids) + levels[r.policy_version]) for r in rollouts]

    run = run_rl(many(world, tmp_path / "run"), reward=reward, prompts=MANY)
    first, second = [row for row in read_lines(run / "events.jsonl") if row["event"] == "rolled back"]
    assert (first["to"], second["to"]) == (2, 0)
    assert re.search(r"at its start .* after iteration 2, both sampled anew: a loss of", second["why"])
    start, end = load_file(f"{world.lm}/model.safetensors"), load_file(run / "model" / "model.safetensors")
    assert all(torch.equal(start[name], end[name]) for name in end)
    assert not (run / "best" / "start.safetensors").exists()
    summary = read_json(run / "summary.json")
    assert (summary["model_step"], summary["peak_step"], summary["end_step"]) == (0, 0, 2)
    assert policy_card.card(run)["verdict"] == "no_change"
    page = write_report(run).read_text()
    assert "What was trained is not handed out: the held-out reward was 0.0" in " ".join(page.split())


def test_choice_and_judgement_use_other_prompts_and_new_luck(world, tmp_path):
    run = run_rl(many(world, tmp_path / "run"), reward=best_at(3), prompts=MANY)
    rows = read_lines(run / "evaluation.jsonl")
    of = {name: {row["prompt_id"] for row in rows if row["set"] == name} for name in ("selection", "again", "final")}
    assert of["selection"] == of["again"] and not of["selection"] & of["final"]
    assert len(of["selection"]) >= 10 and len(of["final"]) >= 10
    assert {row["step"] for row in rows if row["set"] == "final"} == {0, 3}
    assert {row["step"] for row in rows if row["set"] == "again"} == {3, 4}
    draws = {(row["set"], row["step"]): tuple(row["seed"]) for row in rows}
    assert len(set(draws.values())) == len(draws), "each evaluation has luck of its own"
    assert all(draw < -2 for _, draw in draws.values()), "which training never has"
    counts = Counter((row["set"], row["step"], row["prompt_id"]) for row in rows)
    assert {name: {n for (s, _, _), n in counts.items() if s == name} for name in of} == {
        "selection": {2}, "again": {4}, "final": {4},
    }  # fmt: skip


def test_with_few_prompts_nothing_is_put_back_and_nothing_claimed(world, tmp_path):
    run = run_rl(world.rl(tmp_path / "run"), reward=souring)
    assert "rolled back" not in events(run)
    assert policy_card.card(run)["verdict"] == "too_few"


def test_kl_over_the_limit_stops_and_can_go_on_with_a_higher_one(world, tmp_path):
    job = world.rl(tmp_path / "run", kl_limit=1e-9, algorithm=PPO(critic_warmup=0))
    with pytest.raises(Ended, match="over the limit") as caught:
        run_rl(job, reward=likes_good)
    assert "--resume" in caught.value.cure and caught.value.exit_code == 3
    run = tmp_path / "run"
    assert caught.value.run == run and (run / "model" / "config.json").is_file()
    assert read_json(run / "summary.json")["ended"] == "limit"
    alarms = [row for row in read_lines(run / "events.jsonl") if row["event"] == "alarm"]
    assert [(row["kind"], row["step"]) for row in alarms] == [("kl_limit", len(metrics(run)))]
    assert "over the limit" in alarms[0]["message"]
    assert read_json(run / "manifest.json")["finished"] is False
    assert list((tmp_path / "run" / "checkpoints").glob("step-*")), "what was learned is not lost"
    again = job.model_copy(update={"kl_limit": 0.0, "checkpoint": CheckpointSection(resume=True)})
    assert (run_rl(again, reward=likes_good) / "model" / "config.json").is_file()
    assert read_json(run / "summary.json")["ended"] == "finished"


def test_a_run_that_is_stopped_hands_out_what_it_has(world, tmp_path):
    def stop(iteration, metrics_, rollouts_):
        if iteration == 2:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Stopped) as caught:
        run_rl(world.rl(tmp_path / "run"), reward=likes_good, on_iteration=stop)
    run = tmp_path / "run"
    assert caught.value.run == run and caught.value.exit_code == 75
    assert (run / "model" / "config.json").is_file() and read_json(run / "summary.json")["ended"] == "interrupted"
    whole = run_rl(world.rl(tmp_path / "whole"), reward=likes_good)
    again = run_rl(world.rl(run, checkpoint=CheckpointSection(resume=True)), reward=likes_good)
    one, two = (load_file(r / "model" / "model.safetensors") for r in (whole, again))
    assert all(torch.equal(one[name], two[name]) for name in one), "handing out did not touch what is resumed"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_stopped_while_it_is_judged_hands_out_its_model_and_a_page(world, tmp_path, number):
    trained = []

    def reward(rollouts):
        if trained == [1, 2, 3, 4]:  # the first responses that judge
            trained.append(0)
            signal.raise_signal(number)
        return best_at(2)(rollouts)

    def note(iteration, metrics_, rollouts_):
        trained.append(iteration)

    before = signal.getsignal(number)
    with pytest.raises(Stopped, match="judged") as caught:
        run_rl(many(world, tmp_path / "run"), reward=reward, prompts=MANY, on_iteration=note)
    run = tmp_path / "run"
    assert signal.getsignal(number) == before
    assert caught.value.run == run and caught.value.exit_code == 75 and "--resume" in caught.value.cure
    summary = read_json(run / "summary.json")
    assert summary["ended"] == "interrupted" and summary["model_step"] == 2, "the best of what was measured"
    assert (run / "model" / "config.json").is_file() and "not judged" in events(run)
    assert read_json(run / "manifest.json")["finished"] is False
    policy_card.card(run)
    page = write_report(run).read_text("utf-8")
    assert "Not evaluated on held-out prompts." in page and "it ended before its weights were judged" in page
    whole = run_rl(many(world, tmp_path / "whole"), reward=best_at(2), prompts=MANY)
    again = run_rl(many(world, run, checkpoint=CheckpointSection(resume=True)), reward=best_at(2), prompts=MANY)
    summaries = [{k: v for k, v in read_json(r / "summary.json").items() if "peak" in k} for r in (whole, again)]
    assert summaries[0] == summaries[1] and read_json(again / "summary.json")["ended"] == "finished"
    one, two = (load_file(r / "model" / "model.safetensors") for r in (whole, again))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_run_that_is_killed_while_it_is_judged_has_not_come_to_its_end(world, tmp_path, monkeypatch):
    def killed(*_, **__):
        raise KeyboardInterrupt  # not through the handler: nothing more is done

    monkeypatch.setattr("plaudit.stages.online.evaluation.Evaluator.finish", killed)
    with pytest.raises(KeyboardInterrupt):
        run_rl(world.rl(tmp_path / "run"), reward=likes_good)
    assert read_json(tmp_path / "run" / "summary.json")["ended"] == "interrupted"
    lines = (tmp_path / "run" / "events.jsonl").read_text().splitlines()
    (tmp_path / "run" / "events.jsonl").write_text("\n".join(lines[:-1]) + "\n")  # killed: nothing says why
    assert "it has not ended yet, or was killed" in write_report(tmp_path / "run").read_text("utf-8")


def test_a_reward_that_fails_ends_the_run_with_what_was_learned(world, tmp_path):
    calls = []

    def dies(rollouts):
        calls.append(len(rollouts))
        if len(calls) > 4:
            return [RewardResult(None, error="the server is gone") for _ in rollouts]
        return likes_good(rollouts)

    with pytest.raises(Ended, match="fail") as caught:
        run_rl(world.rl(tmp_path / "run"), reward=dies)
    run = tmp_path / "run"
    assert caught.value.exit_code == 3 and caught.value.run == run
    assert read_json(run / "summary.json")["ended"] == "alarm" and (run / "model" / "config.json").is_file()
    assert "rewards_fail" in [row.get("kind") for row in read_lines(run / "events.jsonl")]


def test_a_resumed_run_still_knows_its_start_and_its_best(world, tmp_path):
    def stop_after_two(iteration, metrics_, rollouts_):
        if iteration == 2:
            raise TrainingError("enough")

    with pytest.raises(TrainingError):
        run_rl(many(world, tmp_path / "run"), reward=souring, prompts=MANY, on_iteration=stop_after_two)
    resumed = many(world, tmp_path / "run", checkpoint=CheckpointSection(resume=True))
    run = run_rl(resumed, reward=souring, prompts=MANY)
    assert {"resumed", "rolled back"} <= set(events(run))
    assert json.loads((run / "summary.json").read_text())["model_step"] == 0
    start, end = load_file(f"{world.lm}/model.safetensors"), load_file(run / "model" / "model.safetensors")
    assert all(torch.equal(start[name], end[name]) for name in end)


def test_the_checkpoint_of_another_algorithm_is_refused(world, tmp_path, monkeypatch):
    def stop(*_):
        raise TrainingError("enough")

    with pytest.raises(TrainingError, match="enough"):
        run_rl(world.rl(tmp_path / "run"), reward=likes_good, on_iteration=stop)
    monkeypatch.setattr(Runtime, "learners", property(lambda self: {"policy": self.policy}))
    with pytest.raises(TrainingError, match="the checkpoint holds best, critic, policy"):
        run_rl(world.rl(tmp_path / "run", checkpoint=CheckpointSection(resume=True)), reward=likes_good)


def test_resuming_without_a_checkpoint_records_step_0_once(world, tmp_path):
    def fails(rollouts):
        if len(rollouts) == 4:  # training; there are fewer evaluation prompts
            raise RewardError("down")
        return likes_good(rollouts)

    with pytest.raises(RewardError):
        run_rl(world.rl(tmp_path / "run"), reward=fails)
    resumed = world.rl(tmp_path / "run", iterations=1, checkpoint=CheckpointSection(resume=True))
    rows = [r for r in read_lines(run_rl(resumed, reward=likes_good) / "samples.jsonl") if r["step"] == 0]
    assert rows and len(rows) == len({row["prompt_id"] for row in rows})


def test_more_rollouts_than_prompts_are_different_rollouts(world, tmp_path):
    seen = []

    def remember(rollouts):
        seen.append(rollouts)
        return likes_good(rollouts)

    run_rl(world.rl(tmp_path / "run", iterations=1, prompts_per_iteration=64), reward=remember)
    rollouts = max(seen, key=len)
    assert len({r.prompt.id for r in rollouts}) == 64
    same = [r.response_ids for r in rollouts if r.prompt_ids == rollouts[0].prompt_ids]
    assert len(same) > 2 and len(set(same)) > 1, "a prompt that comes again is answered anew"


def test_a_prompt_that_is_cut_keeps_the_token_it_opens_with(world, tmp_path):
    seen = []

    def remember(rollouts):
        seen.extend(rollouts)
        return likes_good(rollouts)

    data = world.rl("x").data.model_copy(update={"max_length": 8})
    job = world.rl(tmp_path / "run", iterations=1, data=data, sampling=SamplingSection(max_new_tokens=6))
    run_rl(job, reward=remember)
    opening = AutoTokenizer.from_pretrained(world.lm).bos_token_id
    assert {(len(r.prompt_ids), r.prompt_ids[0]) for r in seen} == {(2, opening)}


def test_a_gold_judge_that_fails_on_some_rows_is_left_out_of_the_mean(world, tmp_path):
    def gold(rollouts):
        return [RewardResult(None, error="nan") if i == 0 else RewardResult(2.0) for i, _ in enumerate(rollouts)]

    run = run_rl(world.rl(tmp_path / "run", iterations=1), reward=likes_good, gold=gold)
    assert metrics(run)[-1]["eval/gold_mean"] == 2.0


def test_a_gold_judge_that_is_down_later_ends_nothing_and_is_an_alarm(world, tmp_path):
    calls = 0

    def down(rollouts):
        nonlocal calls
        calls += 1
        return [RewardResult(1.0 if calls < 3 else None, error="" if calls < 3 else "no answer") for _ in rollouts]

    run = run_rl(world.rl(tmp_path / "run", iterations=3, eval_every=1), reward=likes_good, gold=down)
    alarms = [row["message"] for row in read_lines(run / "events.jsonl") if row.get("kind") == "rewards_fail"]
    assert len(alarms) == 1 and "the gold reward failed on" in alarms[0] and "no answer" in alarms[0]
    assert read_json(run / "summary.json")["ended"] == "finished" and (run / "model").is_dir()
    never = run_rl(
        world.rl(tmp_path / "never", iterations=2, eval_every=1), reward=likes_good,
        gold=lambda rollouts: [RewardResult(None, error="down") for _ in rollouts],
    )  # fmt: skip
    assert read_json(never / "summary.json")["ended"] == "finished"
    page = " ".join(write_report(never).read_text().split())
    assert "the gold reward gave no value" in page and "mend the gold reward" in page
    assert "The gold reward failed on 100 % of the held-out responses: it says nothing." in page
    assert "no gold reward" not in page and "give a gold reward" not in page


def test_too_few_prompts_to_say_is_said_before_the_first_step(world, tmp_path):
    run = run_rl(world.rl(tmp_path / "run", iterations=1), reward=likes_good)
    told = [row["message"] for row in read_lines(run / "events.jsonl") if row["event"] == "caution"]
    assert any("no difference is told from chance" in message for message in told)


def test_nan_rewards(world, tmp_path):
    def broken(rollouts):
        return [RewardResult(None, error="returned nan") for _ in rollouts]

    with pytest.raises(RewardError, match="returned nan"):
        run_rl(world.rl(tmp_path / "all"), reward=broken)

    def partly(rollouts):
        return [RewardResult(None, error="nan") if i == 0 else RewardResult(1.0 + i) for i, _ in enumerate(rollouts)]

    job = world.rl(tmp_path / "one", iterations=1, prompts_per_iteration=8, eval_prompts=1, eval_every=5)
    with pytest.raises(RewardError):  # the single evaluation prompt fails: all of that batch
        run_rl(job, reward=partly)


BAD = {
    "no policy": ({"policy": ""}, ModelError, "no policy"),
    "unknown policy": ({"policy": "./nowhere"}, ModelError, "nowhere"),
    "no reward": ({}, ConfigError, "no reward was given"),
    "missing prompts": ({"dataset": "nowhere.jsonl"}, DataError, "no such file"),
    "no room": ({"sampling": SamplingSection(max_new_tokens=600)}, DataError, "leaves no room"),
    "empty minibatches": ({"algorithm": PPO(critic_warmup=0, minibatches=5)}, ConfigError, "5 minibatches of 4"),
    "unknown rule": ({"reward": ("rule:jsn",)}, ConfigError, "json"),
    "unknown function": ({"reward": ("plaudit.records:nothing",)}, ConfigError, "nothing"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_before_a_file_is_written(world, tmp_path, case):
    changes, error, text = BAD[case]
    with pytest.raises(error) as caught:
        run_rl(world.rl(tmp_path / "run", **changes))
    assert text in str(caught.value) and caught.value.cure
    assert not (tmp_path / "run").exists()


def test_a_run_directory_is_not_overwritten(world, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(ConfigError, match="not a run"):
            run_rl(world.rl(tmp_path / "run", overwrite=overwrite), reward=likes_good)
    assert (tmp_path / "run" / "thesis.txt").read_text() == "mine"


class KeepsItsStart(NativeGenerator):
    """A broken generator: it copies the weights that it starts with, and of new ones it notes the version only."""

    def __init__(self, lm, *args, **options):
        super().__init__(copy.deepcopy(lm), *args, **options)


@pytest.mark.parametrize(("generator", "alarmed"), [(KeepsItsStart, True), (NativeGenerator, False)])
def test_a_generator_with_old_weights_raises_an_alarm_event(world, tmp_path, monkeypatch, generator, alarmed):
    monkeypatch.setattr("plaudit.backends.local.online.NativeGenerator", generator)
    section = OptimizerSection(lr=0.05, schedule="constant", warmup_fraction=0.0)
    job = world.rl(tmp_path / "run", iterations=8, kl_limit=0.0, optimizer=section)
    run = run_rl(job, reward=likes_good)
    alarms = [row for row in read_lines(run / "events.jsonl") if row["event"] == "alarm" and "kind" in row]
    assert bool(alarms) is alarmed
    for alarm in alarms:
        assert alarm["kind"] in ("stale", "mismatch") and 3 <= alarm["step"] <= 8
        assert "healthy is" in alarm["message"]


def test_an_iteration_that_keeps_nothing_says_so_and_changes_no_weight(world, tmp_path):
    def alike(rollouts):
        return [RewardResult(1.0)] * len(rollouts)

    values = world.rl(tmp_path / "run").model_dump() | {"algorithm": DAPO(group_size=2), "iterations": 1}
    run = run_rl(GRPOJob(**values), reward=alike)
    [row] = [row for row in metrics(run) if row["step"] == 1]
    assert row["policy/steps"] == 0 and row["policy/empty_share"] == 1
    [event] = [row for row in read_lines(run / "events.jsonl") if row["event"] == "no step"]
    assert event["step"] == 1 and "3 rounds of sampling" in event["message"]
    before, after = (load_file(f"{path}/model.safetensors") for path in (world.lm, run / "model"))
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(
    ("prompts", "words"),
    [
        (["say red"] * 5, "all 5 prompts are the same:"),
        (["say red", "Say  RED"], "all 2 prompts are the same, but for capitals and spaces:"),
        (["say red"], "there is only one prompt:"),
        ([], "there are no prompts"),
    ],
)
def test_equal_prompts_are_called_equal(world, tmp_path, prompts, words):
    given = [Prompt(f"p{i}", text) for i, text in enumerate(prompts)]
    with pytest.raises(DataError, match=re.escape(words)) as error:
        run_rl(world.rl(tmp_path / "run", dataset=""), reward=likes_good, prompts=given)
    assert "two different prompts" in error.value.cure and not (tmp_path / "run").exists()


def test_prompts_that_are_too_long_are_called_that_on_their_side(world, tmp_path):
    given = [Prompt("a", "say red"), Prompt("b", "say" + " red" * 60)]
    data = DataSection(eval_fraction=0.5, max_length=24, on_long="drop")
    with pytest.raises(DataError, match=r"no prompts are left to (train|evaluate) on: 1 were longer"):
        run_rl(world.rl(tmp_path / "run", dataset="", data=data), reward=likes_good, prompts=given)


def test_short_responses_are_told_where_lambda_follows_the_length(world, tmp_path):
    job = world.rl(tmp_path / "run", iterations=1, algorithm=PPO(critic_warmup=0, gae_lambda="length"))
    run = run_rl(job, reward=likes_good)
    notes = [row.get("what", row.get("message", "")) for row in read_lines(run / "events.jsonl")]
    assert any("gae_lambda length: for responses of 5 tokens" in note for note in notes)


def test_a_resumed_run_raises_its_alarms_at_the_same_iterations(world, tmp_path, monkeypatch):
    monkeypatch.setattr("plaudit.backends.local.online.NativeGenerator", KeepsItsStart)
    section = OptimizerSection(lr=0.05, schedule="constant", warmup_fraction=0.0)
    changes = {"iterations": 5, "kl_limit": 0.0, "optimizer": section}

    def alarms(run):
        return [(r["step"], r["kind"]) for r in read_lines(run / "events.jsonl") if r["event"] == "alarm"]

    whole = alarms(run_rl(world.rl(tmp_path / "whole", **changes), reward=likes_good))
    assert whole
    last = min(step for step, _ in whole)

    def dies(iteration, metrics_, rollouts_):
        if iteration == last:
            raise KeyboardInterrupt

    job = world.rl(tmp_path / "cut", checkpoint=CheckpointSection(every=1), **changes)
    with pytest.raises(KeyboardInterrupt):
        run_rl(job, reward=likes_good, on_iteration=dies)
    again = job.model_copy(update={"checkpoint": CheckpointSection(every=1, resume=True)})
    assert alarms(run_rl(again, reward=likes_good)) == whole


def test_a_finished_run_is_sampled_anew_with_other_prompts_samples_and_gold(world, tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in MANY))
    rate = OptimizerSection(lr="auto")
    run = run_rl(many(world, tmp_path / "run", dataset=str(path), reward=("rule:length:4",), optimizer=rate))
    before = read_lines(run / "evaluation.jsonl")
    again = evaluate_again(run, samples=3, gold="rule:length:5")
    rows = read_lines(again / "evaluation.jsonl")
    assert {row["prompt_id"] for row in rows} and all("gold" in row for row in rows)
    assert Counter(Counter((row["step"], row["prompt_id"]) for row in rows).values()).keys() == {3}
    seeds = {tuple(row["seed"]) for row in before}
    assert not seeds & {tuple(row["seed"]) for row in rows}, "new luck"
    found = policy_card.card(again)
    assert found["gold_difference_ci"] and found["kl"] is not None and found["win_rate_judge"] == "gold"
    assert read_lines(run / "evaluation.jsonl") == before
    assert found["judged_apart"] and (found["prompts_in_training"], found["prompts_in_choice"]) == (0, 0)
    other = evaluate_again(run, prompts=str(path))
    known = policy_card.card(other)
    trained, chosen = known["prompts_in_training"], known["prompts_in_choice"]
    assert known["prompts"] == len(MANY) and not known["judged_apart"] and trained and chosen
    assert trained + chosen + found["prompts"] == len(MANY), "those to train on, those that choose, those that judge"
    page = write_report(other).read_text("utf-8")
    assert f"On {len(MANY)} prompts, {trained} of which it was trained on, the" in page
    assert f"The policy was trained on {trained} of the {len(MANY)} prompts that judge it" in page
    path.unlink()
    other_prompts = tmp_path / "others.jsonl"
    other_prompts.write_text(json.dumps({"prompt": MANY[0]}) + "\n")
    unknown = policy_card.card(evaluate_again(run, prompts=str(other_prompts)))
    assert unknown["prompts_in_training"] is None and not unknown["judged_apart"]


def test_a_run_that_was_put_back_to_its_start_is_not_compared_with_itself(world, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "config.toml").write_text("seed = 0\n")
    (tmp_path / "summary.json").write_text('{"command": "ppo", "model_step": 0}')
    with pytest.raises(DataError, match="put back to where it started"):
        evaluate_again(tmp_path)


def test_a_single_held_out_prompt_that_chose_and_judges_is_called_that(world, tmp_path):
    run = run_rl(world.rl(tmp_path / "run", eval_prompts=1, iterations=1), reward=likes_good)
    found = policy_card.card(run)
    assert found["prompts"] == found["prompts_in_choice"] == 1 and not found["judged_apart"]
    page = write_report(run).read_text("utf-8")
    assert "took no part" not in page and "by 1 of which its weights were chosen as well" in page


@pytest.mark.parametrize("huge", [1e300, -1e39])
def test_a_huge_reward_is_left_out_and_said_with_its_row_and_value(world, tmp_path, huge):
    """It ended a run with the default settings, or was learned from without a word."""

    def mine(rollouts):
        return [RewardResult(huge if i == 5 else float(len(r.response))) for i, r in enumerate(rollouts)]

    job = world.rl(tmp_path / "run", iterations=2, prompts_per_iteration=8, eval_every=0)
    run = run_rl(job, reward=mine)
    rows, events = read_lines(run / "metrics.jsonl"), read_lines(run / "events.jsonl")
    assert [row["reward/error_share"] for row in rows] == [0.125, 0.125]
    assert all(row["steps_skipped"] == 0 and abs(row["reward/mean"]) < 100 for row in rows)
    failed = [row for row in events if row["event"] == "rewards failed"]
    assert [(row["step"], row["failed"], row["of"]) for row in failed] == [(1, 1, 8), (2, 1, 8)]
    assert f"the reward is {huge:g}" in failed[0]["message"] and "for prompt 'p" in failed[0]["message"]
    told = [row["message"] for row in events if row["event"] == "caution" and "failed" in row["message"]]
    assert len(told) == 1 and not any(row["event"] == "alarm" and row["kind"] == "non_finite" for row in events)


def test_a_reward_that_does_not_end_after_sigterm_is_given_up_and_the_run_equals_one_that_was_not(world, tmp_path):
    """Its calls of a step took 24.6 s of 5 s each, and without a limit."""
    scored = []

    def slow(rollouts):
        scored.append(1)
        if len(scored) == stop_at:
            signal.raise_signal(signal.SIGTERM)
            while True:
                with contextlib.suppress(Exception):
                    time.sleep(0.01)
        return likes_good(rollouts)

    stop_at = 0
    section = {"every": 1, "grace": 0.1}
    whole = run_rl(world.rl(tmp_path / "whole", eval_every=0, checkpoint=CheckpointSection(**section)), reward=slow)
    calls, path = len(scored), tmp_path / "run"
    scored.clear()
    stop_at = calls - 2  # in the third iteration of four, or in the evaluation after it
    with pytest.raises(Stopped, match="was given up; the run goes on from step-00000[23]") as caught:
        run_rl(world.rl(path, eval_every=0, checkpoint=CheckpointSection(**section)), reward=slow)
    assert caught.value.abandoned and caught.value.run is None and not (path / "model").exists()
    assert read_lines(path / "events.jsonl")[-1]["reason"].startswith("STOPPED: what was under way")
    stop_at = 0
    again = run_rl(world.rl(path, eval_every=0, checkpoint=CheckpointSection(resume=True, **section)), reward=slow)
    one, two = (load_file(run / "model" / "model.safetensors") for run in (whole, again))
    assert all(torch.equal(one[name], two[name]) for name in one)
