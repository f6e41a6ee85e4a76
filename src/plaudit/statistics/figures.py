"""Figures with honest intervals. Everything is deterministic: a bootstrap takes its seed as an argument.

Rows of one prompt are not independent, so every interval can be clustered: prompts are resampled, not rows.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from plaudit.statistics.intervals import Interval, wilson

Floats = Sequence[float] | NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its interval. ``n`` counts rows, ``clusters`` the independent units behind them."""

    mean: float
    low: float
    high: float
    n: int
    clusters: int

    @property
    def interval(self) -> Interval:
        """Both ends."""
        return (self.low, self.high)


def share(values: Floats, clusters: Sequence[Hashable] | None = None, confidence: float = 0.95) -> Estimate:
    """Mean of values in [0, 1] with Wilson's interval at the effective sample size.

    With several rows per cluster, n is divided by the design effect (variance of the mean with clusters over
    the variance without); where that is undefined, at 0 and at 1, every cluster counts once.

    >>> share([1, 1, 0, 0.5]).mean
    0.625
    """
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
        effective = n / max(1.0, clustered / plain) if plain > 0 else float(count)
    low, high = wilson(mean * effective, effective, confidence)
    return Estimate(mean, low, high, n, count)


def bootstrap_mean(
    values: Floats,
    clusters: Sequence[Hashable] | None = None,
    *,
    seed: int = 0,
    draws: int = 4000,
    confidence: float = 0.95,
) -> Estimate:
    """Mean with a percentile bootstrap interval; whole clusters are resampled (Efron; Field and Welsh 2007).

    >>> estimate = bootstrap_mean([1.0, 2.0, 3.0, 4.0]); estimate.mean, estimate.low < 2.5 < estimate.high
    (2.5, True)
    """
    x = np.asarray(values, dtype=np.float64)
    if len(x) == 0:
        return Estimate(math.nan, math.nan, math.nan, 0, 0)
    sums, sizes = _by_cluster(x, clusters)
    rng = np.random.default_rng(seed)
    means = np.empty(draws)
    for start in range(0, draws, 500):
        stop = min(start + 500, draws)
        picks = rng.integers(len(sums), size=(stop - start, len(sums)))
        means[start:stop] = sums[picks].sum(1) / sizes[picks].sum(1)
    low, high = np.quantile(means, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return Estimate(float(x.mean()), float(low), float(high), len(x), len(sums))


def paired_bootstrap(
    before: Floats, after: Floats, clusters: Sequence[Hashable] | None = None, *, seed: int = 0
) -> Estimate:
    """Mean of ``after - before``, row by row, with its interval.

    Raises:
        ValueError: different lengths.
    """
    if len(before) != len(after):
        raise ValueError(f"pairs need equally long lists, found {len(before)} and {len(after)}")
    difference = np.asarray(after, dtype=np.float64) - np.asarray(before, dtype=np.float64)
    return bootstrap_mean(difference, clusters, seed=seed)


def _by_cluster(
    x: NDArray[np.float64], clusters: Sequence[Hashable] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum and size of each cluster; without clusters every row is its own."""
    if clusters is None:
        return x, np.ones_like(x)
    numbers: dict[Hashable, int] = {}
    index = np.array([numbers.setdefault(name, len(numbers)) for name in clusters], dtype=np.intp)
    return np.bincount(index, weights=x).astype(np.float64), np.bincount(index).astype(np.float64)


def outcomes(differences: Floats) -> NDArray[np.float64]:
    """1 where the difference is positive, 0 where it is negative, 1/2 at a tie.

    >>> outcomes([2.0, -1.0, 0.0]).tolist()
    [1.0, 0.0, 0.5]
    """
    return (np.sign(np.asarray(differences, dtype=np.float64)) + 1) / 2


def kendall_tau(scores: Sequence[Floats], ranks: Sequence[Floats]) -> float:
    """Kendall's tau-b between score and rank (1 = best) in each list, then the mean over lists.

    A list whose ranks are all tied asks for no order and is left out; one whose scores are all tied counts 0.
    NaN if no list is left.

    >>> round(kendall_tau([[4, 2, 3, 1]], [[1, 2, 3, 4]]), 4)
    0.6667
    """
    values = []
    for score, rank in zip(scores, ranks, strict=True):
        if len(set(rank)) < 2:
            continue
        if len(set(score)) < 2:
            values.append(0.0)
            continue
        values.append(float(stats.kendalltau(score, [-r for r in rank], variant="b").statistic))
    return float(np.mean(values)) if values else math.nan


def pair_nll(differences: Floats) -> float:
    """Mean of ``-log sigma(difference)`` in nats: what the model thinks of the human choices; ln 2 knows nothing.

    >>> round(pair_nll([1.0, 0.0]), 4)
    0.5032
    """
    x = np.asarray(differences, dtype=np.float64)
    return float(np.logaddexp(0.0, -x).mean()) if len(x) else math.nan


def best_hit(scores: Floats, ranks: Floats) -> float:
    """1 if the highest score is of a response with the best rank, else 0; ties in score share.

    >>> best_hit([2, 2, 0], [1, 2, 3]), best_hit([0, 1, 2], [1, 2, 1])
    (0.5, 1.0)
    """
    top = [rank for score, rank in zip(scores, ranks, strict=True) if score == max(scores)]
    return sum(rank == min(ranks) for rank in top) / len(top)


def margin_groups(margins: Floats, most: int = 4) -> list[tuple[int, int]]:
    """Slices of sorted margins: one a value where there are few values, else about equal in size; none is split.

    >>> margin_groups([0, 0, 1, 1, 1, 2])
    [(0, 2), (2, 5), (5, 6)]
    """
    starts = [0] + [i for i in range(1, len(margins)) if margins[i] != margins[i - 1]]
    if len(starts) > most:
        wanted = [len(margins) * part // most for part in range(most)]
        starts = sorted({max(s for s in starts if s <= at) for at in wanted})
    return list(zip(starts, [*starts[1:], len(margins)], strict=True))


def pearson(x: Floats, y: Floats) -> float:
    """Linear correlation; NaN where one side is constant or there are fewer than three rows."""
    if len(x) < 3 or len(set(x)) < 2 or len(set(y)) < 2:
        return math.nan
    return float(stats.pearsonr(x, y).statistic)


ROWS_PER_BIN = 20
"""Fewer rows than this in a bin are noise, which would count as miscalibration."""


@dataclass(frozen=True, slots=True)
class Bin:
    """A part of the pairs, by confidence: how sure the model was, how often it was right."""

    confidence: float
    accuracy: float
    n: int


def reliability(differences: Floats, temperature: float = 1.0, bins: int = 10) -> list[Bin]:
    """Bins of equal mass over the confidence ``sigma(|difference| / temperature)``, which lies in [1/2, 1].

    The model is right where the difference (chosen minus rejected) is positive. Confidence is taken from the
    absolute value: with ``sigma(difference)`` every label would be 1, and calibration would mean nothing.
    """
    x = np.asarray(differences, dtype=np.float64)
    if len(x) == 0:
        return []
    confidence = 1 / (1 + np.exp(-np.minimum(np.abs(x) / temperature, 500)))
    order = np.argsort(confidence, kind="stable")
    right = outcomes(x)
    parts = np.array_split(order, max(1, min(bins, len(x) // ROWS_PER_BIN)))
    return [Bin(float(confidence[part].mean()), float(right[part].mean()), len(part)) for part in parts]


def ece(bins: Sequence[Bin]) -> float:
    """Expected calibration error: mean gap between confidence and accuracy over the bins.

    >>> ece([Bin(0.6, 0.5, 10), Bin(0.9, 1.0, 10)])
    0.1
    """
    n = sum(b.n for b in bins)
    return round(sum(b.n * abs(b.confidence - b.accuracy) for b in bins) / n, 12) if n else math.nan


def spearman(x: Floats, y: Floats) -> float:
    """Rank correlation; NaN where one side is constant or there are fewer than three rows."""
    if len(x) < 3 or len(set(x)) < 2 or len(set(y)) < 2:
        return math.nan
    return float(stats.spearmanr(x, y).statistic)


def distinct(texts: Sequence[str], n: int, words: int = 50) -> float:
    """Distinct n-grams over n-grams of all texts, each cut to ``words`` words: the share falls with length.

    >>> distinct(["a b a b"], 1), round(distinct(["a b a b"], 2), 3)
    (0.5, 0.667)
    """
    grams: list[tuple[str, ...]] = []
    for text in texts:
        parts = text.split()[:words]
        grams += [tuple(parts[i : i + n]) for i in range(len(parts) - n + 1)]
    return len(set(grams)) / len(grams) if grams else math.nan
