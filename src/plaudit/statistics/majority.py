"""Who wins among votes on two responses, how clearly, and by how much: the one rule. Standard library only."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean


def decide(first: float, ties: float, second: float) -> tuple[int, float]:
    """The winner of two, and the support of the first.

    A side wins with more votes than the other and than the ties. A tie is half a vote for each.

    Args:
        first, ties, second: votes, or their shares or probabilities.

    Returns:
        -1: the first wins, 1: the second, 0: neither; and the support, 0 to 1 (1/2 without a vote).

    >>> decide(2, 1, 0), decide(1, 2, 0), decide(1, 0, 1)
    ((-1, 0.8333333333333334), (0, 0.6666666666666666), (0, 0.5))
    """
    total = first + ties + second
    support = (first + ties / 2) / total if total else 0.5
    if max(first, second) <= ties:
        return 0, support
    return (second > first) - (first > second), support


def margin(side: int, strengths: Sequence[float]) -> float:
    """Mean strength in the winner's favour; 0 without a winner or a vote, and never negative.

    >>> margin(-1, [-2, -1, 0]), margin(1, [1, 1, 1, -2, -2])
    (1.0, 0.0)
    """
    return max(0.0, side * fmean(strengths)) if strengths else 0.0
