"""Cases that the other tests of the algorithms pass by: each turns red under a fault of ``scripts/mutants.py``."""

import math

import pytest
import torch

from plaudit.algorithms import policy_gradient as pg
from plaudit.algorithms.dpo import DPO, IPO, ORPO
from plaudit.algorithms.grpo import CISPO, DAPO, GSPO
from plaudit.algorithms.kto import KTO
from plaudit.algorithms.online_dpo import OnlineDPO
from plaudit.algorithms.ppo import PPO
from plaudit.algorithms.reinforce import REINFORCE
from plaudit.algorithms.reinforce_pp import REINFORCEPlusPlus
from plaudit.algorithms.rloo import RLOO
from plaudit.experience import Experience, Loss, Outputs, Pairs
from plaudit.functional.preference_losses import logistic
from plaudit.functional.weights import loss_weights

NAN = float("nan")


def experience(rewards=(1.0, 0.0), lengths=(1, 3), **changes):
    """Rows of one prompt token and up to three response tokens; log-probs old -2, reference -1.5."""
    rows, places = len(rewards), torch.arange(4)
    real = places <= torch.tensor(lengths)[:, None]
    fields = {
        "tokens": torch.zeros(rows, 4, dtype=torch.long), "attention_mask": real, "response_mask": real & (places > 0),
        "group_ids": torch.zeros(rows, dtype=torch.long), "rewards": torch.tensor(rewards),
        "truncated": torch.zeros(rows, dtype=torch.bool), "length_limits": torch.tensor([4, 6, 5][:rows]),
        "old_logprobs": torch.full((rows, 4), -2.0), "ref_logprobs": torch.full((rows, 4), -1.5),
        "values": torch.zeros(rows, 4), "advantages": torch.ones(rows, 4),
    }  # fmt: skip
    return Experience(**(fields | changes))


def pairs(**changes):
    """One pair: chosen has two response tokens, rejected one."""
    mask = torch.tensor([[False, True, True], [False, True, False]])
    fields = {
        "tokens": torch.zeros(2, 3, dtype=torch.long),
        "attention_mask": torch.tensor([[True] * 3, [True, True, False]]),
        "response_mask": mask, "margins": torch.zeros(1), "targets": torch.ones(1),
        "ref_logprobs": torch.tensor([[0.0, -1.0, -1.0], [0.0, -1.0, 0.0]]),
    }  # fmt: skip
    return Pairs(**(fields | changes))


def outputs(batch, logprob):
    return Outputs(logprobs=logprob * batch.response_mask, entropy=torch.full(batch.response_mask.shape, 2.0))


@pytest.mark.parametrize(
    ("algorithm", "aggregation"),
    [(DAPO(), "token_mean"), (CISPO(), "token_mean"), (REINFORCEPlusPlus(), "token_mean"), (PPO(), "token_mean"),
     (GSPO(), "sequence_mean_token_mean"), (RLOO(), "sequence_mean_token_mean"),
     (REINFORCE(), "sequence_mean_token_sum")],
    ids=lambda x: type(x).__name__ if not isinstance(x, str) else x,
)  # fmt: skip
def test_how_each_method_takes_the_mean(algorithm, aggregation):
    batch = experience()
    assert torch.allclose(
        algorithm.weights(batch).loss_weights, loss_weights(batch.response_mask, aggregation)
    )


def test_weights_of_the_metrics_and_of_the_constant():
    batch = pg.weighted(experience(), "constant")
    assert batch.loss_weights[0, 1].item() == pytest.approx(1 / (2 * 6)), "the longest limit of the step"
    assert torch.allclose(batch.token_weights, loss_weights(batch.response_mask, "token_mean"))


def test_dapo_keeps_failed_rows_out_when_it_filters_long_ones():
    batch = DAPO(filter_overlong=True).credit(experience((1.0, 0.0, NAN), (1, 3, 2)), DAPO().start()).batch
    assert batch.response_mask.sum(-1).tolist() == [1, 3, 0]


@pytest.mark.parametrize(("ratio", "gradient"), [("sequence", (-0.25, -0.25)), ("token", (-0.5, 0.0))])
def test_gspo_gradient_of_tokens_with_advantages_of_their_own(ratio, gradient):
    algorithm = GSPO(ratio=ratio)
    batch = algorithm.weights(experience((1.0,), (2,), advantages=torch.tensor([[0.0, 1.0, 0.0, 0.0]])))
    logprobs = batch.old_logprobs.clone().requires_grad_()
    algorithm.loss(batch, Outputs(logprobs=logprobs, entropy=torch.zeros(1, 4))).value.backward()
    assert tuple(logprobs.grad[0, 1:3].tolist()) == pytest.approx(gradient)


def test_kl_of_a_response_does_not_read_padding():
    batch = experience(old_logprobs=torch.tensor([[0.0, -2.0, 9.0, 9.0]]).expand(2, 4))
    assert pg.sequence_kl(batch, batch.response_mask)[0].item() == pytest.approx(-0.5)


def test_kl_in_the_loss_is_weighed_by_the_ratio_of_new_to_old():
    batch = pg.weighted(experience((1.0,), (3,)), "token_mean")
    start = Loss(torch.zeros(()), {})
    found = pg.with_kl(start, batch, outputs(batch, -1.0), 0.1, "k1").value.item()
    assert found == pytest.approx(0.1 * (-1.0 - -1.5) * math.exp(-1.0 - -2.0))


def test_soft_targets_of_dpo_are_smoothed():
    batch = DPO().weights(pairs(targets=torch.tensor([0.8])))
    loss = DPO(beta=0.1, label_smoothing=0.1).loss(batch, outputs(batch, -0.5)).value
    margin = torch.tensor([0.1 * (1.0 - 0.5)])  # log-ratios 2 * 0.5 and 0.5
    assert loss.item() == pytest.approx(
        logistic(margin, torch.tensor([0.8 * 0.9 + 0.2 * 0.1])).item(), abs=1e-6
    )


def test_rewards_that_are_reported_are_in_units_of_beta():
    batch = IPO().weights(pairs())
    assert IPO(beta=0.3).loss(batch, outputs(batch, -0.5)).metrics["rewards/chosen"].item() == pytest.approx(
        0.15
    )
    means = ORPO(ratio_coef=0.3).loss(batch, outputs(batch, -0.5)).metrics["rewards/chosen"]
    assert means.item() == pytest.approx(-0.15)


def test_thumbs_weigh_by_class_and_are_right_past_the_zero_point():
    batch = experience((1.0, 0.0, 0.0), (3, 3, 3), mismatched_kl=torch.full((3,), 4.0))
    batch = KTO().weights(batch.replace(ref_logprobs=torch.full((3, 4), -3.0)))
    assert batch.class_weights.tolist() == [1.0, 0.5, 0.5]
    metrics = KTO(beta=0.1).loss(batch, outputs(batch, -1.0)).metrics  # log-ratio 6, reward 0.6 over 0.4
    assert metrics["rewards/accuracies"].item() == pytest.approx(1 / 3)
    assert metrics["policy/entropy"].item() == pytest.approx(2.0)


def test_online_pairs_know_how_far_they_are_apart():
    algorithm = OnlineDPO(group_size=2)
    assert algorithm.credit(experience((1.0, 3.0), (3, 3)), algorithm.start()).batch.margins.tolist() == [2.0]


def test_weights_against_a_mismatched_sampler_multiply_the_policy_loss():
    batch = PPO().weights(experience(advantages=torch.tensor([[0.0, 1.0, 2.0, 3.0]]).expand(2, 4)))
    out = Outputs(logprobs=batch.old_logprobs, entropy=torch.zeros(2, 4))
    once = PPO().loss(batch, out).value
    twice = PPO().loss(batch.replace(mismatch_weights=2 * batch.response_mask.float()), out).value
    assert twice.item() == pytest.approx(2 * once.item()) and once < 0


def test_failed_and_truncated_rows_stay_out_of_the_moments():
    batch = experience(
        (1.0, NAN, 5.0), (1, 2, 3), truncated=torch.tensor([False, False, True]), last_values=torch.zeros(3)
    )
    carry = PPO(missing_eos="bootstrap").credit(batch, PPO().start()).carry
    assert (carry.reward.count, carry.reward.mean) == (1, 1.0)


def test_failed_rows_leave_no_nan_behind():
    batch = experience(
        (1.0, NAN), greedy_rewards=torch.zeros(2), greedy_truncated=torch.zeros(2, dtype=torch.bool)
    )
    for algorithm in (REINFORCE(), REINFORCE(baseline="greedy"), REINFORCEPlusPlus()):
        done = algorithm.credit(batch, algorithm.start()).batch
        assert not done.advantages.isnan().any() and not done.response_mask[1].any()
        assert done.token_rewards is None or not done.token_rewards.isnan().any()


def test_reinforce_pp_clips_the_ratio_of_new_to_old():
    algorithm = REINFORCEPlusPlus()
    batch = algorithm.weights(experience((1.0,), (3,)))
    assert algorithm.loss(batch, outputs(batch, -2.0 + math.log(1.1))).value.item() == pytest.approx(
        -1.1, abs=1e-5
    )


def test_reinforce_pp_rewards_are_the_kl_of_each_token_and_the_score():
    algorithm = REINFORCEPlusPlus(kl_coef=0.1, missing_eos_penalty=0.0)
    found = algorithm.credit(experience((1.0,), (3,)), algorithm.start()).batch.token_rewards[0]
    assert found.tolist() == pytest.approx([0.0, 0.05, 0.05, 1.05])


def test_rloo_whitens_responses_and_rewards_their_last_token():
    algorithm = RLOO(kl_coef=0.0, missing_eos_penalty=0.0, whiten_advantages=True)
    done = algorithm.credit(experience((1.0, 0.0), (1, 3)), algorithm.start()).batch
    assert done.advantages.tolist() == [pytest.approx([0, 1, 0, 0]), pytest.approx([0, -1, -1, -1])]
