"""The one rule of majorities, and that the three ways from judgements to preferences follow it."""

from itertools import product

import pytest

from plaudit.data.convert import convert
from plaudit.data.judgements import undecided
from plaudit.data.reading.rows import ReadLog
from plaudit.loop.simulated import to_preferences
from plaudit.preferences.aggregate import outcomes
from plaudit.preferences.votes import judgement_votes
from plaudit.records import Judgement
from plaudit.statistics.majority import decide, margin


@pytest.mark.parametrize(
    ("votes", "winner", "support"),
    [
        ((3, 0, 1), -1, 0.75),
        ((1, 0, 3), 1, 0.25),
        ((2, 2, 0), 0, 0.75),
        ((2, 0, 2), 0, 0.5),
        ((0, 0, 0), 0, 0.5),
        ((0, 1, 2), 1, 1 / 6),
    ],
)
def test_by_hand(votes, winner, support):
    assert decide(*votes) == (winner, pytest.approx(support))
    shares = [count / max(1, sum(votes)) for count in votes]
    assert decide(*shares) == (winner, pytest.approx(support)), "shares come to the same"


def test_margin_by_hand():
    assert margin(1, [2, 1, 0]) == 1.0
    assert margin(-1, [-2, 1, -1]) == pytest.approx(2 / 3)
    assert margin(1, [1, 1, 1, -2, -2]) == 0.0, "never negative"
    assert margin(0, [2, -2]) == margin(1, []) == 0.0


@pytest.mark.parametrize("strengths", list(product((-2, -1, 0, 1), repeat=3)))
def test_all_ways_to_preferences_agree(strengths):
    judged = [Judgement(f"x{i}", "q", "a", "b", s, annotator=str(i)) for i, s in enumerate(strengths)]
    extra = Judgement(
        "y", "other", "c", "d", 2, annotator="0"
    )  # so that something is left, and the scale is graded
    converted = {p.prompt: p for p in convert([*judged, extra], "preference", ReadLog("test"))}
    simulated = {p.prompt: p for p in to_preferences([*judged, extra])}
    [outcome] = outcomes(judgement_votes(judged)[0])
    assert ("q" in converted) == ("q" in simulated) == (outcome.winner is not None) == (not undecided(judged))
    if outcome.winner is not None:
        first, second = converted["q"], simulated["q"]
        assert first.chosen == second.chosen == "ab"[outcome.winner]
        assert first.margin == pytest.approx(second.margin) == pytest.approx(outcome.margin)
        assert first.agreement == pytest.approx(second.agreement) == pytest.approx(outcome.agreement)
