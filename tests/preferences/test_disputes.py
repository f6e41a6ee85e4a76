"""What is put to a reviewer, by hand."""

from plaudit.preferences.annotation import Annotation, Answer, Choice, Ranks, Scores, Thumbs, Written
from plaudit.preferences.disputes import Dispute, disputes


def said(item: str, *answers: Answer, **more: object) -> list[Annotation]:
    return [
        Annotation(k, item, f"person-{k}", answer, (0, 1), **more)  # type: ignore[arg-type]
        for k, answer in enumerate(answers)
    ]


def test_pairs_and_rankings() -> None:
    split = said("split", Choice(-1), Choice(2), Choice(0))
    two = said("two to one", Choice(-1), Choice(-2), Choice(1))
    clear = said("clear", Choice(-1), Choice(-2), Choice(-1), Choice(1))
    ranked = said("ranked", Ranks((1, 2, 3)), Ranks((1, 3, 2)))
    assert disputes(split + two + clear + ranked) == [
        Dispute("split", "1 : 1, 1 tied", 0.5),
        Dispute("ranked", "1 : 1", 0.5),
        Dispute("two to one", "2 : 1", 2 / 3),
    ]


def test_reviewers_who_decide_differently() -> None:
    unlike = said("unlike", Choice(-1), Choice(1), adjudicated=True)
    alike = said("alike", Choice(-1), Choice(-2, edit=Written("better", 0)), adjudicated=True)
    assert disputes(unlike + alike) == [Dispute("unlike", "reviewers decided differently", 0.5)]


def test_thumbs_up_and_down() -> None:
    mixed = said("mixed", Thumbs((True, True)), Thumbs((True, False)), Thumbs((True, True)))
    alike = said("alike", Thumbs((False,)), Thumbs((False,)))
    assert disputes(mixed + alike) == [Dispute("mixed", "2 good, 1 bad", 2 / 3)]


def test_scores_far_apart_and_the_worst_of_an_item() -> None:
    near = said("near", Scores(({"accuracy": 4},)), Scores(({"accuracy": 7},)))
    far = said("far", Scores(({"accuracy": 1, "tone": 2},)), Scores(({"accuracy": 5, "tone": 8},)))
    (only,) = disputes(near + far)
    assert (only.item, only.summary) == ("far", "tone from 2 to 8") and abs(only.agreement - 1 / 3) < 1e-12


def test_what_is_no_dispute() -> None:
    decided = said("i", Choice(-1), Choice(1)) + said("i", Choice(1), adjudicated=True)
    repeated = said("r", Thumbs((True,))) + said("r", Thumbs((False,)), round=1)
    assert disputes(decided + repeated + said("w", Written("a"), Written("b"))) == []
