"""How far annotators agree beyond chance.

A unit is what several annotators gave a label to: an item, one of its responses, or a pair of them. Where a
figure is undefined (for example because only one label occurs), it is NaN.
"""

# Every figure is a function of counts of labels, so all samples of a bootstrap are one matrix product: units with
# equal counts are put together, and a sample is a number of times for each of these patterns.

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np

from plaudit.preferences.votes import Vote
from plaudit.statistics.intervals import Estimate
from plaudit.statistics.resampling import DRAWS, Array, percentile, resample

Level = Literal["nominal", "ordinal", "interval"]
Weights = Literal["none", "linear", "quadratic"]

LEAST_SHARED = 2
"""Two annotators with fewer units in common get no kappa."""


@dataclass(frozen=True, slots=True)
class PairKappa:
    """Cohen's kappa of two annotators on the units that both labelled."""

    first: str
    second: str
    kappa: Estimate


@dataclass(frozen=True, slots=True)
class Agreement:
    """All figures of one set of votes."""

    units: int
    """Units with a label; those with two or more enter the figures."""
    shared: int
    """Units with two labels or more."""
    annotators: int
    raw: Estimate
    """Share of equal labels among all pairs of labels of a unit, mean over units."""
    alpha: Estimate
    """Krippendorff's alpha at ``level``."""
    level: Level
    fleiss: Estimate
    """Over the units with the most common number of labels; ``n`` says how many they are."""
    pairs: tuple[PairKappa, ...]
    """By name."""


def agreement(
    votes: Sequence[Vote], level: Level = "nominal", *, mirrored: bool = False, seed: int = 0, draws: int = DRAWS
) -> Agreement:
    """Every figure of agreement with a 95 % percentile bootstrap interval over units.

    Args:
        votes: one for each annotator and unit; of several the last counts.
        level: what differences between labels mean, for alpha. Kappas treat labels as names (nominal), or weight
            the distance between their places quadratically (ordinal, interval).
        mirrored: labels are about two responses, and change their sign with the order in which the two are stored. That
            order is chance, so each label counts half for itself and half for its opposite where the labels' shares
            enter: no figure depends on it.
        seed: of the bootstrap.
        draws: of the bootstrap.
    """
    table = {(vote.unit, vote.annotator): vote.label for vote in votes}
    labels = set(table.values())
    categories = sorted(labels | {-label for label in labels} if mirrored else labels)
    counts = _counts(table, categories)
    shared = counts[counts.sum(1) >= 2]
    # Fleiss' kappa needs the same number of labels for each unit. It is computed over the units with the most common
    # number; of two equally common numbers, the larger.
    sizes = Counter(shared.sum(1).astype(int).tolist())
    usual = min(sizes, key=lambda size: (-sizes[size], -size)) if sizes else 0
    values = np.array(categories)

    def over(units: Array, statistic: Callable[[Array, Array], Array]) -> Estimate:
        return _bootstrapped(units, statistic, seed, draws)

    return Agreement(
        units=len(counts),
        shared=len(shared),
        annotators=len({annotator for _, annotator in table}),
        raw=over(shared, _raw),
        alpha=over(shared, lambda units, times: _alpha(units, times, values, level, mirrored)),
        level=level,
        fleiss=over(shared[shared.sum(1) == usual], lambda units, times: _fleiss(units, times, mirrored)),
        pairs=_pair_kappas(table, categories, level, mirrored, (seed, draws)),
    )


# The figures


def raw_agreement(counts: Sequence[Sequence[float]] | Array) -> float:
    """Share of equal labels among all pairs of labels of a unit, mean over the units with two or more.

    Args:
        counts: [units, categories], how many annotators gave the unit the label.

    >>> raw_agreement([[3, 0], [2, 1]])
    0.6666666666666666
    """
    units = np.asarray(counts, dtype=np.float64).reshape(len(counts), -1)
    return _once(units[units.sum(1) >= 2], _raw)


def cohen_kappa(
    first: Sequence[float],
    second: Sequence[float],
    weights: Weights = "none",
    categories: Sequence[float] | None = None,
) -> float:
    """Cohen's kappa of two annotators: 1 - sum(w * observed) / sum(w * expected by chance).

    Weights are 1 off the diagonal (Cohen 1960), or the distance between the places of the labels among the sorted
    categories, or its square (Cohen 1968).

    Args:
        first: labels of one annotator.
        second: labels of the other annotator, for the same units.
        weights: "none", "linear" or "quadratic".
        categories: all possible labels in order; without them, those that occur.

    Returns:
        From below 0 to 1; NaN without units, or if only one label occurs.

    Raises:
        ValueError: lists of different length, or a label that is no category.

    >>> round(cohen_kappa([1, 1, 0, 0], [1, 0, 0, 0]), 3)
    0.5
    """
    if len(first) != len(second):
        raise ValueError(f"kappa needs equally long lists, found {len(first)} and {len(second)}")
    names = sorted(set(categories if categories is not None else (*first, *second)))
    confusion = _confusion(list(zip(first, second, strict=True)), names)
    return float(_cohen(confusion[None], weights)[0]) if len(first) else math.nan


def fleiss_kappa(counts: Sequence[Sequence[float]] | Array) -> float:
    """Fleiss' kappa (1971): (mean agreement - chance) / (1 - chance), with the labels' shares as chance.

    Args:
        counts: [units, categories], how many annotators gave the unit the label: equally many for each.

    Raises:
        ValueError: units with different numbers of labels, or with fewer than two.

    >>> round(fleiss_kappa([[2, 0], [2, 0], [0, 2], [1, 1]]), 4)
    0.4667
    """
    units = np.asarray(counts, dtype=np.float64).reshape(len(counts), -1)
    sizes = set(units.sum(1).tolist())
    if len(sizes) > 1 or min(sizes, default=2) < 2:
        raise ValueError(f"Fleiss' kappa needs equally many labels, at least 2, for each unit: found {sizes}")
    return _once(units, _fleiss)


def krippendorff_alpha(values: Sequence[Sequence[float]] | Array, level: Level = "nominal") -> float:
    """Krippendorff's alpha: 1 - observed / expected disagreement, for any number of annotators and gaps.

    Source: Krippendorff, Computing Krippendorff's alpha-reliability (2011).

    Args:
        values: [annotators, units], NaN where an annotator did not label the unit.
        level: nominal (equal or not), ordinal (by how many labels lie between), interval (squared difference).

    Returns:
        From below 0 (systematic disagreement) to 1; NaN if no unit has two labels, or only one label occurs.

    >>> round(krippendorff_alpha([[1, 2, 3, 1], [1, 2, 3, math.nan], [1, 2, 2, math.nan]]), 3)
    0.692
    """
    table = np.asarray(values, dtype=np.float64)
    categories = np.unique(table[~np.isnan(table)])
    counts = np.stack([(table == c).sum(0) for c in categories], 1) if len(categories) else np.zeros((0, 1))
    return _once(
        counts[counts.sum(1) >= 2].astype(np.float64),
        lambda units, times: _alpha(units, times, categories, level),
    )


# The same figures over weighted units. units: [P, K] counts, times: [D, P] weights -> [D]


def _raw(units: Array, times: Array) -> Array:
    size = units.sum(1)
    same = (units * (units - 1)).sum(1) / (size * (size - 1))
    return np.asarray(times @ same / times.sum(1))


def _fleiss(units: Array, times: Array, mirrored: bool = False) -> Array:
    totals = times @ units
    totals = (totals + totals[:, ::-1]) / 2 if mirrored else totals
    shares = totals / totals.sum(1, keepdims=True)
    chance = (shares**2).sum(1)
    return _ratio(_raw(units, times) - chance, 1 - chance)


def _alpha(units: Array, times: Array, categories: Array, level: Level, mirrored: bool = False) -> Array:
    # Coincidences: all ordered pairs of labels of a unit, weighted by 1 / (labels of the unit - 1), so that a unit
    # counts once for each of its labels. A label makes no pair with itself, hence the subtraction on the diagonal.
    size = units.sum(1)
    pairs = units[:, :, None] * units[:, None, :] / (size - 1)[:, None, None]
    pairs -= np.eye(units.shape[1]) * (units / (size - 1)[:, None])[:, :, None]
    observed = np.einsum("dp,pck->dck", times, pairs)
    observed = (observed + observed[:, ::-1, ::-1]) / 2 if mirrored else observed
    margins = observed.sum(2)
    distance = _distance(margins, categories, level)
    total = margins.sum(1)
    expected = np.einsum("dc,dk,dck->d", margins, margins, distance)
    return 1 - _ratio((total - 1) * (observed * distance).sum((1, 2)), expected)


def _distance(margins: Array, categories: Array, level: Level) -> Array:
    """Squared distance between any two labels, [D, K, K]; the ordinal one depends on how often labels occur."""
    if level == "ordinal":
        place = np.cumsum(margins, 1) - margins / 2  # labels below, and half of its own
        return np.asarray((place[:, :, None] - place[:, None, :]) ** 2)
    if level == "interval":
        squared = (categories[:, None] - categories[None, :]) ** 2
    else:
        squared = 1 - np.eye(len(categories))
    return np.broadcast_to(squared, (len(margins), *squared.shape))


def _cohen(confusion: Array, weights: Weights, mirrored: bool = False) -> Array:
    """Kappa of each confusion matrix, [D, K, K] -> [D]."""
    confusion = (confusion + confusion[:, ::-1, ::-1]) / 2 if mirrored else confusion
    place = np.arange(confusion.shape[-1])
    apart = np.abs(place[:, None] - place[None, :]).astype(np.float64)
    off = {"none": (apart > 0).astype(np.float64), "linear": apart, "quadratic": apart**2}[weights]
    n = confusion.sum((1, 2))
    expected = confusion.sum(2)[:, :, None] * confusion.sum(1)[:, None, :]
    return 1 - _ratio((off * confusion).sum((1, 2)) * n, (off * expected).sum((1, 2)))


def _ratio(top: Array, bottom: Array) -> Array:
    """The quotient, NaN where the divisor is zero up to rounding."""
    # The inner ``where`` keeps NumPy from dividing by zero at all: warnings are errors in the tests.
    usable = np.abs(bottom) > 1e-12
    return np.where(usable, top / np.where(usable, bottom, 1.0), math.nan)


def _once(units: Array, statistic: Callable[[Array, Array], Array]) -> float:
    return float(statistic(units, np.ones((1, len(units))))[0]) if len(units) else math.nan


def _bootstrapped(
    units: Array, statistic: Callable[[Array, Array], Array], seed: int, draws: int
) -> Estimate:
    if not len(units):
        return Estimate(math.nan, math.nan, math.nan, 0)
    # Hundreds of units have few different rows of counts: the statistic is computed for each pattern once.
    patterns, times = np.unique(units, axis=0, return_counts=True)
    weights = resample(times.astype(np.float64), seed=seed, draws=draws)
    value = float(statistic(patterns, times[None].astype(np.float64))[0])
    return percentile(value, statistic(patterns, weights), len(units))


# Votes to counts


def _counts(table: dict[tuple[str, str], float], categories: Sequence[float]) -> Array:
    """How many annotators gave each unit each label, [units, categories]."""
    rows = {unit: i for i, unit in enumerate(dict.fromkeys(unit for unit, _ in table))}
    columns = {category: k for k, category in enumerate(categories)}
    counts = np.zeros((len(rows), len(columns)))
    for (unit, _), label in table.items():
        counts[rows[unit], columns[label]] += 1
    return counts


def _confusion(both: Sequence[tuple[float, float]], categories: Sequence[float]) -> Array:
    columns = {category: k for k, category in enumerate(categories)}
    confusion = np.zeros((len(columns), len(columns)))
    for one, other in both:
        if one not in columns or other not in columns:
            raise ValueError(f"label {one if one not in columns else other} is not among {list(columns)}")
        confusion[columns[one], columns[other]] += 1
    return confusion


def _pair_kappas(
    table: dict[tuple[str, str], float],
    categories: Sequence[float],
    level: Level,
    mirrored: bool,
    bootstrap: tuple[int, int],
) -> tuple[PairKappa, ...]:
    seed, draws = bootstrap
    weights: Weights = "none" if level == "nominal" else "quadratic"
    by_annotator: dict[str, dict[str, float]] = defaultdict(dict)
    for (unit, annotator), label in table.items():
        by_annotator[annotator][unit] = label
    kappas = []
    for first, second in combinations(sorted(by_annotator), 2):
        one, other = by_annotator[first], by_annotator[second]
        both = [(label, other[unit]) for unit, label in one.items() if unit in other]
        if len(both) < LEAST_SHARED:
            continue
        confusion = _confusion(both, categories)
        again = resample(confusion.ravel(), seed=seed, draws=draws).reshape(draws, *confusion.shape)
        value = float(_cohen(confusion[None], weights, mirrored)[0])
        kappas.append(PairKappa(first, second, percentile(value, _cohen(again, weights, mirrored), len(both))))
    return tuple(kappas)
