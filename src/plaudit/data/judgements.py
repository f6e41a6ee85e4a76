"""Judgements of the same two responses, in either order, as one pair with its votes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from plaudit.data.reading.transcripts import prompt_key
from plaudit.records import Content, Judgement, Preference
from plaudit.statistics.majority import decide, margin


@dataclass(frozen=True, slots=True)
class JudgedPair:
    """The result of all judgements of two responses to a prompt."""

    first: Judgement
    """The first judgement, whose ``response_a`` is the first response."""
    votes: int
    winner: int
    """-1: the first response, 1: the second, 0: no majority."""
    support: float
    """Share of the votes for the first response, a tie counting half."""
    margin: float
    """Mean strength in the winner's favour, or mean margin where the judgements have margins."""

    @property
    def is_one_text(self) -> bool:
        """Whether both responses are the same, so that there is nothing to choose."""
        return self.first.response_a == self.first.response_b

    @property
    def agreement(self) -> float:
        """The support of the response that has more: at least 1/2."""
        return max(self.support, 1 - self.support)

    @property
    def ordered(self) -> tuple[Content, Content]:
        """The response with the larger support, and the other."""
        a, b = self.first.response_a, self.first.response_b
        return (a, b) if self.support >= 0.5 else (b, a)


def judged_pairs(judgements: Iterable[Judgement]) -> list[JudgedPair]:
    """One pair for each two responses to a prompt, in the order in which they first come up."""
    # A frozenset as key: annotators see the two in either order, and both orders are about the same pair.
    groups: dict[tuple[str, frozenset[Content]], list[Judgement]] = {}
    for j in judgements:
        groups.setdefault((prompt_key(j.prompt), frozenset((j.response_a, j.response_b))), []).append(j)
    return [_judged(group) for group in groups.values()]


def _judged(group: Sequence[Judgement]) -> JudgedPair:
    first = group[0]
    strengths = [j.strength if j.response_a == first.response_a else -j.strength for j in group]
    winner, support = decide(sum(s < 0 for s in strengths), strengths.count(0), sum(s > 0 for s in strengths))
    margins = [_sized(s, j.margin) for s, j in zip(strengths, group, strict=True)]
    return JudgedPair(first, len(group), winner, support, margin(winner, margins))


def _sized(strength: int, size: float | None) -> float:
    """A verdict on the scale of the data, if it has one of its own."""
    return strength if size is None else ((strength > 0) - (strength < 0)) * size


def undecided(judgements: Sequence[Judgement]) -> list[Preference]:
    """The pairs that a conversion to preferences leaves out, because neither response has a majority.

    ``agreement`` is the share of votes for ``chosen``, a tie counting half for each: at least 1/2. A reward model can
    be trained on it as a target.
    """
    return [
        Preference(
            f"{pair.first.id}/tie",
            pair.first.prompt,
            *pair.ordered,
            0.0,
            pair.agreement,
            category=pair.first.category,
        )
        for pair in judged_pairs(judgements)
        if not pair.winner and not pair.is_one_text
    ]
