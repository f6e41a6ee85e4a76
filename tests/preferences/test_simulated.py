"""Simulated annotators: they err at the stated rate, and majorities come out as counted by hand."""

from __future__ import annotations

import math

import pytest

from plaudit.errors import ConfigError
from plaudit.loop.simulated import (
    SimulatedAnnotator,
    agreement_with,
    judge_pairs,
    panel,
    to_preferences,
)
from plaudit.records import Judgement, Preference

PAIRS = [(f"p{i}", "x" * (i % 7 + 2), "x") for i in range(4000)]
"""The first response is always longer, hence better under ``length``."""


def length(prompt: str, response: str) -> float:
    return 0.1 * len(response)


def share_right(judgements: list[Judgement]) -> float:
    right = [(j.strength < 0) == (len(str(j.response_a)) > len(str(j.response_b))) for j in judgements]
    return sum(right) / len(right)


def test_without_noise_exactly_the_flat_errors_remain() -> None:
    annotator = SimulatedAnnotator("a", error_rate=0.2, temperature=0.0)
    rate = share_right(judge_pairs(PAIRS, [annotator], length, seed=0))
    assert rate == pytest.approx(0.8, abs=4 * math.sqrt(0.8 * 0.2 / len(PAIRS)))
    assert annotator.accuracy(0.5) == pytest.approx(0.8)
    flawless = SimulatedAnnotator("a", error_rate=0.0, temperature=0.0)
    assert share_right(judge_pairs(PAIRS[:200], [flawless], length, seed=0)) == 1.0


def test_noise_follows_bradley_and_terry() -> None:
    annotator = SimulatedAnnotator("a", error_rate=0.1, temperature=0.5)
    pairs = [(f"p{i}", "xxxxxx", "x") for i in range(4000)]
    expected = 0.9 / (1 + math.exp(-1)) + 0.1 / (1 + math.exp(1))  # difference 0.5, temperature 0.5
    assert annotator.accuracy(0.5) == pytest.approx(expected)
    assert share_right(judge_pairs(pairs, [annotator], length, seed=1)) == pytest.approx(expected, abs=0.03)


def test_a_position_bias_shows_in_ties_of_quality() -> None:
    annotator = SimulatedAnnotator("a", error_rate=0.0, temperature=0.2, position_bias=0.4)
    judgements = [annotator.judge("p", "x", "y", length, seed=0, index=i) for i in range(2000)]
    assert sum(j.strength < 0 for j in judgements) / 2000 == pytest.approx(1 / (1 + math.exp(-2)), abs=0.03)
    shown_first = sum(
        j.response_a == "x" for j in judge_pairs([("p", "x", "y")] * 1000, [annotator], length, seed=0)
    )
    assert shown_first == pytest.approx(500, abs=65)


def test_strength_tells_much_from_little_and_from_a_tie() -> None:
    annotator = SimulatedAnnotator("a", error_rate=0.0, temperature=0.0, tie_width=0.15, much=0.5)
    strengths = [annotator.judge("p", "x", "x" * n, length, seed=0).strength for n in (2, 4, 9)]
    assert strengths == [0, 1, 2]
    assert annotator.judge("p", "x" * 9, "x", length, seed=0).strength == -2


def test_judgements_depend_on_seed_and_index_alone() -> None:
    annotators = panel(4)
    judgements = judge_pairs(PAIRS[:40], annotators, length, seed=5, annotators_per_item=3)
    assert judgements[:30] == judge_pairs(PAIRS[:10], annotators, length, seed=5, annotators_per_item=3)
    assert judgements != judge_pairs(PAIRS[:40], annotators, length, seed=6, annotators_per_item=3)
    assert len({j.id for j in judgements}) == 120
    for start in range(0, 120, 3):
        assert len({j.annotator for j in judgements[start : start + 3]}) == 3


def test_majority_agreement_and_margin_by_hand() -> None:
    verdicts = [("good", "bad", -2), ("bad", "good", 1), ("good", "bad", 1), ("good", "bad", 0)]
    judgements = [Judgement(f"j{k}", "p", a, b, s, annotator=f"n{k}") for k, (a, b, s) in enumerate(verdicts)]
    # good is favoured by 2, 1, -1, 0: two of four votes and half of the tie, mean strength 0.5
    assert to_preferences(judgements) == [
        Preference("j0", "p", "good", "bad", margin=0.5, agreement=2.5 / 4, annotator=None)
    ]
    assert to_preferences(judgements[1:3]) == []
    assert to_preferences(judgements[3:]) == []
    assert to_preferences(judgements[:1])[0].annotator == "n0"


def test_three_heads_err_less_than_one() -> None:
    annotators = panel(5, error_rate=0.15, temperature=0.2)
    one = to_preferences(judge_pairs(PAIRS[:1500], annotators, length, seed=0, annotators_per_item=1))
    three = to_preferences(judge_pairs(PAIRS[:1500], annotators, length, seed=0, annotators_per_item=3))
    assert agreement_with(three, length) > agreement_with(one, length) + 0.02
    assert math.isnan(agreement_with([], length))


@pytest.mark.parametrize(
    "bad", [{"error_rate": 0.6}, {"error_rate": -0.1}, {"temperature": -1.0}, {"much": -1.0}]
)
def test_values_out_of_range_are_refused_by_name(bad: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(bad))):
        SimulatedAnnotator("a", **bad)


@pytest.mark.parametrize("count", [0, 3])
def test_more_annotators_than_there_are_is_refused(count: int) -> None:
    with pytest.raises(ConfigError, match="annotators_per_item"):
        judge_pairs(PAIRS[:2], panel(2), length, seed=0, annotators_per_item=count)
