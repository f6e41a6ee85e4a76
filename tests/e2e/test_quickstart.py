"""The quickstart, shortened: the aligned model must beat the SFT model by the judge it was never trained on."""

import re

import pytest

from plaudit.cli.outcome import finish_pipeline
from plaudit.demo import reviews
from plaudit.demo.quickstart import Scale, run_quickstart
from plaudit.demo.review_grammar import read
from plaudit.runs.files import read_json, read_lines

SHORT = Scale(
    demonstrations=2500, sft_epochs=3, comparisons=2500, prompts=300, iterations=24, eval_prompts=96, hidden=96
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
