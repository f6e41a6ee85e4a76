"""Answers as votes, which is what statistics and aggregation count, whatever the task was."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

from plaudit.preferences.annotation import Annotation, Choice, Ranks, Scores, Thumbs
from plaudit.records import Content, Judgement


@dataclass(frozen=True, slots=True)
class Vote:
    """One label that one annotator gave to one unit: an item, one of its responses, or a pair of them."""

    unit: str
    annotator: str
    label: float


@dataclass(frozen=True, slots=True)
class PairVote:
    """One annotator's vote on two responses, which are named by their index in the item.

    ``strength`` is from -2 (``first`` much better) to 2 (``second`` much better); 0 is a tie.
    """

    item: str
    first: int
    second: int
    annotator: str
    strength: float
    adjudicated: bool = False

    @property
    def side(self) -> int:
        """-1: first, 1: second, 0: a tie."""
        return (self.strength > 0) - (self.strength < 0)


def is_vote(annotation: Annotation) -> bool:
    """Whether it counts among the votes: a first answer, not a repeat, and not a reviewer's verdict."""
    # A repeat would give one person two votes, and a reviewer has seen the votes: neither is independent of them.
    return annotation.round == 0 and not annotation.adjudicated


def labels(annotations: Iterable[Annotation], axis: str = "") -> list[Vote]:
    """The labels on which agreement is measured. Skips, "cannot judge" and written texts have none.

    - pairwise: the strength, -2 to 2 (both bad counts as a tie);
    - ranking: -1, 0 or 1 for each pair of responses, unit "item/0-1";
    - rating: the score of each response, unit "item/0", on ``axis`` or, without one, the mean of all axes;
    - thumbs: 0 or 1 for each response, unit "item/0".
    """
    return [
        Vote(unit, annotation.annotator, label)
        for annotation in annotations
        if is_vote(annotation)
        for unit, label in _labels(annotation, axis)
    ]


def _labels(annotation: Annotation, axis: str) -> list[tuple[str, float]]:
    key, answer = annotation.item, annotation.answer
    if isinstance(answer, Choice):
        return [] if answer.verdict == "cannot_judge" else [(key, float(answer.strength))]
    if isinstance(answer, Ranks):
        pairs = combinations(range(len(answer.ranks)), 2)
        return [(f"{key}/{i}-{j}", float(_sign(answer.ranks[i] - answer.ranks[j]))) for i, j in pairs]
    if isinstance(answer, Scores):
        return [(f"{key}/{i}", _score(row, axis)) for i, row in enumerate(answer.scores) if row]
    if isinstance(answer, Thumbs):
        return [(f"{key}/{i}", float(up)) for i, up in enumerate(answer.up)]
    return []


def _score(row: dict[str, int], axis: str) -> float:
    return float(row[axis]) if axis else sum(row.values()) / len(row)


def sides(votes: Iterable[Vote]) -> list[Vote]:
    """The votes with the sign of their label only: which of two is better, not how much."""
    return [Vote(vote.unit, vote.annotator, float(_sign(vote.label))) for vote in votes]


def pair_votes(annotations: Iterable[Annotation]) -> list[PairVote]:
    """Votes on pairs of responses, of pairwise answers and of rankings (every pair of responses).

    A reviewer's verdict is among them, marked as ``adjudicated``. A pair of a ranking has strength -1, 0 or 1.
    """
    # Ranks say nothing about how much better a response is: rank 1 against rank 4 may be a narrow matter.
    votes: list[PairVote] = []
    for a in annotations:
        if a.round and not a.adjudicated:
            continue
        if isinstance(a.answer, Choice) and a.answer.verdict != "cannot_judge":
            votes.append(PairVote(a.item, 0, 1, a.annotator, a.answer.strength, a.adjudicated))
        elif isinstance(a.answer, Ranks):
            ranks = a.answer.ranks
            votes += [
                PairVote(a.item, i, j, a.annotator, _sign(ranks[i] - ranks[j]), a.adjudicated)
                for i, j in combinations(range(len(ranks)), 2)
            ]
    return votes


def judgement_votes(judgements: Sequence[Judgement]) -> tuple[list[PairVote], dict[str, Judgement]]:
    """Judgements as votes on items; two judgements with the responses in opposite order are about the same item.

    Returns:
        The votes, and the first judgement of each item, whose ``response_a`` is response 0 of the item. An
        item is a prompt with two responses; its name is the id of its first judgement.
    """
    first: dict[str, Judgement] = {}
    name_of: dict[tuple[Content, frozenset[Content]], str] = {}
    votes = []
    for j in judgements:
        name = name_of.setdefault((j.prompt, frozenset((j.response_a, j.response_b))), j.id)
        start = first.setdefault(name, j)
        strength = j.strength if j.response_a == start.response_a else -j.strength
        votes.append(PairVote(name, 0, 1, j.annotator, strength))
    return votes, first


def _sign(x: float) -> int:
    return (x > 0) - (x < 0)
