"""The KL coefficient in units of the reward, by hand: kl_coef times what the reward is divided by and the KL is not."""

import math
import statistics

import pytest
import torch

from plaudit.algorithms.grpo import CISPO, DAPO, GRPO, GSPO, DrGRPO, GRPOPaper
from plaudit.algorithms.online_dpo import OnlineDPO, best_and_worst
from plaudit.algorithms.ppo import PPO
from plaudit.algorithms.reinforce import REINFORCE
from plaudit.algorithms.reinforce_pp import REINFORCEPlusPlus
from plaudit.algorithms.rloo import RLOO
from plaudit.functional.controllers import Carry, Moments
from plaudit.functional.groups import reward_per_advantage
from plaudit.functional.statistics import whitening_divisor

IN_FORCE = "objective/kl_coef_in_force"
TWO_GROUPS = {"rewards": [0.0, 1.0, 0.0, 1.0, 0.0, 4.0, 0.0, 4.0], "groups": [1] * 4 + [2] * 4}
NO_GAE = {"gae_lambda": 1.0, "reward_clip": 0.0, "value_clip": 0.0}


@pytest.fixture
def in_force(experience):
    def find(algorithm, rewards=TWO_GROUPS["rewards"], groups=TWO_GROUPS["groups"], carry=None, **changes):
        batch = experience(rewards, groups[: len(rewards)], **changes)
        return algorithm.credit(batch, carry or algorithm.start()).metrics.get(IN_FORCE)

    return find


ALL_TOGETHER = {
    **{f"reinforce {b}": REINFORCE(kl_coef=0.5, baseline=b) for b in ("none", "mean", "ema", "value")},
    "rloo": RLOO(kl_coef=0.5),
    "rloo whitened": RLOO(kl_coef=0.5, whiten_advantages=True),
    "reinforce_pp": REINFORCEPlusPlus(kl_coef=0.5),
    "ppo": PPO(kl_coef=0.5, reward_scaling="none", reward_clip=0.0),
    "ppo, tokens whitened": PPO(kl_coef=0.5, reward_scaling="whiten"),
    "ppo, not whitened": PPO(kl_coef=0.5, reward_scaling="none", whiten_advantages="none"),
    "ppo, a KL in the loss": PPO(
        kl_coef=0.5, reward_scaling="none", kl_in="loss", kl_estimator="k3", whiten_advantages="none"
    ),
    "online dpo": OnlineDPO(beta=0.5, label_smoothing="score_gap", group_size=4),
}


@pytest.mark.parametrize("name", ALL_TOGETHER)
def test_where_reward_and_kl_are_divided_by_the_same_it_is_kl_coef(in_force, name):
    assert in_force(ALL_TOGETHER[name]) == 0.5


@pytest.mark.parametrize("scaling", ["scale", "normalize"])
def test_ppo_divides_the_reward_by_the_deviation_of_all_scores_so_far(in_force, scaling):
    algorithm = PPO(kl_coef=0.5, reward_scaling=scaling)
    deviation = statistics.pstdev(TWO_GROUPS["rewards"])
    assert in_force(algorithm) == pytest.approx(0.5 * deviation)
    seen = Moments().update([10.0, -10.0])
    both = statistics.pstdev([*TWO_GROUPS["rewards"], 10.0, -10.0])
    assert in_force(algorithm, carry=Carry(kl_coef=0.5, reward=seen)) == pytest.approx(0.5 * both)
    assert in_force(algorithm, carry=Carry(kl_coef=0.2)) == pytest.approx(0.2 * deviation), "where it adapts"


@pytest.mark.parametrize("over", ["batch", "minibatch"])
def test_whitened_advantages_divide_the_reward_and_no_kl_in_the_loss(in_force, over):
    """Values 0 and lambda 1: the advantage on each of four tokens is the score, whose deviation is 1.6536."""
    deviation = statistics.pstdev(TWO_GROUPS["rewards"])
    form = {"kl_coef": 0.5, "kl_in": "loss", "kl_estimator": "k3", "whiten_advantages": over, **NO_GAE}
    values = torch.zeros(8, 5)
    assert in_force(PPO(reward_scaling="none", **form), values=values) == pytest.approx(0.5 * deviation)
    # Scaled scores have the deviation 1, and so have their advantages: it is the first division that counts.
    assert in_force(PPO(reward_scaling="scale", **form), values=values) == pytest.approx(0.5 * deviation)


def test_whitened_token_rewards_divide_no_kl_in_the_loss(in_force):
    """One reward of 4 in each second row of four tokens, 0 elsewhere: mean 0.5, mean square 2, deviation 1.3229."""
    form = {"kl_coef": 0.5, "kl_in": "loss", "kl_estimator": "k3", "whiten_advantages": "none", **NO_GAE}
    found = in_force(PPO(reward_scaling="whiten", **form), [0.0, 4.0, 0.0, 4.0], [1, 1, 1, 1])
    assert found == pytest.approx(0.5 * math.sqrt(2 - 0.5**2))


def test_grpo_divides_by_nothing_but_its_mean_has_the_response_in_it(in_force):
    assert in_force(GRPO(kl_coef=0.5)) == pytest.approx(0.5 * 4 / 3)
    assert in_force(DrGRPO(kl_coef=0.5)) == pytest.approx(0.5 * 4 / 3)
    # Groups of 6 and 2: six of the eight rows keep 5/6 of their gradient and two 1/2, so 6/8 in all.
    assert in_force(GRPO(kl_coef=0.5), groups=[1] * 6 + [2] * 2) == pytest.approx(0.5 * 8 / 6)
    # A failed row leaves a group of three: (3 * 2/3 + 4 * 3/4) / 7.
    failed = [math.nan, *TWO_GROUPS["rewards"][1:]]
    assert in_force(GRPO(kl_coef=0.5), failed) == pytest.approx(0.5 * 7 / 5)
    assert in_force(GRPO(kl_coef=0.5), [1.0] * 8) == pytest.approx(0.5 * 4 / 3), "nothing is divided"


def test_grpo_divided_by_a_deviation(in_force):
    """Deviations of the groups are 0.57735 and 2.3094, their sums of squares 1 and 16."""
    whole = statistics.stdev(TWO_GROUPS["rewards"])
    assert in_force(GRPO(scale="batch", kl_coef=0.5)) == pytest.approx(0.5 * (whole + 1e-4) * 4 / 3)
    nearest = 17 / (1 / 0.57745 + 16 / 2.3095)
    assert in_force(GRPO(scale="group", kl_coef=0.5)) == pytest.approx(0.5 * nearest * 4 / 3, rel=1e-4)
    one = in_force(GRPOPaper(kl_coef=0.5), [0.0, 1.0, 0.0, 1.0], [1] * 4)
    assert one == pytest.approx(0.5 * (3**-0.5 + 1e-4) * 4 / 3)
    assert in_force(GRPO(scale="group", kl_coef=0.5), [1.0] * 8) is None, "no reward weighs against the KL"


def test_reinforce_pp_with_a_group_baseline_whitens_the_reward_alone(in_force):
    """Centred scores are +-0.5 and +-2, so their deviation is the root of 17/8."""
    algorithm = REINFORCEPlusPlus(baseline="group", group_size=4, kl_coef=0.5)
    assert in_force(algorithm) == pytest.approx(0.5 * math.sqrt(17 / 8) * 4 / 3)
    assert in_force(algorithm, [1.0] * 4, [1, 2, 3, 4]) is None, "of one response there is nothing to compare"


def test_where_no_coefficient_says_where_a_run_ends_there_is_no_metric(in_force):
    assert in_force(DAPO(kl_coef=0.5)) is None, "its groups are chosen by their rewards"
    assert in_force(OnlineDPO(beta=0.5)) is None, "sure labels have no finite optimum"
    assert in_force(OnlineDPO(beta=0.5, label_smoothing=0.1)) is None


@pytest.mark.parametrize("algorithm", [DAPO(), GSPO(), CISPO(), DrGRPO(), PPO(kl_coef=0.0), RLOO(kl_coef=0.0)])
def test_without_a_kl_it_is_0(in_force, algorithm):
    assert in_force(algorithm) == 0.0


def test_reward_per_advantage_leaves_out_what_does_not_count():
    scores, ids = torch.tensor([1.0, 0.0, math.nan, 5.0]), torch.tensor([1, 1, 1, 2])
    valid = ~scores.isnan()
    # Two rows keep a half, the one alone nothing: 1/3 of three.
    assert reward_per_advantage(scores, ids, valid, "none") == pytest.approx(3)
    assert reward_per_advantage(scores, ids, valid, "group") == pytest.approx(3 * (0.5**0.5 + 1e-4))
    assert reward_per_advantage(scores, ids, ids == 2, "none") is None
    assert reward_per_advantage(scores, ids, torch.zeros_like(valid), "none") is None


def test_equal_values_are_divided_by_no_less_than_the_root_of_1e_8():
    assert whitening_divisor(torch.ones(3), torch.ones(3, dtype=torch.bool)) == pytest.approx(1e-4)


# Cautions: what shifts the optimum is said, with the reason.

SHIFTED = [
    (GRPO(scale="group"), "scale group divides the reward"),
    (GRPO(scale="batch"), "scale batch divides the reward"),
    (GRPO(aggregation="sequence_mean_token_mean"), "by its length"),
    (GRPO(kl_estimator="k3_naive"), "KL(reference || policy)"),
    (GRPO(group_size=2), "2 times kl_coef"),
    (GRPO(group_size=4), "1.33 times kl_coef"),
    (GRPO(sampling_rounds=2), "dynamic sampling"),
    (REINFORCE(gamma=0.9), "gamma 0.9"),
    (REINFORCEPlusPlus(gamma=0.9), "gamma 0.9"),
    (REINFORCEPlusPlus(baseline="group", group_size=8), "baseline group divides the reward"),
    (PPO(), "reward_scaling normalize divides the reward"),
]


@pytest.mark.parametrize(("algorithm", "words"), SHIFTED)
def test_what_shifts_the_optimum_is_said(algorithm, words):
    (found,) = algorithm.cautions
    assert words in found


def test_what_does_not_is_not():
    quiet = (GRPO(), DrGRPO(kl_coef=0.1), GRPO(kl_estimator="k2_naive"), REINFORCE(), REINFORCEPlusPlus())
    assert [algorithm.cautions for algorithm in quiet] == [()] * len(quiet)
    assert GRPO(scale="group", group_size=2, kl_coef=0.0).cautions == DAPO().cautions == GSPO().cautions == ()
    assert REINFORCE(gamma=0.9, kl_coef=0.0).cautions == ()
    assert REINFORCEPlusPlus(baseline="group", group_size=8, kl_coef=0.0).cautions == ()
    assert len(GRPOPaper().cautions) == 3


def test_the_papers_form_is_a_preset():
    form = {"scale": "group", "aggregation": "sequence_mean_token_mean", "kl_estimator": "k3_naive"}
    assert GRPOPaper() == GRPO(**form) and GRPOPaper().type_name == "grpo_paper"
    assert GRPOPaper(scale="none") == GRPO(**(form | {"scale": "none"}))
    assert GRPO().scale == "none" and GRPO().type_name == "grpo" and DrGRPO().type_name == "dr_grpo"
    assert {preset().scale for preset in (DAPO, GSPO, CISPO)} == {"group"}, "as their papers have it"
    assert [preset().type_name for preset in (DAPO, GSPO, CISPO)] == ["dapo", "gspo", "cispo"]


# Online DPO with targets from the scores.


def test_score_gap_targets_by_hand(experience):
    algorithm = OnlineDPO(label_smoothing="score_gap", group_size=4, missing_eos_penalty=1.0)
    cut = torch.tensor([False] * 5 + [True, False, False])
    credit = algorithm.credit(
        experience([0.0, 1.0, 0.0, 3.0, 2.0, 3.0, 2.0, 2.0], [1] * 4 + [2] * 4, truncated=cut), Carry()
    )
    # 3 over 0; in the second group all have 2 after the penalty.
    assert credit.batch.targets.tolist() == pytest.approx([1 / (1 + math.exp(-3)), 0.5])
    assert credit.metrics["pairs/kept_share"] == 1.0
    assert credit.metrics["objective/kl_coef"] == algorithm.beta


def test_equal_scores_make_a_pair_only_where_their_gap_is_the_label():
    scores = torch.tensor([1.0, 1.0, 1.0, 2.0, math.nan, math.nan])
    groups = torch.tensor([7, 7, 7, 8, 8, 9])
    assert [rows.tolist() for rows in best_and_worst(scores, groups)] == [[], []]
    assert [rows.tolist() for rows in best_and_worst(scores, groups, ties=True)] == [[0], [2]]
