"""Bootstrap intervals for figures of any form, and random numbers that are a function of what they are for.

Use `resample` and `percentile` where a figure is computed from counts of patterns (agreement between annotators,
strengths of models): all draws are computed side by side. For means over prompts, `clustered` is simpler.
"""

from __future__ import annotations

import math
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from plaudit.statistics.intervals import Estimate

Array = NDArray[np.float64]
DRAWS = 2000


def percentile(value: float, draws: Array, n: int, confidence: float = 0.95) -> Estimate:
    """The percentile bootstrap interval around ``value`` (Efron 1979).

    Draws in which the figure is undefined (NaN) are left out; where more than half are, so is the interval.
    """
    defined = draws[~np.isnan(draws)]
    # An interval of the few draws that happen to be defined would be narrow for the wrong reason.
    if math.isnan(value) or 2 * len(defined) <= len(draws):
        return Estimate(value, math.nan, math.nan, n)
    low, high = np.quantile(defined, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return Estimate(value, float(low), float(high), n)


def resample(times: Array, *, seed: int, draws: int = DRAWS) -> Array:
    """Bootstrap weights [draws, patterns]: how often each pattern comes up when all units are drawn again.

    Drawing ``n`` units with replacement, of which ``times[p]`` are alike, is one multinomial draw over the
    patterns: the same distribution as resampling unit by unit, at the cost of the distinct patterns only.
    """
    n = int(times.sum())
    rng = np.random.default_rng(seed)
    return rng.multinomial(n, times / n, size=draws).astype(np.float64)


def uniform(*key: object) -> float:
    """A number from 0 to below 1 that looks random: a function of the key alone (seed, purpose, id ...).

    >>> uniform(0, "shuffle", "item-1") == uniform(0, "shuffle", "item-1")
    True
    """
    # A hash instead of a generator: the number of one item does not change when other items come or go,
    # or when they are asked for in another order.
    text = "\0".join(map(str, key)).encode("utf-8", "surrogatepass")
    # A float holds 53 bits, so the other 11 are dropped; keeping them could round up to 1.0.
    return (int.from_bytes(blake2b(text, digest_size=8).digest(), "big") >> 11) / 2**53
