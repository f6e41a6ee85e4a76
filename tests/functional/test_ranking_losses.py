"""algorithms.md 3.4: B3 to B5 on lists, and each loss against finite differences in fp64."""

import math

import pytest
import torch

from plaudit.functional import ranking_losses as rl
from plaudit.functional.losses import bradley_terry, centering

ORDER = torch.tensor([1.0, 2.0, 3.0])
ONE_LIST = torch.zeros(3, dtype=torch.long)
SCORES = torch.tensor([2.0, 1.0, 0.0], dtype=torch.float64)


def k_wise(scores, ranks, groups, count):
    better, worse = rl.ordered_pairs(ranks, groups)
    return rl.group_means(bradley_terry(scores[better], scores[worse]), groups[better], count)


def test_b5_all_pairs_of_a_list():
    scores = SCORES.clone().requires_grad_()
    better, worse = rl.ordered_pairs(ORDER, ONE_LIST)
    each = bradley_terry(scores[better], scores[worse])
    assert sorted(each.tolist()) == pytest.approx([0.126928, 0.313262, 0.313262], abs=1e-6)
    loss = k_wise(scores, ORDER, ONE_LIST, 1)
    assert loss.item() == pytest.approx(0.251150, abs=1e-6)
    loss.sum().backward()
    assert scores.grad.tolist() == pytest.approx([-0.129381, 0, 0.129381], abs=1e-6)


def test_b5_tied_pairs_are_skipped_and_not_counted():
    loss = k_wise(SCORES, torch.tensor([1.0, 2.0, 2.0]), ONE_LIST, 1)
    assert loss.item() == pytest.approx(0.220095, abs=1e-6)
    assert k_wise(SCORES, torch.ones(3), ONE_LIST, 1).item() == 0


def test_b5_plackett_luce_and_two_responses_are_bradley_terry():
    assert rl.plackett_luce(SCORES, ORDER, ONE_LIST, 1).item() == pytest.approx(0.720868, abs=1e-6)
    two = torch.tensor([2.0, 1.0])
    found = rl.plackett_luce(two, torch.tensor([1, 2]), torch.zeros(2, dtype=torch.long), 1)
    assert found.item() == pytest.approx(0.313262, abs=1e-6)


def test_plackett_luce_with_ties_by_hand():
    tied = rl.plackett_luce(SCORES, torch.tensor([1, 2, 2]), ONE_LIST, 1)
    assert tied.item() == pytest.approx(-math.log(math.e**2 / (math.e**2 + math.e + 1)), abs=1e-6)
    assert rl.plackett_luce(SCORES, torch.ones(3), ONE_LIST, 1).item() == 0


def test_best_choice_by_hand():
    total = math.e**2 + math.e + 1
    assert rl.best_choice(SCORES, ORDER, ONE_LIST, 1).item() == pytest.approx(math.log(total) - 2, abs=1e-6)
    two_best = rl.best_choice(SCORES, torch.tensor([1, 1, 2]), ONE_LIST, 1)
    assert two_best.item() == pytest.approx(math.log(total) - 1.5, abs=1e-6)
    assert rl.best_choice(SCORES, torch.ones(3), ONE_LIST, 1).item() == 0, "only ties: nothing to learn"


@pytest.mark.parametrize("loss", [k_wise, rl.plackett_luce, rl.best_choice])
def test_lists_do_not_see_each_other_and_order_within_does_not_matter(loss):
    scores = torch.tensor([2.0, 5.0, 1.0, 0.0, -3.0], dtype=torch.float64)
    ranks, groups = torch.tensor([1.0, 2.0, 2.0, 3.0, 1.0]), torch.tensor([0, 1, 0, 0, 1])
    both = loss(scores, ranks, groups, 2)
    for group in (0, 1):
        rows = groups == group
        alone = loss(scores[rows], ranks[rows], torch.zeros(int(rows.sum()), dtype=torch.long), 1)
        assert both[group].item() == pytest.approx(alone.item(), abs=1e-12)
    order = torch.tensor([4, 2, 0, 3, 1])
    assert torch.allclose(loss(scores[order], ranks[order], groups[order], 2), both)


@pytest.mark.parametrize("loss", [k_wise, rl.plackett_luce, rl.best_choice])
@pytest.mark.parametrize("ranks", [[1, 2, 3, 4], [1, 2, 2, 3], [2, 1, 1, 1]])
def test_gradients_by_finite_differences(loss, ranks):
    scores = torch.tensor([0.3, -1.2, 2.0, 0.9, 1.0, -0.5], dtype=torch.float64, requires_grad=True)
    given = torch.tensor([*ranks, 1, 2], dtype=torch.float64)
    groups = torch.tensor([0, 0, 0, 0, 1, 1])
    assert torch.autograd.gradcheck(lambda s: loss(s, given, groups, 2), (scores,))


@pytest.mark.parametrize("loss", [k_wise, rl.plackett_luce, rl.best_choice])
def test_a_shift_of_a_list_changes_nothing_and_large_scores_stay_finite(loss):
    assert torch.allclose(loss(SCORES + 7, ORDER, ONE_LIST, 1), loss(SCORES, ORDER, ONE_LIST, 1))
    far = torch.tensor([-800.0, 0.0, 800.0], requires_grad=True)
    value = loss(far, ORDER, ONE_LIST, 1)
    value.sum().backward()
    assert value.isfinite().all() and far.grad.isfinite().all()


@pytest.mark.parametrize("flipped", [0.0, 0.1, 0.3])
@pytest.mark.parametrize("difference", [-2.0, 0.0, 3.0])
def test_b4_the_robust_loss_is_unbiased_over_flipped_labels(flipped, difference):
    s, zero = torch.tensor([difference], dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    for truth in (1.0, 0.7):
        label = torch.tensor([truth], dtype=torch.float64)

        def robust(target, s=s):
            return bradley_terry(s, zero, targets=rl.unbiased_targets(target, flipped)).item()

        expected = (1 - flipped) * robust(label) + flipped * robust(1 - label)
        assert expected == pytest.approx(bradley_terry(s, zero, targets=label).item(), abs=1e-12)


def test_robust_by_hand_and_conservative():
    one, zero = torch.tensor([2.0]), torch.tensor([1.0])
    loss = bradley_terry(one, zero, targets=rl.unbiased_targets(torch.ones(1), 0.1))
    assert loss.item() == pytest.approx((0.9 * 0.313262 - 0.1 * 1.313262) / 0.8, abs=1e-6)
    soft = bradley_terry(one, zero, targets=rl.smoothed_targets(torch.ones(1), 0.1))
    assert soft.item() == pytest.approx(0.413262, abs=1e-6)


def test_both_forms_of_centering():
    one, other = torch.tensor([3.0]), torch.tensor([-3.0])
    assert centering(one, other).item() == 0 and rl.squared_scores(one, other).item() == 18


def test_shapes_are_asserted():
    with pytest.raises(AssertionError):
        rl.squared_error(torch.zeros(3), torch.zeros(3, 1))
    with pytest.raises(AssertionError):
        rl.ordered_pairs(torch.zeros(3), torch.zeros(2))
