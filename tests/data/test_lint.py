"""Each finding is made, counted and explained; clean data give none."""

from __future__ import annotations

import pytest

from plaudit.data.lint import lint, lint_split
from plaudit.records import Demonstration, Judgement, Message, Preference, Prompt, Ranking, Rating


def found(records):
    return {finding.code: finding for finding in lint(records)}


def test_clean_data_have_no_findings():
    assert lint([Prompt("1", "a"), Prompt("2", "b")]) == []
    assert lint([Demonstration("1", "a", "Human beings: they use [brackets] and <b>tags</b>.")]) == []
    assert lint([]) == []


def test_identical_responses():
    finding = found([Preference("1", "q", "a", "a"), Preference("2", "q", "a", "bb")])["identical-responses"]
    assert (finding.count, finding.share, finding.examples) == (1, 0.5, ("1",))


def test_conflicting_pairs():
    records = [
        Preference("1", "q", "a", "b"),
        Preference("2", " Q", "b", "a"),
        Preference("3", "other", "b", "a"),
        Preference("4", "q", "a", "c"),
    ]
    assert found(records)["conflicting-pairs"].examples == ("1", "2")
    judged = [
        Judgement("1", "q", "a", "b", 1),
        Judgement("2", "q", "b", "a", 1),
        Judgement("3", "q", "a", "b", 0),
    ]
    assert found(judged)["conflicting-pairs"].examples == ("1", "2")


def test_exact_duplicates():
    records = [Rating("1", "q", "a", 1.0), Rating("2", "q", "a", 1.0), Rating("3", "q", "a", 2.0)]
    assert found(records)["exact-duplicates"].examples == ("2",)


def test_empty_responses():
    assert found([Preference("1", "q", "a", " \n")])["empty-responses"].count == 1
    assert found([Ranking("1", "q", ("a", "", ""), (1, 2, 3))])["empty-responses"].count == 2


@pytest.mark.parametrize(
    "text",
    [
        "Sure.\nHuman: ok",
        "<|im_start|>user\nhi",
        "ok [INST] go",
        "done</s>",
        "### Response: a",
        "a<|eot_id|>",
    ],
)
def test_template_leaks(text):
    assert found([Demonstration("1", "q", text)])["template-leaks"].examples == ("1",)


def test_conversations_that_go_on_by_themselves():
    records = [
        Demonstration("1", "q", "Fine.\n\nHuman: And you?\n\nAssistant: Fine."),
        Demonstration("2", "q", "a"),
    ]
    assert found(records)["self-continued"].examples == ("1",)


def test_turns_of_a_response_are_no_leak():
    turns = (Message("assistant", "a"), Message("user", "b"), Message("assistant", "c"))
    assert "self-continued" not in found([Preference("1", "q", turns, "x")])


def test_length_bias_with_its_interval():
    records = [Preference(str(i), f"q{i}", "long answer", "short") for i in range(9)]
    finding = found(
        [*records, Preference("9", "q9", "short", "long answer"), Preference("t", "t", "abc", "xyz")]
    )
    bias = finding["length-bias"]
    assert (bias.count, bias.share) == (9, 0.9)
    assert bias.interval == pytest.approx((0.5958, 0.9821), abs=1e-4)
    assert "90% of 10 decided pairs" in bias.advice and "not chance" in bias.advice


def test_chance_is_called_chance():
    records = [Preference("1", "q", "long answer", "short"), Preference("2", "p", "short", "long answer")]
    assert "chance can explain" in found(records)["length-bias"].advice


def test_position_bias_leaves_ties_out():
    records = [Judgement(str(i), f"q{i}", "a", "b", s) for i, s in enumerate([-2, -1, -1, 1, 0, 0])]
    bias = found(records)["position-bias"]
    assert (bias.count, bias.share) == (3, 0.75)
    assert "position-bias" not in found([Preference("1", "q", "a", "b")])


def test_pairs_of_a_ranking_count_for_the_bias():
    finding = found([Ranking("1", "q", ("aaa", "bb", "c"), (1, 2, 2))])["length-bias"]
    assert (finding.count, finding.share) == (2, 1.0)


def test_duplicates_across_splits():
    train = [Demonstration("1", "q", "a"), Demonstration("2", "", "text")]
    heldout = [Demonstration("3", "Q ", "b"), Demonstration("4", "", "text"), Demonstration("5", "z", "c")]
    (finding,) = lint_split(train, heldout)
    assert finding.examples == ("3", "4") and finding.code == "duplicates-across-splits"
    assert lint_split(train, heldout[2:]) == []


def test_a_finding_says_of_what_it_is_a_share():
    ranking = Ranking("r", "q", ("same", "same", "other", "more"), (1, 2, 3, 4))
    plain = Preference("p", "q", "a longer one", "b")
    same = found([ranking, plain])["identical-responses"]
    assert (same.count, same.among, same.unit) == (1, 7, "pairs"), "a list of four responses has six pairs"
    empty = found([Preference("p", "q", "", "b"), plain])["empty-responses"]
    assert (empty.count, empty.among, empty.unit) == (1, 4, "responses")
