"""The bandit of test_bandit.py for the methods that have no closed form in it: the best arm wins, in their own way."""

import math
from dataclasses import replace

import pytest
import torch
from tests.learning.test_bandit import BETA, OPTIMUM, ArmPuller, Arms, learn, one_token_prompt, reward

from plaudit.algorithms.best_of_n import BestOfN
from plaudit.algorithms.grpo import CISPO, DAPO, GSPO
from plaudit.algorithms.ppo_presets import PPO_MAX_CODE, PPO_MAX_PAPER
from plaudit.algorithms.reinforce_pp import REINFORCEPlusPlus
from plaudit.algorithms.sft import SFT
from plaudit.backends.local.learner import LocalLearner
from plaudit.config.sections import ComputeSection, OptimizerSection, SamplingSection
from plaudit.data.collate import collate_rollouts
from plaudit.rollouts.collect import scored


@pytest.mark.parametrize(
    "algorithm", [DAPO(overlong_penalty=0.0), GSPO(), CISPO()], ids=lambda a: type(a).__name__
)
def test_without_a_kl_the_best_arm_takes_nearly_all(algorithm):
    found, seen = learn(algorithm, 60, prompts=16)
    assert found[0] > 0.9 and found[1] == pytest.approx(found[2], abs=0.05)
    assert seen[-1]["reward/mean"] > seen[0]["reward/mean"] + 0.4


@pytest.mark.parametrize("preset", [PPO_MAX_PAPER, PPO_MAX_CODE], ids=["paper", "code"])
def test_ppo_max_divides_the_reward_by_its_deviation_so_that_the_kl_weighs_less(preset):
    """The deviation of a reward of 0 or 1 is below 0.5, so a reward of 1 becomes one of more than 2."""
    found, seen = learn(replace(preset, kl_coef=BETA, critic_warmup=2), 80, prompts=128)
    assert found[0] > OPTIMUM[0] + 0.05 and found[1] == pytest.approx(found[2], abs=0.05)
    assert seen[-1]["critic/explained_variance"] < 0.1, "one value for all arms explains nothing: a baseline"


def test_reinforce_pp_with_the_mean_of_the_group_taken_off():
    algorithm = REINFORCEPlusPlus(baseline="group", group_size=64, kl_coef=BETA)
    found, _ = learn(algorithm, 80, prompts=4)
    assert found[0] > 0.8 and found[1] == pytest.approx(found[2], abs=0.03)


def test_imitating_the_best_of_n_is_the_law_of_the_best_of_n():
    """One round of four samples: the best arm is among them with probability 1 - (2/3)^4."""
    arms = Arms()
    prompts = [replace(one_token_prompt(place), ids=(place,)) for place in range(600)]
    rollouts = ArmPuller(arms).generate(prompts, 4, SamplingSection(), seed=0, iteration=0)
    algorithm = BestOfN(group_size=4, missing_eos_penalty=0.0)
    groups = {}
    for rollout in scored(reward, rollouts):
        groups.setdefault(rollout.group_id, []).append(rollout)
    kept = algorithm.pool([], [r for group in groups.values() for r in algorithm.keep(group)])
    assert len(kept) == 600
    batch = SFT().weights(collate_rollouts(kept, pad_id=0))
    section = OptimizerSection(lr=0.1, schedule="linear", warmup_fraction=0.0)
    learner = LocalLearner(arms, section, ComputeSection(), total_steps=100)
    for _ in range(100):
        learner.update(batch, SFT().loss)
    share = 1 - (2 / 3) ** 4
    error = math.sqrt(share * (1 - share) / 600)
    assert float(arms.logits.detach().softmax(-1)[0]) == pytest.approx(share, abs=4 * error)
    assert torch.isfinite(arms.logits).all()
