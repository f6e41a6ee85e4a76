"""What each conversion keeps, leaves out and says."""

from __future__ import annotations

import pytest

from plaudit.data.convert import convert, number_repeated_ids
from plaudit.data.reading.rows import ReadLog
from plaudit.errors import DataError
from plaudit.records import Demonstration, Judgement, Preference, Prompt, Ranking, Rating


@pytest.fixture
def log():
    return ReadLog("somewhere")


def test_rankings_give_all_pairs_but_ties(log):
    ranking = Ranking("r", "q", ("a", "b", "c"), (2, 1, 2))
    pairs = convert([ranking], "preference", log)
    assert [(p.id, p.chosen, p.rejected) for p in pairs] == [("r/1>0", "b", "a"), ("r/1>2", "b", "c")]
    assert log.notes == ("1 tied pairs of rankings, left out",)


def test_ratings_of_one_prompt_are_compared(log):
    ratings = [
        Rating("1", "q", "a", 7),
        Rating("2", "Q ", "b", 9),
        Rating("3", "q", "c", 7),
        Rating("4", "z", "d", 1),
    ]
    pairs = convert(ratings, "preference", log)
    assert [(p.chosen, p.rejected, p.margin) for p in pairs] == [("b", "a", 2), ("b", "c", 2)]
    assert log.notes == ("1 pairs of equal rating, left out", "1 ratings whose prompt has no second response")


def _votes(*strengths, prompt="q"):
    return [Judgement(f"x/{i}", prompt, "a", "b", s, annotator=str(i)) for i, s in enumerate(strengths)]


def test_judgements_give_the_majority_and_its_share(log):
    (pair,) = convert(_votes(1, 1, -1), "preference", log)
    assert (pair.id, pair.chosen, pair.rejected, pair.margin) == ("x", "b", "a", None)
    assert pair.agreement == pytest.approx(2 / 3)
    (pair,) = convert(_votes(-2, -1, 0), "preference", log)
    assert (pair.chosen, pair.margin) == ("a", 1.0)
    assert pair.agreement == pytest.approx(2.5 / 3)


def test_a_strong_minority_leaves_the_majority_no_margin(log):
    (pair,) = convert(_votes(1, 1, 1, -2, -2), "preference", log)
    assert (pair.chosen, pair.margin, pair.agreement) == ("b", 0.0, 3 / 5)


def test_a_swapped_judgement_counts_for_the_same_response(log):
    votes = [Judgement("1", "q", "a", "b", -1), Judgement("2", "q", "b", "a", 1)]
    (pair,) = convert(votes, "preference", log)
    assert (pair.chosen, pair.agreement) == ("a", 1.0)


@pytest.mark.parametrize("strengths", [(0,), (1, -1), (0, 0, 1), (0, 1)])
def test_judgements_without_a_majority_are_left_out(strengths, log):
    pairs = convert([*_votes(*strengths), *_votes(1, prompt="other")], "preference", log)
    assert len(pairs) == 1
    assert log.notes == ("1 pairs without a majority, left out",)


def test_prompts_are_taken_once_from_any_kind(log):
    records = [Preference("1", "q", "a", "b"), Preference("2", " Q", "c", "d"), Preference("3", (), "e", "f")]
    assert convert(records, "prompt", log) == [Prompt("1", "q")]
    assert log.notes == (
        "only the prompts of these preferences are used, and nothing else of them",
        "1 rows without a prompt, left out",
        "1 further rows with a prompt that was there already",
    )


def test_demonstrations_are_what_was_preferred(log):
    assert convert([Preference("1", "q", "a", "b")], "demonstration", log) == [Demonstration("1", "q", "a")]
    ranking = Ranking("r", "q", ("a", "b"), (2, 1))
    assert convert([ranking], "demonstration", log) == [Demonstration("r", "q", "b")]
    rated = [Rating("1", "q", "a", 1.0), Rating("2", "q", "b", 0.0)]
    assert convert(rated, "demonstration", log) == [Demonstration("1", "q", "a")]
    with pytest.raises(DataError, match="which responses to imitate"):
        convert([Rating("1", "q", "a", 7.0)], "demonstration", log)


def test_preferences_come_apart_into_ratings(log):
    ratings = convert([Preference("1", "q", "a", "b")], "rating", log)
    assert [(r.id, r.response, r.reward) for r in ratings] == [
        ("1/chosen", "a", 1.0),
        ("1/rejected", "b", 0.0),
    ]


def test_impossible_conversions_say_what_is_possible(log):
    with pytest.raises(DataError) as caught:
        convert([Demonstration("1", "q", "a")], "preference", log)
    assert "ask for demonstration or prompt" in caught.value.cure
    with pytest.raises(DataError, match="no preference can be made"):
        convert([Rating("1", "", "a", 1.0)], "preference", log)


def test_ids_used_twice_are_numbered(log):
    records = [Prompt("x", "a"), Prompt("x", "b"), Prompt("y", "c"), Prompt("x", "d")]
    assert [r.id for r in number_repeated_ids(records, log)] == ["x", "x#2", "y", "x#3"]
