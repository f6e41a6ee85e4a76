"""Figures with bootstrap intervals, and random numbers that depend on what they are for and on nothing else."""

from __future__ import annotations

import math
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from plaudit.statistics.intervals import Interval, wilson

Array = NDArray[np.float64]
DRAWS = 2000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its interval. ``n`` counts the independent units behind it; NaN says that it is undefined."""

    value: float
    low: float
    high: float
    n: int

    @property
    def interval(self) -> Interval:
        """Both ends."""
        return (self.low, self.high)

    def __str__(self) -> str:
        if math.isnan(self.value):
            return f"undefined (n {self.n})"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}] (n {self.n})"


def counted(wins: float, n: int, confidence: float = 0.95) -> Estimate:
    """A share with Wilson's interval; NaN in (0, 1) where nothing was counted.

    >>> str(counted(60, 100))
    '0.600 [0.502, 0.691] (n 100)'
    """
    low, high = wilson(wins, n, confidence)
    return Estimate(wins / n if n else math.nan, low, high, n)


def percentile(value: float, draws: Array, n: int, confidence: float = 0.95) -> Estimate:
    """The percentile bootstrap interval around ``value`` (Efron 1979).

    Draws in which the figure is undefined (NaN) are left out; where more than half are, so is the interval.
    """
    defined = draws[~np.isnan(draws)]
    if math.isnan(value) or 2 * len(defined) <= len(draws):
        return Estimate(value, math.nan, math.nan, n)
    low, high = np.quantile(defined, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return Estimate(value, float(low), float(high), n)


def resample(times: Array, *, seed: int, draws: int = DRAWS) -> Array:
    """Bootstrap weights [draws, patterns]: how often each pattern comes up when all units are drawn again.

    Drawing ``n`` units with replacement, of which ``times[p]`` are alike, is one multinomial draw over the
    patterns: the same law as resampling unit by unit, at the cost of the distinct ones.
    """
    n = int(times.sum())
    rng = np.random.default_rng(seed)
    return rng.multinomial(n, times / n, size=draws).astype(np.float64)


def uniform(*key: object) -> float:
    """A number from 0 to below 1 that looks random: a function of the key alone (seed, purpose, id ...).

    >>> uniform(0, "shuffle", "item-1") == uniform(0, "shuffle", "item-1")
    True
    """
    text = "\0".join(map(str, key)).encode("utf-8", "surrogatepass")
    return (int.from_bytes(blake2b(text, digest_size=8).digest(), "big") >> 11) / 2**53
