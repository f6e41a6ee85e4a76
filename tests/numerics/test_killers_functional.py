"""Cases that only matter at an edge: each turns red under a fault that the other tests of the formulas overlook.

Found by ``scripts/mutants.py``.
"""

import math
from typing import get_args

import pytest
import torch

from plaudit.functional.advantages import last_counted
from plaudit.functional.controllers import Moments, adapt_kl_coef
from plaudit.functional.groups import compare, group_advantages, overlong_penalty
from plaudit.functional.kl import kl_loss
from plaudit.functional.losses import log_ratio, value_loss
from plaudit.functional.mismatch import effective_share, log_gap, within
from plaudit.functional.preference_losses import hinge, log1mexp
from plaudit.functional.ranking_losses import best_rows, smoothed_targets
from plaudit.functional.ratios import sequence_log_ratio
from plaudit.functional.statistics import explained_variance, masked_mean
from plaudit.functional.weights import Aggregation, loss_weights

NAN = float("nan")


def test_the_score_stands_on_one_token_even_after_a_gap():
    assert last_counted(torch.tensor([[True, False, True, False]])).tolist() == [[False, False, True, False]]


@pytest.mark.parametrize(
    ("moments", "std"),
    [
        (Moments(1, 0.0, 0.0), 1.0),
        (Moments(1, 1e6, 0.25), 1.0),  # 0.5 is rounding noise beside a million
        (Moments(1, 1.0, 0.25), 0.5),
        (Moments(1, 0.0, 2.25e-12), 1.5e-6),  # small, but a millionth is the limit where the mean is small
        (Moments(1, 0.0, 0.25e-12), 1.0),
    ],
)
def test_a_std_that_is_noise_is_not_divided_by(moments, std):
    assert moments.std == pytest.approx(std)


def test_the_adaptive_coefficient_stays_between_its_bounds():
    assert adapt_kl_coef(9.9, kl=12, target=6, horizon=1, responses=1) == 10.0
    assert adapt_kl_coef(1.1e-4, kl=0, target=6, horizon=1, responses=1) == 1e-4


@pytest.mark.parametrize(
    "scores",
    [
        [-5.0, -5.0, NAN], [5.0, 5.0, NAN],  # a row left out is no score of 0
        [1e6, 1e6 + 0.5, NAN], [-1e6, -1e6 - 0.5, NAN],  # equal in comparison with their size
        [2e-7, -2e-7, NAN],  # equal in comparison with 1
    ],
)  # fmt: skip
def test_equal_scores_are_equal(scores):
    scores = torch.tensor(scores, dtype=torch.float64)
    groups = compare(scores, torch.zeros(3, dtype=torch.long), ~scores.isnan())
    assert groups.equal.all() and not groups.centred.any() and not groups.std.any()


def test_scores_that_differ_are_not_equal():
    groups = compare(
        torch.tensor([1.0, 1.0001]), torch.zeros(2, dtype=torch.long), torch.tensor([True, True])
    )
    assert not groups.equal.any() and groups.centred.all()


def test_one_response_alone_has_no_advantage():
    scores, valid = torch.tensor([3.0, NAN]), torch.tensor([True, False])
    assert group_advantages(scores, torch.zeros(2, dtype=torch.long), valid, "batch").tolist() == [0.0, 0.0]


def test_without_a_buffer_only_a_full_response_is_overlong():
    limits = torch.tensor([100, 100])
    assert overlong_penalty(torch.tensor([99, 100]), limits, 0.0).tolist() == [0.0, -1.0]


def test_ratios_stay_finite():
    assert log_ratio(torch.tensor([100.0, 0.0, 1.0]), torch.tensor([0.0, 100.0, 0.0])).tolist() == [
        20.0,
        -20.0,
        1.0,
    ]
    far = kl_loss(torch.tensor([0.0]), torch.tensor([-100.0]), torch.tensor([-1.0]), "k1", "unbiased")
    assert far.item() == pytest.approx(math.exp(20), rel=1e-4)
    near = kl_loss(torch.tensor([-100.0]), torch.tensor([0.0]), torch.tensor([-101.0]), "k1", "unbiased")
    assert near.item() == pytest.approx(math.exp(-20), rel=1e-4)


def test_value_clip_works_downwards_too():
    loss, clipped = value_loss(torch.tensor([0.1]), torch.tensor([0.5]), torch.tensor([0.0]), 0.2)
    assert loss.item() == pytest.approx(0.5 * 0.3**2) and clipped.all()


def test_gaps_to_the_sampler_stay_finite_and_padding_is_not_read():
    far, everywhere = torch.tensor([[100.0, -100.0]]), torch.ones(1, 2, dtype=torch.bool)
    assert log_gap(far, torch.zeros(1, 2), everywhere).tolist() == [[20.0, -20.0]]
    gap, mask = (
        torch.tensor([[0.1, NAN], [2.0, NAN], [NAN, NAN]]),
        torch.tensor([[True, False]] * 2 + [[False, False]]),
    )
    assert within(gap, mask, 0.5, 2.0).tolist() == [True, False, True], (
        "a ratio over the bound; nothing to complain of"
    )
    assert effective_share(torch.zeros(2), torch.ones(2, dtype=torch.bool)) == 0


def test_hinge_rests():
    assert hinge(torch.tensor([2.0])).tolist() == [0.0]


@pytest.mark.parametrize("x", [-1e-5, -0.01, -0.6, -0.8, -20.0, -50.0])
def test_log1mexp_is_exact_at_both_ends_in_fp32(x):
    exact = math.log(-math.expm1(x)) if x > -0.7 else math.log1p(-math.exp(x))
    assert log1mexp(torch.tensor([x])).item() == pytest.approx(exact, rel=1e-5)


def test_the_best_of_each_list_is_looked_for_in_that_list():
    ranks, groups = torch.tensor([2, 3, 1]), torch.tensor([0, 0, 1])
    assert best_rows(ranks, groups).tolist() == [True, False, True]


def test_soft_targets_are_smoothed_from_both_sides():
    assert smoothed_targets(torch.tensor([0.3]), 0.1).item() == pytest.approx(0.34)


def test_ratios_of_responses_stay_finite():
    logprobs, mask = torch.tensor([[100.0], [-100.0], [0.0]]), torch.tensor([[True], [True], [False]])
    for mean in (True, False):
        ratio = sequence_log_ratio(logprobs, torch.zeros(3, 1), mask, mean=mean)
        assert ratio.tolist() == [[20.0], [-20.0], [0.0]]


def test_where_nothing_counts_everything_is_zero():
    x, nothing = torch.ones(2, 3), torch.zeros(2, 3, dtype=torch.bool)
    assert masked_mean(x, nothing) == 0
    for aggregation in get_args(Aggregation):
        assert loss_weights(nothing, aggregation, 4).tolist() == [[0.0] * 3] * 2


def test_a_critic_of_constant_returns_explains_nothing():
    everywhere = torch.ones(3, dtype=torch.bool)
    assert explained_variance(torch.tensor([1.0, 2.0, 3.0]), torch.ones(3), everywhere) == 0
