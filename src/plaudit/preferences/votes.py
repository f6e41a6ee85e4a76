"""Answers as votes: what statistics and aggregation count, whatever the task was."""

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
    """What one annotator says of two responses, given by their index in the item.

    ``strength`` from -2 (``first`` much better) to 2 (``second`` much better), 0 a tie.
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
    return annotation.round == 0 and not annotation.adjudicated


def labels(annotations: Iterable[Annotation], axis: str = "") -> list[Vote]:
    """What agreement is measured on. Skips, "cannot judge" and written texts have no label.

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
    """The votes with the sign of their label: which of two, without how strongly."""
    return [Vote(vote.unit, vote.annotator, float(_sign(vote.label))) for vote in votes]


def pair_votes(annotations: Iterable[Annotation]) -> list[PairVote]:
    """Votes on pairs of responses, of pairwise answers and of rankings (every pair of responses).

    A reviewer's verdict is among them, and says so. A pair of a ranking has strength -1, 0 or 1.
    """
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
    """Judgements as votes on items, however the two responses were turned round.

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
