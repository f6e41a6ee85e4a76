"""The preference stage on a tiny model: every method learns, resumes to the bit, and says what is wrong."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file
from tests.stages.conftest import QUIET

from plaudit.algorithms.dpo import DPO, IPO, ORPO, Hinge, SimPO
from plaudit.algorithms.kto import KTO
from plaudit.backends.local.learner import LocalLearner
from plaudit.config.algorithm import with_algorithm
from plaudit.config.sections import (
    CheckpointSection,
    DataSection,
    LoraSection,
    OptimizerSection,
    SamplingSection,
)
from plaudit.errors import ConfigError, DataError
from plaudit.evaluation.kinds.preference import card
from plaudit.evaluation.report import write_report
from plaudit.jobs.preference import DPOJob
from plaudit.runs.files import read_json, read_lines
from plaudit.stages.preference.dpo import run_dpo

METHODS = [DPO(), IPO(), Hinge(), KTO(), ORPO(), SimPO()]


def job(world, out, algorithm=None, **changes):
    algorithm = algorithm or DPO()
    settings = {
        "model": world.lm, "dataset": world.preferences, "out": str(out), "batch_size": 8, "algorithm": algorithm,
        "data": DataSection(eval_fraction=0.25), "sampling": SamplingSection(max_new_tokens=4),
        "optimizer": OptimizerSection(lr=1e-2),
    }  # fmt: skip
    return with_algorithm(DPOJob, type(algorithm))(**(QUIET | settings | changes))


@pytest.mark.parametrize("algorithm", METHODS, ids=lambda a: type(a).__name__)
def test_every_method_learns(world, tmp_path, algorithm):
    run = run_dpo(job(world, tmp_path / "run", algorithm, epochs=6))
    figures = card(run)
    sure = not isinstance(
        algorithm, KTO
    )  # its zero point lies among the rewards: all chosen responses are alike here
    assert figures["accuracy"] > (0.9 if sure else 0.6) and figures["accuracy_ci"][0] < figures["accuracy"]
    assert figures["margin_mean"] > 0.1
    assert figures["heldout_loss"] < figures["heldout_loss_before"]
    assert (run / "model" / "config.json").is_file()
    steps = {row["step"] for row in read_lines(run / "samples.jsonl")}
    assert steps == {0, read_lines(run / "metrics.jsonl")[-1]["step"]}
    assert "held-out rows as people did" in write_report(run).read_text(encoding="utf-8")


@pytest.mark.parametrize("lora", [0, 2])
def test_dpo_starts_at_ln_2(world, tmp_path, lora):
    run = run_dpo(job(world, tmp_path / "run", lora=LoraSection(rank=lora)))
    first, second = read_lines(run / "metrics.jsonl")[:2]
    assert first["eval/loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert first["eval/accuracy"] == 0.5, "all ties"
    assert second["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert second["rewards/margins"] == pytest.approx(0, abs=1e-6)


def test_kto_starts_where_policy_and_reference_are_the_same(world, tmp_path):
    first = read_lines(run_dpo(job(world, tmp_path / "run", KTO())) / "metrics.jsonl")[1]
    assert first["loss"] == pytest.approx(0.5, abs=1e-6)
    assert first["objective/mismatched_kl"] == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("algorithm", [DPO(), KTO()], ids=lambda a: type(a).__name__)
def test_resumed_equals_uninterrupted(world, tmp_path, algorithm, monkeypatch):
    whole = run_dpo(job(world, tmp_path / "whole", algorithm, epochs=3))
    original, calls = LocalLearner.update, []

    def dies_at_the_fifth(self, batch, loss):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return original(self, batch, loss)

    with monkeypatch.context() as patched:
        patched.setattr(LocalLearner, "update", dies_at_the_fifth)
        with pytest.raises(KeyboardInterrupt):
            run_dpo(job(world, tmp_path / "cut", algorithm, epochs=3, checkpoint=CheckpointSection(every=2)))
    again = CheckpointSection(every=2, resume=True)
    cut = run_dpo(job(world, tmp_path / "cut", algorithm, epochs=3, checkpoint=again))
    first, second = (load_file(run / "model" / "model.safetensors") for run in (whole, cut))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert read_lines(whole / "preferences.jsonl") == read_lines(cut / "preferences.jsonl")
    losses = [[row.get("loss") for row in read_lines(run / "metrics.jsonl")] for run in (whole, cut)]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("algorithm", [DPO(), KTO(), ORPO()], ids=lambda a: type(a).__name__)
def test_microbatches_change_nothing(world, tmp_path, algorithm):
    losses = []
    for tokens in (16, 4096):
        compute = QUIET["compute"].model_copy(update={"tokens_per_microbatch": tokens})
        run = run_dpo(job(world, tmp_path / str(tokens), algorithm, epochs=2, compute=compute))
        losses.append([(r["loss"], r["grad_norm"]) for r in read_lines(run / "metrics.jsonl") if "loss" in r])
    for one, other in zip(*losses, strict=True):
        assert one == pytest.approx(other, rel=1e-4)


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_kto_reads_ratings_and_says_how_its_weights_stand(world, tmp_path, capsys):
    rows = [
        {"prompt": f"say {w} {v}", "response": text, "reward": stars}
        for w in ("red", "blue", "warm", "big") for v in ("good", "cold")
        for text, stars in ((" good good", 9), (" bad bad", 2), (" cold", 5))
    ]  # fmt: skip
    path = write(tmp_path / "stars.jsonl", rows)
    run_dpo(job(world, tmp_path / "run", KTO(good_above=5.0), dataset=path, epochs=2))
    said = capsys.readouterr().out
    assert "8 responses rated in the middle are left out" in said and "as recommended" in said
    with pytest.raises(DataError, match="one side") as failure:
        run_dpo(job(world, tmp_path / "other", KTO(), dataset=path))
    assert "--good-above" in failure.value.cure and not (tmp_path / "other").exists()


@pytest.mark.parametrize("kind", ["ranking", "judgement"])
def test_kto_makes_thumbs_of_other_feedback(world, tmp_path, kind):
    prompts = [f"say {w} {v}" for w in ("red", "blue", "warm", "big") for v in ("good", "cold")]
    best, worst = {"response_a": " good good", "response_b": " bad bad"}, [" good good", " cold", " bad bad"]
    rows = {
        "judgement": [{"prompt": p, **best, "strength": -1, "annotator": "a"} for p in prompts],
        "ranking": [{"prompt": p, "responses": worst, "ranks": [1, 2, 3]} for p in prompts],
    }[kind]
    run = run_dpo(job(world, tmp_path / "run", KTO(), dataset=write(tmp_path / "rows.jsonl", rows), epochs=6))
    assert read_json(run / "summary.json")["train_rows"] <= 2 * len(prompts)
    assert card(run)["margin_mean"] > 0.1


def test_truncation_never_takes_a_response(world, tmp_path):
    rows = [
        {"prompt": "say" + " red" * 50 + f" {w}", "chosen": " good good", "rejected": " bad bad bad"}
        for w in ("big", "bad", "warm", "cold")
    ]  # fmt: skip
    path = write(tmp_path / "long.jsonl", rows)
    run = run_dpo(
        job(world, tmp_path / "run", dataset=path, data=DataSection(max_length=12, eval_fraction=0.25))
    )
    assert [row["length"] for row in read_lines(run / "preferences.jsonl")] == [3, 3], "with their end token"


def test_no_partner_and_no_preferences_are_refused(world, tmp_path):
    with pytest.raises(ConfigError, match="one response per step"):
        run_dpo(job(world, tmp_path / "run", KTO(), batch_size=1))
    with pytest.raises(DataError):
        run_dpo(job(world, tmp_path / "run", dataset=world.prompts))
    assert not (tmp_path / "run").exists()


def test_nothing_held_out_is_no_failure(world, tmp_path):
    run = run_dpo(job(world, tmp_path / "run", data=DataSection(eval_fraction=0)))
    assert card(run)["accuracy"] is None
    assert "Not evaluated" in write_report(run).read_text(encoding="utf-8")


def test_a_policy_that_leaves_its_chosen_responses_is_called_out(world, tmp_path):
    run = run_dpo(
        job(world, tmp_path / "run", Hinge(beta=0.01), epochs=12, optimizer=OptimizerSection(lr=0.1))
    )
    figures = card(run)
    before, after = figures["logp_chosen_before"], figures["logp_chosen"]
    alarmed = any("less likely" in e.get("message", "") for e in read_lines(run / "events.jsonl"))
    assert alarmed == ((before - after) / 3 > 0.3)


def test_kto_needs_a_second_prompt_and_says_so(world, tmp_path):
    rows = [{"prompt": "say red", "response": f" {w}", "reward": i % 2} for i, w in enumerate(("good", "bad", "big"))]
    path = write(tmp_path / "one.jsonl", rows)
    with pytest.raises(DataError, match="all 3 responses are to the same prompt") as error:
        run_dpo(job(world, tmp_path / "run", KTO(), dataset=path))
    assert error.value.cure and not (tmp_path / "run").exists()


def test_kto_with_a_last_batch_of_one_row_measures_its_kl(world, tmp_path):
    rows = [
        {"prompt": f"say {w}", "response": " good good" if i % 2 else " bad", "reward": i % 2}
        for i, w in enumerate(("red", "blue", "green", "warm", "cold"))
    ]
    path = write(tmp_path / "five.jsonl", rows)
    settings = {"dataset": path, "batch_size": 4, "epochs": 8, "data": DataSection(eval_fraction=0.0)}
    steps = read_lines(run_dpo(job(world, tmp_path / "run", KTO(), **settings)) / "metrics.jsonl")
    last_of_a_pass = [row["objective/mismatched_kl"] for row in steps if row["step"] and row["step"] % 2 == 0]
    assert len(last_of_a_pass) == 8 and any(last_of_a_pass), "0 where no other prompt's response was looked at"
