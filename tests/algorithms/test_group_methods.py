"""GRPO and its relatives, each on numbers worked by hand."""

import pytest
import torch

from plaudit.algorithms.grpo import CISPO, DAPO, GRPO, GSPO, DrGRPO, GRPOPaper
from plaudit.algorithms.rloo import RLOO
from plaudit.experience import Outputs

RHO, A = [1.5, 0.5, 1.1, 0.9], [1.0, -1.0, -1.0, 1.0]


def loss_of(algorithm, experience, ratios=RHO, advantages=A, **changes):
    """The loss of one response with the given ratios and advantages."""
    batch = experience([0.0], **changes)
    start = batch.old_logprobs.clone()
    row = torch.tensor([[0.0, *advantages]], dtype=torch.float64)
    batch = algorithm.weights(batch.replace(advantages=row))
    moved = torch.tensor([[1.0, *ratios]], dtype=torch.float64).log()
    logprobs = (start + moved).requires_grad_()
    return algorithm.loss(batch, Outputs(logprobs=logprobs, entropy=torch.zeros_like(start))), logprobs


def test_p1_grpo_clips(experience):
    loss, logprobs = loss_of(GRPO(kl_coef=0.0), experience)
    assert loss.value.item() == pytest.approx(-0.05)
    assert float(loss.metrics["policy/clip_fraction"]) == pytest.approx(0.5)
    assert float(loss.metrics["policy/clip_fraction_low"]) == pytest.approx(0.25)
    assert float(loss.metrics["policy/clip_fraction_high"]) == pytest.approx(0.25)
    loss.value.backward()
    assert logprobs.grad[0].tolist() == pytest.approx([0, 0, 0, 0.275, -0.225])


@pytest.mark.parametrize("algorithm", [GRPO(kl_coef=0.0, clip_high=0.28), DAPO()])
def test_p2_clip_higher(algorithm, experience):
    assert loss_of(algorithm, experience)[0].value.item() == pytest.approx(-0.07)


def test_dr_grpo_divides_by_the_length_limit_and_nothing_else(experience):
    assert loss_of(DrGRPO(), experience)[0].value.item() == pytest.approx(-0.05)
    longer = {"length_limits": torch.tensor([8])}
    assert loss_of(DrGRPO(), experience, **longer)[0].value.item() == pytest.approx(-0.025)


def test_advantages_g1(experience):
    batch = experience([1.0, 0, 0, 1])
    divided = 0.5 / (3**-0.5 + 1e-4)
    for algorithm, expected in ((GRPOPaper(), divided), (GSPO(), divided), (GRPO(), 0.5), (DrGRPO(), 0.5)):
        found = algorithm.credit(batch, algorithm.start()).batch.advantages
        assert found[:, 1].tolist() == pytest.approx([expected, -expected, -expected, expected])
        assert not found[:, 0].any() and (found[:, 1:] == found[:, 1:2]).all()


def test_kl_in_the_loss_is_k3_at_rest(experience):
    loss, _ = loss_of(GRPO(kl_coef=0.5), experience, [1.0] * 4, [0.0] * 4)
    batch = experience([0.0])
    gap = (batch.old_logprobs - batch.ref_logprobs)[0, 1:]
    k3 = float((torch.expm1(-gap) + gap).mean())
    assert loss.value.item() == pytest.approx(0.5 * k3)
    assert float(loss.metrics["policy/kl_loss"]) == pytest.approx(k3)


def test_q1_gspo_loss(experience):
    up, _ = loss_of(GSPO(), experience, [2.718281828**0.1, 2.718281828**0.3] * 2, [1.0] * 4)
    assert up.value.item() == pytest.approx(-1.0004, abs=1e-6)
    assert float(up.metrics["policy/clip_fraction"]) == 1
    down, _ = loss_of(GSPO(), experience, [2.718281828**0.1, 2.718281828**0.3] * 2, [-1.0] * 4)
    assert down.value.item() == pytest.approx(1.221403, abs=1e-6)


def test_cispo_may_have_a_least_weight_too(experience):
    """Ratios of 1/2: the weight is 1/2, and 1 - clip where that is more."""
    free, _ = loss_of(CISPO(), experience, [0.5] * 4, [1.0] * 4)
    bound, _ = loss_of(CISPO(clip=0.3), experience, [0.5] * 4, [1.0] * 4)
    assert bound.value.item() == pytest.approx(free.value.item() * 0.7 / 0.5)


def test_q2_cispo_loss(experience):
    loss, logprobs = loss_of(CISPO(ratio_max=1.2), experience, [2.0] * 4, [1.0] * 4)
    assert loss.value.item() == pytest.approx(-1.2 * logprobs[0, 1:].mean().item())
    loss.value.backward()
    assert logprobs.grad[0, 1:].tolist() == pytest.approx([-0.3] * 4)


def test_rloo_ratio_is_that_of_the_response(experience):
    loss, logprobs = loss_of(RLOO(), experience, [1.1, 1.1, 0.9, 0.95], [1.0] * 4)
    rho = 1.1 * 1.1 * 0.9 * 0.95
    assert loss.value.item() == pytest.approx(-rho)
    loss.value.backward()
    assert logprobs.grad[0, 1:].tolist() == pytest.approx([-rho] * 4), "each token has the whole ratio"
    assert loss_of(RLOO(), experience, [1.2] * 4, [1.0] * 4)[0].value.item() == pytest.approx(-1.2), "clipped"


def test_rloo_takes_the_kl_of_the_response_into_the_reward(experience):
    zero = torch.zeros(3, 5, dtype=torch.float64)
    gap = torch.tensor([[0, 0.5, -0.2, 0.4, 0]] * 3, dtype=torch.float64) * torch.tensor(
        [[1.0], [2.0], [0.0]]
    )
    batch = experience([2.0, 2.0, 1.0], old_logprobs=gap, ref_logprobs=zero)
    algorithm = RLOO(kl_coef=0.1, group_size=3)
    credit = algorithm.credit(batch, algorithm.start())
    totals = [2 - 0.07, 2 - 0.14, 1.0]
    expected = [totals[i] - sum(totals[j] for j in range(3) if j != i) / 2 for i in range(3)]
    assert credit.batch.advantages[:, 1].tolist() == pytest.approx(expected)
    assert credit.batch.advantages[:, 1].sum().item() == pytest.approx(0, abs=1e-6)
    assert credit.metrics["objective/rlhf_reward"] == pytest.approx(sum(totals) / 3)
    assert credit.metrics["objective/non_score_reward"] == pytest.approx(-0.07)


def test_rloo_penalises_before_it_compares(experience):
    batch = experience([1.0, 1.0], truncated=torch.tensor([True, False]))
    algorithm = RLOO(kl_coef=0.0, missing_eos_penalty=0.5, group_size=2)
    assert algorithm.credit(batch, algorithm.start()).batch.advantages[:, 1].tolist() == pytest.approx(
        [-0.5, 0.5]
    )


def test_dapo_shapes_overlong_scores(experience):
    batch = experience([1.0, 1.0, 1.0], lengths=[80, 90, 100], width=100)
    algorithm = DAPO(group_size=3)
    advantages = algorithm.credit(batch, algorithm.start()).batch.advantages[:, 1]
    assert advantages.tolist() == pytest.approx([0.5 / 0.5001, 0, -0.5 / 0.5001])
    off = DAPO(overlong_penalty=0.0)
    assert not off.credit(batch, off.start()).batch.advantages.any()


def test_dapo_filters_overlong_rows_from_the_loss_and_not_from_the_mean(experience):
    batch = experience([1.0, 0.0, 0.0, 1.0], truncated=torch.tensor([True, False, False, False]))
    plain, filters = DAPO(overlong_penalty=0.0), DAPO(overlong_penalty=0.0, filter_overlong=True)
    kept, filtered = (each.credit(batch, each.start()).batch for each in (plain, filters))
    assert torch.equal(kept.advantages[1:], filtered.advantages[1:])
    assert (
        kept.advantages[0].any() and not filtered.advantages[0].any() and not filtered.response_mask[0].any()
    )
    assert filters.weights(filtered).loss_weights[1:].sum() == pytest.approx(1)


def test_clip_0_bounds_nothing_as_in_ppo(experience):
    # -A rho of the four tokens: -1.5, 0.5, 1.1, -0.9
    loss, logprobs = loss_of(GRPO(clip=0.0, kl_coef=0.0), experience)
    assert loss.value.item() == pytest.approx(-0.2)
    loss.value.backward()
    assert logprobs.grad[0].tolist() == pytest.approx([0, -0.375, 0.125, 0.275, -0.225])
    upper = loss_of(GRPO(clip=0.0, clip_high=0.2, kl_coef=0.0), experience)[0]
    assert upper.value.item() == pytest.approx(-0.125), "1.5 is cut to 1.2, 0.5 is left"


def test_a_buffer_without_a_penalty_is_told():
    assert "overlong_buffer has no effect" in GRPO(overlong_buffer=0.2).cautions[0]
    assert GRPO().cautions == DAPO().cautions == ()


def test_dapo_keeps_groups_that_are_neither_solved_nor_hopeless():
    nan = float("nan")
    rewards = torch.tensor([1.0, 1.0, 0.0, 1.0, 0.0, 0.0, nan, nan, nan, 1.0])
    ids = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3, 4, 4])
    assert DAPO().keeps(rewards, ids).nonzero().flatten().tolist() == [2, 3]
