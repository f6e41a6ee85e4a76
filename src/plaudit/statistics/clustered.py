"""Means and shares over rows that belong to prompts, with intervals that count prompts and not rows.

Several responses to one prompt are alike: a prompt that is easy lifts all of them. Counting them as independent
would make every interval too narrow. So prompts are the units here: for means, whole prompts are drawn again
(bootstrap); for shares, Wilson's interval is taken at the number of rows that independent ones would need.
Everything is deterministic: a bootstrap takes its seed as an argument.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from plaudit.statistics.intervals import Estimate, wilson

Floats = Sequence[float] | NDArray[np.float64]


def share(values: Floats, clusters: Sequence[Hashable] | None = None, confidence: float = 0.95) -> Estimate:
    """Mean of values in [0, 1] with Wilson's interval at the effective sample size.

    Args:
        values: one a row; a tie is 1/2.
        clusters: the prompt of each row; None: each row is a unit of its own.

    With several rows per cluster, n is divided by the design effect (variance of the mean with clusters over
    the variance without); where that is undefined, at 0 and at 1, every cluster counts once.

    >>> share([1, 1, 0, 0.5]).value
    0.625
    """
    # Wilson and not the bootstrap: where all rows are right, every draw is 1 and a bootstrap would claim certainty.
    x = np.asarray(values, dtype=np.float64)
    n = len(x)
    if n == 0:
        return Estimate(math.nan, 0.0, 1.0, 0, 0)
    mean = float(x.mean())
    sums, sizes = _by_cluster(x, clusters)
    count = len(sizes)
    effective = float(n)
    if count < n:
        plain = mean * (1 - mean) / n
        clustered = float(((sums - mean * sizes) ** 2).sum()) / n**2 * count / max(count - 1, 1)
        # Rows of one prompt that happen to disagree more than chance would give an effect below 1, that is more
        # rows than there are; the bound keeps the interval honest.
        effective = n / max(1.0, clustered / plain) if plain > 0 else float(count)
    low, high = wilson(mean * effective, effective, confidence)
    return Estimate(mean, low, high, count, n)


def bootstrap_mean(
    values: Floats,
    clusters: Sequence[Hashable] | None = None,
    *,
    seed: int = 0,
    draws: int = 4000,
    confidence: float = 0.95,
) -> Estimate:
    """Mean with a percentile bootstrap interval; whole clusters are resampled (Efron; Field and Welsh 2007).

    >>> estimate = bootstrap_mean([1.0, 2.0, 3.0, 4.0]); estimate.value, estimate.low < 2.5 < estimate.high
    (2.5, True)
    """
    x = np.asarray(values, dtype=np.float64)
    if len(x) == 0:
        return Estimate(math.nan, math.nan, math.nan, 0, 0)
    sums, sizes = _by_cluster(x, clusters)
    rng = np.random.default_rng(seed)
    means = np.empty(draws)
    # In blocks of 500 draws, so that memory does not grow with draws times prompts.
    for start in range(0, draws, 500):
        stop = min(start + 500, draws)
        picks = rng.integers(len(sums), size=(stop - start, len(sums)))
        means[start:stop] = sums[picks].sum(1) / sizes[picks].sum(1)
    low, high = np.quantile(means, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return Estimate(float(x.mean()), float(low), float(high), len(sums), len(x))


def paired_bootstrap(
    before: Floats, after: Floats, clusters: Sequence[Hashable] | None = None, *, seed: int = 0
) -> Estimate:
    """Mean of ``after - before``, row by row, with its interval.

    Raises:
        ValueError: different lengths.
    """
    if len(before) != len(after):
        raise ValueError(f"pairs need equally long lists, found {len(before)} and {len(after)}")
    # The interval of the difference, not the difference of two intervals: how hard a prompt is cancels out,
    # so a change shows with far fewer prompts.
    difference = np.asarray(after, dtype=np.float64) - np.asarray(before, dtype=np.float64)
    return bootstrap_mean(difference, clusters, seed=seed)


def outcomes(differences: Floats) -> NDArray[np.float64]:
    """1 where the difference is positive, 0 where it is negative, 1/2 at a tie.

    >>> outcomes([2.0, -1.0, 0.0]).tolist()
    [1.0, 0.0, 0.5]
    """
    return (np.sign(np.asarray(differences, dtype=np.float64)) + 1) / 2


def _by_cluster(
    x: NDArray[np.float64], clusters: Sequence[Hashable] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum and size of each cluster; without clusters every row is its own."""
    if clusters is None:
        return x, np.ones_like(x)
    numbers: dict[Hashable, int] = {}
    index = np.array([numbers.setdefault(name, len(numbers)) for name in clusters], dtype=np.intp)
    return np.bincount(index, weights=x).astype(np.float64), np.bincount(index).astype(np.float64)
