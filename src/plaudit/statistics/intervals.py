"""Wilson's interval, for whatever is counted: by lint, by annotators, by evaluation. Standard library only."""

from __future__ import annotations

import math
from statistics import NormalDist

Interval = tuple[float, float]


def wilson(wins: float, n: float, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of a share; sensible even at 0 and 1 (Wilson 1927). A tie is half a win.

    Args:
        wins: from 0 to ``n``; need not be whole.
        n: trials, or an effective number of them; 0 or less gives (0, 1).
        confidence: coverage, between 0 and 1.

    >>> [round(x, 3) for x in wilson(60, 100)], [round(x, 3) for x in wilson(10, 10)]
    ([0.502, 0.691], [0.722, 1.0])
    """
    if n <= 0:
        return (0.0, 1.0)
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = wins / n
    center = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low = 0.0 if wins <= 0 else max(0.0, center - half)  # exact at both ends, where rounding would show
    return (low, 1.0 if wins >= n else min(1.0, center + half))
