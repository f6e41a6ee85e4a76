"""Reward model, KTO and SimPO at their edges: each turns red under a fault of ``scripts/mutants.py``."""

import math

import pytest
import torch

from plaudit.algorithms.dpo import DPO, IPO, ORPO, Hinge, SimPO
from plaudit.algorithms.kto import KTO
from plaudit.algorithms.ppo import PPO
from plaudit.algorithms.reward_model import RewardModel
from plaudit.errors import ConfigError
from plaudit.experience import Experience, Outputs, Pairs, Rankings
from plaudit.functional.controllers import Carry


def rows(lengths, width=4, **fields):
    """Rows of one prompt token and so many response tokens."""
    places = torch.arange(width)
    real = places <= torch.tensor(lengths)[:, None]
    return Experience(torch.zeros(len(lengths), width, dtype=torch.long), real, real & (places > 0), **fields)


def pairs(lengths=(2, 1), margins=None, targets=None):
    made = rows(lengths, ref_logprobs=torch.full((len(lengths), 4), -1.0))
    count = len(lengths) // 2
    return Pairs(
        made.tokens, made.attention_mask, made.response_mask, torch.tensor(margins or [0.0] * count),
        torch.tensor(targets or [1.0] * count), ref_logprobs=made.ref_logprobs,
    )  # fmt: skip


def rankings(ranks, sizes):
    made = rows([3] * len(ranks))
    return Rankings(
        made.tokens, made.attention_mask, made.response_mask, torch.tensor(ranks), torch.tensor(sizes)
    )


def softplus(x):
    return math.log1p(math.exp(x))


def test_the_weight_of_a_row_stands_at_its_last_token():
    batch = rows([1, 3], rewards=torch.tensor([1.0, 0.0]))
    for algorithm in (RewardModel(), KTO()):
        found = algorithm.weights(batch).loss_weights
        assert found.tolist() == [[0, 0.5, 0, 0], [0, 0, 0, 0.5]]


def test_a_rating_on_the_line_is_a_tie():
    algorithm = KTO(good_above=0.5)
    assert [algorithm.is_tie(rating) for rating in (0.4, 0.5, 0.6)] == [False, True, False]
    assert [algorithm.is_good(rating) for rating in (0.4, 0.5, 0.6)] == [False, False, True]


def test_the_coefficient_of_a_length_rule_is_1_if_none_is_given():
    assert RewardModel(length="divide").length_correction == ("divide", 1.0)
    assert RewardModel(length=("penalty", 0.3)).length_correction == ("penalty", 0.3)


def test_each_margin_is_multiplied_by_the_setting():
    algorithm = RewardModel(margin=0.5)
    batch = algorithm.weights(pairs((1, 1, 1, 1), margins=[1.0, 3.0]))
    loss = algorithm.loss(batch, Outputs(scores=torch.tensor([2.0, 1.0, 2.0, 1.0]))).value
    assert loss.item() == pytest.approx((softplus(-0.5) + softplus(0.5)) / 2, abs=1e-6)


def test_centering_is_added():
    scores = Outputs(scores=torch.tensor([2.0, 1.0]))
    with_it, without = (
        a.loss(a.weights(pairs()), scores).value.item()
        for a in (RewardModel(centering=0.1), RewardModel())
    )
    assert with_it - without == pytest.approx(0.1 * 9, abs=1e-6)


@pytest.mark.parametrize(
    ("smoothing", "right", "wrong"), [("conservative", 0.9, 0.1), ("robust", 1.125, -0.125)]
)
def test_both_kinds_of_smoothing(smoothing, right, wrong):
    algorithm = RewardModel(label_smoothing=0.1, smoothing=smoothing)
    loss = algorithm.loss(algorithm.weights(pairs()), Outputs(scores=torch.tensor([2.0, 1.0]))).value
    assert loss.item() == pytest.approx(right * softplus(-1) + wrong * softplus(1), abs=1e-6)


@pytest.mark.parametrize("weight", ["pairs", "all_pairs"])
def test_a_step_of_ties_alone_weighs_nothing_and_is_no_division_by_zero(weight):
    algorithm = RewardModel(ranking_loss=weight)
    batch = algorithm.weights(rankings([1.0, 1.0, 2.0, 2.0], [2, 2]))
    assert batch.loss_weights.tolist() == [0.0, 0.0]


def test_metrics_of_a_microbatch_of_lists_are_weighted():
    batch = RewardModel().weights(rankings([1.0, 2.0, 1.0, 2.0], [2, 2])).select(torch.tensor([0]))
    found = RewardModel().loss(batch, Outputs(scores=torch.tensor([3.0, 1.0]))).metrics
    assert found["reward_model/margin"].item() == pytest.approx(1.0), "half of 2: the other half is elsewhere"
    half = RewardModel().weights(pairs((1, 1, 1, 1))).select(torch.tensor([0]))
    found = RewardModel().loss(half, Outputs(scores=torch.tensor([3.0, 1.0]))).metrics
    assert found["reward_model/margin"].item() == pytest.approx(1.0)
    assert found["loss"].item() == pytest.approx(softplus(-2) / 2, abs=1e-6)


def test_a_label_is_right_on_its_side_of_a_half():
    batch = RewardModel().weights(rows([1, 1, 1], rewards=torch.tensor([0.7, 0.7, 0.2])))
    loss = RewardModel().loss(batch, Outputs(scores=torch.tensor([1.0, -1.0, -1.0])))
    assert loss.metrics["reward_model/accuracy"].item() == pytest.approx(2 / 3)
    expected = [0.7 * softplus(-1) + 0.3 * softplus(1), 0.3 * softplus(-1) + 0.7 * softplus(1)]
    expected.append(0.2 * softplus(1) + 0.8 * softplus(-1))
    assert loss.value.item() == pytest.approx(sum(expected) / 3, abs=1e-6)


def test_regression_reports_its_error_with_and_without_heads():
    one = RewardModel(ratings="regression")
    batch = one.weights(
        rows([1, 1], rewards=torch.tensor([1.0, -1.0]), attributes=torch.tensor([[1.0], [0.0]]))
    )
    found = one.loss(batch, Outputs(scores=torch.tensor([0.0, 1.0]))).metrics
    assert {k: v.item() for k, v in found.items()} == {"loss": 2.5, "reward_model/squared_error": 2.5}
    heads = RewardModel(ratings="regression", attributes=("kind",))
    found = heads.loss(batch, Outputs(scores=torch.zeros(2), heads=torch.tensor([[3.0], [0.0]]))).metrics
    assert {k: v.item() for k, v in found.items()} == {
        "loss": 2.0, "reward_model/squared_error": 2.0, "reward_model/squared_error/kind": 2.0,
    }  # fmt: skip
    part = one.loss(batch.select(torch.tensor([1])), Outputs(scores=torch.tensor([1.0]))).value
    assert part.item() == pytest.approx(2.0), "its share of the step"


def test_weights_of_qualities_are_those_given_or_all_alike():
    four = ("a", "b", "c", "d")
    assert RewardModel(ratings="regression", attributes=four).head_weights == (0.25,) * 4
    weights = (0.5, 0.1, 0.2, 0.2)
    assert (
        RewardModel(ratings="regression", attributes=four, attribute_weights=weights).head_weights == weights
    )
    with pytest.raises(ConfigError, match="3 weights for 4"):
        RewardModel(ratings="regression", attributes=four, attribute_weights=(1.0, 2.0, 3.0))
    with pytest.raises(ConfigError, match="trained on ratings"):
        RewardModel(attributes=four)
    assert RewardModel(ranking_loss="best", smoothing="robust").ranking_loss == "best", "nothing to refuse"


def test_lm_loss_of_the_chosen_reads_no_padding_and_no_rejected_response():
    algorithm = RewardModel(lm_coef=0.5)
    batch = algorithm.weights(pairs((2, 3, 1, 3)))
    logprobs = torch.full((4, 4), -100.0)
    logprobs[0, 1:3] = torch.tensor([-1.0, -3.0])
    logprobs[2, 1] = -4.0
    scores = torch.tensor([2.0, 1.0, 2.0, 1.0])
    loss = algorithm.loss(batch, Outputs(scores=scores, logprobs=logprobs))
    assert loss.metrics["reward_model/lm_loss"].item() == pytest.approx((2.0 + 4.0) / 2)
    assert loss.value.item() == pytest.approx(softplus(-1) + 0.5 * 3.0, abs=1e-6)
    part = algorithm.loss(batch.select(torch.tensor([1])), Outputs(scores=scores[2:], logprobs=logprobs[2:]))
    assert part.metrics["reward_model/lm_loss"].item() == pytest.approx(2.0), "its share of the step"
    none = RewardModel().loss(RewardModel().weights(pairs()), Outputs(scores=scores[:2]))
    assert "reward_model/lm_loss" not in none.metrics


@pytest.mark.parametrize(
    "algorithm", [DPO(), IPO(), IPO(average=False), Hinge(), ORPO(), SimPO(), RewardModel(lm_coef=0.1)]
)
def test_a_response_without_a_token_is_no_division_by_zero(algorithm):
    batch = algorithm.weights(pairs((0, 2)))
    logprobs = (-0.5 * batch.response_mask.float()).requires_grad_()
    scores = torch.zeros(2, requires_grad=True)
    loss = algorithm.loss(batch, Outputs(logprobs=logprobs, entropy=torch.ones(2, 4), scores=scores))
    loss.value.backward()
    assert loss.value.isfinite() and logprobs.grad.isfinite().all()
    assert all(value.isfinite() for value in loss.metrics.values())


def thumbs(lengths=(2, 3)):
    batch = rows(lengths, rewards=torch.tensor([1.0, 0.0]), mismatched_kl=torch.full((2,), 0.5))
    return KTO().weights(batch.replace(ref_logprobs=torch.full((2, 4), -2.0)))


def test_a_thumb_on_an_empty_response_has_an_entropy_of_0():
    batch = thumbs((0, 2))
    entropy = torch.full((2, 4), 3.0)
    found = KTO().loss(batch, Outputs(logprobs=torch.full((2, 4), -1.0), entropy=entropy)).metrics
    assert found["policy/entropy"].item() == pytest.approx(1.5)


def test_thumbs_weigh_by_their_side_and_are_told_apart():
    algorithm = KTO(beta=0.1, up_weight=2.0, down_weight=3.0)
    found = algorithm.loss(thumbs(), Outputs(logprobs=torch.full((2, 4), -1.0), entropy=torch.ones(2, 4)))
    up, down = (1 / (1 + math.exp(0.1 * (g - 0.5) * s)) for g, s in ((2.0, 1), (3.0, -1)))
    assert found.value.item() == pytest.approx((2 * up + 3 * down) / 2, abs=1e-6)
    rewards = {name: found.metrics[f"rewards/{name}"].item() for name in ("chosen", "rejected")}
    assert rewards == pytest.approx({"chosen": 0.2, "rejected": 0.3})
    assert found.metrics["logps/rejected"].item() == pytest.approx(-3.0)


def test_a_thumb_is_right_on_its_side_of_beta_times_the_zero_point():
    batch = thumbs().replace(mismatched_kl=torch.full((2,), 2.5))  # rewards .2 and .3, the line at .25
    out = Outputs(logprobs=torch.full((2, 4), -1.0), entropy=torch.ones(2, 4))
    assert KTO(beta=0.1).loss(batch, out).metrics["rewards/accuracies"].item() == 0.0


def test_what_simpo_reports_is_in_units_of_its_reward():
    batch = SimPO().weights(pairs())
    out = Outputs(logprobs=torch.full((2, 4), -0.5), entropy=torch.zeros(2, 4))
    assert SimPO(beta=3.0).loss(batch, out).metrics["rewards/chosen"].item() == pytest.approx(-1.5)


@pytest.mark.parametrize(
    ("algorithm", "chosen"), [(DPO(beta=0.3), 0.3), (IPO(beta=0.3), 0.15), (Hinge(beta=0.3), 0.3)]
)
def test_implicit_rewards_are_beta_times_policy_over_reference(algorithm, chosen):
    batch = algorithm.weights(pairs())  # log-probs -0.5 against -1 on two tokens
    out = Outputs(logprobs=torch.full((2, 4), -0.5), entropy=torch.zeros(2, 4))
    assert algorithm.loss(batch, out).metrics["rewards/chosen"].item() == pytest.approx(chosen)


@pytest.mark.parametrize("algorithm", [DPO(), IPO(), Hinge(), ORPO(), SimPO()])
def test_the_loss_is_a_mean_over_the_pairs_of_the_step(algorithm):
    batch = algorithm.weights(pairs((2, 1) * 3))
    assert batch.loss_weights.tolist() == pytest.approx([1 / 3] * 3)
    assert algorithm.weights(pairs(())).loss_weights.tolist() == [], "no pair, no division by zero"


OFFLINE = [DPO(), IPO(), Hinge(), ORPO(), SimPO(), KTO(), RewardModel(), RewardModel(lm_coef=0.1),
           RewardModel(ratings="regression"), RewardModel(ratings="regression", attributes=("kind",))]  # fmt: skip


@pytest.mark.parametrize("algorithm", OFFLINE, ids=str)
def test_metrics_hold_on_to_no_graph(algorithm):
    grown = lambda *shape: torch.rand(*shape, requires_grad=True) * 1.0  # noqa: E731
    regression = isinstance(algorithm, RewardModel) and algorithm.ratings == "regression"
    batch = thumbs() if isinstance(algorithm, KTO) else algorithm.weights(pairs())
    if regression:
        batch = algorithm.weights(rows([1, 1], rewards=torch.ones(2), attributes=torch.ones(2, 1)))
    out = Outputs(logprobs=-grown(2, 4), entropy=grown(2, 4), scores=grown(2), heads=grown(2, 1))
    found = algorithm.loss(batch, out)
    assert found.value.requires_grad
    assert not [name for name, value in found.metrics.items() if value.requires_grad]


def test_metrics_of_lists_hold_on_to_no_graph():
    scores = torch.tensor([3.0, 1.0], requires_grad=True)
    found = RewardModel().loss(RewardModel().weights(rankings([1.0, 2.0], [2])), Outputs(scores=scores * 1.0))
    assert found.value.requires_grad and not any(v.requires_grad for v in found.metrics.values())


def test_the_own_token_part_of_the_exact_kl_leaves_padding_alone():
    batch = rows([2, 3], rewards=torch.tensor([1.0, 0.0])).replace(
        truncated=torch.zeros(2, dtype=torch.bool), values=torch.zeros(2, 4), full_kl=torch.full((2, 4), 0.25),
        old_logprobs=torch.full((2, 4), -1.0), ref_logprobs=torch.full((2, 4), -2.0),
    )  # fmt: skip
    algorithm = PPO(
        kl_estimator="full", whiten_advantages="none", reward_scaling="none", gae_lambda=1.0, value_clip=0.0
    )
    found = algorithm.credit(batch, Carry(kl_coef=0.1)).batch.advantages
    assert found[0].tolist() == pytest.approx([0, 1 - 0.1 * (1 + 0.25), 1 - 0.1, 0])
