"""What people disagree on, whatever the task was: what a reviewer should decide."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from plaudit.preferences.aggregate import conflicts, outcomes
from plaudit.preferences.annotation import HIGHEST, LOWEST, Annotation, Scores, Thumbs
from plaudit.preferences.votes import is_vote, pair_votes

APART = 4
"""Scores of one response that lie so many points apart are a dispute."""


@dataclass(frozen=True, slots=True)
class Dispute:
    """An item on which people differ."""

    item: str
    """``Item.key``."""
    said: str
    """How they differ, in few words: counts of votes, or the lowest and the highest score."""
    agreement: float
    """From 0 to 1: share of the larger side, or how near the scores are."""


def disputes(annotations: Sequence[Annotation]) -> list[Dispute]:
    """Items that at least two people answered in ways that do not go together; the least agreed first.

    Pairs and rankings: both sides of a pair have votes and neither a clear majority. Thumbs: a response with
    thumbs up and down. Ratings: scores on one axis `APART` points apart or more. An item is named once, for
    its worst. Items that a reviewer decided are settled.
    """
    decided = {a.item for a in annotations if a.adjudicated}
    open_ones = [a for a in annotations if a.item not in decided]
    found = [*_of_pairs(open_ones), *_of_thumbs(open_ones), *_of_scores(open_ones)]
    worst: dict[str, Dispute] = {}
    for dispute in sorted(found, key=lambda d: d.agreement):
        worst.setdefault(dispute.item, dispute)
    return list(worst.values())


def nearness(scores: Sequence[int]) -> float:
    """The agreement of scores: 1 if all are the same, 0 from the lowest score to the highest.

    >>> nearness([7, 7]), nearness([1, 10])
    (1.0, 0.0)
    """
    return 1 - (max(scores) - min(scores)) / (HIGHEST - LOWEST)


def _of_pairs(annotations: Iterable[Annotation]) -> list[Dispute]:
    found = []
    for outcome in conflicts(outcomes(pair_votes(annotations))):
        tied = f", {outcome.ties} tied" if outcome.ties else ""
        said = f"{outcome.for_first} : {outcome.for_second}{tied}"
        found.append(Dispute(outcome.item, said, outcome.agreement))
    return found


def _of_thumbs(annotations: Iterable[Annotation]) -> list[Dispute]:
    thumbs: dict[tuple[str, int], list[bool]] = defaultdict(list)
    for a in annotations:
        if is_vote(a) and isinstance(a.answer, Thumbs):
            for i, up in enumerate(a.answer.up):
                thumbs[a.item, i].append(up)
    found = []
    for (item, _), given in thumbs.items():
        good, bad = sum(given), len(given) - sum(given)
        if good and bad:
            found.append(Dispute(item, f"{good} good, {bad} bad", max(good, bad) / len(given)))
    return found


def _of_scores(annotations: Iterable[Annotation]) -> list[Dispute]:
    scores: dict[tuple[str, int, str], list[int]] = defaultdict(list)
    rated = [(a.item, a.answer) for a in annotations if is_vote(a) and isinstance(a.answer, Scores)]
    rows = [(item, i, row) for item, answer in rated for i, row in enumerate(answer.scores)]
    for item, i, row in rows:
        for axis, value in row.items():
            scores[item, i, axis].append(value)
    found = []
    for (item, _, axis), given in scores.items():
        if max(given) - min(given) >= APART:
            found.append(Dispute(item, f"{axis} from {min(given)} to {max(given)}", nearness(given)))
    return found
