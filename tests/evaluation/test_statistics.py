import math

import numpy as np
import pytest

from plaudit.statistics import figures as st
from plaudit.statistics.intervals import wilson


def test_share_without_clusters_is_plain_wilson():
    values = [1.0] * 60 + [0.0] * 40
    assert st.share(values).interval == pytest.approx(wilson(60, 100))
    assert st.share(values, clusters=range(100)).interval == pytest.approx(wilson(60, 100))


def test_share_with_identical_rows_per_cluster_counts_clusters_only():
    # Each prompt's four rows agree: 25 prompts, not 100 rows, were asked. Up to the factor C/(C-1).
    values = np.repeat([1.0] * 15 + [0.0] * 10, 4)
    clusters = np.repeat(np.arange(25), 4).tolist()
    estimate = st.share(values, clusters)
    assert estimate.clusters == 25 and estimate.n == 100
    assert estimate.interval == pytest.approx(wilson(15, 25), abs=0.01)
    all_right = st.share(np.ones(100), clusters)
    assert all_right.interval == pytest.approx(wilson(25, 25))


def test_bootstrap_is_seeded_and_close_to_the_normal_interval():
    x = np.random.default_rng(1).normal(2.0, 1.0, 400)
    one, two = st.bootstrap_mean(x, seed=3), st.bootstrap_mean(x, seed=3)
    assert one == two and one != st.bootstrap_mean(x, seed=4)
    half = 1.96 * x.std() / 20
    assert one.low == pytest.approx(x.mean() - half, abs=0.02)
    assert one.high == pytest.approx(x.mean() + half, abs=0.02)


def test_clusters_widen_the_interval_as_they_should():
    x = np.repeat(np.random.default_rng(1).normal(size=50), 8)
    names = np.repeat(np.arange(50), 8).tolist()
    clustered, naive = st.bootstrap_mean(x, names), st.bootstrap_mean(x)
    ratio = (clustered.high - clustered.low) / (naive.high - naive.low)
    assert ratio == pytest.approx(math.sqrt(8), rel=0.1)


def test_pairing_removes_the_noise_of_the_prompts():
    rng = np.random.default_rng(0)
    prompt = rng.normal(0, 10, 100)
    before, after = prompt, prompt + 0.5 + rng.normal(0, 0.1, 100)
    estimate = st.paired_bootstrap(before, after)
    assert 0.45 < estimate.low < 0.5 < estimate.high < 0.55
    with pytest.raises(ValueError, match="100 and 99"):
        st.paired_bootstrap(before, after[:99])


def test_kendall_tau_averages_lists_and_knows_ties():
    full, reverse = [3.0, 2.0, 1.0], [1.0, 2.0, 3.0]
    assert st.kendall_tau([full, reverse], [[1, 2, 3], [1, 2, 3]]) == pytest.approx(0.0)
    assert st.kendall_tau([full, [1.0, 1.0]], [[1, 2, 3], [1, 2]]) == pytest.approx(0.5)
    assert st.kendall_tau([[3.0, 2.0, 2.0]], [[1, 2, 2]]) == pytest.approx(1.0)
    assert math.isnan(st.kendall_tau([full], [[1, 1, 1]]))


def test_calibration_of_a_calibrated_and_of_an_overconfident_model():
    rng = np.random.default_rng(0)
    strength = rng.exponential(1.5, 20_000)
    right = rng.random(20_000) < 1 / (1 + np.exp(-strength))
    differences = np.where(right, strength, -strength)
    bins = st.reliability(differences)
    assert len(bins) == 10 and all(b.n == 2000 for b in bins)
    assert st.ece(bins) < 0.015
    # Scores four times too large: right as often, far too sure.
    assert st.ece(st.reliability(4 * differences)) > 0.1
    assert st.ece(st.reliability(4 * differences, temperature=4.0)) == pytest.approx(st.ece(bins))


def test_confidence_does_not_know_which_one_was_chosen():
    (one,) = st.reliability([-2.0], bins=1)
    assert one.confidence == pytest.approx(0.8808, abs=1e-4) and one.accuracy == 0.0


def test_spearman_and_distinct_edge_cases():
    assert st.spearman([1, 2, 3], [10, 20, 15]) == pytest.approx(0.5)
    assert math.isnan(st.spearman([1, 1, 1], [1, 2, 3]))
    assert math.isnan(st.distinct(["", "a"], 2))
    assert st.distinct(["a b c", "a b c"], 2) == 0.5
    assert st.distinct(["x " * 10 + "y"], 1, words=10) == 0.1
