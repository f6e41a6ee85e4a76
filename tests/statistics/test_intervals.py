import pytest
from scipy import stats

from plaudit.statistics.intervals import wilson


def test_wilson_by_hand():
    assert wilson(0, 0) == (0.0, 1.0)
    low, high = wilson(0, 10)
    assert low == 0.0 and high == pytest.approx(0.2775, abs=1e-4)
    assert wilson(10, 10) == pytest.approx((0.7225, 1.0), abs=1e-4)


@pytest.mark.parametrize(("wins", "n"), [(60, 100), (0, 7), (7, 7), (1, 1), (499, 1000)])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_wilson_is_scipys(wins, n, confidence):
    expected = stats.binomtest(wins, n).proportion_ci(confidence, method="wilson")
    assert wilson(wins, n, confidence) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_wilson_takes_half_wins_and_effective_numbers():
    low, high = wilson(2.5, 5.0)
    assert low + high == pytest.approx(1.0)
