"""Items on which people disagree, whatever the task was: what a reviewer should decide."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from plaudit.preferences.aggregate import conflicts, outcomes
from plaudit.preferences.annotation import (
    HIGHEST,
    LOWEST,
    Annotation,
    Answer,
    Choice,
    Ranks,
    Scores,
    Skip,
    Thumbs,
    Written,
)
from plaudit.preferences.votes import is_vote, pair_votes

APART = 4
"""Scores of one response that differ by this many points or more are a dispute."""


@dataclass(frozen=True, slots=True)
class Dispute:
    """An item on which people differ."""

    item: str
    """``Item.key``."""
    summary: str
    """How they differ, in few words: counts of votes, or the lowest and the highest score."""
    agreement: float
    """From 0 to 1: share of the larger side, or how close the scores are."""


def disputes(annotations: Sequence[Annotation]) -> list[Dispute]:
    """Items that at least two people answered in contradictory ways, those with the least agreement first.

    Pairs and rankings: both sides of a pair have votes and neither a clear majority. Thumbs: a response with
    thumbs up and down. Ratings: scores on one axis that differ by `APART` points or more. An item is listed once,
    with the dispute that has the least agreement. Items that a reviewer decided are left out, unless another reviewer
    decided them differently.
    """
    decided = {a.item for a in annotations if a.adjudicated}
    undecided = [a for a in annotations if a.item not in decided]
    every = [*_of_verdicts(annotations), *_of_pairs(undecided), *_of_thumbs(undecided), *_of_scores(undecided)]
    worst: dict[str, Dispute] = {}
    for dispute in sorted(every, key=lambda d: d.agreement):
        worst.setdefault(dispute.item, dispute)
    return list(worst.values())


def nearness(scores: Sequence[int]) -> float:
    """The agreement of scores: 1 if all are the same, 0 if they include both the lowest and the highest score.

    >>> nearness([7, 7]), nearness([1, 10])
    (1.0, 0.0)
    """
    return 1 - (max(scores) - min(scores)) / (HIGHEST - LOWEST)


def _of_verdicts(annotations: Iterable[Annotation]) -> list[Dispute]:
    given: dict[str, set[object]] = defaultdict(set)
    for a in annotations:
        if a.adjudicated and not isinstance(a.answer, (Skip, Written)):
            given[a.item].add(_verdict(a.answer))
    return [Dispute(item, "reviewers decided differently", 0.5) for item, kinds in given.items() if len(kinds) > 1]


def _verdict(answer: Answer) -> object:
    """What two verdicts must share to be the same: how much better a response is, or an edit, is no other decision."""
    if isinstance(answer, Choice):
        return (answer.strength > 0) - (answer.strength < 0), answer.verdict
    if isinstance(answer, Ranks):
        return answer.ranks
    if isinstance(answer, Scores):
        return tuple(tuple(sorted(row.items())) for row in answer.scores)
    return answer


def _of_pairs(annotations: Iterable[Annotation]) -> list[Dispute]:
    disputed = []
    for outcome in conflicts(outcomes(pair_votes(annotations))):
        tied = f", {outcome.ties} tied" if outcome.ties else ""
        summary = f"{outcome.for_first} : {outcome.for_second}{tied}"
        disputed.append(Dispute(outcome.item, summary, outcome.agreement))
    return disputed


def _of_thumbs(annotations: Iterable[Annotation]) -> list[Dispute]:
    thumbs: dict[tuple[str, int], list[bool]] = defaultdict(list)
    for a in annotations:
        if is_vote(a) and isinstance(a.answer, Thumbs):
            for i, up in enumerate(a.answer.up):
                thumbs[a.item, i].append(up)
    disputed = []
    for (item, _), votes in thumbs.items():
        good, bad = sum(votes), len(votes) - sum(votes)
        if good and bad:
            disputed.append(Dispute(item, f"{good} good, {bad} bad", max(good, bad) / len(votes)))
    return disputed


def _of_scores(annotations: Iterable[Annotation]) -> list[Dispute]:
    scores: dict[tuple[str, int, str], list[int]] = defaultdict(list)
    rated = [(a.item, a.answer) for a in annotations if is_vote(a) and isinstance(a.answer, Scores)]
    rows = [(item, i, row) for item, answer in rated for i, row in enumerate(answer.scores)]
    for item, i, row in rows:
        for axis, value in row.items():
            scores[item, i, axis].append(value)
    disputed = []
    for (item, _, axis), values in scores.items():
        if max(values) - min(values) >= APART:
            disputed.append(Dispute(item, f"{axis} from {min(values)} to {max(values)}", nearness(values)))
    return disputed
