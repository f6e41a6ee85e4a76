"""Means and shares over rows that belong to prompts, with intervals that count prompts and not rows.

Several responses to one prompt are alike: a prompt that is easy lifts all of them. Counting them as independent
would make every interval too narrow. So prompts are the units here: means have Student's interval over
prompts; for shares, Wilson's interval is taken at the number of rows that independent ones would need.
Coverage by simulation: docs/why/intervals.md.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from plaudit.statistics.intervals import Estimate, wilson

Floats = Sequence[float] | NDArray[np.float64]
Clusters = Sequence[Hashable]
"""What each row belongs to: its prompt."""


def share(values: Floats, clusters: Clusters | None = None, confidence: float = 0.95) -> Estimate:
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
    sums, sizes = by_cluster(x, clusters)
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


def weighted_share(
    values: Floats,
    weights: Floats,
    strata: Sequence[Hashable],
    clusters: Sequence[Hashable],
    confidence: float = 0.95,
) -> Estimate:
    """A sum of weighted means of strata, such as the mean of several accuracies, with Wilson's interval.

    Args:
        values: in [0, 1], one a row.
        weights: of the rows, alike within a stratum; they add up to 1 (Ties of RewardBench 2: to 1.01).
        strata: the group of each row whose mean is one of those that are added.
        clusters: the prompt of each row; one prompt may have rows in several strata.

    The variance is that of a sum over clusters of weighted residuals (Cochran 1977, sections 5.3 and 6.11). Wilson's
    interval is taken at the number of independent rows that would have this variance, and at most at Kish's effective
    number of rows (Kish 1965), or of clusters where no row differs from its stratum.

    >>> weighted_share([1, 0, 1, 1], [0.25] * 4, "aabb", [1, 2, 3, 4]).value
    0.75
    """
    # At most Kish's number: strata in which all rows are right have no variance of their own, however few they are.
    x, w = np.asarray(values, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    if not len(x):
        return Estimate(math.nan, 0.0, 1.0, 0, 0)
    value, variance, count = _weighted(x, w, strata, clusters)
    together = by_cluster(w, clusters)[0]
    most = [float(each.sum() ** 2 / (each**2).sum()) for each in (w, together)]
    mean = min(max(value, 0.0), 1.0)
    effective = min(mean * (1 - mean) / variance, most[0]) if variance > 0 and 0 < mean < 1 else most[1]
    low, high = wilson(mean * effective, effective, confidence)
    return Estimate(value, min(low, value), max(high, value), count, len(x))


def weighted_difference(
    before: Floats,
    after: Floats,
    weights: Floats,
    strata: Sequence[Hashable],
    clusters: Sequence[Hashable],
    confidence: float = 0.95,
) -> Estimate:
    """The difference of two such sums over the same rows, ``after`` less ``before``, with Student's interval.

    NaN ends with fewer than two clusters. See `weighted_share`.
    """
    difference = np.asarray(after, dtype=np.float64) - np.asarray(before, dtype=np.float64)
    value, variance, count = _weighted(difference, np.asarray(weights, dtype=np.float64), strata, clusters)
    if count < 2:
        return Estimate(value, math.nan, math.nan, count, len(difference))
    half = float(stats.t.ppf(0.5 + confidence / 2, count - 1)) * math.sqrt(variance)
    return Estimate(value, value - half, value + half, count, len(difference))


def _weighted(
    x: NDArray[np.float64], w: NDArray[np.float64], strata: Sequence[Hashable], clusters: Sequence[Hashable]
) -> tuple[float, float, int]:
    """The weighted sum, its variance over clusters, and their number."""
    numbers: dict[Hashable, int] = {}
    index = np.array([numbers.setdefault(name, len(numbers)) for name in strata], dtype=np.intp)
    means = np.bincount(index, weights=x) / np.bincount(index)
    # One cluster does not tell how much the clusters of its stratum differ. Such strata are collapsed: their rows are
    # compared with the mean of all of them, which is wider than the truth (Cochran 1977, section 5A.12).
    pairs = {(stratum, cluster) for stratum, cluster in zip(index.tolist(), clusters, strict=True)}
    sizes = np.bincount(np.array([stratum for stratum, _ in pairs], dtype=np.intp))
    alone = (sizes == 1)[index]
    several = len({stratum for stratum, _ in pairs if sizes[stratum] == 1}) > 1
    center = np.where(alone, x[alone].mean() if several else x.mean(), means[index])
    sums, _ = by_cluster(w * (x - center), clusters)
    count = len(sums)
    return float((w * x).sum()), float((sums**2).sum()) * count / max(count - 1, 1), count


def mean_over(
    values: Floats, clusters: Clusters | None = None, *, confidence: float = 0.95
) -> Estimate:
    """Mean with Student's t interval over clusters, its variance that of a ratio of sums (Cochran 1977, section 2.9).

    NaN ends with fewer than two clusters: one prompt does not tell how much prompts differ.

    >>> estimate = mean_over([1.0, 2.0, 3.0, 4.0]); estimate.value, round(estimate.low, 3), round(estimate.high, 3)
    (2.5, 0.446, 4.554)
    """
    # Not the percentile bootstrap, which is too narrow for few prompts: over 10 prompts 88 to 92 % of its intervals
    # hold the true mean, of these 93 to 96 %.
    return ratio_over(values, np.ones(len(values)), clusters, confidence=confidence)


def ratio_over(
    totals: Floats, sizes: Floats, clusters: Clusters | None = None, *, confidence: float = 0.95
) -> Estimate:
    """The sum of ``totals`` over that of ``sizes``, such as a loss per token from losses per row; see `mean_over`.

    >>> ratio_over([3.0, 1.0], [2.0, 2.0]).value
    1.0
    """
    top, bottom = np.asarray(totals, dtype=np.float64), np.asarray(sizes, dtype=np.float64)
    rows, whole = len(top), float(bottom.sum())
    if whole == 0:
        return Estimate(math.nan, math.nan, math.nan, 0, 0)
    sums, counts = by_cluster(top, clusters)[0], by_cluster(bottom, clusters)[0]
    number, value = len(sums), float(top.sum()) / whole
    if number < 2:
        return Estimate(value, math.nan, math.nan, number, rows)
    variance = float(((sums - value * counts) ** 2).sum()) * number / (number - 1) / whole**2
    half = float(stats.t.ppf(0.5 + confidence / 2, number - 1)) * math.sqrt(variance)
    return Estimate(value, value - half, value + half, number, rows)


def paired_difference(
    before: Floats, after: Floats, clusters: Clusters | None = None
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
    return mean_over(difference, clusters)


def difference_of_shares(
    before: Floats, after: Floats, clusters_before: Sequence[Hashable], clusters_after: Sequence[Hashable]
) -> Estimate:
    """How much larger a share is after than before on the same prompts, with Newcombe's interval (1998, method 10).

    Args:
        before, after: values in [0, 1], one a row; the two sides may have other numbers of rows.
        clusters_before, clusters_after: the prompt of each row. Prompts that one side lacks are left out.

    Both ends are made of Wilson's intervals of the two shares and of the correlation of the prompts' means: with no
    event on either side the interval is as wide as few prompts make it, and not 0.

    >>> change = difference_of_shares([0.0] * 10, [0.0] * 10, range(10), range(10)); round(change.high, 4)
    0.2775
    """
    # Not Student's interval of the differences, which is [0, 0] where nothing happened on either side.
    shared = sorted(set(clusters_before) & set(clusters_after), key=str)
    if not shared:
        return Estimate(math.nan, math.nan, math.nan, 0, 0)
    shares, means = [], []
    for values, clusters in ((before, clusters_before), (after, clusters_after)):
        rows: dict[Hashable, list[float]] = {name: [] for name in shared}
        for name, value in zip(clusters, values, strict=True):
            if name in rows:
                rows[name].append(float(value))
        names = [name for name, each in rows.items() for _ in each]
        shares.append(share([value for each in rows.values() for value in each], names))
        means.append(np.array([np.mean(each) for each in rows.values()]))
    was, now = shares
    alike = _correlation(*means)

    def reach(first: float, second: float) -> float:
        return math.sqrt(max(0.0, first**2 - 2 * alike * first * second + second**2))

    gap = now.value - was.value
    low = gap - reach(now.value - now.low, was.high - was.value)
    high = gap + reach(now.high - now.value, was.value - was.low)
    return Estimate(gap, low, high, len(shared), min(was.rows or 0, now.rows or 0))


def _correlation(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """0 where one side is constant: then nothing is known of it, and the interval is the wider for it."""
    spread = float(x.std() * y.std())
    return float(((x - x.mean()) * (y - y.mean())).mean()) / spread if spread > 0 else 0.0


def outcomes(differences: Floats) -> NDArray[np.float64]:
    """1 where the difference is positive, 0 where it is negative, 1/2 at a tie.

    >>> outcomes([2.0, -1.0, 0.0]).tolist()
    [1.0, 0.0, 0.5]
    """
    return (np.sign(np.asarray(differences, dtype=np.float64)) + 1) / 2


def by_cluster(
    x: NDArray[np.float64], clusters: Clusters | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum and size of each cluster; without clusters every row is its own."""
    if clusters is None:
        return x, np.ones_like(x)
    numbers: dict[Hashable, int] = {}
    index = np.array([numbers.setdefault(name, len(numbers)) for name in clusters], dtype=np.intp)
    return np.bincount(index, weights=x).astype(np.float64), np.bincount(index).astype(np.float64)
