"""Best-of-n on a tiny model: choosing, the curve, rounds that learn, stops and resumes."""

import json
import os
import signal
import statistics
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from tests.stages.conftest import QUIET

from plaudit import backends
from plaudit.algorithms.best_of_n import BestOfN
from plaudit.config.sections import CheckpointSection, DataSection, OptimizerSection, SamplingSection
from plaudit.data.load import load_records
from plaudit.errors import ConfigError, DataError, RewardError, Stopped
from plaudit.evaluation.kinds import card
from plaudit.evaluation.report import write_report
from plaudit.functional.best_of_n import kl_bound
from plaudit.jobs.best_of_n import BestOfNJob
from plaudit.records import Prompt, RewardResult
from plaudit.runs.files import read_json, read_lines
from plaudit.stages.best_of_n import parts as best_of_n_parts
from plaudit.stages.best_of_n.answer import run_best_of_n
from plaudit.stages.online.again import Beside, evaluate_again


def goods(rollouts):
    """A reward that counts good words."""
    return [RewardResult(float(r.response.count("good"))) for r in rollouts]


def bads(rollouts):
    return [RewardResult(-float(r.response.count("good"))) for r in rollouts]


def job(world, out, **changes):
    settings = {
        "policy": world.lm, "dataset": world.prompts, "out": str(out), "sampling": SamplingSection(max_new_tokens=5),
        "algorithm": BestOfN(group_size=4, missing_eos_penalty=0.0), "optimizer": OptimizerSection(lr=1e-2),
        "data": DataSection(eval_fraction=0.25), "batch_size": 4,
    }  # fmt: skip
    return BestOfNJob(**(QUIET | settings | changes))


def test_a_policy_of_rounds_is_measured_anew(world, tmp_path):
    run = run_best_of_n(job(world, tmp_path / "run", rounds=1, reward=("rule:length:4",)))
    anew = evaluate_again(run, samples=2, beside=Beside(heldout=world.demonstrations, red_team="none"))
    figures = card(anew)
    assert figures["kl_exact"] is not None and figures["heldout_texts"] == 24 and "win_rate" in figures


def test_best_responses_and_their_curve(world, tmp_path):
    run = run_best_of_n(job(world, tmp_path / "run"), reward=goods, gold=bads)
    rows = read_lines(run / "best.jsonl")
    assert len(rows) == 12, "every prompt is answered, none is held out"
    for row in rows:
        assert row["reward"] == max(row["scores"]) == row["response"].count("good")
        assert row["gold_scores"] == [-s for s in row["scores"]]
    figures = card(run)
    assert figures["kl_bound"] == pytest.approx(kl_bound(4)) and figures["n"] == 4
    assert [point["n"] for point in figures["curve"]] == [1, 2, 4]
    assert figures["curve"][0]["reward"] == pytest.approx(figures["reward_mean"])
    assert figures["curve"][-1]["reward"] == pytest.approx(statistics.fmean(row["reward"] for row in rows))
    curve = [point["reward"] for point in figures["curve"]]
    assert curve == sorted(curve) and [p["gold"] for p in figures["curve"]] == pytest.approx(
        [-r for r in curve]
    )
    assert figures["gold_gain"] == pytest.approx(-figures["reward_gain"]) and figures["reward_gain"] > 0
    assert figures["win_rate"] > 0.5 > figures["gold_win_rate"]
    page = write_report(run).read_text(encoding="utf-8")
    assert "The best of 4 is worse than one sample." in page and "Over-optimised" in page
    assert "Reward of the best of n" in page
    assert not (run / "model").exists()


def test_a_generator_is_given_the_weights_before_it_answers(world, tmp_path, monkeypatch):
    order = []
    opened = backends.open

    class Noting:
        """Notes what is asked of a generator."""

        def __init__(self, generator):
            self.generator = generator

        def publish(self, weights, version):
            order.append(version)
            self.generator.publish(weights, version)

        def generate(self, *args, **kwargs):
            order.append("generate")
            return self.generator.generate(*args, **kwargs)

    def noting(*args, **kwargs):
        runtime = opened(*args, **kwargs)
        machines = replace(runtime.machines, generator=Noting(runtime.machines.generator))
        return replace(runtime, machines=machines)

    monkeypatch.setattr(backends, "open", noting)
    run_best_of_n(job(world, tmp_path / "run"), reward=goods)
    assert order[:2] == [0, "generate"]


def test_a_reward_function_has_as_long_as_the_settings_say(world, tmp_path):
    file = tmp_path / "slow.py"
    file.write_text("def never(prompt, response):\n    while True:\n        pass\n", encoding="utf-8")
    table = {"kind": "function", "path": f"{file}:never", "timeout": 0.2}
    with pytest.raises(RewardError, match="more than 0.2 s"):
        run_best_of_n(job(world, tmp_path / "run", reward=table))


def test_pairs_are_preferences_for_the_other_commands(world, tmp_path):
    run = run_best_of_n(job(world, tmp_path / "run"), reward=goods)
    loaded = load_records(str(run / "pairs.jsonl"))
    assert loaded.kind == "preference"
    for pair in loaded.records:
        assert pair.margin == pair.chosen.count("good") - pair.rejected.count("good") > 0


def test_one_prompt_is_enough(world, tmp_path):
    run = run_best_of_n(job(world, tmp_path / "run"), reward=goods, prompts=[Prompt("p", "say red")])
    assert len(read_lines(run / "best.jsonl")) == 1


def interrupted(monkeypatch, after):
    """A reward that asks the run to stop when it has been called so many times."""
    calls = []

    def reward(rollouts):
        calls.append(1)
        if len(calls) == after:
            os.kill(os.getpid(), signal.SIGTERM)
        return goods(rollouts)

    return reward


def test_answering_goes_on_where_it_stopped(world, tmp_path, monkeypatch):
    monkeypatch.setattr(best_of_n_parts, "AT_ONCE", 4)
    whole = run_best_of_n(job(world, tmp_path / "whole"), reward=goods)
    with pytest.raises(Stopped) as stop:
        run_best_of_n(job(world, tmp_path / "cut"), reward=interrupted(monkeypatch, after=2))
    assert stop.value.exit_code == 75 and len(read_lines(tmp_path / "cut" / "best.jsonl")) == 8
    assert stop.value.run == tmp_path / "cut" and card(tmp_path / "cut")["prompts"] == 8
    again = job(world, tmp_path / "cut", checkpoint=CheckpointSection(every=1, resume=True))
    cut = run_best_of_n(again, reward=goods)
    for name in ("best.jsonl", "pairs.jsonl"):
        assert read_lines(whole / name) == read_lines(cut / name)


def test_rounds_learn(world, tmp_path):
    run = run_best_of_n(job(world, tmp_path / "run", rounds=3, epochs=6), reward=goods)
    rows = read_lines(run / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert rows[-1]["rs/mean"] > rows[0]["rs/mean"] + 0.5
    assert all(row["rs/best_mean"] >= row["rs/mean"] and row["rs/kept"] >= 1 for row in rows)
    figures = card(run)
    assert figures["reward_difference"] > 0 and figures["kl"] > 0
    kept = read_lines(run / "kept.jsonl")
    assert {row["round"] for row in kept} == {1, 2, 3}
    assert load_records(str(run / "pairs.jsonl")).kind == "preference"
    assert "Against its own start it wins" in write_report(run).read_text(encoding="utf-8")
    assert (run / "model" / "config.json").is_file()


def test_a_reward_that_is_exploited_is_an_alarm_of_the_rounds_too(world, tmp_path):
    sixteen = BestOfN(group_size=16, missing_eos_penalty=0.0)
    run = run_best_of_n(job(world, tmp_path / "run", rounds=2, algorithm=sixteen), reward=goods)
    found = [(row["step"], row["kind"]) for row in read_lines(run / "events.jsonl") if row["event"] == "alarm"]
    assert found[0] == (2, "paid_words"), "it is paid for a word"
    assert "pays for words" in write_report(run).read_text(encoding="utf-8")


@pytest.mark.parametrize("start_from", ["base", "latest"])
def test_rounds_resumed_equal_uninterrupted(world, tmp_path, start_from, monkeypatch):
    algorithm = BestOfN(group_size=4, missing_eos_penalty=0.0, start_from=start_from)
    changes = {"rounds": 3, "algorithm": algorithm, "prompts_per_iteration": 5}
    whole = run_best_of_n(job(world, tmp_path / "whole", **changes), reward=goods)
    with pytest.raises(Stopped):  # in the second round: evaluation and sampling are two calls a round
        run_best_of_n(job(world, tmp_path / "cut", **changes), reward=interrupted(monkeypatch, after=4))
    again = job(world, tmp_path / "cut", checkpoint=CheckpointSection(every=1, resume=True), **changes)
    cut = run_best_of_n(again, reward=goods)
    first, second = (load_file(run / "model" / "model.safetensors") for run in (whole, cut))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert read_lines(whole / "kept.jsonl") == read_lines(cut / "kept.jsonl")
    assert [r["loss"] for r in read_lines(whole / "metrics.jsonl")] == [
        r["loss"] for r in read_lines(cut / "metrics.jsonl")
    ]


def test_base_forgets_the_weights_of_earlier_rounds(world, tmp_path):
    """With lr so small that nothing moves, both ways are the same; with a real one they are not."""
    runs = {}
    for way in ("base", "latest"):
        algorithm = BestOfN(group_size=4, missing_eos_penalty=0.0, start_from=way)
        run = run_best_of_n(job(world, tmp_path / way, rounds=2, algorithm=algorithm), reward=goods)
        runs[way] = [row["loss"] for row in read_lines(run / "metrics.jsonl")]
    assert runs["base"][0] == runs["latest"][0] and runs["base"][1] > runs["latest"][1]


def test_nothing_good_enough_is_said(world, tmp_path):
    algorithm = BestOfN(group_size=2, threshold=100.0)
    with pytest.raises(ConfigError, match="kept none"):
        run_best_of_n(job(world, tmp_path / "run", rounds=1, algorithm=algorithm), reward=goods)


def test_no_prompts(world, tmp_path):
    empty = tmp_path / "empty.jsonl"
    empty.write_text(json.dumps({"prompt": "say" + " red" * 600}) + "\n")
    long = DataSection(max_length=16, on_long="drop")
    with pytest.raises(DataError, match="no prompts are left"):
        run_best_of_n(job(world, tmp_path / "run", dataset=str(empty), data=long), reward=goods)
    assert not (tmp_path / "run").exists()
    with pytest.raises(DataError):
        card(tmp_path)


def test_chats(world, tmp_path):
    chat = [{"prompt": [{"role": "user", "content": "say red"}]}]
    path = tmp_path / "chat.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in chat))
    run = run_best_of_n(job(world, tmp_path / "run", dataset=str(path)), reward=goods)
    assert read_json(run / "summary.json")["command"] == "best-of-n"
    pairs = read_lines(run / "pairs.jsonl")
    assert all(isinstance(row["prompt"], list) for row in pairs)
