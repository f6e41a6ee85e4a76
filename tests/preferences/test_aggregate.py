import random

import pytest

from plaudit.errors import ConfigError
from plaudit.loop.simulated import SimulatedAnnotator
from plaudit.preferences.aggregate import Rule, conflicts, keep, outcomes, ranks_of
from plaudit.preferences.annotation import Annotation, Choice, Ranks
from plaudit.preferences.votes import PairVote, judgement_votes, labels, pair_votes, sides
from plaudit.records import Judgement


def vote(item: str, strength: float, name: str = "ann", **more) -> PairVote:
    return PairVote(item, 0, 1, name, strength, **more)


def cast(item: str, *strengths: float) -> list[PairVote]:
    return [vote(item, s, f"p{k}") for k, s in enumerate(strengths)]


def test_majority_by_hand():
    (won,) = outcomes(cast("i", -2, -1, 1, 0))
    assert (won.winner, won.loser, won.for_first, won.for_second, won.ties) == (0, 1, 2, 1, 1)
    assert won.agreement == pytest.approx((2 + 0.5) / 4)
    assert won.margin == pytest.approx(2 / 4)  # -(-2 - 1 + 1 + 0) / 4
    (second,) = outcomes(cast("i", 2, 2, -1))
    assert (second.winner, second.margin, second.agreement) == (1, pytest.approx(1.0), pytest.approx(2 / 3))


@pytest.mark.parametrize("strengths", [(1, -1), (0, 0, 1), (0,), (1, 0), (2, -2, 0)])
def test_no_side_ahead_is_no_winner(strengths):
    (tied,) = outcomes(cast("i", *strengths))
    assert tied.winner is None and tied.loser is None and tied.margin == 0.0


def test_a_weak_majority_against_a_strong_minority_has_no_margin():
    (won,) = outcomes(cast("i", -1, -1, 2, -1, 2))
    assert won.winner == 0 and won.margin == 0.0


def test_what_is_left_out_is_counted():
    votes = [*cast("few", 1), *cast("tie", 1, -1), *cast("weak", 1, 1, -1), *cast("clear", -1, -2)]
    kept, dropped = keep(outcomes(votes), Rule(min_votes=2, min_agreement=0.7))
    assert [o.item for o in kept] == ["clear"]
    assert sorted(dropped.values()) == [1, 1, 1] and len(dropped) == 3
    assert sum(dropped.values()) + len(kept) == 4
    everything, none = keep(outcomes(votes), Rule())
    assert len(everything) == 3 and sum(none.values()) == 1


def test_a_reviewer_overrules_the_votes():
    votes = [*cast("i", -2, -1, -1), vote("i", 1, "boss", adjudicated=True)]
    (settled,) = outcomes(votes)
    assert (settled.winner, settled.agreement, settled.margin, settled.votes) == (1, 1.0, 1.0, 3)
    assert settled.adjudicated and settled.annotators == ("p0", "p1", "p2")
    assert keep([settled], Rule(min_votes=9, min_agreement=1.0))[0] == [settled]
    (weighed,) = outcomes(votes, "dawid_skene")
    assert weighed.winner == 1 and weighed.agreement == 1.0


def test_conflicts_are_the_most_disputed_first():
    votes = [*cast("even", 1, -1), *cast("more", 1, -1, 1, -1), *cast("third", 1, 1, -1, -1, 1)]
    votes += [*cast("same", 1, 1), *cast("ties", 0, 1), vote("even2", 1, "a"), vote("even2", -1, "b")]
    votes += [*cast("settled", 1, -1), vote("settled", 1, "boss", adjudicated=True)]
    assert [o.item for o in conflicts(outcomes(votes))] == ["more", "even", "even2", "third"]


def simulated(units: int, seed: int) -> tuple[list[PairVote], dict[str, int]]:
    rates = {"good": 0.02, "bad1": 0.45, "bad2": 0.45, "bad3": 0.45, "fair": 0.15}
    people = [SimulatedAnnotator(n, r, temperature=0.0) for n, r in rates.items()]
    draw = random.Random(seed)
    votes, truth = [], {}
    for index in range(units):
        score = {"a": draw.random(), "b": draw.random()}
        truth[str(index)] = 0 if score["a"] > score["b"] else 1
        for person in people:
            j = person.judge("", "a", "b", lambda _, r, s=score: s[r], seed=seed, index=index)
            votes.append(PairVote(str(index), 0, 1, person.name, j.strength))
    return votes, truth


def test_weighing_annotators_beats_counting_heads():
    votes, truth = simulated(800, seed=0)
    right = {}
    for method in ("majority", "dawid_skene"):
        found = outcomes(votes, method)
        right[method] = sum(o.winner == truth[o.item] for o in found) / len(found)
        soft = [o.agreement if o.winner == truth[o.item] else 1 - o.agreement for o in found]
        right[f"{method} soft"] = sum(soft) / len(soft)
    assert right["dawid_skene"] > 0.95 > 0.85 > right["majority"]
    assert right["dawid_skene soft"] > right["majority soft"] + 0.1


def test_weighing_without_votes_or_with_one_annotator_changes_nothing():
    assert outcomes([], "dawid_skene") == []
    lone = [vote(str(k), 1 if k % 2 else -2) for k in range(6)]
    for a, b in zip(outcomes(lone), outcomes(lone, "dawid_skene"), strict=True):
        assert a.winner == b.winner and b.agreement > 0.6


# Rankings


def ranking(name: str, *ranks: int) -> Annotation:
    return Annotation(0, "i", name, Ranks(ranks), tuple(range(len(ranks))))


@pytest.mark.parametrize("ranks", [(1, 2), (2, 1, 3), (1, 1, 2), (1, 1, 1), (3, 2, 2, 1, 4)])
def test_one_ranking_comes_back_as_it_was(ranks):
    found = outcomes(pair_votes([ranking("a", *ranks)]))
    assert ranks_of(found, {"i": len(ranks)}) == {"i": ranks}


def test_rankings_of_several_people():
    found = outcomes(pair_votes([ranking("a", 1, 2, 3), ranking("b", 1, 2, 3), ranking("c", 2, 1, 3)]))
    assert ranks_of(found, {"i": 3}) == {"i": (1, 2, 3)}
    opposed = outcomes(pair_votes([ranking("a", 1, 2, 3), ranking("b", 3, 2, 1)]))
    assert ranks_of(opposed, {"i": 3}) == {"i": (1, 1, 1)}


# Votes


def test_judgements_meet_however_they_were_turned():
    judgements = [
        Judgement("x", "p", "one", "two", -2, annotator="a"),
        Judgement("y", "p", "two", "one", 1, annotator="b"),
        Judgement("z", "q", "one", "two", 1, annotator="a"),
    ]
    votes, first = judgement_votes(judgements)
    assert [(v.item, v.strength) for v in votes] == [("x", -2), ("x", -1), ("z", 1)]
    assert list(first) == ["x", "z"]


def test_labels_leave_out_what_is_no_vote():
    answers = [
        Annotation(0, "i", "a", Choice(-2), (0, 1)),
        Annotation(0, "i", "b", Choice(0, "cannot_judge"), (0, 1)),
        Annotation(0, "i", "c", Choice(0, "both_bad"), (0, 1)),
        Annotation(0, "i", "a", Choice(1), (0, 1), round=1),
        Annotation(0, "i", "boss", Choice(1), (0, 1), adjudicated=True),
    ]
    assert [(v.annotator, v.label) for v in labels(answers)] == [("a", -2.0), ("c", 0.0)]
    assert [v.label for v in sides(labels(answers))] == [-1.0, 0.0]
    assert [(v.annotator, v.adjudicated) for v in pair_votes(answers)] == [
        ("a", False),
        ("c", False),
        ("boss", True),
    ]


@pytest.mark.parametrize("options", [{"method": "vote"}, {"min_votes": 0}, {"min_agreement": 1.5}])
def test_impossible_rules_are_refused(options):
    with pytest.raises(ConfigError):
        Rule(**options)
