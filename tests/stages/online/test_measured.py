"""`plaudit evaluate policy` on a tiny model: figures against plain transformers, what is left out, and what is said."""

import json
import math

import pytest
import torch
from tests.stages.conftest import WORDS
from transformers import AutoModelForCausalLM

from plaudit import backends
from plaudit.cli.main import main
from plaudit.config.load import load_job
from plaudit.config.sections import DataSection, LoraSection, OptimizerSection, SamplingSection
from plaudit.data.load import load_records
from plaudit.errors import DataError
from plaudit.evaluation.kinds import policy_card
from plaudit.jobs.preference import DPOJob
from plaudit.records import Comparison, Demonstration, RewardResult
from plaudit.runs.files import read_json, read_lines
from plaudit.stages.online.again import Beside, evaluate_again
from plaudit.stages.online.heldout import heldout_texts
from plaudit.stages.online.measured import Measurement
from plaudit.stages.online.prompts import PromptReader
from plaudit.stages.online.rl import run_rl
from plaudit.stages.preference.dpo import run_dpo
from plaudit.stages.reward.train import run_reward
from plaudit.stages.said import Said
from plaudit.stages.sft import run_sft

PROMPTS = [f"say {a} {b}" for a in WORDS[:5] for b in WORDS[4:]]
REQUESTS = [
    {"kind": "fraud", "harmful": True, "prompt": "say bad"},
    {"kind": "fraud", "harmful": False, "prompt": "say good"},
]


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    path = tmp_path_factory.mktemp("prompts") / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in PROMPTS))
    return path


@pytest.fixture(scope="module")
def job(world, prompts, tmp_path_factory):
    return world.rl(
        tmp_path_factory.mktemp("run") / "run", dataset=str(prompts), reward=("rule:length:4",), eval_prompts=12,
        data=DataSection(eval_fraction=0.6), optimizer=OptimizerSection(lr=0.02),
        sampling=SamplingSection(max_new_tokens=5, temperature=0.7),
    )  # fmt: skip


@pytest.fixture(scope="module")
def run(job):
    return run_rl(job)


@pytest.fixture(scope="module")
def measured(job, run):
    """Both sides opened, with their responses to a few prompts."""
    runtime = backends.open_measuring(job, str(run / "model"), set())
    records, places = load_records(job.dataset, "prompt").records, load_records(job.dataset, "prompt").places
    reader = PromptReader(job.data, job.sampling, runtime.format.chat, places)
    measurement = Measurement(runtime, job, 4)
    return measurement, measurement.respond(reader.tokenise(records[:6]), 2)


def distributions(source, rollout, temperature):
    """``[T, V]`` log-probs before each response token, by plain transformers."""
    model = AutoModelForCausalLM.from_pretrained(source).eval()
    with torch.no_grad():
        logits = model(torch.tensor([rollout.tokens])).logits[0] / temperature
    first = len(rollout.prompt_ids)
    return logits[first - 1 : len(rollout.tokens) - 1].log_softmax(-1)


def test_exact_kl_and_cross_logprobs_against_plain_transformers(measured, job, run):
    measurement, rows = measured
    before, after = rows[:12], rows[12:]
    model = str(run / "model")
    for row, rollout in zip(after, measurement.rollouts[1], strict=True):
        own, start = (distributions(source, rollout, 0.7) for source in (model, job.policy))
        assert row["full_kl"] == pytest.approx(float((own.exp() * (own - start)).sum()), abs=1e-4)
        ids = torch.tensor(rollout.response_ids)[:, None]
        assert row["logprob"] == pytest.approx(float(own.gather(1, ids).sum()), abs=1e-4)
        assert row["ref_logprob"] == pytest.approx(float(start.gather(1, ids).sum()), abs=1e-4)
    assert sum(row["full_kl"] for row in after) > 0.1, "it has moved"
    for row, rollout in zip(before, measurement.rollouts[0], strict=True):
        ids = torch.tensor(rollout.response_ids)[:, None]
        by_trained = distributions(model, rollout, 0.7).gather(1, ids)
        assert row["trained_logprob"] == pytest.approx(float(by_trained.sum()), abs=1e-4)
        assert row["kl"] == pytest.approx(0, abs=1e-5) and "full_kl" not in row


def test_a_judge_of_pairs_is_asked_in_both_orders(measured):
    measurement, _ = measured

    def prefers_the_first(rollouts):
        assert len(rollouts) == 48 and [r.group_id for r in rollouts[:4]] == [0, 0, 1, 1]
        return [RewardResult(1.0 - i % 2) for i in range(len(rollouts))]

    rows = measurement.compare(prefers_the_first)
    assert {(row["first"], row["second"]) for row in rows} == {(1.0, 0.0)}, "whoever stands first"
    trained = {r.response for r in measurement.rollouts[1]} - {r.response for r in measurement.rollouts[0]}
    rows = measurement.compare(lambda rollouts: [RewardResult(float(r.response in trained)) for r in rollouts])
    own = [r.response in trained for r in measurement.rollouts[1]]
    assert [row["first"] for row in rows] == [row["second"] for row in rows] == [1.0 if x else 0.5 for x in own]


def test_forgetting_is_measured_at_temperature_one(measured, job, run, world):
    measurement, _ = measured
    texts = heldout_texts(job.policy, world.demonstrations, measurement.runtime.format, job.data, Said())
    rows = list(measurement.forget(texts, measurement.runtime.format.pad_id))
    assert len(rows) == 24
    record, encoded = texts.records[0], texts.encoded[0][0]
    assert isinstance(record, Demonstration)
    for side, source in (("start", job.policy), ("trained", str(run / "model"))):
        model = AutoModelForCausalLM.from_pretrained(source).eval()
        with torch.no_grad():
            logprobs = model(torch.tensor([encoded.ids])).logits[0].log_softmax(-1)
        own = [-float(logprobs[i - 1, token]) for i, token in enumerate(encoded.ids) if encoded.mask[i]]
        assert rows[0][side] == pytest.approx(sum(own), abs=1e-4) and rows[0]["tokens"] == len(own)


def test_plain_texts_are_read_as_a_whole(measured, job, tmp_path):
    measurement, _ = measured
    path = tmp_path / "texts.txt"
    path.write_text("say good bad\nsay red" + " red" * 1500 + "\n")
    said = Said()
    texts = heldout_texts(job.policy, str(path), measurement.runtime.format, job.data, said)
    assert [len(unit[0]) for unit in texts.encoded][1] <= 1024
    assert any("1 held-out texts are longer than" in message for message in said.messages)
    rows = list(measurement.forget(texts, measurement.runtime.format.pad_id))
    assert rows[0]["tokens"] == sum(texts.encoded[0][0].mask[1:])


def test_all_of_it_from_the_command_line(run, prompts, tmp_path, capsys):
    judge = tmp_path / "judge.py"
    judge.write_text("def longer(group):\n    return [len(r.response) for r in group]\n")
    requests = tmp_path / "requests.jsonl"
    requests.write_text("".join(json.dumps(each) + "\n" for each in REQUESTS))
    texts = tmp_path / "texts.jsonl"
    texts.write_text("".join(json.dumps({"prompt": p, "response": " good warm"}) + "\n" for p in PROMPTS))
    words = ["evaluate", "policy", str(run), "--samples", "2", "--prompts", str(prompts), "--gold", "rule:length:5"]
    words += ["--judge", f"{judge}:longer", "--harm", "rule:contains:bad", "--heldout", str(texts)]
    assert main([*words, "--red-team", str(requests)]) == 0
    out = capsys.readouterr().out.replace("\u202f", " ")
    for part in ("A judge of pairs, both orders (all pairs)", "KL to the start, exactly", "Held-out text", "Refuses",
                 "too few to say", "report  ", "plaudit annotate serve"):  # fmt: skip
        assert part in out, part
    target = run / "evaluations" / "again-prompts"
    summary = read_json(target / "summary.json")
    assert summary["kl_exact"] > 0 and summary["judge_win_rate_pairs"] == 40 and summary["heldout_texts"] == 20
    assert summary["heldout_perplexity_ratio"] == pytest.approx(math.exp(summary["heldout_nll_difference"]))
    assert summary["harm_judged_by"] == "judge" and summary["red_team_requests"] == 2
    assert summary["not_measured"] == [] and len(read_lines(target / "red_team.jsonl")) == 8
    assert (target / "report.html").is_file()


def test_people_judge_the_pairs_that_it_wrote(run, tmp_path, capsys):
    target = evaluate_again(run, samples=2, beside=Beside(heldout="none", red_team="none"))
    pairs = [record for record in load_records(str(target / "pairs.jsonl")).records if isinstance(record, Comparison)]
    assert pairs and all(sorted(pair.models) == ["start", "trained"] for pair in pairs)
    path = tmp_path / "judgements.jsonl"
    rows = [
        {"id": pair.id, "prompt": pair.prompt, "response_a": pair.responses[0], "response_b": pair.responses[1],
         "model_a": pair.models[0], "model_b": pair.models[1], "annotator": "ada",
         "strength": -1 if pair.models[0] == "trained" else 1}
        for pair in pairs
    ]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["evaluate", "policy", str(target), "--judgements", str(path)]) == 0
    summary = read_json(target / "summary.json")
    assert summary["people_win_rate"] == 1 and summary["people_judgements"] == len(pairs)
    out = capsys.readouterr().out
    assert "People (all pairs)" in out
    assert "Not checked:" in out and "forgetting (left out on request)" in out
    assert main(["evaluate", "policy", str(target), "--judgements", str(target / "pairs.jsonl")]) == 65
    assert "the data are of kind comparison" in capsys.readouterr().err


def test_the_demonstrations_behind_a_run_are_found(world, prompts, tmp_path):
    sft = run_sft(world.sft(tmp_path / "sft", data=DataSection(eval_fraction=0.5), optimizer=OptimizerSection(lr=1e-3)))
    settings = {"dataset": str(prompts), "reward": ("rule:length:4",), "iterations": 2, "lora": LoraSection(rank=2)}
    run = run_rl(world.rl(tmp_path / "run", policy=str(sft / "model"), **settings))
    target = evaluate_again(run, samples=1)
    figures = policy_card.card(target)
    held_out = {row["id"] for row in read_lines(sft / "heldout.jsonl")}
    assert {row["id"] for row in read_lines(target / "forgetting.jsonl")} == held_out
    assert figures["heldout_texts"] == len(held_out) and figures["kl_exact"] is not None
    notes = read_json(target / "summary.json")["notes"]
    assert any("demonstrations that" in note for note in notes) and any("no chat template" in note for note in notes)


def test_without_demonstrations_it_says_why(run):
    target = evaluate_again(run, samples=1)
    summary = read_json(target / "summary.json")
    assert "is no model of an SFT run" in summary["not_measured"][0]
    assert not (target / "forgetting.jsonl").exists() and (target / "red_team.jsonl").exists()


def test_a_wrong_file_is_said_before_a_model_is_loaded(run, tmp_path, monkeypatch):
    monkeypatch.setattr(backends, "open_measuring", None)
    with pytest.raises(DataError, match="no such file"):
        evaluate_again(run, beside=Beside(red_team=str(tmp_path / "nowhere.jsonl")))


@pytest.mark.parametrize("kind", ["sft", "dpo", "kto"])
def test_a_policy_that_had_no_reward_is_judged_by_the_gold_reward_that_is_named(world, tmp_path, kind, capsys):
    if kind == "sft":
        made = run_sft(world.sft(tmp_path / "run", data=DataSection(eval_fraction=0.5)))
    else:
        values = {"model": world.lm, "dataset": world.preferences, "out": str(tmp_path / "run"), "algorithm.type": kind}
        values |= {"data.eval_fraction": 0.5, "optimizer.lr": 0.01, "sampling.max_new_tokens": 5, "log.trackers": []}
        made = run_dpo(load_job(DPOJob, [], values).job)
    capsys.readouterr()
    assert main(["evaluate", "policy", str(made)]) == 0, "the figures of its own kind"
    assert "heldout_loss_difference_ci" in (shown := capsys.readouterr().out) and "sample anew" in shown
    assert main(["evaluate", "reward", str(made)]) == 78
    assert "this is a run of a policy" in capsys.readouterr().err
    flags = ["--samples", "2", "--gold", "rule:length:4", "--red-team", "none"]
    assert main(["evaluate", "policy", str(made), *flags]) == 0
    target = made / "evaluations" / "again-final"
    rows = read_lines(target / "evaluation.jsonl")
    assert all("reward" not in row and row["gold"] is not None for row in rows)
    heldout = {row["prompt_id"] for row in rows}
    summary = read_json(target / "summary.json")
    assert summary["prompts"] == len(heldout) > 1 and summary["prompts_in_training"] == 0
    assert summary["kl_exact"] >= 0 and summary["win_rate_judge"] == "gold" and "reward_mean" not in summary
    known = {record.id for record in load_records(world.demonstrations if kind == "sft" else world.preferences).records}
    assert heldout <= known, "prompts of the data that it learned from, held out"
    words = capsys.readouterr().out
    assert "gold_difference" in words and "everything about its responses" not in words
    assert main(["report", str(target)]) == 0
    page = (target / "report.html").read_text()
    assert "on which it was never trained" in page
    assert f"{'Supervised fine-tuning' if kind == 'sft' else 'Preferences'}, evaluated" in page
    assert "Reinforcement learning" not in page
    assert main(["report", str(made)]) == 0, "the page of the run itself is of its own kind still"


@pytest.mark.parametrize("kind", ["sft", "dpo", "kto", "orpo"])
def test_without_any_reward_all_else_is_measured(world, tmp_path, kind, capsys):
    if kind == "sft":
        made = run_sft(world.sft(tmp_path / "run", data=DataSection(eval_fraction=0.5)))
    else:
        values = {"model": world.lm, "dataset": world.preferences, "out": str(tmp_path / "run"), "algorithm.type": kind}
        values |= {"data.eval_fraction": 0.5, "optimizer.lr": 0.01, "sampling.max_new_tokens": 5, "log.trackers": []}
        made = run_dpo(load_job(DPOJob, [], values).job)
    assert main(["evaluate", "policy", str(made), "--samples", "2"]) == 0
    words = capsys.readouterr().out
    assert "Measured, and judged by no reward." in words and "whether its responses are better" in words
    target = made / "evaluations" / "again-final"
    rows, summary = read_lines(target / "evaluation.jsonl"), read_json(target / "summary.json")
    assert rows and not any({"reward", "gold"} & row.keys() for row in rows)
    assert summary["kl_exact"] >= 0 and summary["refusal_rate"] is not None and summary["verdict"] is None
    assert (target / "pairs.jsonl").is_file() and "No reward was named" in (target / "report.html").read_text()


def test_a_judge_of_pairs_judges_a_policy_that_had_no_reward(world, tmp_path, capsys):
    made = run_sft(world.sft(tmp_path / "run", data=DataSection(eval_fraction=0.5)))
    judge = tmp_path / "judge.py"
    judge.write_text("def longer(prompt, response):\n    return float(len(response))\n")
    assert main(["evaluate", "policy", str(made), "--judge", f"{judge}:longer", "--red-team", "none"]) == 0
    assert "By a judge of pairs it wins" in capsys.readouterr().out
    assert read_json(made / "evaluations" / "again-final" / "summary.json")["judge_win_rate"] is not None


def test_a_gold_reward_that_gave_no_value_is_not_called_missing(world, tmp_path, capsys, monkeypatch):
    made = run_sft(world.sft(tmp_path / "run", data=DataSection(eval_fraction=0.5)))
    assert main(["evaluate", "policy", str(made), "--samples", "2", "--red-team", "none"]) == 0
    target = made / "evaluations" / "again-final"
    rows = [row | {"gold": None} for row in read_lines(target / "evaluation.jsonl")]
    (target / "evaluation.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    capsys.readouterr()
    assert main(["evaluate", "policy", str(target)]) == 0
    words = capsys.readouterr().out
    assert "The gold reward gave no value" in words and "there is no gold reward" not in words


def test_a_reward_model_is_no_policy(world, tmp_path, capsys):
    made = run_reward(world.reward(tmp_path / "rm"))
    assert main(["evaluate", "policy", str(made), "--samples", "2"]) == 78
    assert "this is a run of a reward model" in capsys.readouterr().err
    assert main(["evaluate", "reward", str(made), "--dataset", world.preferences]) == 0
    [target] = (made / "evaluations").iterdir()
    assert main(["report", str(target)]) == 0 and (target / "report.html").is_file()
    assert main(["report", str(target.parent)]) == 0 and (target.parent / "report.html").is_file()
    assert main(["report", str(made), str(target.parent), "--out", str(tmp_path / "both.html")]) == 0
