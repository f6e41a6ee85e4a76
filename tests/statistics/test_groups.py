"""Two groups among repetitions: rarely where there are none, mostly where there are."""

import random

import pytest

from plaudit.statistics.groups import two_groups


@pytest.mark.parametrize("count", [4, 5, 6, 7, 8, 9, 10, 13, 16, 30])
def test_samples_of_one_normal_distribution_are_rarely_two_groups(count):
    rng = random.Random(count)
    found = sum(two_groups([rng.gauss(0, 1) for _ in range(count)]) is not None for _ in range(4000))
    assert found / 4000 < 0.035


@pytest.mark.parametrize("count", [7, 8, 12])
def test_two_levels_are_mostly_seen(count):
    rng = random.Random(count)

    def outcomes():
        return [rng.gauss(0.0 if i < 2 else 1.2, 0.1) for i in range(count)]

    found = sum(two_groups(outcomes()) is not None for _ in range(500))
    assert found / 500 > 0.85


def test_edges():
    assert two_groups([1.0, 2.0, 3.0]) is None and two_groups([]) is None
    assert two_groups([1.0] * 6) is None, "all alike"
    assert two_groups([0.0, 1.0, 1.0, 1.0, 1.0]) == ([0.0], [1.0, 1.0, 1.0, 1.0])
