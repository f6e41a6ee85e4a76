"""What the online methods share: their common settings, which rows count, how a policy loss is put together."""

from __future__ import annotations

from typing import Annotated, Literal, cast

import torch
from annotated_types import Ge
from torch import Tensor

from plaudit.algorithms.metrics import advantage_metrics, law_metrics, ratio_metrics
from plaudit.algorithms.parts import NearReference
from plaudit.algorithms.protocol import Credit, Signal
from plaudit.config.values import Count, NotNegative, settings_value
from plaudit.experience import Experience, Loss, Outputs
from plaudit.functional.controllers import Carry
from plaudit.functional.groups import Scale, compare, group_advantages, reward_per_advantage
from plaudit.functional.kl import Estimator, Gradient, kl_loss
from plaudit.functional.weights import Aggregation, loss_weights

SeveralResponses = Annotated[int, Ge(2)]
"""Responses to a prompt where each is compared with the others: of one there is nothing to compare."""
LossKL = Literal["k1", "k2", "k3", "k2_naive", "k3_naive"]
"""A KL in the loss: the estimator whose value is logged, with the gradient of KL(policy || reference) for all of them;
naive: differentiated as it stands. k1_naive is not among them: its gradient is 0 on average."""


MISSING_EOS_PENALTY = 1.0


@settings_value
class SampledSettings:
    """Settings of every method that learns from responses of the policy."""

    group_size: Count = 1
    """Responses sampled per prompt."""
    missing_eos_penalty: NotNegative = MISSING_EOS_PENALTY
    """Taken off the score of a response that ran into the length limit."""


@settings_value
class StepSettings(SampledSettings):
    """Settings of the methods that take several steps on one batch."""

    epochs: Count = 1
    """Passes over each batch of rollouts."""
    minibatches: Count = 1
    """Optimizer steps per pass."""


@settings_value
class UpdateSettings(StepSettings, NearReference):
    """Settings of the methods whose steps are bounded by a clipped ratio."""

    clip: NotNegative = 0.2
    """Half-width of the ratio's trust region; 0: none."""
    clip_high: NotNegative = 0.0
    """Upper half-width where it differs (clip-higher); 0: the same as clip."""
    target_kl: NotNegative = 0.0
    """Inner epochs stop when the policy moved 1.5 times this from where it sampled (nats per token); 0: never."""


NEEDS: frozenset[Signal] = frozenset({"old_logprobs", "ref_logprobs"})
"""What methods need whose reward or loss holds the KL."""


def needs(kl_coef: float) -> frozenset[Signal]:
    """Without a KL to learn from, the reference reads some rows only: the distance is always measured."""
    return NEEDS if kl_coef else frozenset({"old_logprobs", "some_ref_logprobs"})


def counted(batch: Experience) -> tuple[Tensor, Tensor]:
    """``[B]`` rows that were scored, and the response mask of these rows."""
    assert batch.rewards is not None
    valid = ~batch.rewards.isnan()
    return valid, batch.response_mask & valid[:, None]


def scores(batch: Experience, missing_eos_penalty: float) -> Tensor:
    """``[B]`` rewards, less the penalty for responses that ran into the length limit; failed rows stay NaN."""
    assert batch.rewards is not None
    if batch.truncated is None:
        return batch.rewards
    return batch.rewards - missing_eos_penalty * batch.truncated


def sequence_kl(batch: Experience, mask: Tensor) -> Tensor:
    """``[B]`` sum of ``logp_old - logp_ref`` over the response, in nats: the sampled KL to the reference (k1)."""
    assert batch.old_logprobs is not None and batch.ref_logprobs is not None
    return torch.where(mask, batch.old_logprobs - batch.ref_logprobs, 0.0).sum(-1)


def kl_metrics(kl_coef: float, unit: float | None = 1.0) -> dict[str, float]:
    """The KL coefficient as it is set, and as it is in units of the reward: the latter decides where a run ends.

    Args:
        unit: how much reward stands beside a KL of 1 / kl_coef: the number that the reward is divided by and the KL is
            not. 1 where both are divided by the same, or by nothing. None: there is no such number.

    >>> kl_metrics(0.5, 0.8)
    {'objective/kl_coef': 0.5, 'objective/kl_coef_in_force': 0.4}
    """
    metrics = {"objective/kl_coef": kl_coef}
    if kl_coef and unit is None:
        return metrics
    return metrics | {"objective/kl_coef_in_force": kl_coef * (unit or 0.0)}


def credit_metrics(
    batch: Experience, mask: Tensor, advantages: Tensor, kl_coef: float, unit: float | None = 1.0
) -> dict[str, float]:
    """Metrics of a whole batch.

    Args:
        advantages: ``[B, T]`` as they are before any whitening.
        unit: of `kl_metrics`.
    """
    return kl_metrics(kl_coef, unit) | law_metrics(batch, mask) | advantage_metrics(advantages, mask)


def group_credit(batch: Experience, carry: Carry, values: Tensor, scale: Scale) -> Credit:
    """Scores of a batch to advantages within the groups, the same on every token of a response.

    Args:
        values: ``[B]`` scores; rows whose reward failed are left out, whatever stands there.
    """
    assert batch.group_ids is not None
    valid, mask = counted(batch)
    advantages = torch.where(mask, group_advantages(values, batch.group_ids, valid, scale)[:, None], 0.0)
    unit = reward_per_advantage(values, batch.group_ids, valid, scale)
    metrics = credit_metrics(batch, mask, advantages, carry.kl_coef, unit)
    metrics |= group_metrics(values, batch, valid)
    return Credit(batch.replace(response_mask=mask, advantages=advantages), carry, metrics)


def group_metrics(values: Tensor, batch: Experience, valid: Tensor) -> dict[str, float]:
    """Spread within the groups, and the share of groups without a gradient because all their scores are equal."""
    assert batch.group_ids is not None
    groups = compare(values, batch.group_ids, valid)
    one_each = valid / groups.counts.clamp(min=1)  # so that each group counts once
    total = one_each.sum().clamp(min=1e-12)
    return {
        "group/std_mean": float((groups.std * one_each).sum() / total),
        "group/zero_std_share": float((groups.equal * one_each).sum() / total),
    }


def weighted(batch: Experience, aggregation: Aggregation) -> Experience:
    """The batch of one optimizer step with the weights of its loss and those of its metrics."""
    limit = 0 if batch.length_limits is None else int(batch.length_limits.max())
    assert aggregation != "constant" or limit, "a constant normaliser needs the length limit"
    mask = batch.response_mask
    return batch.replace(
        loss_weights=loss_weights(mask, aggregation, limit), token_weights=loss_weights(mask, "token_mean")
    )


def policy_loss(batch: Experience, out: Outputs, surrogate: Tensor, clipped: Tensor) -> Loss:
    """Loss and metrics from the loss of each token.

    Args:
        surrogate: ``[B, T]`` to be minimised, before the weights of a mismatched sampler, which it is multiplied by.
        clipped: ``[B, T]`` bool, where the clip decided.
    """
    assert batch.old_logprobs is not None
    if batch.mismatch_weights is not None:
        surrogate = surrogate * batch.mismatch_weights
    value = batch.weighted_sum(surrogate)
    metrics, maxima = ratio_metrics(batch, out, clipped, batch.old_logprobs)
    return Loss(value, {"policy/loss": value.detach()} | metrics, maxima)


def with_kl(
    loss: Loss,
    batch: Experience,
    out: Outputs,
    coef: float,
    estimator: LossKL = "k3",
) -> Loss:
    """The loss plus ``coef`` times the KL to the reference, aggregated in the same way; as it is for ``coef`` 0."""
    if coef == 0:
        return loss
    assert out.logprobs is not None and batch.old_logprobs is not None and batch.ref_logprobs is not None
    per_token = kl_loss(out.logprobs, batch.old_logprobs, batch.ref_logprobs, *kl_form(estimator))
    metrics = loss.metrics | {"policy/kl_loss": batch.token_mean(per_token.detach())}
    return Loss(loss.value + coef * batch.weighted_sum(per_token), metrics, loss.maxima)


def kl_form(kl: LossKL) -> tuple[Estimator, Gradient]:
    """Estimator and gradient of a KL in the loss.

    >>> kl_form("k3"), kl_form("k3_naive")
    (('k3', 'unbiased'), ('k3', 'naive'))
    """
    estimator, _, naive = kl.partition("_")
    return cast("Estimator", estimator), "naive" if naive else "unbiased"


def column(rows: Tensor | None, constant: float) -> Tensor | float:
    """A coefficient that the batch brings, one a row ``[B, 1]``; else the constant."""
    return constant if rows is None else rows[:, None]
