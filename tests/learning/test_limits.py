"""Where a KL leads: reference x exp(reward / the coefficient in force), and how far GRPO's forms are from it."""

import math

import pytest
import torch
from tests.learning import test_bandit
from tests.learning.test_bandit import BETA, OPTIMUM, learn
from tests.learning.test_bandit_exact import REWARDS, arms, limit

from plaudit.algorithms.grpo import GRPO, GRPOPaper
from plaudit.algorithms.online_dpo import OnlineDPO
from plaudit.algorithms.ppo import PPO

RAW = {"reward_scaling": "none", "reward_clip": 0.0, "whiten_advantages": "none", "value_clip": 0.0}
FORMS = [
    {},
    {"whiten_advantages": "batch"},
    {"reward_scaling": "whiten"},
    {"reward_scaling": "scale"},
    {"reward_scaling": "normalize", "whiten_advantages": "batch"},
    {"kl_in": "loss", "kl_estimator": "k3", "whiten_advantages": "batch"},
    {"kl_in": "loss", "kl_estimator": "k3", "reward_scaling": "scale", "whiten_advantages": "batch"},
    {"kl_in": "loss", "kl_estimator": "k3", "reward_scaling": "whiten"},
]


def tilted(coefficient):
    """The best policy under a KL with this weight in units of the reward, from the uniform reference."""
    weights = [math.exp(float(reward) / coefficient) for reward in REWARDS]
    return [weight / sum(weights) for weight in weights]


def distance(policy, other):
    """Total variation."""
    return sum(abs(p - q) for p, q in zip(policy, other, strict=True)) / 2


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_ppo_ends_where_its_coefficient_in_force_says(form):
    """Within 0.01, because whitened advantages keep their size near the optimum, and so do the steps."""
    algorithm = PPO(**(RAW | {"kl_coef": BETA} | form))
    start = algorithm.credit(arms(torch.zeros(3, dtype=torch.float64)), algorithm.start())
    coefficient = start.metrics["objective/kl_coef_in_force"]
    assert distance(limit(algorithm), tilted(coefficient)) < 0.01


def test_grpo_by_default_ends_near_the_optimum_and_the_papers_form_does_not(monkeypatch):
    """Rewards and KL of a fifth have the same optimum; divided by its deviation, a reward of any size weighs the same.

    Groups of 8 have 7/8 of the reward's gradient: that alone is a total variation of 0.045, the rest is noise.
    """
    monkeypatch.setattr(test_bandit, "REWARDS", (0.2, 0.0, 0.0))
    default, metrics = learn(GRPO(kl_coef=BETA / 5), 100, prompts=16)
    assert distance(default, OPTIMUM) < 0.08
    assert metrics[-1]["objective/kl_coef_in_force"] == pytest.approx(8 / 7 * BETA / 5)
    paper, metrics = learn(GRPOPaper(kl_coef=BETA / 5), 100, prompts=16)
    assert distance(paper, OPTIMUM) > 0.15
    assert metrics[-1]["objective/kl_coef_in_force"] < 0.02


@pytest.mark.parametrize("group_size", [2, 4])
def test_online_dpo_with_targets_from_the_scores_ends_at_the_optimum(group_size):
    algorithm = OnlineDPO(beta=BETA, label_smoothing="score_gap", group_size=group_size)
    found, metrics = learn(algorithm, 100, prompts=32)
    assert distance(found, OPTIMUM) < 0.01
    assert metrics[-1]["objective/kl_coef_in_force"] == BETA
    sure, _ = learn(OnlineDPO(beta=BETA, group_size=group_size), 100, prompts=32)
    assert distance(sure, OPTIMUM) > 0.15
