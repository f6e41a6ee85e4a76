"""What is true of every online method but PPO: refusals, failed rewards, splits, gradients, weights, metrics."""

import pytest
import torch

from plaudit.algorithms.grpo import CISPO, DAPO, GRPO, GSPO, DrGRPO
from plaudit.algorithms.protocol import OnlineAlgorithm, Resampling
from plaudit.algorithms.reinforce import REINFORCE
from plaudit.algorithms.reinforce_pp import REINFORCEPlusPlus
from plaudit.algorithms.rloo import RLOO
from plaudit.errors import ConfigError
from plaudit.experience import Outputs

AGGREGATIONS = ("token_mean", "sequence_mean_token_mean", "sequence_mean_token_sum", "constant")
METHODS = {
    "reinforce": REINFORCE(),
    "reinforce value": REINFORCE(baseline="value"),
    "rloo": RLOO(),
    "reinforce_pp": REINFORCEPlusPlus(),
    "reinforce_pp group": REINFORCEPlusPlus(baseline="group", group_size=4, kl_coef=0.3),
    **{f"grpo {mode}": GRPO(aggregation=mode) for mode in AGGREGATIONS},
    **{f"grpo {kl}": GRPO(kl_estimator=kl, kl_coef=0.3) for kl in ("k2_naive", "k3_naive")},
    **{f"grpo {kl}": GRPO(kl_estimator=kl, kl_coef=0.3) for kl in ("k1", "k3")},
    "dr_grpo": DrGRPO(kl_coef=0.3),
    "dapo": DAPO(),
    "gspo": GSPO(clip=0.2, clip_high=0.3),
    "gspo token": GSPO(ratio_of="response_token", clip=0.2, clip_high=0.3),
    "cispo": CISPO(),
}
GROUPED = {"rloo": RLOO, "grpo": GRPO, "dr_grpo": DrGRPO, "dapo": DAPO, "gspo": GSPO, "cispo": CISPO}
STOPS_GRADIENTS = ("gspo token", "cispo", "reinforce_pp group")
"""Their loss holds a quantity fixed that moves with the parameters, so differences of it are not its gradient."""
REWARDS, GROUPS, LENGTHS = (
    [1.0, 0.0, 3.0, 2.0, 1.0, 1.0, 0.0, 5.0],
    [3, 3, 3, 3, 1, 1, 1, 1],
    [4, 1, 3, 2, 4, 4, 2, 3],
)


@pytest.fixture
def credited(experience):
    def make(algorithm, rewards=REWARDS, **changes):
        batch = experience(rewards, GROUPS[: len(rewards)], LENGTHS[: len(rewards)], **changes)
        return algorithm.credit(batch, algorithm.start())

    return make


@pytest.mark.parametrize("name", METHODS)
def test_it_is_an_online_algorithm(name):
    assert isinstance(METHODS[name], OnlineAlgorithm)
    resamples = isinstance(METHODS[name], Resampling) and METHODS[name].sampling_rounds > 0
    assert resamples == (name == "dapo")


def test_the_reward_of_a_response_counts_once_whatever_its_length(credited):
    metrics = credited(RLOO(kl_coef=0.0)).metrics
    assert metrics["objective/rlhf_reward"] == pytest.approx(sum(REWARDS) / len(REWARDS), abs=1e-6)
    assert metrics["objective/non_score_reward"] == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("name", GROUPED)
def test_a_group_of_one_is_refused(name):
    with pytest.raises(ConfigError, match="group_size = 1") as caught:
        GROUPED[name](group_size=1)
    assert "--group-size" in caught.value.cure


@pytest.mark.parametrize(
    "make",
    [
        lambda: REINFORCEPlusPlus(baseline="group"),
        lambda: REINFORCE(group_size=0),
        lambda: REINFORCE(gamma=1.5),
        lambda: GRPO(epochs=0),
        lambda: DAPO(sampling_rounds=-1),
        lambda: DAPO(overlong_buffer=1.5),
        lambda: CISPO(clip_high=0.0),
        lambda: CISPO(ratio_max=0.28),
    ],
)
def test_impossible_settings_are_refused(make):
    with pytest.raises(ConfigError) as caught:
        make()
    assert caught.value.cure and "[algorithm]" in caught.value.where


@pytest.mark.parametrize("name", METHODS)
def test_a_failed_reward_takes_part_in_nothing(name, credited, experience):
    algorithm, nan = METHODS[name], float("nan")
    credit = credited(algorithm, [1.0, nan, 3.0, 2.0])
    assert not credit.batch.response_mask[1].any() and not credit.batch.advantages[1].any()
    rows = torch.tensor([0, 2, 3])
    other = algorithm.credit(
        experience([1.0, nan, 3.0, 2.0], [3] * 4, LENGTHS[:4]).select(rows), algorithm.start()
    )
    assert torch.allclose(credit.batch.advantages[rows], other.batch.advantages)
    assert credit.metrics == pytest.approx(other.metrics, nan_ok=True)


@pytest.mark.parametrize("name", METHODS)
def test_splitting_a_step_changes_nothing(name, credited, table):
    algorithm = METHODS[name]
    batch = algorithm.weights(credited(algorithm).batch)

    def gradient(parts):
        table.zero_grad()
        losses = [algorithm.loss(part, table(part)) for part in parts]
        sum(loss.value for loss in losses).backward()
        metrics = {key: sum(float(loss.metrics[key]) for loss in losses) for key in losses[0].metrics}
        return table.logits.grad.clone(), metrics

    whole, metrics = gradient([batch])
    split, parts = gradient([batch.select(torch.tensor(rows)) for rows in ([0, 5], [1], [2, 3, 4, 6, 7])])
    assert whole.abs().max() > 1e-3 and torch.allclose(whole, split, rtol=1e-6, atol=1e-9)
    assert parts == pytest.approx(metrics, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("name", [name for name in METHODS if name not in STOPS_GRADIENTS])
def test_the_gradient_is_that_of_the_loss(name, credited, table, differences):
    algorithm = METHODS[name]
    batch = algorithm.weights(credited(algorithm).batch)
    algorithm.loss(batch, table(batch)).value.backward()
    expected = differences(lambda: algorithm.loss(batch, table(batch)).value, table.logits)
    assert torch.allclose(table.logits.grad, expected, atol=1e-7)


def test_cispo_gradient_is_that_of_weighted_logprobs(credited, table, differences):
    algorithm = CISPO(ratio_max=1.1)
    batch = algorithm.weights(credited(algorithm).batch)
    ratio = (table(batch).logprobs.detach() - batch.old_logprobs).exp()
    assert ratio.max() > 1.1
    weight = ratio.clamp(max=1.1) * batch.advantages
    algorithm.loss(batch, table(batch)).value.backward()
    expected = differences(lambda: -batch.weighted_sum(weight * table(batch).logprobs), table.logits)
    assert torch.allclose(table.logits.grad, expected, atol=1e-7)


def test_gspo_token_has_the_value_of_gspo_and_the_same_gradient_where_advantages_are_equal(credited, table):
    values, gradients = [], []
    for ratio in ("sequence", "token"):
        algorithm = GSPO(ratio=ratio, clip=5.0, clip_high=5.0)
        batch = algorithm.weights(credited(algorithm).batch)
        table.zero_grad()
        loss = algorithm.loss(batch, table(batch)).value
        loss.backward()
        values.append(loss.item())
        gradients.append(table.logits.grad.clone())
    assert values[0] == pytest.approx(values[1]) and torch.allclose(*gradients, atol=1e-9)


@pytest.mark.parametrize("name", METHODS)
def test_the_first_step_has_ratio_one(name, credited, experience):
    algorithm = METHODS[name]
    credit = credited(algorithm)
    batch = algorithm.weights(credit.batch)
    logprobs = batch.old_logprobs.clone().requires_grad_()
    loss = algorithm.loss(batch, Outputs(logprobs=logprobs, entropy=torch.zeros_like(logprobs)))
    assert loss.metrics["policy/ratio_mean"] == pytest.approx(1) and loss.maxima["policy/ratio_max"] == 1
    assert loss.metrics["policy/clip_fraction"] == 0 and loss.metrics["policy/approx_kl"] == 0


@pytest.mark.parametrize("name", METHODS)
def test_mismatch_weights_multiply_the_policy_loss_and_not_the_kl(name, credited, table):
    algorithm = METHODS[name]
    batch = algorithm.weights(credited(algorithm).batch)
    doubled = batch.replace(mismatch_weights=torch.full_like(batch.old_logprobs, 2.0))
    one, two = algorithm.loss(batch, table(batch)), algorithm.loss(doubled, table(doubled))
    assert two.metrics["policy/loss"] == pytest.approx(2 * float(one.metrics["policy/loss"]))
    kl = [float(loss.value.detach() - loss.metrics["policy/loss"]) for loss in (one, two)]
    assert kl[0] == pytest.approx(kl[1], abs=1e-12)
    in_loss = "grpo" in name or name == "reinforce_pp group"
    assert ("policy/kl_loss" in one.metrics) == in_loss == (abs(kl[0]) > 1e-9)


def test_metrics_are_means_over_tokens_however_the_loss_is_taken(credited, table):
    seen = []
    for mode in AGGREGATIONS:
        algorithm = GRPO(aggregation=mode)
        batch = algorithm.weights(credited(algorithm).batch)
        found = algorithm.loss(batch, table(batch)).metrics
        seen.append({key: float(value) for key, value in found.items() if key != "policy/loss"})
    assert all(each == pytest.approx(seen[0]) for each in seen)


def test_credit_metrics(credited):
    metrics = credited(GRPO(), [1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0]).metrics
    assert metrics["group/zero_std_share"] == 0.5
    assert metrics["group/std_mean"] == pytest.approx(0.5 * (1 / 3) ** 0.5)
    assert {"objective/kl", "objective/kl_tok", "objective/entropy", "policy/advantages_std"} <= set(metrics)


@pytest.mark.parametrize("name", [*GROUPED, "reinforce_pp"])
def test_g4_equal_rewards_teach_nothing(name, credited):
    without = {
        "rloo": RLOO(kl_coef=0.0),
        "dapo": DAPO(overlong_penalty=0.0),
    }  # what else tells responses apart
    without["reinforce_pp"] = REINFORCEPlusPlus(baseline="group", group_size=8)
    algorithm = without.get(name) or GROUPED[name]()
    assert not credited(algorithm, [13.37] * 8).batch.advantages.any()
