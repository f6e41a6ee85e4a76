"""Ratios of whole responses (Q1) and the loss of CISPO (Q2)."""

import pytest
import torch

from plaudit.functional.losses import clipped_policy_loss
from plaudit.functional.ratios import cispo_loss, sequence_log_ratio, straight_through

MASK = torch.tensor([[True, True, False]])


def test_q1_gspo():
    moved = sequence_log_ratio(torch.tensor([[0.1, 0.3, 5.0]]), torch.zeros(1, 3), MASK, mean=True)
    assert moved.exp()[0, 0].item() == pytest.approx(1.221403, abs=1e-6)
    up, clipped = clipped_policy_loss(moved, torch.zeros(1, 3), torch.ones(1, 3), 3e-4, 4e-4)
    assert up[0, 0].item() == pytest.approx(-1.0004, abs=1e-6) and clipped[0, 0]
    down, clipped = clipped_policy_loss(moved, torch.zeros(1, 3), -torch.ones(1, 3), 3e-4, 4e-4)
    assert down[0, 0].item() == pytest.approx(1.221403, abs=1e-6) and not clipped[0, 0]


def test_the_sum_is_that_of_counted_tokens():
    moved = sequence_log_ratio(torch.tensor([[0.1, 0.3, 5.0]]), torch.zeros(1, 3), MASK)
    assert moved[0].tolist() == pytest.approx([0.4] * 3)
    huge = sequence_log_ratio(torch.tensor([[90.0, 0.3, 5.0]]), torch.zeros(1, 3), MASK)
    assert huge.exp().isfinite().all()


def test_q2_cispo():
    logp = torch.tensor([0.5]).log().requires_grad_()
    loss, clipped = cispo_loss(logp, logp.detach() - torch.tensor([2.0]).log(), torch.tensor([1.0]), 0.0, 1.2)
    loss.sum().backward()
    assert loss.item() == pytest.approx(0.831777, abs=1e-6) and clipped.item()
    assert logp.grad.item() == pytest.approx(-1.2, abs=1e-6), "clipped, and still learned from"


def test_token_form_has_the_value_of_the_response_and_the_gradient_of_the_token():
    logp = torch.tensor([[0.1, 0.3, 0.0]], requires_grad=True)
    moved = straight_through(sequence_log_ratio(logp, torch.zeros(1, 3), MASK, mean=True), logp)
    assert torch.allclose(moved, torch.full((1, 3), 0.2))
    moved[0, 0].backward()
    assert logp.grad[0].tolist() == [1, 0, 0]
