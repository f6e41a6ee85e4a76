"""A language model with a critic on its trunk must reach the closed form of its KL-regularised bandit."""

import pytest
import torch

from plaudit.algorithms.ppo import PPO
from plaudit.backends.local.learner import LocalLearner, LocalScorer
from plaudit.config.sections import ComputeSection, OptimizerSection, SamplingSection
from plaudit.generation.native import NativeGenerator
from plaudit.models.policy import Policy, ReferencePolicy
from plaudit.models.shared_trunk import SharedTrunk, TrunkCritic
from plaudit.models.tiny import tiny_lm, tiny_tokenizer
from plaudit.records import Prompt, RewardResult
from plaudit.runtime import Runtime, TokenPrompt
from plaudit.training.online import OnlineLoop

BETA = 0.5
ITERATIONS = 30
ROWS = 128
COMPUTE = ComputeSection(precision="fp32", threads=1)


@pytest.fixture
def tokenizer():
    return tiny_tokenizer(["a b c d e f g h"], 64)


def law(policy):
    """Next-token probabilities after the prompt ``[V]``."""
    with torch.no_grad():
        return policy.lm(input_ids=torch.tensor([[2]])).logits[0, -1].softmax(-1)


def test_ppo_on_one_trunk_reaches_the_closed_form(tokenizer):
    torch.manual_seed(0)
    policy = Policy(tiny_lm("llama", tokenizer, hidden=16, layers=1, scale=0.3))
    reference, start = ReferencePolicy(policy), law(policy)
    rewards = (torch.arange(len(start)) % 3 == 0).float()
    optimum = start * (rewards / BETA).exp()
    optimum /= optimum.sum()
    head = TrunkCritic(policy)

    def section(lr):
        return OptimizerSection(lr=lr, schedule="linear", warmup_fraction=0.0)

    algorithm = PPO(
        critic="trunk", kl_coef=BETA, epochs=2, critic_warmup=2, target_kl=0.0, reward_scaling="none", reward_clip=0.0,
        whiten_advantages="none", value_clip=0.0, missing_eos_penalty=0.0,
    )  # fmt: skip
    steps = ITERATIONS * algorithm.epochs
    critic = LocalLearner(head, section(0.02), COMPUTE, total_steps=steps, name="critic")
    learner = LocalLearner(
        SharedTrunk(policy, head), section(0.01), COMPUTE, total_steps=steps, partners={"critic": critic}
    )
    runtime = Runtime(
        NativeGenerator(policy.lm, tokenizer, (3,)), learner, LocalScorer(reference, COMPUTE),
        lambda rollouts: [RewardResult(float(rewards[r.response_ids[0]])) for r in rollouts], critic, shared_trunk=True,
    )  # fmt: skip
    seen = []
    loop = OnlineLoop(
        algorithm, runtime, [TokenPrompt(Prompt(f"p{i}", ""), (2,)) for i in range(ROWS)],
        SamplingSection(max_new_tokens=1), ROWS, 0, 0, lambda step, metrics, rollouts: seen.append(metrics),
    )  # fmt: skip
    loop.run(ITERATIONS)
    found = law(policy)
    far, near = (float((0.5 * (p - optimum).abs()).sum()) for p in (start, found))
    assert far > 0.1 and near < 0.03, (far, near)
    assert seen[-1]["critic/value_mean"] == pytest.approx(seen[-1]["critic/returns_mean"], abs=0.15)
