"""An online iteration with nothing to learn from takes no step, and the schedules go on."""

import pytest
import torch

from plaudit.algorithms.grpo import DAPO, GRPO
from plaudit.algorithms.online_dpo import OnlineDPO
from plaudit.algorithms.ppo import PPO
from plaudit.config.sections import MismatchSection, SamplingSection
from plaudit.records import Prompt, RewardResult, Rollout
from plaudit.runtime import Runtime, TokenPrompt
from plaudit.training.online import OnlineLoop

AS_SAMPLED = MismatchSection()
PROMPTS = [TokenPrompt(Prompt(f"p{i}", "x"), (1, 2)) for i in range(8)]


class Echo:
    """Response k to a prompt is the token 10 + k, and runs into the limit where ``reason`` says so."""

    def __init__(self, reason="stop"):
        self.reason = reason

    def publish(self, weights, version):
        pass

    def generate(self, prompts, n, sampling, *, seed, iteration):
        return [
            Rollout.single(p.prompt, group, p.ids, (10 + k,), (-0.5,), "x", self.reason)
            for group, p in enumerate(prompts)
            for k in range(n)
        ]


class Counted:
    """A learner that counts its verbs; ``off`` is by how much its log-probs differ from the sampler's."""

    def __init__(self, off=0.0):
        self.off, self.step, self.updates, self.rests = off, 0, 0, 0

    def read(self, batch, *signals):
        return [torch.where(batch.response_mask, -0.5 + self.off, 0.0) for _ in signals]

    def update(self, batch, loss, further=()):
        self.updates += 1
        return {"policy/loss": 0.0, "loss": 0.0, "lr": 0.0, "grad_norm": 0.0}

    def rest(self):
        self.rests += 1

    def plan(self, total_steps):
        pass

    def weights(self):
        return self


def iterate(algorithm, reward, reason="stop", off=0.0, mismatch=AS_SAMPLED):
    """Metrics of one iteration, and the learner."""
    policy, critic, history = Counted(off), Counted() if "values" in algorithm.needs else None, []
    OnlineLoop(
        algorithm, Runtime(Echo(reason), policy, Counted(), reward, critic), PROMPTS, SamplingSection(max_new_tokens=5),
        4, 0, 0, lambda number, metrics, rollouts: history.append(metrics), mismatch=mismatch,
    ).run(1)  # fmt: skip
    return history[0], policy, critic


def alike(rollouts):
    return [RewardResult(1.0)] * len(rollouts)


def by_response(rollouts):
    return [RewardResult(float(r.response_ids[0])) for r in rollouts]


FAR = MismatchSection(correction="drop", weight_high=1.01, reuse_below=0.0)


@pytest.mark.parametrize(
    ("algorithm", "reward", "how"),
    [
        (DAPO(group_size=2, epochs=2, minibatches=2), alike, {}),
        (OnlineDPO(epochs=2, minibatches=2), alike, {}),
        (GRPO(group_size=2, filter_overlong=True, epochs=2, minibatches=2), by_response, {"reason": "length"}),
        (GRPO(group_size=2, epochs=2, minibatches=2), by_response, {"off": 3.0, "mismatch": FAR}),
        (PPO(missing_eos="mask", epochs=2, minibatches=2, critic_warmup=0), by_response, {"reason": "length"}),
    ],
    ids=["no group is kept", "no pair", "all filtered", "all dropped", "all masked"],
)
def test_nothing_to_learn_from_is_no_step(algorithm, reward, how):
    metrics, policy, critic = iterate(algorithm, reward, **how)
    assert policy.updates == 0 and policy.rests == 4
    assert critic is None or (critic.updates == 0 and critic.rests == 4)
    assert metrics["policy/steps"] == 0 and metrics["policy/empty_share"] == 1
    assert metrics["response/length_mean"] == 1, "what was sampled is described all the same"


def test_steps_without_a_group_are_left_out_and_the_others_taken():
    def one_group(rollouts):
        """Of the first prompt only do the responses differ."""
        first = rollouts[0].prompt.id
        return [RewardResult(float(r.response_ids[0] if r.prompt.id == first else 1.0)) for r in rollouts]

    metrics, policy, _ = iterate(DAPO(group_size=2, minibatches=3, sampling_rounds=1), one_group)
    assert (policy.updates, policy.rests) == (2, 1), "two responses in three minibatches"
    assert metrics["policy/steps"] == 2 and metrics["policy/empty_share"] == pytest.approx(1 / 3)


def test_a_full_iteration_rests_nowhere():
    metrics, policy, _ = iterate(GRPO(group_size=2, minibatches=2), by_response)
    assert (policy.updates, policy.rests) == (2, 0) and metrics["policy/empty_share"] == 0
