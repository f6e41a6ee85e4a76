"""The quickstart, shortened: the aligned model must beat the SFT model by the judge it was never trained on."""

import re
import tomllib

import pytest

from plaudit.cli.outcome import finish_pipeline
from plaudit.data.load import load_records
from plaudit.data.split import split_by_prompt
from plaudit.demo import reviews
from plaudit.demo.quickstart import Scale, run_quickstart
from plaudit.demo.review_grammar import read
from plaudit.records import Prompt
from plaudit.runs.files import read_json, read_lines

SHORT = Scale(
    demonstrations=2800, sft_epochs=3, comparisons=2800, prompts=500, iterations=24, eval_prompts=96, hidden=96
)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    out = run_quickstart(tmp_path_factory.mktemp("e2e") / "quickstart", seed=0, scale=SHORT)
    finish_pipeline(out)
    return out


def test_gold_rises_and_the_interval_excludes_zero(pipeline):
    summary = read_json(pipeline / "ppo" / "summary.json")
    low, high = summary["gold_difference_ci"]
    assert 0 < low < high, summary["gold_difference"]
    assert summary["kl"] < 10, "nats"
    assert summary["win_rate_ci"][0] > 0.5


def test_the_reward_model_beats_the_length_rules(pipeline):
    summary = read_json(pipeline / "reward" / "summary.json")
    longer = summary["length_baseline_accuracy"]
    assert summary["accuracy"] > max(longer, 1 - longer)


def test_the_text_reads_as_text(pipeline):
    rows = [r for r in read_lines(pipeline / "ppo" / "evaluation.jsonl") if r["step"] == SHORT.iterations]
    sentences = [s for row in rows for s in read(row["response"])]
    assert sum(s.kind == "unreadable" for s in sentences) / len(sentences) < 0.25
    assert all(re.match(r" [A-Z]", row["response"]) for row in rows[:5])
    assert rows[0]["gold"] == pytest.approx(reviews.true_score(rows[0]["prompt"], rows[0]["response"]))


def test_one_report_tells_the_story(pipeline):
    page = (pipeline / "report.html").read_text(encoding="utf-8")
    assert "http://" not in page.replace("http://www.w3.org", "") and "<script src" not in page
    for word in ("Kendall", "KL", "before", "after"):
        assert word.lower() in page.lower(), word


def test_the_policy_is_judged_on_prompts_that_no_stage_has_trained_on(pipeline):
    judged = {row["prompt"] for row in read_lines(pipeline / "ppo" / "evaluation.jsonl")}
    trained = {}
    for stage, file in (("sft", "demonstrations"), ("reward", "preferences"), ("ppo", "prompts")):
        settings = tomllib.loads((pipeline / stage / "config.toml").read_text("utf-8"))
        records = load_records(str(pipeline / "data" / f"{file}.jsonl")).records
        train, heldout = split_by_prompt(records, settings["data"]["eval_fraction"], settings["seed"])
        trained[stage] = {str(r.content if isinstance(r, Prompt) else r.prompt) for r in train}
        assert heldout and len(trained[stage]) > len(judged)
    assert len(judged) == SHORT.eval_prompts
    assert {stage: len(prompts & judged) for stage, prompts in trained.items()} == dict.fromkeys(trained, 0)
