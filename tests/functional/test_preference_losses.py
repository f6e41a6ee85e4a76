"""Losses on preferences: vectors D1 to D3 and B4 of the specification, limits, and gradients in fp64."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from plaudit.functional import preference_losses as pl

D1_GAP = torch.tensor([3.0], dtype=torch.float64)
BETA = 0.1


def close(found, expected):
    assert float(found) == pytest.approx(expected, abs=1e-6)


def test_d1():
    close(pl.logistic(BETA * D1_GAP), 0.554355)
    close(pl.logistic(BETA * D1_GAP, 0.9), 0.584355)
    close(pl.squared(D1_GAP, BETA), 4.0)
    close(pl.squared(torch.tensor(2 / 4 - -1 / 5, dtype=torch.float64), BETA), 18.49)
    close(pl.hinge(BETA * D1_GAP), 0.7)
    both = pl.kto(torch.tensor([2.0, -1.0], dtype=torch.float64), 0.5, BETA, torch.tensor([True, False]))
    close(both[0], 0.462570)
    close(both[1], 0.462570)


def test_d2_and_d3():
    chosen, rejected = torch.tensor([-0.5], dtype=torch.float64), torch.tensor([-1.0], dtype=torch.float64)
    ahead = pl.log_odds(chosen) - pl.log_odds(rejected)
    close(ahead, 0.974077)
    close(pl.logistic(ahead), 0.320300)
    close(pl.logistic(2 * (chosen - rejected) - 1), math.log(2))


def test_b1_to_b3_for_pairs_without_a_reward_model():
    close(pl.logistic(torch.tensor(1.0)), 0.313262)
    close(pl.logistic(torch.tensor(0.0)), math.log(2))
    close(pl.logistic(torch.tensor(-800.0)), 800.0)
    margin = torch.tensor(1.0, requires_grad=True)
    pl.logistic(margin).backward()
    close(margin.grad, -0.268941)


@pytest.mark.parametrize("flipped", [0.05, 0.1, 0.4])
@pytest.mark.parametrize("margin", [-7.0, -0.3, 0.0, 0.3, 7.0])
def test_b4_the_robust_loss_is_unbiased_under_flips(flipped, margin):
    h = torch.tensor(margin, dtype=torch.float64)
    mean = (1 - flipped) * pl.robust_logistic(h, flipped) + flipped * pl.robust_logistic(-h, flipped)
    close(mean, float(pl.logistic(h)))


@pytest.mark.parametrize("x", [-1e-6, -1e-3, -0.5, -math.log(2), -1.0, -30.0, -700.0])
def test_log1mexp_is_exact_at_both_ends(x):
    found = pl.log1mexp(torch.tensor(x, dtype=torch.float64))
    expected = math.log(-math.expm1(x)) if x > -1 else math.log1p(-math.exp(x))
    assert float(found) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("x", [0.0, -1e-9, -1e-3, -90.0, -1e4])
def test_log_odds_and_their_gradient_stay_finite(x):
    mean = torch.tensor([x], requires_grad=True)
    odds = pl.log_odds(mean)
    odds.sum().backward()
    assert odds.isfinite().all() and mean.grad.isfinite().all()


@pytest.mark.parametrize(
    "loss",
    [
        pl.logistic,
        lambda h: pl.logistic(h, 0.9),
        lambda h: pl.robust_logistic(h, 0.1),
        lambda h: pl.squared(h, 0.1),
        lambda h: pl.hinge(h + 0.05),
        lambda h: pl.kto(h, 0.5, 0.1, torch.tensor([True, False, True, False])),
        lambda h: pl.log_odds(-h.abs() - 0.1),
        lambda h: pl.log_odds(-h.abs() - 40),
    ],
)
def test_gradients(loss):
    h = torch.tensor([-2.0, -0.4, 0.3, 3.0], dtype=torch.float64, requires_grad=True)
    assert gradcheck(loss, (h,))


def test_kto_pushes_in_the_right_direction_and_saturates():
    ratio = torch.tensor([0.0, 0.0, 500.0, -500.0], requires_grad=True)
    pl.kto(ratio, 0.0, 0.1, torch.tensor([True, False, True, False])).sum().backward()
    assert ratio.grad[0] == pytest.approx(-0.025) and ratio.grad[1] == pytest.approx(0.025)
    assert ratio.grad[2:].abs().max() < 1e-9
