"""A judge beside people, on numbers that can be counted by hand."""

from __future__ import annotations

import math

import pytest

from plaudit.preferences.calibration import LEAST_ITEMS, Verdict, calibrate
from plaudit.preferences.votes import PairVote


def vote(item: str, side: int, name: str = "ann", first: int = 0, second: int = 1, **more: bool) -> PairVote:
    return PairVote(item, first, second, name, side, **more)


def verdict(side: int, place: int = 0, lengths: tuple[int, int] = (5, 5)) -> Verdict:
    return Verdict(side, place, lengths)


def test_agreement_counts_a_tie_as_half() -> None:
    votes = [vote(f"i{n}", -1) for n in range(4)]
    verdicts = {(f"i{n}", 0, 1): verdict(side) for n, side in enumerate((-1, 1, 0, -1))}
    result = calibrate(verdicts, votes)
    assert result.items == 4 and result.agreement.value == 2.5 / 4 and result.ties.value == 0.25


def test_only_pairs_that_people_decided_and_the_judge_answered_count() -> None:
    votes = [vote("a", -1), vote("a", 1, "bob"), vote("b", 1), vote("c", 0), vote("d", 1)]
    verdicts = {(item, 0, 1): verdict(1) for item in "abc"}
    assert calibrate(verdicts, votes).items == 1
    nothing = calibrate({}, votes)
    assert nothing.items == 0 and math.isnan(nothing.agreement.value) and math.isnan(nothing.people.value)


def test_a_reviewer_decides() -> None:
    votes = [vote("a", -1), vote("a", 1, "rev", adjudicated=True)]
    assert calibrate({("a", 0, 1): verdict(1)}, votes).agreement.value == 1.0


def test_pairs_of_one_ranking_are_one_item() -> None:
    votes = [vote("a", -1, first=i, second=j) for i, j in ((0, 1), (0, 2), (1, 2))] + [vote("b", 1)]
    verdicts = {("a", 0, 1): verdict(-1), ("a", 0, 2): verdict(-1), ("a", 1, 2): verdict(1), ("b", 0, 1): verdict(1)}
    result = calibrate(verdicts, votes)
    assert result.agreement.n == 2 and result.agreement.value == pytest.approx((2 / 3 + 1) / 2)


def test_people_agree_with_the_majority_of_the_others() -> None:
    votes = [vote("a", -1), vote("a", -1, "bob"), vote("a", 1, "cyd"), vote("b", 1)]
    # ann: bob and cyd cancel out, and so do ann and cyd for bob; cyd is against both; b has one vote.
    result = calibrate({("a", 0, 1): verdict(-1), ("b", 0, 1): verdict(1)}, votes)
    assert result.people.n == 1 and result.people.value == 0.0
    votes = [vote("a", -1), vote("a", -1, "bob"), vote("c", 0), vote("c", 1, "bob"), vote("c", 1, "cyd")]
    result = calibrate({("a", 0, 1): verdict(-1), ("c", 0, 1): verdict(1)}, votes)
    assert result.people.n == 5 and result.people.value == pytest.approx((1 + 1 + 0.5 + 1 + 1) / 5)


def test_the_place_is_measured_where_the_orders_disagree() -> None:
    votes = [vote(f"i{n}", -1) for n in range(20)]
    verdicts = {(f"i{n}", 0, 1): verdict(0, 1) if n < 12 else verdict(-1) for n in range(20)}
    result = calibrate(verdicts, votes)
    assert result.flips.value == 0.6 and result.position.first.value == 1.0
    assert result.position.p_value == pytest.approx(2 / 2**12)
    assert any("first place" in note for note in result.notes)


def test_a_liking_for_length_is_measured_beside_that_of_people() -> None:
    votes = [vote(f"i{n}", -1 if n % 2 else 1) for n in range(100)]
    verdicts = {(f"i{n}", 0, 1): verdict(1, lengths=(3, 9)) for n in range(100)}
    result = calibrate(verdicts, votes)
    assert result.longer.value == 1.0 and result.longer_people.value == 0.5
    assert any("longer response more often" in note for note in result.notes)
    shorter = calibrate({pair: verdict(1, lengths=(9, 3)) for pair in verdicts}, votes)
    assert any("longer response less often" in note for note in shorter.notes)
    equal = calibrate({pair: verdict(1) for pair in verdicts}, votes)
    assert equal.longer.n == 0 and equal.notes == ()


@pytest.mark.parametrize(
    ("n", "right", "doubt"),
    [(LEAST_ITEMS - 1, LEAST_ITEMS - 1, "are needed"), (60, 32, "a coin"), (60, 60, ""), (0, 0, "are needed")],
)
def test_trust_needs_answers_of_people_and_agreement(n: int, right: int, doubt: str) -> None:
    votes = [vote(f"i{k}", -1) for k in range(n)]
    result = calibrate({(f"i{k}", 0, 1): verdict(-1 if k < right else 1) for k in range(n)}, votes)
    assert bool(result.doubts) == bool(doubt) and all(doubt in text for text in result.doubts)
    assert "agreement with people" in str(result)
