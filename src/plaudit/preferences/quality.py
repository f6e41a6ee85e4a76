"""How well each annotator works: gold items, repeats, agreement with others, position bias, speed.

The figures are reasons to look at somebody's answers, not verdicts on a person.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean, median

from plaudit.preferences.annotation import (
    Annotation,
    Answer,
    Asked,
    Choice,
    Ranks,
    Scores,
    Skip,
    Thumbs,
)
from plaudit.preferences.votes import pair_votes
from plaudit.statistics.intervals import Estimate, counted

FAST = -3.5
"""Robust z-score of log seconds below which an answer is an outlier (Iglewicz and Hoaglin 1993)."""
FASTEST_READER = 50.0
"""Characters per second, about 600 words a minute. Whoever answers faster cannot have read everything."""
GROUPS, LEAST_IN_GROUP = 5, 20
"""Times are compared within groups of items of similar length: the most groups, and the fewest answers in each."""
NEAR = 1
"""Scores that differ from the known ones by no more than this are right."""


@dataclass(frozen=True, slots=True)
class PositionBias:
    """How often the response shown first beat the one shown last, where one of the two won."""

    first: Estimate
    p_value: float
    """Exact two-sided binomial test of "half the time"; 1 without answers."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a person answers."""

    median_seconds: float
    fast: Estimate
    """Share of answers far faster than all annotators usually are on items of that length (log-time outliers)."""
    unread: Estimate
    """Share of answers that came faster than anyone can read the item."""


@dataclass(frozen=True, slots=True)
class AnnotatorCard:
    """One annotator. Shares are undefined (NaN, interval 0 to 1) where there is nothing to count."""

    annotator: str
    answers: int
    """First answers; skips are not counted."""
    skipped: int
    cannot_judge: int
    gold: Estimate
    """Credit on items with a known answer."""
    repeats: Estimate
    """Credit of a repeated answer against the annotator's own first one."""
    peers: Estimate
    """Share of votes on the side of the majority of the others, where these have one."""
    position: PositionBias
    pace: Pace


def annotator_cards(annotations: Sequence[Annotation], items: Mapping[str, Asked]) -> list[AnnotatorCard]:
    """One card for each annotator, by name. A reviewer's adjudications are not counted as answers.

    Args:
        annotations: the answers of a project that count.
        items: by key; annotations of other items are left out.
    """
    known = [a for a in annotations if a.item in items and not a.adjudicated]
    by_name: dict[str, list[Annotation]] = defaultdict(list)
    for annotation in known:
        by_name[annotation.annotator].append(annotation)
    paces = _paces(known, items)
    peers = _with_peers(known)
    return [
        AnnotatorCard(
            annotator=name,
            answers=sum(a.round == 0 and not isinstance(a.answer, Skip) for a in own),
            skipped=sum(isinstance(a.answer, Skip) for a in own),
            cannot_judge=sum(
                isinstance(a.answer, Choice) and a.answer.verdict == "cannot_judge" for a in own
            ),
            gold=gold_accuracy(own, items),
            repeats=repeat_consistency(own),
            peers=_share(peers.get(name, [])),
            position=position_bias(own),
            pace=paces[name],
        )
        for name, own in sorted(by_name.items())
    ]


# Against known answers, and against the person's own first answers


def credit(truth: Answer, answer: Answer) -> float | None:
    """How much of a known answer is right in an answer, 0 to 1; None where the two cannot be compared.

    Pairwise: 1 for the right side (or tie, or both bad), whatever the strength. Ranking: of the pairs that the known
    ranking orders, the share that the answer orders alike. Rating: share of the scores within one point. Thumbs: share
    of equal thumbs. "Cannot judge", skips and written texts are not compared.
    """
    if isinstance(truth, Choice) and isinstance(answer, Choice):
        if "cannot_judge" in (truth.verdict, answer.verdict):
            return None
        return float(_sign(truth.strength) == _sign(answer.strength) and truth.verdict == answer.verdict)
    if isinstance(truth, Ranks) and isinstance(answer, Ranks):
        pairs = [(i, j) for i, j in combinations(range(len(truth.ranks)), 2) if _order(truth, i, j)]
        return fmean(_order(truth, i, j) == _order(answer, i, j) for i, j in pairs) if pairs else None
    if isinstance(truth, Scores) and isinstance(answer, Scores):
        both = zip(truth.scores, answer.scores, strict=True)
        right = [abs(a[axis] - t[axis]) <= NEAR for t, a in both for axis in t if axis in a]
        return fmean(right) if right else None
    if isinstance(truth, Thumbs) and isinstance(answer, Thumbs):
        return fmean(t == a for t, a in zip(truth.up, answer.up, strict=True))
    return None


def gold_accuracy(annotations: Iterable[Annotation], items: Mapping[str, Asked]) -> Estimate:
    """Mean credit of first answers to items with a known answer, with Wilson's interval."""
    gold = ((items[a.item].gold, a.answer) for a in annotations if a.item in items and a.round == 0)
    return _share([c for truth, answer in gold if truth and (c := credit(truth, answer)) is not None])


def repeat_consistency(annotations: Iterable[Annotation]) -> Estimate:
    """Mean credit of repeated answers, taking the same annotator's first answer to the item as the known one."""
    rounds: dict[tuple[str, str], dict[int, Answer]] = defaultdict(dict)
    for a in annotations:
        rounds[a.item, a.annotator][a.round] = a.answer
    pairs = [
        (one[0], again) for one in rounds.values() if 0 in one for number, again in one.items() if number > 0
    ]
    return _share([c for first, again in pairs if (c := credit(first, again)) is not None])


def _share(credits: Sequence[float]) -> Estimate:
    return counted(sum(credits), len(credits))


def _order(answer: Ranks, i: int, j: int) -> int:
    return _sign(answer.ranks[i] - answer.ranks[j])


def _with_peers(annotations: Sequence[Annotation]) -> dict[str, list[float]]:
    """For each annotator, 1 or 0 for each vote on a pair where the others' votes have a majority."""
    units: dict[tuple[str, int, int], list[tuple[str, int]]] = defaultdict(list)
    for vote in pair_votes(annotations):
        units[vote.item, vote.first, vote.second].append((vote.annotator, vote.side))
    # The majority of the others, without the person's own vote: with it, everybody would agree with themselves.
    agreed: dict[str, list[float]] = defaultdict(list)
    for votes in units.values():
        for k, (name, side) in enumerate(votes):
            others = sum(s for _, s in votes[:k] + votes[k + 1 :])
            if others:
                agreed[name].append(float(side == _sign(others)))
    return agreed


# Position


def position_bias(annotations: Iterable[Annotation]) -> PositionBias:
    """How often the response shown first beat the one shown last, and whether chance explains it.

    Pairwise answers and rankings count, each once; ties between the two do not.
    """
    # The order is drawn at random for each person, so without a bias each of the two wins half of the time, however
    # good the responses are.
    decided = [side for a in annotations if (side := _first_side(a))]
    wins = decided.count(1)
    return PositionBias(counted(wins, len(decided)), binomial_test(wins, len(decided)))


def _first_side(a: Annotation) -> int:
    """1 if the response shown first beat the one shown last, -1 if it lost, 0 if neither."""
    if not a.order:
        return 0
    if isinstance(a.answer, Choice):
        return -_sign(a.answer.strength) * (1 if a.order[0] == 0 else -1)
    if isinstance(a.answer, Ranks):
        return -_order(a.answer, a.order[0], a.order[-1])
    return 0


def binomial_test(wins: int, n: int) -> float:
    """Two-sided p-value of ``wins`` of ``n`` when both sides are equally likely: twice the smaller tail.

    >>> round(binomial_test(9, 10), 6), binomial_test(5, 10), binomial_test(0, 0)
    (0.021484, 1.0, 1.0)
    """
    fewer = min(wins, n - wins)
    if 2 * fewer >= n:
        return 1.0
    # Logarithms of factorials: the factorials themselves overflow from about 170 answers on.
    top = math.lgamma(n + 1) - n * math.log(2)
    tail = math.fsum(math.exp(top - math.lgamma(k + 1) - math.lgamma(n - k + 1)) for k in range(fewer + 1))
    return min(1.0, 2 * tail)


# Speed


def _paces(annotations: Sequence[Annotation], items: Mapping[str, Asked]) -> dict[str, Pace]:
    """The pace of each annotator, after the usual effect of an item's length on the time is removed."""
    # Logarithms, because times of people are skewed: a pause of ten minutes would hide all fast answers in the spread.
    timed = [a for a in annotations if a.seconds > 0 and not isinstance(a.answer, Skip) and not _edited(a)]
    sizes = [items[a.item].characters for a in timed]
    scores = robust_scores(_less_usual([math.log(a.seconds) for a in timed], sizes))
    rows: dict[str, list[tuple[float, bool, bool]]] = {a.annotator: [] for a in annotations}
    for a, size, z in zip(timed, sizes, scores, strict=True):
        rows[a.annotator].append((a.seconds, z < FAST, a.seconds * FASTEST_READER < size))
    return {
        name: Pace(
            median([seconds for seconds, _, _ in own]) if own else math.nan,
            _share([float(fast) for _, fast, _ in own]),
            _share([float(unread) for _, _, unread in own]),
        )
        for name, own in rows.items()
    }


def _edited(a: Annotation) -> bool:
    """Whether the best response was edited as well: the time includes writing, not only comparing."""
    return isinstance(a.answer, (Choice, Ranks)) and a.answer.edit is not None


def robust_scores(values: Sequence[float]) -> list[float]:
    """Distance from the median in robust standard deviations (1.4826 times the median absolute deviation).

    All 0 where more than half of the values are equal.

    >>> robust_scores([1, 2, 3, 4, 100])[4] > 3.5
    True
    """
    if not values:
        return []
    middle = median(values)
    spread = 1.4826 * median([abs(v - middle) for v in values])
    return [(v - middle) / spread if spread else 0.0 for v in values]


def _less_usual(logs: Sequence[float], sizes: Sequence[int]) -> list[float]:
    """Log seconds minus the median of items of about the same length: up to five groups of 20 answers or more."""
    # Medians of groups and no fitted line: nothing says how reading time grows with length, and a median is not
    # moved by the outliers that are looked for.
    order = sorted(range(len(logs)), key=lambda i: sizes[i])
    groups = max(1, min(GROUPS, len(order) // LEAST_IN_GROUP))
    rest = list(logs)
    for g in range(groups):
        part = order[g * len(order) // groups : (g + 1) * len(order) // groups]
        usual = median([logs[i] for i in part]) if part else 0.0
        for i in part:
            rest[i] -= usual
    return rest


def _sign(x: float) -> int:
    return (x > 0) - (x < 0)
