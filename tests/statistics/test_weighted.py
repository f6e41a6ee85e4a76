"""Weighted means of strata with intervals over prompts: worked by hand, beside the plain share, and by simulation."""

import math

import numpy as np
import pytest

from plaudit.statistics.clustered import share, weighted_difference, weighted_share


def test_one_stratum_is_the_plain_share():
    values, clusters = [1, 0, 1, 1, 0, 1, 1, 1], [1, 1, 2, 2, 3, 3, 4, 4]
    weighted = weighted_share(values, [1 / 8] * 8, ["a"] * 8, clusters)
    plain = share(values, clusters)
    assert (weighted.value, weighted.n, weighted.rows) == (plain.value, 4, 8)
    assert weighted.interval == pytest.approx(plain.interval)


def test_by_hand():
    """Two strata of two rows: variance (0.25 / 2)^2 * 4 * 4/3, and Wilson's interval at p (1 - p) over it."""
    estimate = weighted_share([1, 0, 1, 0], [0.25] * 4, "aabb", [1, 2, 3, 4])
    variance = 4 * (0.25 * 0.5) ** 2 * 4 / 3
    effective = min(0.25 / variance, 4.0)
    z = 1.959963984540054
    half = z / (1 + z * z / effective) * math.sqrt(0.25 / effective + z * z / (4 * effective**2))
    assert estimate.value == 0.5 and estimate.interval == pytest.approx((0.5 - half, 0.5 + half))


def test_a_stratum_of_one_prompt_is_not_taken_for_certain():
    """A subset with a single prompt has no variance of its own; the interval must not shrink to nothing."""
    low, high = weighted_share([1, 0], [0.5, 0.5], "ab", [1, 2]).interval
    assert low < 0.2 and high > 0.8
    difference = weighted_difference([0, 0, 0], [1, 0, 1], [1 / 3] * 3, "abc", [1, 2, 3])
    assert difference.value == pytest.approx(2 / 3) and difference.low < 0


def test_nothing_and_one_prompt():
    nothing = weighted_share([], [], [], [])
    assert math.isnan(nothing.value) and nothing.interval == (0.0, 1.0)
    assert math.isnan(weighted_difference([0.0], [1.0], [1.0], "a", [1]).low)


def test_all_right_is_not_certain():
    estimate = weighted_share([1.0] * 20, [0.01] * 10 + [0.09] * 10, "a" * 10 + "b" * 10, range(20))
    assert estimate.value == pytest.approx(1.0) and 0.6 < estimate.low < 0.85


@pytest.mark.parametrize(
    ("sizes", "chances", "weights"),
    [
        ((40, 40, 40, 40), (0.9, 0.6, 0.7, 0.95), (0.25,) * 4),
        ((10, 10, 10, 10), (0.9, 0.6, 0.7, 0.95), (0.25,) * 4),
        ((100, 10, 5), (0.6, 0.9, 0.95), (1 / 3,) * 3),
        ((120, 40), (0.9, 0.7), (0.5, 0.5)),
    ],
)
def test_intervals_hold_the_truth(sizes, chances, weights):
    rng = np.random.default_rng(0)
    truth = sum(w * p for w, p in zip(weights, chances, strict=True))
    row_weights = [w / n for n, w in zip(sizes, weights, strict=True) for _ in range(n)]
    strata = [i for i, n in enumerate(sizes) for _ in range(n)]
    held = 0
    for _ in range(400):
        values = np.concatenate([rng.random(n) < p for n, p in zip(sizes, chances, strict=True)]).astype(float)
        estimate = weighted_share(values, row_weights, strata, range(len(values)))
        held += estimate.low <= truth <= estimate.high
    assert held / 400 > 0.92
