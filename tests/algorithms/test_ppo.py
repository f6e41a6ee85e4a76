"""PPO: credit on hand-worked numbers, the losses at the first minibatch, and what it refuses."""

import pytest
import torch

from plaudit.algorithms.ppo import PPO
from plaudit.errors import ConfigError
from plaudit.experience import Experience, Outputs
from plaudit.functional.controllers import Carry, Moments

PLAIN = {"reward_scaling": "none", "reward_clip": 0.0, "whiten_advantages": "none", "missing_eos_penalty": 0.0}


def experience(rewards=(2.0,), truncated=None, **changes):
    """Rows of one prompt token and three response tokens."""
    rows = len(rewards)
    mask = torch.tensor([[False, True, True, True]]).expand(rows, 4)
    fields = {
        "tokens": torch.zeros(rows, 4, dtype=torch.long),
        "attention_mask": torch.ones(rows, 4, dtype=torch.bool),
        "response_mask": mask,
        "rewards": torch.tensor(rewards),
        "truncated": torch.tensor(truncated or [False] * rows),
        "old_logprobs": torch.tensor([[0.0, -1.0, -2.0, -0.5]]).expand(rows, 4),
        "ref_logprobs": torch.tensor([[0.0, -1.5, -1.8, -0.9]]).expand(rows, 4),
        "values": torch.zeros(rows, 4),
    }
    return Experience(**(fields | changes))


def test_r1_token_rewards_and_metrics():
    credit = PPO(kl_coef=0.1, **PLAIN).credit(experience(), Carry(kl_coef=0.1))
    assert credit.batch.token_rewards[0].tolist() == pytest.approx([0, -0.05, 0.02, 1.96], abs=1e-6)
    assert credit.metrics["objective/kl"] == pytest.approx(0.7, abs=1e-6)
    assert credit.metrics["objective/kl_tok"] == pytest.approx(0.7 / 3, abs=1e-6)
    assert credit.metrics["objective/rlhf_reward"] == pytest.approx(1.93, abs=1e-6)
    assert credit.metrics["objective/entropy"] == pytest.approx(3.5, abs=1e-6)


@pytest.mark.parametrize(("critic", "start"), [("reward", "reward"), ("sft", "sft"), ("trunk", "sft")])
def test_what_a_critic_of_its_own_starts_from(critic, start):
    assert PPO(critic=critic).critic_init == start


def test_advantages_are_v1():
    values = torch.tensor([[0.0, 0.5, 0.6, 0.7]])
    batch = experience(rewards=(1.0,), ref_logprobs=experience().old_logprobs, values=values)
    credit = PPO(**PLAIN).credit(batch, Carry())
    assert credit.batch.advantages[0].tolist() == pytest.approx([0, 0.46575, 0.385, 0.3], abs=1e-6)
    assert credit.batch.returns[0].tolist() == pytest.approx([0, 0.96575, 0.985, 1], abs=1e-6)


def test_missing_eos_penalty_applies_to_truncated_rows_only():
    algorithm = PPO(**(PLAIN | {"missing_eos_penalty": 1.5}))
    credit = algorithm.credit(experience((2.0, 2.0), truncated=[True, False]), Carry())
    assert credit.batch.token_rewards[:, -1].tolist() == pytest.approx([0.5, 2.0])


def test_scores_are_normalised_by_moments_that_saw_them_and_then_clipped():
    algorithm = PPO(**(PLAIN | {"reward_scaling": "normalize", "reward_clip": 1.0}))
    credit = algorithm.credit(experience((1.0, 2.0, 3.0)), Carry())
    assert credit.carry.reward == Moments().update([1, 2, 3])
    assert credit.batch.token_rewards[:, -1].tolist() == pytest.approx(
        [-1.0, 0.0, 1.0]
    )  # +-1.22 clipped to 1


def test_clip_never_touches_the_kl_part():
    algorithm = PPO(**(PLAIN | {"reward_clip": 0.5}))
    credit = algorithm.credit(experience((2.0,)), Carry(kl_coef=10.0))
    assert credit.batch.token_rewards[0].tolist() == pytest.approx([0, -5.0, 2.0, -4.0 + 0.5], abs=1e-5)


def test_a_failed_reward_takes_part_in_nothing():
    whole = PPO().credit(experience((1.0, 3.0)), Carry())
    holed = PPO().credit(experience((1.0, float("nan"), 3.0)), Carry())
    assert holed.carry == whole.carry
    assert torch.allclose(holed.batch.advantages[[0, 2]], whole.batch.advantages)
    assert not holed.batch.advantages[1].any() and not holed.batch.response_mask[1].any()
    assert holed.metrics["objective/kl"] == pytest.approx(whole.metrics["objective/kl"])


def test_adaptive_kl_follows_the_measured_kl():
    algorithm = PPO(kl_coef=0.2, kl_target=6.0)
    credit = algorithm.credit(experience((1.0, 2.0)), algorithm.start())
    # 2 responses; the KL is far below 6, so the error is clipped to -0.2.
    assert credit.carry.kl_coef == pytest.approx(0.2 * (1 - 0.2 * 2 / 10_000), rel=1e-12)
    assert credit.metrics["objective/kl_coef"] == 0.2, "the metric is the coefficient that was used"


def test_p5_first_minibatch_is_reinforce():
    algorithm = PPO()
    batch = algorithm.weights(algorithm.credit(experience((1.0, 2.0, 4.0)), Carry()).batch)
    logprobs = batch.old_logprobs.clone().requires_grad_()
    loss = algorithm.loss(batch, Outputs(logprobs=logprobs, entropy=torch.zeros(3, 4)))
    loss.value.backward()
    assert loss.value.item() == pytest.approx(-(batch.advantages * batch.loss_weights).sum().item(), abs=1e-6)
    assert torch.allclose(logprobs.grad, -batch.advantages * batch.loss_weights, atol=1e-7)
    assert loss.metrics["policy/clip_fraction"] == 0 and loss.metrics["policy/approx_kl"] == 0
    assert loss.maxima["policy/ratio_max"] == 1


def test_entropy_bonus_is_subtracted():
    batch = PPO().weights(PPO().credit(experience(), Carry()).batch)
    entropy = torch.full((1, 4), 2.0)
    with_bonus, without = (
        PPO(entropy_coef=c).loss(batch, Outputs(logprobs=batch.old_logprobs, entropy=entropy)).value
        for c in (0.1, 0.0)
    )
    assert (with_bonus - without).item() == pytest.approx(-0.2, abs=1e-6)


def test_value_loss_is_a_masked_mean():
    batch = PPO().weights(experience(values=torch.full((1, 4), 0.5), returns=torch.ones(1, 4)))
    loss = PPO().value_loss(batch, Outputs(values=torch.tensor([[99.0, 0.9, 0.9, 0.9]])))
    assert loss.value.item() == pytest.approx(0.045, abs=1e-6)
    assert loss.metrics["critic/clip_fraction"].item() == pytest.approx(1.0)


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"group_size": 0}, {"kl_coef": 0.0, "kl_target": 6.0}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ConfigError):
        PPO(**wrong)
