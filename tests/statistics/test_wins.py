"""Win rates with length taken out, and log-odds of words: by hand, against plain fits, and by simulation."""

import math

import numpy as np
import pytest
from scipy import optimize

from plaudit.statistics.clustered import share
from plaudit.statistics.log_odds import log_odds, surely
from plaudit.statistics.wins import PROMPT_SD, SLOPE_SD, both_orders, length_controlled, same_length


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_orders_that_disagree_are_a_tie():
    # Both won, won only when shown first, lost twice, a tie and a win, two ties.
    assert both_orders([1, 1, 0, 0.5, 0.5], [1, 0, 0, 1, 0.5]).tolist() == [1, 0.5, 0, 0.5, 0.5]


def test_equal_lengths_leave_the_plain_win_rate_and_its_interval():
    rng = np.random.default_rng(0)
    outcomes, prompts = rng.choice([0.0, 0.5, 1.0], 40), np.repeat(np.arange(40), 1)
    plain, controlled = (
        share(outcomes, list(prompts)),
        length_controlled(outcomes, np.zeros(40), list(prompts)),
    )
    assert controlled.value == pytest.approx(plain.value)
    assert controlled.interval == pytest.approx(plain.interval, abs=0.02)


def test_equal_lengths_and_several_pairs_a_prompt_leave_the_plain_win_rate():
    outcomes, prompts = [1, 1, 0, 1, 0, 0, 0, 0, 1, 1, 1, 1], list("aaabbbcccddd")
    controlled = length_controlled(outcomes, [0] * 12, prompts)
    assert controlled.value == pytest.approx(7 / 12) and (controlled.n, controlled.rows) == (4, 12)


def test_the_regression_by_hand():
    # Four cells, each of two pairs, without ties: at +d the policy wins 3 of 4, at -d 1 of 4, so theta is 0.
    outcomes, differences = [1, 1, 1, 0, 0, 0, 0, 1], [5] * 4 + [-5] * 4
    found = length_controlled(outcomes, differences, list("abcdefgh"))
    assert found.value == pytest.approx(0.5, abs=1e-9)


def test_the_regression_against_a_general_optimiser():
    rng = np.random.default_rng(1)
    prompts = np.repeat(np.arange(12), 4)
    differences = rng.normal(8, 10, 48)
    outcomes = (rng.random(48) < sigmoid(-0.3 + 1.5 * np.tanh(differences / 10))).astype(float)
    z = np.tanh(differences / differences.std())

    def loss(w):
        logit = w[0] + w[1] * z + w[2:][prompts]
        likelihood = outcomes * -np.logaddexp(0, -logit) + (1 - outcomes) * -np.logaddexp(0, logit)
        return -likelihood.sum() + w[1] ** 2 / (2 * SLOPE_SD**2) + (w[2:] ** 2).sum() / (2 * PROMPT_SD**2)

    w = optimize.minimize(loss, np.zeros(14), tol=1e-12).x
    expected = sigmoid(w[0] + w[2:][prompts]).mean()
    assert length_controlled(outcomes, differences, list(prompts)).value == pytest.approx(expected, abs=1e-5)


def test_a_judge_that_only_counts_words_is_seen_through():
    # The policy writes longer and wins for that reason alone: at equal length it would win one half.
    rng = np.random.default_rng(2)
    differences = rng.normal(6, 6, 400)
    outcomes = (differences + rng.normal(0, 3, 400) > 0).astype(float)
    plain, controlled = outcomes.mean(), length_controlled(outcomes, differences, list(range(400)))
    assert plain > 0.75 and abs(controlled.value - 0.5) < 0.1 and controlled.low < 0.5 < controlled.high


def test_intervals_hold_the_truth():
    rng = np.random.default_rng(3)
    held = 0
    for _ in range(200):
        length = rng.normal(4, 8, (60, 4))
        hard = rng.normal(0, 0.7, (60, 1))
        outcomes = (rng.random((60, 4)) < sigmoid(0.4 + 1.0 * np.tanh(length / 8) + hard)).astype(float)
        found = length_controlled(outcomes.ravel(), length.ravel(), [i for i in range(60) for _ in range(4)])
        truth = sigmoid(0.4 + 0.7 * rng.normal(0, 1, 4000)).mean()
        held += found.low <= truth <= found.high
    assert held >= 180, f"{held} of 200"


@pytest.mark.parametrize("outcome", [0.0, 1.0])
def test_all_won_or_lost_is_not_certain(outcome):
    found = length_controlled([outcome] * 20, list(range(20)), list(range(20)))
    assert found.value == pytest.approx(outcome, abs=1e-6)
    assert 0.15 < found.high - found.low < 0.2, "20 prompts say no more than Wilson's interval of 20"


def test_where_all_differ_alike_length_cannot_be_taken_out():
    found = length_controlled([1.0, 0.0, 1.0], [3, 3, 3], "abc")
    assert math.isnan(found.value) and found.interval == (0.0, 1.0)
    assert math.isnan(length_controlled([], [], []).value)


def test_pairs_of_about_the_same_length():
    # 100 and 91 differ by 9 % of the longer, 100 and 89 by 11 %; empty beside empty is the same length.
    found = same_length([1, 0, 1, 0.5], [100, 100, 89, 0], [91, 89, 100, 0], list("abcd"))
    assert found.value == 0.75 and (found.n, found.rows) == (2, 2)
    assert math.isnan(same_length([1.0], [10], [20], ["a"]).value)


def test_log_odds_by_hand():
    # y = (6, 4), (1, 9); the pooled shares are 7/20 and 13/20, so with a prior of 10: a = (3.5, 6.5).
    ratio, z = log_odds(np.array([6.0, 4.0]), np.array([1.0, 9.0]), prior=10.0)
    first = math.log(9.5 / 10.5) - math.log(4.5 / 15.5)
    assert ratio[0] == pytest.approx(first) and ratio[1] == pytest.approx(-first)
    assert z[0] == pytest.approx(first / math.sqrt(1 / 9.5 + 1 / 4.5))


def test_a_rare_word_needs_more_evidence_than_its_ratio_has():
    # Three against never, and 60 against 20 among a thousand others.
    ratio, z = log_odds(np.array([3.0, 60.0, 937.0]), np.array([0.0, 20.0, 980.0]))
    assert ratio[0] > ratio[1] and z[1] > 2 * z[0]
    nothing = log_odds(np.zeros(2), np.zeros(2))
    assert not nothing[0].any() and not nothing[1].any()


def test_among_many_words_chance_finds_some():
    rng = np.random.default_rng(4)
    shares = rng.dirichlet(np.full(500, 0.5))
    far = 0
    for _ in range(100):
        z = log_odds(*(rng.multinomial(2000, shares).astype(float) for _ in range(2)))[1]
        far += z.max() > surely(500)
    assert far <= 8, "5 of 100 by chance, and less with the prior"


def test_one_word_has_nothing_to_be_compared_with():
    ratio, z = log_odds(np.array([5.0, 0.0]), np.array([2.0, 0.0]))
    assert not ratio.any() and not z.any()
