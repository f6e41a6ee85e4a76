"""algorithms.md 2.9 and 3.3 Q3: sampler against trainer."""

import math

import pytest
import torch

from plaudit.functional.mismatch import effective_share, log_gap, mismatch_metrics, mismatch_weights, within
from plaudit.tracking.names import METRICS, unhealthy

MASK = torch.tensor([[False, True, True, True], [False, True, True, False]])
SAMPLED = torch.tensor([[7.0, -2.0, -1.0, -1.0], [0.0, -0.5, -0.5, float("nan")]])
OLD = torch.tensor([[0.0, -1.1, -1.0, -2.0], [0.0, -0.4, -0.7, 5.0]])  # gaps .9, 0, -1 | .1, -.2


def test_q3_truncated_weight_and_effective_sample():
    gap = log_gap(OLD, SAMPLED, MASK)
    assert gap.exp()[0, 1].item() == pytest.approx(2.4596, abs=1e-4)
    assert mismatch_weights(gap, MASK)[0].tolist() == pytest.approx([0, 2, 1, math.exp(-1)], abs=1e-6)
    weights = torch.tensor([2.0, 1.0, 0.0, 0.0])
    assert effective_share(weights, torch.ones(4, dtype=torch.bool)).item() == pytest.approx(0.45)


def test_masked_tokens_never_matter_and_nothing_has_a_gradient():
    old = OLD.clone().requires_grad_()
    weights = mismatch_weights(log_gap(old, SAMPLED, MASK), MASK)
    assert weights.isfinite().all() and not weights[~MASK].any() and not weights.requires_grad


def test_mask_drops_both_sides_and_truncation_only_the_upper():
    gap = log_gap(OLD, SAMPLED, MASK)
    assert mismatch_weights(gap, MASK, "mask", 0.5, 2.0)[0].tolist() == [0, 0, 1, 0]
    assert mismatch_weights(gap, MASK, "none")[0].tolist() == [0, 1, 1, 1]
    assert mismatch_weights(gap, MASK).max() <= 2.0


@pytest.mark.parametrize(
    ("level", "first", "second"), [("sequence", -0.1, -0.1), ("geometric", -0.1 / 3, -0.05)]
)
def test_sequence_forms(level, first, second):
    gap = log_gap(OLD, SAMPLED, MASK, level)
    assert gap[0].tolist() == pytest.approx([0, first, first, first], abs=1e-6)
    assert gap[1].tolist() == pytest.approx([0, second, second, 0], abs=1e-6)


def test_the_geometric_filter_drops_whole_responses():
    gap = log_gap(OLD, SAMPLED, MASK)  # mean ratios exp(-1/30) = .967, exp(-.05) = .951
    assert within(gap, MASK, 0.96, 1.04).tolist() == [True, False]
    assert within(gap, MASK, 0.5, 2.0).tolist() == [True, True]


def test_the_weights_take_the_bias_away():
    """E_mu[w f] = E_old[f] exactly, as long as no weight is cut."""
    mu, old, f = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.4, 0.4, 0.2]), torch.tensor([1.0, -2.0, 5.0])
    everywhere = torch.ones(1, 3, dtype=torch.bool)
    weights = mismatch_weights(log_gap(old.log()[None], mu.log()[None], everywhere), everywhere)[0]
    assert (mu * weights * f).sum().item() == pytest.approx((old * f).sum().item(), abs=1e-6)


def test_metrics():
    found = mismatch_metrics(OLD, SAMPLED, MASK)
    gaps = [0.9, 0.0, -1.0, 0.1, -0.2]
    ratios = [math.exp(g) for g in gaps]
    expected = {
        "rollout/logprob_diff_mean": 2.2 / 5,
        "rollout/logprob_diff_max": 1.0,
        "rollout/mismatch_kl": sum(r - 1 - g for r, g in zip(ratios, gaps, strict=True)) / 5,
        "rollout/effective_share": sum(ratios) ** 2 / (5 * sum(r * r for r in ratios)),
        "rollout/weight_max": math.exp(0.9),
        "rollout/truncated_share": 1 / 5,
    }
    assert found == pytest.approx(expected, abs=1e-6)
    assert set(found) <= set(METRICS), "each is in the table"
    assert "rollout/logprob_diff_mean" in [m.name for m in unhealthy(found)]


def test_a_faithful_sampler_is_healthy():
    found = mismatch_metrics(OLD.nan_to_num(), OLD.nan_to_num(), MASK)
    assert found["rollout/effective_share"] == 1 and found["rollout/mismatch_kl"] == 0
    assert unhealthy(found) == []
