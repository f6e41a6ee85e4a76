import math

import numpy as np
import pytest

from plaudit.statistics.calibration import ece, reliability
from plaudit.statistics.clustered import mean_over, paired_difference, share
from plaudit.statistics.intervals import wilson
from plaudit.statistics.ranking import kendall_tau, spearman


def test_share_without_clusters_is_plain_wilson():
    values = [1.0] * 60 + [0.0] * 40
    assert share(values).interval == pytest.approx(wilson(60, 100))
    assert share(values, clusters=range(100)).interval == pytest.approx(wilson(60, 100))


def test_share_with_identical_rows_per_cluster_counts_clusters_only():
    # Each prompt's four rows agree: 25 prompts, not 100 rows, were asked. Up to the factor C/(C-1).
    values = np.repeat([1.0] * 15 + [0.0] * 10, 4)
    clusters = np.repeat(np.arange(25), 4).tolist()
    estimate = share(values, clusters)
    assert estimate.n == 25 and estimate.rows == 100
    assert estimate.interval == pytest.approx(wilson(15, 25), abs=0.01)
    all_right = share(np.ones(100), clusters)
    assert all_right.interval == pytest.approx(wilson(25, 25))


def test_the_interval_of_a_mean_is_students_over_clusters():
    # Prompt means 1, 2, 6: mean 3, variance 7, t(2) at 97.5 % is 4.3027.
    rows, prompts = [1.0, 1.0, 1.5, 2.5, 6.0, 6.0], ["a", "a", "b", "b", "c", "c"]
    half = 4.302653 * math.sqrt(7 / 3)
    for estimate in (mean_over(rows, prompts), mean_over([1.0, 2.0, 6.0])):
        assert (estimate.value, estimate.n) == (3.0, 3)
        assert estimate.interval == pytest.approx((3 - half, 3 + half))
    narrower = mean_over([1.0, 2.0, 6.0], confidence=0.9)
    assert narrower.high == pytest.approx(3 + 2.919986 * math.sqrt(7 / 3))


def test_prompts_with_more_rows_count_more():
    # Sums 4 and 6 over sizes 1 and 3: mean 2.5, residuals 4 - 2.5 and 6 - 7.5, variance (2.25 + 2.25) * 2 / 16.
    estimate = mean_over([4.0, 1.0, 2.0, 3.0], ["a", "b", "b", "b"])
    assert estimate.value == 2.5
    assert estimate.high - 2.5 == pytest.approx(12.706205 * 0.75)


def test_one_prompt_has_no_interval():
    estimate = mean_over([1.0, 2.0], ["a", "a"])
    assert estimate.value == 1.5 and math.isnan(estimate.low) and math.isnan(estimate.high)
    assert math.isnan(mean_over([]).value)


def test_clusters_widen_the_interval_as_they_should():
    x = np.repeat(np.random.default_rng(1).normal(size=50), 8)
    names = np.repeat(np.arange(50), 8).tolist()
    clustered, naive = mean_over(x, names), mean_over(x)
    ratio = (clustered.high - clustered.low) / (naive.high - naive.low)
    assert ratio == pytest.approx(math.sqrt(8), rel=0.1)


def test_pairing_removes_the_noise_of_the_prompts():
    rng = np.random.default_rng(0)
    prompt = rng.normal(0, 10, 100)
    before, after = prompt, prompt + 0.5 + rng.normal(0, 0.1, 100)
    estimate = paired_difference(before, after)
    assert 0.45 < estimate.low < 0.5 < estimate.high < 0.55
    with pytest.raises(ValueError, match="100 and 99"):
        paired_difference(before, after[:99])


def test_kendall_tau_averages_lists_and_knows_ties():
    full, reverse = [3.0, 2.0, 1.0], [1.0, 2.0, 3.0]
    assert kendall_tau([full, reverse], [[1, 2, 3], [1, 2, 3]]) == pytest.approx(0.0)
    assert kendall_tau([full, [1.0, 1.0]], [[1, 2, 3], [1, 2]]) == pytest.approx(0.5)
    assert kendall_tau([[3.0, 2.0, 2.0]], [[1, 2, 2]]) == pytest.approx(1.0)
    assert math.isnan(kendall_tau([full], [[1, 1, 1]]))


def test_calibration_of_a_calibrated_and_of_an_overconfident_model():
    rng = np.random.default_rng(0)
    strength = rng.exponential(1.5, 20_000)
    right = rng.random(20_000) < 1 / (1 + np.exp(-strength))
    differences = np.where(right, strength, -strength)
    bins = reliability(differences)
    assert len(bins) == 10 and all(b.n == 2000 for b in bins)
    assert ece(bins) < 0.015
    # Scores four times too large: right as often, far too sure.
    assert ece(reliability(4 * differences)) > 0.1
    assert ece(reliability(4 * differences, temperature=4.0)) == pytest.approx(ece(bins))


def test_confidence_does_not_know_which_one_was_chosen():
    (one,) = reliability([-2.0], bins=1)
    assert one.confidence == pytest.approx(0.8808, abs=1e-4) and one.accuracy == 0.0


def test_spearman_edge_cases():
    assert spearman([1, 2, 3], [10, 20, 15]) == pytest.approx(0.5)
    assert math.isnan(spearman([1, 1, 1], [1, 2, 3]))
