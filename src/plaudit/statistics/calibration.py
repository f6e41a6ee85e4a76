"""Does a reward model know how sure it may be? Likelihood, calibration, and accuracy by human margin.

A difference here is the score of the chosen response minus that of the rejected one; by Bradley and Terry its
sigmoid is the probability that people choose as they did.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize

from plaudit.statistics.clustered import Clusters, Floats, outcomes, share

ROWS_PER_BIN = 20
"""Fewer rows than this in a bin are noise, which would count as miscalibration."""

HOTTEST = 100.0
"""The largest temperature that is fitted."""


@dataclass(frozen=True, slots=True)
class Bin:
    """A part of the pairs, by confidence: how sure the model was, how often it was right."""

    confidence: float
    accuracy: float
    n: int
    low: float = 0.0
    high: float = 1.0
    """The ends of the interval of the accuracy."""


def pair_nll(differences: Floats) -> float:
    """Mean of ``-log sigmoid(difference)`` in nats: the surprise at the human choices; ln 2 is a coin.

    >>> round(pair_nll([1.0, 0.0]), 4)
    0.5032
    """
    x = np.asarray(differences, dtype=np.float64)
    return float(np.logaddexp(0.0, -x).mean()) if len(x) else math.nan


def reliability(
    differences: Floats, temperature: float = 1.0, bins: int = 10, clusters: Clusters | None = None
) -> list[Bin]:
    """Bins of equal mass over the confidence ``sigmoid(|difference| / temperature)``, which lies in [1/2, 1].

    The model is right where the difference (chosen minus rejected) is positive. Confidence is taken from the
    absolute value: with ``sigmoid(difference)`` every label would be 1, and calibration would mean nothing.

    Args:
        clusters: the prompt of each row, for the intervals; None: each row is a unit of its own.
    """
    x = np.asarray(differences, dtype=np.float64)
    if len(x) == 0:
        return []
    confidence = 1 / (1 + np.exp(-np.minimum(np.abs(x) / temperature, 500)))
    order = np.argsort(confidence, kind="stable")
    right = outcomes(x)
    # Equal mass and not equal width: most models are sure of most pairs, and bins of equal width would be
    # empty at one end and hold nearly all pairs at the other.
    parts = np.array_split(order, max(1, min(bins, len(x) // ROWS_PER_BIN)))
    found = []
    for part in parts:
        accuracy = share(right[part], None if clusters is None else [clusters[i] for i in part])
        found.append(Bin(float(confidence[part].mean()), accuracy.value, len(part), *accuracy.interval))
    return found


def ece(bins: Sequence[Bin]) -> float:
    """Expected calibration error: mean gap between confidence and accuracy over the bins.

    >>> ece([Bin(0.6, 0.5, 10), Bin(0.9, 1.0, 10)])
    0.1
    """
    n = sum(b.n for b in bins)
    return round(sum(b.n * abs(b.confidence - b.accuracy) for b in bins) / n, 12) if n else math.nan


def fit_temperature(differences: Floats) -> float:
    """The temperature ``t`` with the smallest `pair_nll` of ``differences / t`` (Guo et al., arXiv:1706.04599).

    Above 1 the model was surer than it was right, below 1 it could have been surer. Between 1/100 and 100: where
    everything is right the best temperature is 0, and where half is wrong there is none. NaN without a row.

    >>> round(fit_temperature([3.0, 3.0, 3.0, -3.0]), 2)  # right in 3 of 4: sigmoid(3 / t) = 3/4, so t = 3 / ln 3
    2.73
    """
    x = np.asarray(differences, dtype=np.float64)
    if len(x) == 0:
        return math.nan
    # Over the inverse of the temperature the loss is convex, so the one minimum is found.
    found = optimize.minimize_scalar(
        lambda inverse: pair_nll(x * inverse), bounds=(1 / HOTTEST, HOTTEST), method="bounded", options={"xatol": 1e-6}
    )
    return float(1 / found.x)


def margin_groups(margins: Floats, most: int = 4) -> list[tuple[int, int]]:
    """Slices of sorted margins, at most ``most``: one a value where there are few values, else about equal in size.

    Equal margins stay together.

    >>> margin_groups([0, 0, 1, 1, 1, 2])
    [(0, 2), (2, 5), (5, 6)]
    """
    starts = [0] + [i for i in range(1, len(margins)) if margins[i] != margins[i - 1]]
    if len(starts) > most:
        wanted = [len(margins) * part // most for part in range(most)]
        starts = sorted({max(s for s in starts if s <= at) for at in wanted})
    return list(zip(starts, [*starts[1:], len(margins)], strict=True))
