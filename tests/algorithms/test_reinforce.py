"""REINFORCE with each baseline, and REINFORCE++, on the rewards of R3."""

import pytest
import torch

from plaudit.algorithms.reinforce import REINFORCE
from plaudit.algorithms.reinforce_pp import REINFORCEPlusPlus
from plaudit.experience import Outputs
from plaudit.functional.controllers import Carry

TO_GO, NONE = [2.75, 3.5, 3.0], {"baseline": "none", "kl_coef": 1.0, "gamma": 0.5}


@pytest.fixture
def r3(experience):
    """Token rewards 1, 2, 3 with kl_coef 1: a KL of -1, -2, -1, and a score of 2."""

    def make(rewards=(2.0,), **changes):
        rows = len(rewards)
        gap = torch.tensor([[0.0, -1, -2, -1]], dtype=torch.float64).expand(rows, 4)
        return experience(
            list(rewards), width=3, old_logprobs=gap, ref_logprobs=torch.zeros_like(gap), **changes
        )

    return make


def advantages(algorithm, batch, carry=None):
    return algorithm.credit(batch, carry or algorithm.start()).batch.advantages[:, 1:]


def test_r3_rewards_to_go_and_full_return(r3):
    assert advantages(REINFORCE(**NONE), r3())[0].tolist() == pytest.approx(TO_GO)
    assert advantages(REINFORCE(**NONE, rewards_to_go=False), r3())[0].tolist() == pytest.approx([2.75] * 3)


def test_mean_baseline(r3):
    found = advantages(REINFORCE(**(NONE | {"baseline": "mean"})), r3((2.0, 6.0)))
    whole = [2.75, 2.75 + 4 / 4]  # the score is two steps away: discounted twice
    assert found[0].tolist() == pytest.approx([g - sum(whole) / 2 for g in TO_GO])
    assert found[:, 0].sum() == pytest.approx(0)


def test_ema_baseline_is_that_of_earlier_batches(r3):
    algorithm = REINFORCE(**(NONE | {"baseline": "ema"}))
    first = algorithm.credit(r3(), algorithm.start())
    assert first.carry.baseline == pytest.approx(2.75) and first.batch.advantages[0, 1] == pytest.approx(0)
    second = algorithm.credit(r3((6.0,)), first.carry)
    assert second.batch.advantages[0, 1].item() == pytest.approx(3.75 - 2.75)
    assert second.carry.baseline == pytest.approx(0.99 * 2.75 + 0.01 * 3.75)


def test_greedy_baseline_has_the_same_penalty(r3):
    algorithm = REINFORCE(**(NONE | {"baseline": "greedy"}), missing_eos_penalty=0.5)
    assert "greedy_rewards" in algorithm.needs and "values" not in algorithm.needs
    greedy = {
        "greedy_rewards": torch.tensor([1.0, float("nan"), 1.0]),
        "greedy_truncated": torch.tensor([0, 0, 1]) > 0,
    }
    batch = r3((2.0, 2.0, 2.0), **greedy)
    found = algorithm.credit(batch, algorithm.start()).batch
    assert found.advantages[0, 1:].tolist() == pytest.approx([g - 1 for g in TO_GO])
    assert not found.response_mask[1].any(), "without a baseline a row is left out"
    assert found.advantages[2, 1:].tolist() == pytest.approx([g - 0.5 for g in TO_GO])


def test_value_baseline_trains_its_critic_on_returns(r3):
    values = torch.tensor([[0.0, 1.0, 2.0, 4.0]], dtype=torch.float64)
    algorithm = REINFORCE(**(NONE | {"baseline": "value"}))
    assert "values" in algorithm.needs
    credit = algorithm.credit(r3(values=values), algorithm.start())
    assert credit.batch.advantages[0, 1:].tolist() == pytest.approx([1.75, 1.5, -1.0])
    loss = algorithm.value_loss(algorithm.weights(credit.batch), Outputs(values=values))
    assert loss.value.item() == pytest.approx((1.75**2 + 1.5**2 + 1) / 6), "half, and a mean over tokens"
    assert "critic/explained_variance" in credit.metrics


def test_the_loss_sums_over_tokens_and_averages_over_responses(experience):
    algorithm = REINFORCE(**NONE)
    batch = algorithm.weights(experience([1.0, 1.0], lengths=[1, 3], width=3))
    batch = batch.replace(advantages=batch.response_mask.double())
    logprobs = torch.full((2, 4), -0.5, dtype=torch.float64)
    out = Outputs(logprobs=logprobs, entropy=torch.zeros_like(logprobs))
    assert algorithm.loss(batch, out).value.item() == pytest.approx((0.5 + 1.5) / 2)


def test_missing_eos_penalty(r3):
    algorithm = REINFORCE(**NONE, missing_eos_penalty=4.0)
    found = advantages(algorithm, r3(truncated=torch.tensor([True])))
    assert found[0].tolist() == pytest.approx([1.75, 1.5, -1.0])


def test_r3_reinforce_pp_whitens_over_the_batch(r3):
    algorithm = REINFORCEPlusPlus(kl_coef=1.0, gamma=0.5)
    assert advantages(algorithm, r3())[0].tolist() == pytest.approx([-1.0690, 1.3363, -0.2673], abs=1e-4)
    both = advantages(algorithm, r3((2.0, 6.0)))
    assert both.mean().item() == pytest.approx(0, abs=1e-9) and both.std(
        correction=0
    ).item() == pytest.approx(1)


def test_reinforce_pp_with_a_group_baseline(r3):
    algorithm = REINFORCEPlusPlus(baseline="group", group_size=2, kl_coef=0.3)
    assert algorithm.kl_in_loss and not REINFORCEPlusPlus().kl_in_loss
    batch = r3((2.0, 6.0, 1.0, 1.0), groups=[0, 0, 1, 1])
    found = advantages(algorithm, batch)
    assert found[:, 0].tolist() == pytest.approx([-(2**0.5), 2**0.5, 0, 0]), "+-2 and 0, whitened"
    credit = algorithm.credit(batch, Carry(kl_coef=0.3))
    assert credit.batch.token_rewards.sum(-1).tolist() == pytest.approx([-2, 2, 0, 0]), "no KL in the reward"
    batch = algorithm.weights(credit.batch)
    out = Outputs(logprobs=batch.old_logprobs, entropy=torch.zeros_like(batch.old_logprobs))
    k2 = (1 + 4 + 1) / 2 / 3
    assert algorithm.loss(batch, out).value.item() == pytest.approx(0.3 * k2)
