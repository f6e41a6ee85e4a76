"""Length kept out of a score by a second head: by hand, and that parts of a step add up."""

import math

import pytest
import torch

from plaudit.functional.disentangling import correlation, length_pulls, length_term, overlap

HEADS = torch.tensor([[1.0, 0.0], [2.0, 2.0], [4.0, 1.0], [0.5, 3.0]], dtype=torch.float64)
LENGTHS = torch.tensor([3, 5, 9, 4])


def test_the_term_by_hand():
    # Lengths 3, 5, 9, 4 less their mean 5.25: -2.25, -.25, 3.75, -1.25; squares add up to 20.75.
    # q less 1.875: -.875, .125, 2.125, -1.375; products 11.625; squares 7.1875.
    # l less 1.5: -1.5, .5, -.5, 1.5; products -.5; squares 5.
    quality, length = 11.625 / math.sqrt(20.75 * 7.1875), -0.5 / math.sqrt(20.75 * 5)
    assert float(length_term(HEADS, LENGTHS)) == pytest.approx(quality - length, abs=1e-12)
    turned = HEADS * torch.tensor([-1.0, 1.0])
    assert float(length_term(turned, LENGTHS)) == pytest.approx(quality - length, abs=1e-12), "either way"


def test_pulls_are_the_derivatives_and_leave_mean_and_scale_alone():
    pulls, small = length_pulls(HEADS, LENGTHS), 1e-6
    for i in range(4):
        for j in range(2):
            moved = HEADS.clone()
            moved[i, j] += small
            slope = float(length_term(moved, LENGTHS) - length_term(HEADS, LENGTHS)) / small
            assert float(pulls[i, j]) == pytest.approx(slope, abs=1e-5)
    assert torch.allclose(pulls.sum(0), torch.zeros(2, dtype=torch.float64), atol=1e-12)
    assert torch.allclose((pulls * HEADS).sum(0), torch.zeros(2, dtype=torch.float64), atol=1e-12)


def test_nothing_is_pulled_where_nothing_differs():
    assert not length_pulls(torch.ones(4, 2), LENGTHS).any()
    assert not length_pulls(HEADS, torch.full((4,), 7)).any()
    with torch.no_grad():
        assert length_pulls(HEADS, LENGTHS).any(), "a loop that wants no gradients still has pulls"


def test_correlation_and_overlap_by_hand():
    assert float(correlation(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]))) == pytest.approx(-1)
    assert float(overlap(torch.tensor([[0.0, 2.0], [0.0, -3.0]]))) == pytest.approx(1)
    assert float(overlap(torch.tensor([[0.0, 2.0], [5.0, 0.0]]))) == 0
