import math

import numpy as np
import pytest

from plaudit.statistics.calibration import HOTTEST, fit_temperature, pair_nll, reliability
from plaudit.statistics.ranking import correlation_over


def test_the_temperature_by_hand():
    # Three pairs of four are right by 2: the loss is smallest where sigmoid(2 / t) = 3/4, that is t = 2 / ln 3.
    assert fit_temperature([2.0, 2.0, 2.0, -2.0]) == pytest.approx(2 / math.log(3), rel=1e-4)
    rng = np.random.default_rng(0)
    true = rng.normal(0, 1, 4000)
    signs = np.where(rng.random(4000) < 1 / (1 + np.exp(-true)), 1.0, -1.0)
    # Differences three times too large: dividing by three makes them the log-odds that they should be.
    gaps = 3 * true * signs
    assert fit_temperature(gaps) == pytest.approx(3.0, abs=0.3)
    assert pair_nll(gaps / 3) < pair_nll(gaps)


def test_the_temperature_has_bounds():
    assert fit_temperature([1.0, 2.0]) == pytest.approx(1 / HOTTEST, rel=1e-2), "all right: no certainty is enough"
    assert fit_temperature([-1.0, -2.0]) == pytest.approx(HOTTEST, rel=1e-2), "all wrong: none is too little"
    assert math.isnan(fit_temperature([]))


def test_reliability_has_intervals_over_prompts():
    gaps = [1.0] * 40
    alone, together = reliability(gaps, bins=1), reliability(gaps, bins=1, clusters=[i // 20 for i in range(40)])
    assert alone[0].accuracy == together[0].accuracy == 1.0 and alone[0].high == together[0].high == 1.0
    assert together[0].low < alone[0].low, "two prompts tell less than forty"


def test_correlation_of_differences_by_hand():
    # Differences of score and length of four pairs. Not centred: sum xy / sqrt(sum xx sum yy).
    x, y = [1.0, 2.0, 3.0, 2.0], [1.0, 0.0, 3.0, 0.0]
    assert correlation_over(x, y, centred=False).value == pytest.approx(10 / math.sqrt(18 * 10))
    # Centred it is Pearson's: x - 2 = (-1, 0, 1, 0), y - 1 = (0, -1, 2, -1): 2 / sqrt(2 * 6).
    assert correlation_over(x, y).value == pytest.approx(2 / math.sqrt(12))


def test_a_correlation_that_people_explain_is_gone_when_it_is_partial():
    # The score only knows which response is chosen, and chosen ones are longer: given that, nothing is left.
    rng = np.random.default_rng(1)
    gaps, longer = 1 + 0.1 * rng.normal(size=400), 10 + rng.normal(size=400)
    assert correlation_over(gaps, longer, centred=False).value > 0.95
    partial = correlation_over(gaps, longer)
    assert partial.low < 0 < partial.high and abs(partial.value) < 0.15


def test_a_correlation_counts_prompts_and_has_none_without_variance():
    rng = np.random.default_rng(2)
    x, y = np.repeat(rng.normal(size=40), 10), np.repeat(rng.normal(size=40), 10)
    rows, prompts = correlation_over(x, y), correlation_over(x, y, [i // 10 for i in range(400)])
    assert rows.value == pytest.approx(prompts.value)
    assert prompts.high - prompts.low > 2 * (rows.high - rows.low) and (prompts.n, prompts.rows) == (40, 400)
    assert math.isnan(correlation_over([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]).value)
    assert math.isnan(correlation_over([1.0, 2.0], [1.0, 2.0]).value)
