"""algorithms.md 3.1: K1-K3, by exact expectation over a two-token policy."""

import pytest
import torch

from plaudit.functional.kl import k1, k2, k3

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
