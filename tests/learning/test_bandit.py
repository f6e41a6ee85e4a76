"""The KL-regularised bandit of algorithms.md 3.6: PPO must reach its closed form, pi* ~ pi_ref exp(r / beta)."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from plaudit.algorithms.ppo import PPO
from plaudit.config.sections import ComputeSection, OptimizerSection, SamplingSection
from plaudit.experience import Outputs
from plaudit.generation.sampling import sample_seed, uniform
from plaudit.records import Prompt, RewardResult, Rollout
from plaudit.training.learner import LocalLearner, LocalScorer
from plaudit.training.online import OnlineLoop
from plaudit.training.runtime import Runtime

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


class OneTokenPrompt:
    def __init__(self, index):
        self.prompt, self.ids = Prompt(f"p{index}", "pull"), (0,)


class ArmPuller:
    """Draws one token a rollout from the live policy with the engine's counter-based numbers."""

    policy_version = 0

    def __init__(self, arms):
        self.arms = arms

    @torch.no_grad()
    def generate(self, prompts, n, sampling, *, seed, iteration):
        logp = self.arms.logits.log_softmax(-1)
        edges = logp.exp().cumsum(-1)
        rollouts = []
        for group, prompt in enumerate(prompts):
            for k in range(n):
                u = uniform(np.uint64([sample_seed(seed, iteration, prompt.prompt.id, k)]), np.uint64([0]))[0]
                arm = min(int(torch.searchsorted(edges, torch.tensor(u, dtype=edges.dtype))), 2)
                rollouts.append(
                    Rollout(prompt.prompt, group, prompt.ids, (arm,), (float(logp[arm]),), str(arm), "stop")
                )
        return rollouts


def reward(rollouts):
    return [RewardResult(REWARDS[r.response_ids[0]]) for r in rollouts]


def learn(algorithm, iterations):
    arms, critic = Arms(), Arms()
    section = OptimizerSection(lr=0.05, schedule="linear", warmup_fraction=0.0)
    steps = iterations * algorithm.epochs * algorithm.minibatches
    runtime = Runtime(
        ArmPuller(arms),
        LocalLearner(arms, section, ComputeSection(), total_steps=steps),
        LocalScorer(Arms(), ComputeSection(), "logprobs"),
        reward,
        LocalLearner(critic, section, ComputeSection(), total_steps=steps, signal="values"),
    )
    seen = []
    loop = OnlineLoop(
        algorithm, runtime, [OneTokenPrompt(i) for i in range(256)], SamplingSection(), 256, 0, 0,
        lambda step, metrics, rollouts: seen.append(metrics),
    )  # fmt: skip
    loop.run(iterations)
    return arms.logits.softmax(-1).tolist(), seen


def test_ppo_reaches_the_closed_form():
    plain = {"reward_scaling": "none", "reward_clip": 0.0, "whiten_advantages": False, "value_clip": 0.0}
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
