"""algorithms.md 3.3 and 3.4: P1-P4, U1, U2, S1, S2, B1-B3."""

import math

import pytest
import torch

from plaudit.functional.losses import (
    bradley_terry,
    centering,
    clipped_policy_loss,
    dual_clip,
    label_loss,
    value_loss,
)
from plaudit.functional.weights import loss_weights

RATIO, ADVANTAGES = torch.tensor([1.5, 0.5, 1.1, 0.9]), torch.tensor([1.0, -1.0, -1.0, 1.0])


def policy(ratio, advantages, low=0.2, high=0.2):
    return clipped_policy_loss(ratio.log(), torch.zeros_like(ratio), advantages, low, high)


def test_p1_values_fraction_and_gradient():
    logp = RATIO.log().requires_grad_()
    loss, clipped = clipped_policy_loss(logp, torch.zeros(4), ADVANTAGES, 0.2, 0.2)
    assert loss.tolist() == pytest.approx([-1.2, 0.8, 1.1, -0.9], abs=1e-6)
    assert loss.mean().item() == pytest.approx(-0.05, abs=1e-6)
    assert clipped.float().mean().item() == 0.5
    loss.mean().backward()
    assert logp.grad.tolist() == pytest.approx([0, 0, 0.275, -0.225], abs=1e-6)


def test_p2_clip_higher():
    assert policy(RATIO, ADVANTAGES, 0.2, 0.28)[0].mean().item() == pytest.approx(-0.07, abs=1e-6)


def test_p3_dual_clip_bounds_and_stops_the_gradient():
    logp = torch.tensor([10.0]).log().requires_grad_()
    loss, _ = clipped_policy_loss(logp, torch.zeros(1), torch.tensor([-1.0]), 0.2, 0.2)
    assert loss.item() == pytest.approx(10, abs=1e-4)
    bounded = dual_clip(loss, torch.tensor([-1.0]), 3.0)
    assert bounded.item() == 3
    bounded.backward()
    assert logp.grad.item() == 0


def test_dual_clip_leaves_positive_advantages_alone():
    assert dual_clip(torch.tensor([-1.2]), torch.tensor([1.0]), 3.0).item() == pytest.approx(-1.2)


def test_p4_the_other_side_is_not_clipped():
    loss, clipped = policy(torch.tensor([1.5, 0.5]), torch.tensor([-1.0, 1.0]))
    assert loss.tolist() == pytest.approx([1.5, -0.5]) and not clipped.any()


@pytest.mark.parametrize(
    ("value", "expected", "clipped", "gradient"), [(0.9, 0.045, True, 0.0), (0.2, 0.32, False, -0.8)]
)
def test_u1_u2_value_loss(value, expected, clipped, gradient):
    values = torch.tensor([value], requires_grad=True)
    loss, active = value_loss(values, torch.tensor([0.5]), torch.tensor([1.0]), 0.2)
    assert loss.item() == pytest.approx(expected, abs=1e-6) and active.item() is clipped
    loss.sum().backward()
    assert values.grad.item() == pytest.approx(gradient, abs=1e-6)


def test_value_loss_without_clip():
    loss, active = value_loss(torch.tensor([0.9]), torch.tensor([0.5]), torch.tensor([1.0]), 0.0)
    assert loss.item() == pytest.approx(0.005) and not active.any()


def test_value_loss_refuses_to_broadcast():
    with pytest.raises(AssertionError):
        value_loss(torch.zeros(3), torch.zeros(3, 1), torch.zeros(3), 0.2)


MODES = {
    "token_mean": 1.75,
    "sequence_mean_token_mean": 1.5,
    "sequence_mean_token_sum": 3.5,
    "constant": 0.875,
}
SEQUENCE_MASK = torch.tensor([[True, False, False], [True, True, True]])
SEQUENCE_LOSS = torch.tensor([[1.0, 9.0, 9.0], [2.0, 2.0, 2.0]])


@pytest.mark.parametrize(("mode", "expected"), MODES.items())
def test_s1_s2_aggregation_adds_up_over_any_split(mode, expected):
    weights = loss_weights(SEQUENCE_MASK, mode, 4)
    assert (weights * SEQUENCE_LOSS).sum().item() == pytest.approx(expected)
    parts = [(weights[i : i + 1] * SEQUENCE_LOSS[i : i + 1]).sum() for i in range(2)]
    assert sum(parts).item() == pytest.approx(expected)


def test_fully_masked_sequences_leave_the_count():
    mask = torch.cat([SEQUENCE_MASK, torch.zeros(1, 3, dtype=torch.bool)])
    loss = torch.cat([SEQUENCE_LOSS, torch.full((1, 3), 9.0)])
    for mode, expected in MODES.items():
        assert (loss_weights(mask, mode, 4) * loss).sum().item() == pytest.approx(expected), mode


def one(value):
    return torch.tensor([float(value)])


def test_b1_bradley_terry():
    assert bradley_terry(one(2), one(1)).item() == pytest.approx(0.313262, abs=1e-6)
    assert bradley_terry(one(2), one(1), margins=0.5).item() == pytest.approx(0.474077, abs=1e-6)
    assert bradley_terry(one(2), one(1), temperature=2).item() == pytest.approx(0.474077, abs=1e-6)
    assert bradley_terry(one(2), one(1), targets=0.9).item() == pytest.approx(0.413262, abs=1e-6)
    assert bradley_terry(one(3), one(3)).item() == pytest.approx(math.log(2), abs=1e-6)


def test_b1_gradient():
    chosen = one(2).requires_grad_()
    bradley_terry(chosen, one(1)).sum().backward()
    assert chosen.grad.item() == pytest.approx(-0.268941, abs=1e-6)


def test_b2_no_overflow():
    assert bradley_terry(one(-800), one(0)).item() == 800


def test_b3_only_centering_sees_a_shift():
    assert bradley_terry(one(7), one(6)).item() == pytest.approx(bradley_terry(one(2), one(1)).item(), abs=1e-6)
    assert 0.01 * centering(one(2), one(1)).item() == pytest.approx(0.09, abs=1e-6)


def test_label_loss_is_binary_cross_entropy():
    found = label_loss(torch.tensor([1.0, 1.0]), torch.tensor([1.0, 0.0]))
    assert found.tolist() == pytest.approx([0.313262, 1.313262], abs=1e-6)
