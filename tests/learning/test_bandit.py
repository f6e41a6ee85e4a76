"""The KL-regularised bandit: every online method must reach its closed form, pi* ~ pi_ref exp(r / beta)."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from plaudit.algorithms.grpo import GRPO, DrGRPO
from plaudit.algorithms.ppo import PPO
from plaudit.algorithms.reinforce import REINFORCE
from plaudit.algorithms.reinforce_pp import REINFORCEPlusPlus
from plaudit.algorithms.rloo import RLOO
from plaudit.backends.local.learner import LocalLearner, LocalScorer
from plaudit.config.sections import ComputeSection, OptimizerSection, SamplingSection
from plaudit.experience import Outputs
from plaudit.generation.sampling import sample_seed, uniform
from plaudit.records import Prompt, RewardResult, Rollout
from plaudit.runtime import Runtime, TokenPrompt
from plaudit.training.online import OnlineLoop

REWARDS, BETA = (1.0, 0.0, 0.0), 0.5
OPTIMUM = [0.786986, 0.106507, 0.106507]


class Arms(nn.Module):
    """A policy over three tokens and one value, blind to the prompt."""

    def __init__(self):
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(3))
        self.value = nn.Parameter(torch.zeros(1))

    def forward(self, batch):
        logp = self.logits.log_softmax(-1)
        mask = batch.response_mask
        return Outputs(
            logprobs=logp[batch.tokens.clamp(max=2)] * mask,
            entropy=-(logp.exp() * logp).sum() * mask,
            values=self.value * mask,
        )


def one_token_prompt(index):
    return TokenPrompt(Prompt(f"p{index}", "pull"), (0,))


class ArmPuller:
    """Draws one token a rollout from the live policy with the engine's counter-based numbers."""

    def __init__(self, arms):
        self.arms, self.version = arms, 0

    def publish(self, weights, version):
        self.version = version

    @torch.no_grad()
    def generate(self, prompts, n, sampling, *, seed, iteration):
        logp = self.arms.logits.log_softmax(-1)
        edges = logp.exp().cumsum(-1)
        drawn = [(group, prompt, k) for group, prompt in enumerate(prompts) for k in range(n)]
        seeds = np.array([sample_seed(seed, iteration, p.prompt.id, k) for _, p, k in drawn], dtype=np.uint64)
        u = torch.from_numpy(uniform(seeds, np.zeros_like(seeds))).to(edges.dtype)
        arms = torch.searchsorted(edges, u).clamp(max=2).tolist()
        if sampling.top_k == 1:
            arms = [int(logp.argmax())] * len(arms)
        values = logp.tolist()
        rollouts = [
            Rollout.single(prompt.prompt, group, prompt.ids, (arm,), (values[arm],), str(arm), "stop")
            for (group, prompt, _), arm in zip(drawn, arms, strict=True)
        ]
        return [replace(rollout, policy_version=self.version) for rollout in rollouts]


def reward(rollouts):
    return [RewardResult(REWARDS[r.response_ids[0]]) for r in rollouts]


def learn(algorithm, iterations, prompts=256):
    arms, critic = Arms(), Arms()
    section = OptimizerSection(lr=0.05, schedule="linear", warmup_fraction=0.0)
    steps = iterations * algorithm.epochs * algorithm.minibatches
    runtime = Runtime(
        ArmPuller(arms),
        LocalLearner(arms, section, ComputeSection(), total_steps=steps),
        LocalScorer(Arms(), ComputeSection()),
        reward,
        LocalLearner(critic, section, ComputeSection(), total_steps=steps, name="critic")
        if "values" in algorithm.needs
        else None,
    )
    seen = []
    loop = OnlineLoop(
        algorithm, runtime, [one_token_prompt(i) for i in range(prompts)], SamplingSection(), prompts, 0, 0,
        lambda step, metrics, rollouts: seen.append(metrics),
    )  # fmt: skip
    loop.run(iterations)
    return arms.logits.softmax(-1).tolist(), seen


def test_ppo_reaches_the_closed_form():
    plain = {"reward_scaling": "none", "reward_clip": 0.0, "whiten_advantages": "none", "value_clip": 0.0}
    found, seen = learn(PPO(kl_coef=BETA, epochs=2, critic_warmup=2, target_kl=0.0, **plain), 120)
    assert found == pytest.approx(OPTIMUM, abs=0.02)
    kl = sum(p * math.log(3 * p) for p in OPTIMUM)
    assert seen[-1]["objective/kl"] == pytest.approx(kl, abs=0.1)
    assert max(m["rollout/logprob_diff_max"] for m in seen) < 1e-5


def test_a_policy_at_rest_has_ratio_one():
    _, seen = learn(PPO(epochs=1, critic_warmup=0), 1)
    assert seen[0]["policy/ratio_max"] == pytest.approx(1.0, abs=1e-5)
    assert seen[0]["policy/approx_kl"] == pytest.approx(0.0, abs=1e-9)
    assert seen[0]["policy/clip_fraction"] == 0.0


def test_warm_up_leaves_the_policy_alone():
    found, seen = learn(PPO(critic_warmup=3), 3)
    assert found == pytest.approx([1 / 3] * 3, abs=1e-7)
    assert "policy/loss" not in seen[0] and "critic/loss" in seen[0]


@pytest.mark.parametrize("baseline", ["none", "mean", "ema", "greedy", "value"])
def test_reinforce_reaches_the_closed_form_with_every_baseline(baseline):
    found, _ = learn(REINFORCE(kl_coef=BETA, baseline=baseline, critic_warmup=2), 100)
    assert found == pytest.approx(OPTIMUM, abs=0.03)


def test_rloo_reaches_the_closed_form_with_the_smallest_group():
    found, seen = learn(RLOO(kl_coef=BETA, group_size=2), 100, prompts=128)
    assert found == pytest.approx(OPTIMUM, abs=0.03)
    assert abs(seen[-1]["policy/advantages_mean"]) < 1e-6, "they sum to 0 over a group"


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_grpo_reaches_the_closed_form_with_the_unbiased_gradient(estimator):
    algorithm = GRPO(scale="none", group_size=64, kl_coef=BETA, kl_estimator=estimator)
    assert learn(algorithm, 100, prompts=4)[0] == pytest.approx(OPTIMUM, abs=0.03)


def test_dr_grpo_reaches_it_as_well():
    """Its normaliser is a constant, so the reward and the KL shrink together."""
    assert learn(DrGRPO(group_size=64, kl_coef=BETA), 100, prompts=4)[0] == pytest.approx(OPTIMUM, abs=0.03)


def test_naive_k3_is_another_objective():
    """The forward KL: its optimum is beta ref / (lambda - r)."""
    algorithm = GRPO(scale="none", group_size=64, kl_coef=BETA, kl_estimator="k3_naive")
    found, _ = learn(algorithm, 100, prompts=4)
    assert found == pytest.approx([0.728714, 0.135643, 0.135643], abs=0.02)


def test_a_group_mean_with_the_response_itself_in_it_shrinks_the_reward():
    """By (G - 1) / G, so that the KL weighs more: RLOO does not."""
    found, _ = learn(GRPO(scale="none", group_size=2, kl_coef=BETA), 100, prompts=128)
    half = math.exp(0.5 / BETA)
    assert found[0] == pytest.approx(half / (half + 2), abs=0.03)


def test_reinforce_pp_with_the_kl_in_the_loss():
    """Whitening makes the reward's unit its standard deviation; so the limit is not in closed form, its order is."""
    found, _ = learn(REINFORCEPlusPlus(baseline="group", group_size=8, kl_coef=BETA), 60)
    assert found[0] > 0.8 and found[1] == pytest.approx(found[2], abs=0.03)
