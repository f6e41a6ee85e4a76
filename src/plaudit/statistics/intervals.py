"""A figure with its interval, and Wilson's interval for shares that were counted. Standard library only.

Use these where each row is independent of the others; where several rows belong to one prompt, use `clustered`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its interval; NaN says that it is undefined.

    ``n`` counts the independent units behind it (prompts, items), ``rows`` the rows; None: each row is a unit.
    """

    value: float
    low: float
    high: float
    n: int
    rows: int | None = None

    @property
    def interval(self) -> Interval:
        """Both ends."""
        return (self.low, self.high)

    def __str__(self) -> str:
        if math.isnan(self.value):
            return f"undefined (n {self.n})"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}] (n {self.n})"


def wilson(wins: float, n: float, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of a share (Wilson 1927). A tie is half a win.

    Args:
        wins: from 0 to ``n``; need not be whole.
        n: trials, or an effective number of them; 0 or less gives (0, 1).
        confidence: coverage, between 0 and 1.

    >>> [round(x, 3) for x in wilson(60, 100)], [round(x, 3) for x in wilson(10, 10)]
    ([0.502, 0.691], [0.722, 1.0])
    """
    if n <= 0:
        return (0.0, 1.0)
    # Not the textbook interval share +- 1.96 standard errors: with ten wins of ten it would be [1, 1], as if
    # ten trials had proved that no trial can ever be lost.
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = wins / n
    center = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # At both ends the formula gives exactly 0 and 1, but floating point does not.
    low = 0.0 if wins <= 0 else max(0.0, center - half)
    return (low, 1.0 if wins >= n else min(1.0, center + half))


def counted(wins: float, n: int, confidence: float = 0.95) -> Estimate:
    """A share with Wilson's interval; NaN in (0, 1) where nothing was counted.

    >>> str(counted(60, 100))
    '0.600 [0.502, 0.691] (n 100)'
    """
    low, high = wilson(wins, n, confidence)
    return Estimate(wins / n if n else math.nan, low, high, n)
