"""Best of n: vectors N1 to N4 of the specification."""

import itertools
import math
import statistics

import pytest
import torch

from plaudit.functional.best_of_n import (
    best_of_n_probs,
    expected_best,
    kl_bound,
    order_weights,
    win_rate_bound,
)


def test_n1():
    expected = (0, 0.193147, 0.636294, 1.835089, 3.174508, 3.859843)
    assert [kl_bound(n) for n in (1, 2, 4, 16, 64, 128)] == pytest.approx(expected, abs=1e-6)
    assert [win_rate_bound(n) for n in (1, 2, 4)] == pytest.approx([1 / 2, 2 / 3, 4 / 5])


@pytest.mark.parametrize(("n", "kl"), [(2, 0.140638), (4, 0.559751), (16, 1.469645)])
def test_n2(n, kl):
    law = [0.5, 0.3, 0.2]
    best = best_of_n_probs(law, n)
    assert sum(best) == pytest.approx(1)
    exact = sum(q * math.log(q / p) for q, p in zip(best, law, strict=True))
    assert exact == pytest.approx(kl, abs=1e-6) and exact < kl_bound(n)
    wins = sum(q * (sum(law[:i]) + law[i] / 2) for i, q in enumerate(best))
    assert wins < win_rate_bound(n), "ties lower it: the bound is for rewards that never tie"


def test_n3_is_the_mean_over_all_subsets():
    assert expected_best([1.0, 2.0, 3.0], 2) == pytest.approx(8 / 3)
    rewards = [0.3, -1.0, 2.5, 2.5, 0.0, 7.0]
    for n in range(1, 7):
        every = statistics.fmean(max(c) for c in itertools.combinations(rewards, n))
        assert expected_best(rewards, n) == pytest.approx(every)
        assert sum(order_weights(6, n)) == pytest.approx(1)


def test_another_judge_scores_what_the_reward_chooses():
    rewards, gold = [1.0, 5.0, 3.0, 5.0], [10.0, -1.0, 2.0, 100.0]
    for n in range(1, 5):
        chosen = [gold[max(c, key=lambda i: (rewards[i], -i))] for c in itertools.combinations(range(4), n)]
        assert expected_best(rewards, n, gold) == pytest.approx(statistics.fmean(chosen))


def test_n4_normal_rewards():
    draws = torch.randn(4000, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64).tolist()
    for n, expected in ((2, 0.564190), (4, 1.029375), (8, 1.423600), (16, 1.765991), (64, 2.343734)):
        found = statistics.fmean(expected_best(row, n) for row in draws)
        assert found == pytest.approx(expected, abs=0.03)


def test_no_overflow_and_refusals():
    assert sum(order_weights(10_000, 5_000)) == pytest.approx(1)
    for n in (0, 4):
        with pytest.raises(ValueError, match="best of"):
            expected_best([1.0, 2.0, 3.0], n)
