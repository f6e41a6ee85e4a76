"""algorithms.md 3.2: W1, W2, M1, A1; 3.3: E1."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from plaudit.functional.controllers import Moments, adapt_kl_coef
from plaudit.functional.statistics import explained_variance, masked_mean, masked_var, whiten

X, MASK = torch.tensor([1.0, 2.0, 3.0, 100.0]), torch.tensor([True, True, True, False])


def test_w1_whitening():
    assert whiten(X, MASK).tolist() == pytest.approx([-1.224745, 0, 1.224745, 0], abs=1e-6)
    assert whiten(X, MASK, shift_mean=False).tolist() == pytest.approx([0.775255, 2, 3.224745, 0], abs=1e-6)


def test_w2_invariants():
    white = whiten(X, MASK)
    assert masked_mean(white, MASK).item() == pytest.approx(0, abs=1e-6)
    assert masked_var(white, MASK).item() == pytest.approx(1, abs=1e-6)
    assert torch.allclose(whiten(3 * X + 7, MASK), white, atol=1e-5)
    assert whiten(torch.full((4,), 5.0), MASK).tolist() == [0, 0, 0, 0]


def test_masked_out_nan_does_not_matter():
    x = torch.tensor([1.0, 2.0, 3.0, float("nan")])
    assert whiten(x, MASK).isfinite().all()


def test_m1_running_moments():
    moments = Moments().update([1, 2, 3]).update([5])
    assert (moments.mean, moments.variance) == (2.75, 2.1875)
    assert moments.std == pytest.approx(math.sqrt(2.1875))


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=20), st.integers(0, 20))
def test_m1_merge_order_does_not_matter(values, cut):
    apart = Moments().update(values[:cut]).update(values[cut:])
    reverse = Moments().update(values[cut:]).update(values[:cut])
    for found in (apart, reverse):
        assert found.mean == pytest.approx(Moments().update(values).mean, abs=1e-6)
        assert found.variance == pytest.approx(Moments().update(values).variance, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize(("kl", "expected"), [(12, 0.201024), (6, 0.2), (3, 0.198976)])
def test_a1_adaptive_kl(kl, expected):
    assert adapt_kl_coef(0.2, kl, 6, 10_000, 256) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("values", "expected"), [([1, 2, 3], 1), ([2, 2, 2], 0), ([3, 2, 1], -3)])
def test_e1_explained_variance(values, expected):
    returns, mask = torch.tensor([1.0, 2.0, 3.0]), torch.ones(3, dtype=torch.bool)
    assert explained_variance(
        torch.tensor(values, dtype=torch.float32), returns, mask
    ).item() == pytest.approx(expected)
