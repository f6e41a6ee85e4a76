"""algorithms.md 3.2: R1-R3, V1-V6."""

import pytest
import torch

from plaudit.functional.advantages import gae, last_counted, length_lambda, rewards_to_go, token_rewards
from plaudit.functional.statistics import whiten

T3 = torch.ones(1, 3, dtype=torch.bool)


def row(*values):
    return torch.tensor([values], dtype=torch.float64)


def test_r1_rewards_sum_to_score_minus_kl():
    kl = row(-1, -2, -0.5) - row(-1.5, -1.8, -0.9)
    rewards = token_rewards(torch.tensor([2.0], dtype=torch.float64), kl, 0.1, T3)
    assert rewards[0].tolist() == pytest.approx([-0.05, 0.02, 1.96], abs=1e-9)
    assert rewards.sum().item() == pytest.approx(2 - 0.1 * 0.7, abs=1e-9)


def test_r2_score_stands_on_the_last_counted_token():
    mask = torch.tensor([[True, True, False]])
    rewards = token_rewards(torch.tensor([2.0]), torch.tensor([[0.5, -0.2, float("nan")]]), 0.1, mask)
    assert rewards[0].tolist() == pytest.approx([-0.05, 2.02, 0], abs=1e-6)


def test_r3_rewards_to_go_and_whitening():
    returns = rewards_to_go(row(1, 2, 3), T3, 0.5)
    assert returns[0].tolist() == pytest.approx([2.75, 3.5, 3], abs=1e-9)
    assert whiten(returns, T3)[0].tolist() == pytest.approx([-1.0690, 1.3363, -0.2673], abs=1e-4)


@pytest.mark.parametrize(
    ("gamma", "lam", "expected"),
    [
        (1.0, 0.95, [0.46575, 0.385, 0.3]),
        (1.0, 1.0, [0.5, 0.4, 0.3]),
        (1.0, 0.0, [0.1, 0.1, 0.3]),
        (0.9, 0.95, [0.2849575, 0.2865, 0.3]),
    ],
)
def test_v1_v2_v3_gae(gamma, lam, expected):
    values = row(0.5, 0.6, 0.7)
    advantages, returns = gae(row(0, 0, 1), values, T3, gamma, lam)
    assert advantages[0].tolist() == pytest.approx(expected, abs=1e-9)
    assert returns[0].tolist() == pytest.approx((advantages + values)[0].tolist(), abs=1e-12)


def test_v4_padding_does_not_matter():
    advantages, returns = gae(row(0, 1, 0), row(0.2, 0.4, 9), torch.tensor([[True, True, False]]))
    assert advantages[0].tolist() == pytest.approx([0.77, 0.6, 0], abs=1e-9)
    assert returns[0, 2].item() == 0


def test_v5_gap_is_stepped_over():
    mask = torch.tensor([[True, False, True, True]])
    advantages, _ = gae(row(0, 0, 0, 1), row(0.5, 9, 0.6, 0.7), mask)
    assert advantages[0].tolist() == pytest.approx([0.46575, 0, 0.385, 0.3], abs=1e-9)


def test_v6_score_on_the_end_token_not_one_after():
    mask = torch.tensor([[True, True, False]])
    rewards = token_rewards(torch.tensor([1.0], dtype=torch.float64), row(0, 0, 0), 0.0, mask)
    advantages, _ = gae(rewards, row(0.5, 0.6, 0.3), mask)
    assert advantages[0].tolist() == pytest.approx([0.48, 0.4, 0], abs=1e-9)


def test_gae_is_unbiased_with_the_exact_values():
    """E[A] equals the exact advantage for every lambda when V is exact: a coin decides the reward at the last token."""
    values = row(0.5, 0.5)
    mask = torch.ones(1, 2, dtype=torch.bool)
    for lam in (0.0, 0.5, 0.95, 1.0):
        mean = sum(gae(row(0, r), values, mask, 1.0, lam)[0] for r in (0.0, 1.0)) / 2
        assert mean.abs().max().item() == pytest.approx(0, abs=1e-12)


def test_last_counted_of_an_empty_row_is_nowhere():
    assert not last_counted(torch.zeros(1, 3, dtype=torch.bool)).any()


def test_a_lambda_for_each_row():
    rewards, values, mask = row(0, 0, 1).expand(3, 3), row(0.5, 0.6, 0.7).expand(3, 3), T3.expand(3, 3)
    advantages, _ = gae(rewards, values, mask, 1.0, torch.tensor([0.95, 1.0, 0.0], dtype=torch.float64))
    for found, expected in zip(
        advantages.tolist(), ([0.46575, 0.385, 0.3], [0.5, 0.4, 0.3], [0.1, 0.1, 0.3]), strict=True
    ):
        assert found == pytest.approx(expected, abs=1e-9)


def test_length_lambda_weighs_alpha_times_the_length():
    mask = torch.arange(100)[None] < torch.tensor([[100], [30], [5]])
    lam = length_lambda(mask, 0.4)
    assert (1 / (1 - lam)).tolist() == pytest.approx([40, 12, 2], rel=1e-5)
    assert length_lambda(mask[2:], 0.1).item() == 0, "too short for any"


def test_the_value_after_the_end_is_a_terminal_value_under_gaps_and_padding():
    mask = torch.tensor([[True, False, True, False]])
    advantages, returns = gae(
        row(0, 9, 0, 9), row(0.5, 9, 0.6, 9), mask, 0.9, 1.0, torch.tensor([0.8], dtype=torch.float64)
    )
    assert returns[0].tolist() == pytest.approx([0.81 * 0.8, 0, 0.9 * 0.8, 0], abs=1e-9)
    assert advantages[0].tolist() == pytest.approx([0.648 - 0.5, 0, 0.72 - 0.6, 0], abs=1e-9)
