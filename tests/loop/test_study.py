"""scripts/loop.py: a short member of the study, and its page."""

import json

import pytest
from pages import ROOT

import loop


def row(arm, seed, gold):
    last = {"gold_mean": gold, "gold_mean_before": -0.7, "kl": 2.0, "accuracy": {"0": 0.6}}
    return {"arm": arm, "seed": seed, "seconds": 1.0, "rounds": [last]}


def rows(*golds):
    return [row(arm, seed, gold[seed]) for arm, gold in zip(loop.ARMS, golds, strict=True) for seed in range(3)]


def test_differences_are_paired_by_seed():
    one, random, active = (0.0, 1.0, 2.0), (0.5, 1.4, 2.6), (0.4, 1.6, 2.5)
    found = loop.summary(rows(one, random, active))
    gap = found["differences"]["three rounds, random - one round"]
    assert gap["gold"] == pytest.approx(0.5) and gap["won"] == 3
    # Standard deviation 0.1 of three: 0.5 +- 4.303 * 0.1 / sqrt(3).
    assert gap["interval"] == pytest.approx([0.5 - 0.2484, 0.5 + 0.2484], abs=1e-3)
    assert found["arms"]["one round"]["gold"] == pytest.approx(1.0)


def test_the_page_says_what_was_reached_and_what_was_missed():
    known = rows((0.0, 1.0, 2.0), (0.5, 1.4, 2.6), (0.0, 1.0, 2.0))
    text = loop.page({"settings": loop.settings(), "rows": known, "summary": loop.summary(known)})
    assert "three rounds beat one: **reached**" in text
    assert "active choice beats random: **missed, and the opposite was found**" in text
    assert "active choice beat one: **not shown**" in text


def test_the_published_page_is_that_of_the_published_results():
    whole = json.loads(loop.RESULTS.read_text(encoding="utf-8"))
    assert loop.page(whole) == loop.PAGE.read_text(encoding="utf-8"), f"run `make loop` in {ROOT}"
    assert loop.summary(whole["rows"]) == whole["summary"] and whole["settings"] == loop.settings()


def test_a_short_member(tmp_path, monkeypatch):
    small = {"LABELS": 36, "ITERATIONS": 3, "DEMONSTRATIONS": 60, "HIDDEN": 16, "PROMPTS": 40, "JUDGED": 20}
    for name, value in small.items():
        monkeypatch.setattr(loop, name, value)
    arms = {"three rounds, active": {"rounds": 3, "choose": "disagreement", "iterations": 1}}
    monkeypatch.setattr(loop, "ARMS", arms)
    found = loop.measured(tmp_path, "three rounds, active", 0)
    assert [one["asked"] for one in found["rounds"]] == [12, 12, 12]
    assert found["rounds"][-1]["gold_mean"] is not None and found["rounds"][-1]["kl"] is not None
    assert found["rounds"][2]["learned_from"] > found["rounds"][0]["learned_from"]
