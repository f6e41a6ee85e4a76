"""algorithms.md 3.1: K1-K3, by exact expectation over a two-token policy."""

import math

import pytest
import torch

from plaudit.functional.kl import full_kl, k1, k2, k3, kl_loss

REF = torch.tensor([0.75, 0.25], dtype=torch.float64).log()


def expectation(estimator, *, weighted=False):
    """Gradient of E[estimator] with respect to the first logit; the expectation itself is over fixed samples."""
    theta = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    logp = theta.log_softmax(-1)
    probabilities = logp.exp().detach()
    ratio = (logp - logp.detach()).exp() if weighted else 1.0
    (probabilities * ratio * estimator(logp, REF)).sum().backward()
    return theta.grad[0].item()


def test_k1_values():
    logp = torch.tensor([0.5, 0.5], dtype=torch.float64).log()
    assert k1(logp, REF).tolist() == pytest.approx([-0.405465, 0.693147], abs=1e-6)
    assert k2(logp, REF).tolist() == pytest.approx([0.082201, 0.240227], abs=1e-6)
    assert k3(logp, REF).tolist() == pytest.approx([0.094535, 0.193147], abs=1e-6)
    assert (0.5 * k1(logp, REF)).sum().item() == pytest.approx(0.143841, abs=1e-6)
    assert (0.5 * k3(logp, REF)).sum().item() == pytest.approx(0.143841, abs=1e-6)
    assert (0.5 * k2(logp, REF)).sum().item() == pytest.approx(0.161214, abs=1e-6)


def test_k2_gradients():
    assert expectation(k1) == pytest.approx(0, abs=1e-12)
    assert expectation(k2) == pytest.approx(-0.274653, abs=1e-6)
    assert expectation(k3) == pytest.approx(-0.25, abs=1e-6)
    assert expectation(k1, weighted=True) == pytest.approx(-0.274653, abs=1e-6)
    assert expectation(k3, weighted=True) == pytest.approx(-0.274653, abs=1e-6)


@pytest.mark.parametrize("estimator", [k1, k2, k3])
def test_k3_zero_at_the_reference(estimator):
    assert estimator(REF, REF).abs().max().item() == 0.0


def loss_gradient(estimator, gradient, theta=(0.0, 0.0), old=(0.5, 0.5)):
    """Gradient of E_old[kl_loss] with respect to the first logit, exactly."""
    logits = torch.tensor(theta, dtype=torch.float64, requires_grad=True)
    old = torch.tensor(old, dtype=torch.float64)
    (old * kl_loss(logits.log_softmax(-1), old.log(), REF, estimator, gradient)).sum().backward()
    return logits.grad[0].item()


@pytest.mark.parametrize(
    ("estimator", "gradient", "expected"),
    [
        ("k1", "naive", 0.0), ("k2", "naive", -0.274653), ("k3", "naive", -0.25),
        ("k1", "unbiased", -0.274653), ("k2", "unbiased", -0.274653), ("k3", "unbiased", -0.274653),
    ],
)  # fmt: skip
def test_k2_as_terms_of_a_loss(estimator, gradient, expected):
    assert loss_gradient(estimator, gradient) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_unbiased_off_the_policy_too(estimator):
    theta = torch.tensor([0.7, -0.4], dtype=torch.float64, requires_grad=True)
    full_kl(theta[None], REF[None]).sum().backward()
    found = loss_gradient(estimator, "unbiased", theta.tolist(), (0.9, 0.1))
    assert found == pytest.approx(theta.grad[0].item(), abs=1e-9)


def test_full_kl():
    pi = torch.tensor([[0.5, 0.5], [0.75, 0.25]], dtype=torch.float64).log()
    assert full_kl(pi + 7, REF.expand(2, 2)).tolist() == pytest.approx([0.143841, 0], abs=1e-6)
    impossible = torch.tensor([[0.0, float("-inf")]], dtype=torch.float64)
    assert full_kl(impossible, REF[None]).item() == pytest.approx(-REF[0].item()), "0 log 0 is 0"


def test_full_kl_is_what_the_samples_estimate():
    draw = torch.Generator().manual_seed(0)
    logits, ref = torch.randn(2, 1, 6, generator=draw, dtype=torch.float64)
    samples = torch.multinomial(logits.softmax(-1)[0], 50_000, replacement=True, generator=draw)
    logp, ref_logp = logits.log_softmax(-1)[0, samples], ref.log_softmax(-1)[0, samples]
    exact = full_kl(logits, ref).item()
    for estimator in (k1, k3):
        values = estimator(logp, ref_logp)
        assert values.mean().item() == pytest.approx(exact, abs=4 * values.std().item() / 50_000**0.5)
    close = 0.1 * (logp - ref_logp)
    assert k3(close, torch.zeros(())).var() < k1(close, torch.zeros(())).var()


def test_tokens_that_are_ruled_out_have_no_part_in_the_full_kl():
    logits = torch.tensor([[0.0, 0.0, -torch.inf]], requires_grad=True)
    both = torch.tensor([[math.log(3), 0.0, -torch.inf]])  # ruled out in the reference as well
    value = full_kl(logits, both)
    assert value.item() == pytest.approx(0.143841, abs=1e-6)
    value.sum().backward()
    assert logits.grad.isfinite().all() and logits.grad[0, 2] == 0
    assert logits.grad[0, 0].item() == pytest.approx(-0.274653, abs=1e-6)
    assert full_kl(torch.zeros(1, 3), both).item() == float("inf"), "the reference never says what the policy may say"
