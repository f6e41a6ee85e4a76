"""Do scores order responses as people do? Rank correlations, and how often the best response comes first.

`kendall_tau` for lists of responses to one prompt with ranks that people gave; `spearman` and `pearson` for two
columns of numbers over many prompts (a score against the length, say).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import stats

from plaudit.statistics.clustered import Clusters, Floats, by_cluster
from plaudit.statistics.intervals import Estimate
from plaudit.statistics.resampling import percentile, resample


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


def best_hit(scores: Floats, ranks: Floats) -> float:
    """1 if the highest score is of a response with the best rank, else 0; ties in score share.

    >>> best_hit([2, 2, 0], [1, 2, 3]), best_hit([0, 1, 2], [1, 2, 1])
    (0.5, 1.0)
    """
    best, highest = min(ranks), max(scores)
    top = [rank for score, rank in zip(scores, ranks, strict=True) if score == highest]
    return sum(rank == best for rank in top) / len(top)


def expected_best_of(scores: Floats, values: Floats, k: int) -> float:
    """Mean of the value of the response with the highest score among ``k``, over all choices of ``k`` responses.

    Responses that tie in score share. Exact, where sampling the choices would have an error of its own: the best of k
    is the one of rank r in C(n - r, k - 1) of C(n, k) choices.

    >>> expected_best_of([3, 2, 1], [1, 0, 0], 1), expected_best_of([3, 2, 1], [1, 0, 0], 2)
    (0.3333333333333333, 0.6666666666666666)
    """
    n = len(scores)
    tied: dict[float, list[float]] = {}
    for score, value in zip(scores, values, strict=True):
        tied.setdefault(score, []).append(value)
    shared = {score: sum(each) / len(each) for score, each in tied.items()}
    ordered = sorted(scores, reverse=True)
    # The last k - 1 are never the best of k.
    ways = sum(math.comb(n - rank, k - 1) * shared[ordered[rank - 1]] for rank in range(1, n - k + 2))
    return ways / math.comb(n, k)


def pearson(x: Floats, y: Floats) -> float:
    """Linear correlation; NaN where one side is constant or there are fewer than three rows."""
    return _correlation(stats.pearsonr, x, y)


def spearman(x: Floats, y: Floats) -> float:
    """Rank correlation; NaN where one side is constant or there are fewer than three rows."""
    return _correlation(stats.spearmanr, x, y)


def _correlation(of: Callable[..., Any], x: Floats, y: Floats) -> float:
    # Two points always lie on a line, so a correlation of them says nothing.
    if len(x) < 3 or len(set(x)) < 2 or len(set(y)) < 2:
        return math.nan
    return float(of(x, y).statistic)


def correlation_over(x: Floats, y: Floats, clusters: Clusters | None = None, *, centred: bool = True) -> Estimate:
    """Linear correlation of two columns, with the bootstrap interval over clusters (prompts).

    Of differences between two responses to one prompt it is a correlation within prompts. Not centred, it is that of
    score and length alone, because which response comes first is arbitrary. Centred, with the preferred response
    first, it is the partial correlation given what people preferred: that is the same for all rows.

    Returns:
        NaN where one side does not vary, or where there are fewer than three clusters.

    >>> correlation_over([1, -1, 2], [1, -1, 2], centred=False).value
    1.0
    """
    one, other = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    columns = (np.ones_like(one), one, other, one * one, other * other, one * other)
    sums = np.stack([by_cluster(column, clusters)[0] for column in columns])
    count = sums.shape[1]
    if count < 3:
        return Estimate(math.nan, math.nan, math.nan, count, len(one))
    value = float(_from_sums(sums.sum(1)[:, None], centred)[0])
    draws = resample(np.ones(count), seed=0) @ sums.T
    found = percentile(value, _from_sums(draws.T, centred), count)
    return Estimate(found.value, found.low, found.high, count, len(one))


def _from_sums(sums: Any, centred: bool) -> Any:
    """Correlations ``[D]`` from the sums ``[6, D]`` of 1, x, y, xx, yy and xy."""
    n, x, y, xx, yy, xy = sums
    if centred:
        xx, yy, xy = xx - x * x / n, yy - y * y / n, xy - x * y / n
    scale = np.sqrt(np.maximum(xx, 0.0) * np.maximum(yy, 0.0))
    # What rounding leaves of a column that does not vary is no variance.
    flat = scale <= 1e-12 * np.sqrt(sums[3] * sums[4])
    return np.where(flat, np.nan, xy / np.where(flat, 1.0, scale)).clip(-1.0, 1.0)
