"""The winner among votes on two responses, how clear it is, and by how much. Standard library only.

This is the one rule by which votes become a preference, in the annotation app, in imports and in data files. For
more than two that met in pairs, use `bradley_terry`.
"""

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
    # Where as many people see no difference as prefer a side, a preference would teach what most do not see.
    if max(first, second) <= ties:
        return 0, support
    return (second > first) - (first > second), support


def margin(side: int, strengths: Sequence[float]) -> float:
    """Mean strength in the winner's favour; 0 without a winner or a vote, and never negative.

    >>> margin(-1, [-2, -1, 0]), margin(1, [1, 1, 1, -2, -2])
    (1.0, 0.0)
    """
    # A few strong votes against can outweigh a majority of weak ones: the majority still wins, by a margin of 0.
    return max(0.0, side * fmean(strengths)) if strengths else 0.0
