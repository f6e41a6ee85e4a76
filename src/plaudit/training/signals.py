"""What is filled into a batch before the update: signals before credit, weights against a mismatch after it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from plaudit.config.sections import MismatchSection
from plaudit.experience import Batch, Experience, Loss, Outputs
from plaudit.functional.mismatch import log_gap, mismatch_metrics, mismatch_weights, within
from plaudit.runtime import LossFunction, Runtime, Scorer

MEASURED = 8
"""Where something is only measured, one row in so many is scored."""


def fill_signals(
    batch: Experience,
    needs: frozenset[str],
    runtime: Runtime,
    reuse_below: float = 0.0,
    *,
    only_update: bool = False,
) -> tuple[Experience, dict[str, float]]:
    """The batch with the signals in ``needs``, and no others; and what was measured on the way.

    Args:
        reuse_below: see `sampled_logprobs`.
        only_update: the loss is an `OnlyUpdate`: nothing is scored, and credit is given by the sampler's log-probs.
    """
    metrics: dict[str, float] = {}
    if "old_logprobs" in needs and only_update and batch.sampled_logprobs is not None:
        batch = batch.replace(old_logprobs=torch.where(batch.response_mask, batch.sampled_logprobs, 0.0))
        metrics = {"rollout/rescored_share": 0.0}
    elif "old_logprobs" in needs:
        old, metrics = sampled_logprobs(batch, runtime.policy, reuse_below)
        if old is not None:
            batch = batch.replace(old_logprobs=old)
        elif runtime.shared_trunk and "last_values" not in needs:
            old, values = runtime.policy.read(batch, "logprobs", "values")  # one pass gives both
            batch = batch.replace(old_logprobs=old, values=values)
        else:
            batch = batch.replace(old_logprobs=runtime.policy.read(batch, "logprobs")[0])
    if "ref_logprobs" in needs:
        batch = batch.replace(ref_logprobs=runtime.reference.read(batch, "logprobs")[0])
    if "some_ref_logprobs" in needs:
        batch = batch.replace(ref_logprobs=some_logprobs(batch, runtime.reference))
    if "full_kl" in needs:
        assert runtime.full_kl is not None
        batch = batch.replace(full_kl=runtime.full_kl.read(batch, "full_kl")[0])
    if "values" in needs and batch.values is None:
        batch = _with_values(batch, needs, runtime)
    return batch, metrics


def _with_values(batch: Experience, needs: frozenset[str], runtime: Runtime) -> Experience:
    assert runtime.critic is not None
    if "last_values" not in needs:
        return batch.replace(values=runtime.critic.read(batch, "values")[0])
    values, last = values_to_the_end(runtime.critic, batch)
    return batch.replace(values=values, last_values=last)


def sampled_logprobs(
    batch: Experience, policy: Scorer, reuse_below: float
) -> tuple[Tensor | None, dict[str, float]]:
    """The sampler's log-probs ``[B, T]`` as those of the policy at the start of the update, where that may be.

    It may if the trainer gives the same for one row in eight to within ``reuse_below`` (nats, each token); else None,
    and the trainer has to score all rows. The metrics are of the rows that both have seen.
    """
    sampled, mask = batch.sampled_logprobs, batch.response_mask
    if sampled is None:
        return None, {}
    if reuse_below > 0:
        rows = torch.arange(0, len(batch), MEASURED)
        part = batch.select(rows)
        assert part.sampled_logprobs is not None
        gap = torch.where(
            part.response_mask, policy.read(part, "logprobs")[0] - part.sampled_logprobs, 0.0
        ).abs()
        if float(gap.max()) <= reuse_below:
            tokens = part.response_mask.sum().clamp(min=1)
            metrics = {
                "rollout/logprob_diff_mean": float(gap.sum() / tokens),
                "rollout/logprob_diff_max": float(gap.max()),
                "rollout/rescored_share": 0.0,
            }
            return torch.where(mask, sampled, 0.0), metrics
    return None, {"rollout/rescored_share": 1.0}


@dataclass(frozen=True, slots=True)
class OnlyUpdate:
    """The loss of an iteration that makes one optimizer step: no pass before it is needed for the old log-probs.

    The policy at the start of the update is the one that the forward pass of that step has. So its log-probs, without
    their gradient, are the old ones: every ratio is 1, and its gradient is that of the policy. How far the sampler is
    from them is measured, and corrected, on the way.
    """

    loss: LossFunction
    section: MismatchSection

    def __call__(self, batch: Batch, out: Outputs) -> Loss:
        """See `LossFunction`; with the metrics of `mismatch_metrics`, as sums for `with_shares`."""
        assert isinstance(batch, Experience) and out.logprobs is not None, "a loss on rollouts"
        old, sampled, mask = out.logprobs.detach(), batch.sampled_logprobs, batch.response_mask
        if sampled is None:
            return self.loss(batch.replace(old_logprobs=old), out)
        batch, _ = correct_mismatch(batch.replace(old_logprobs=old), self.section)
        result = self.loss(batch, out)
        gap = log_gap(old, sampled, mask)
        ratio = gap.exp()
        weights = mask.float() if batch.mismatch_weights is None else batch.mismatch_weights
        mean = batch.token_mean
        sums = {
            "rollout/logprob_diff_mean": mean(gap.abs()),
            "rollout/mismatch_kl": mean(torch.expm1(gap) - gap),
            "rollout/truncated_share": mean((ratio > self.section.weight_high).float()),
            _MEAN: mean(weights),
            _SQUARE: mean(weights.square()),
        }
        maxima = {
            "rollout/logprob_diff_max": gap.abs().max(),
            "rollout/weight_max": torch.where(mask, ratio, 0.0).max(),
        }
        return replace(result, metrics=result.metrics | sums, maxima=result.maxima | maxima)


_MEAN, _SQUARE = "rollout/weight_mean", "rollout/weight_square"
"""Of the mismatch weights over the tokens of a step; they become the effective share."""


def with_shares(metrics: dict[str, float]) -> dict[str, float]:
    """The metrics of a step with the effective share in place of the sums that it is made of."""
    if _MEAN not in metrics:
        return metrics
    rest = {name: value for name, value in metrics.items() if name not in (_MEAN, _SQUARE)}
    return rest | {"rollout/effective_share": metrics[_MEAN] ** 2 / max(metrics[_SQUARE], 1e-12)}


def some_logprobs(batch: Experience, scorer: Scorer) -> Tensor:
    """Log-probs ``[B, T]`` of one row in `MEASURED`; NaN in the others."""
    rows = torch.arange(0, len(batch), MEASURED)
    [found] = scorer.read(batch.select(rows), "logprobs")
    result = torch.full(batch.tokens.shape, torch.nan)
    result[rows] = 0.0
    result[rows, : found.shape[1]] = found
    return result


def values_to_the_end(critic: Scorer, batch: Experience) -> tuple[Tensor, Tensor]:
    """Values ``[B, T]`` before each response token, and ``[B]`` after the last one, from one pass.

    One token is put after each row, for the value before it; which one does not matter, since values do not look ahead.
    So rows may not be longer than the model's context less one.
    """
    rows, end = torch.arange(len(batch)), batch.lengths
    longer = {"tokens": 0, "attention_mask": False, "response_mask": False}
    parts = {name: pad(getattr(batch, name), (0, 1), value=fill) for name, fill in longer.items()}
    parts["attention_mask"][rows, end] = True
    parts["response_mask"][rows, end] = True
    [values] = critic.read(Experience(**parts, group_ids=batch.group_ids), "values")
    return torch.where(batch.response_mask, values[:, :-1], 0.0), values[rows, end]


def correct_mismatch(batch: Experience, section: MismatchSection) -> tuple[Experience, dict[str, float]]:
    """The batch with ``mismatch_weights``, and how far sampler and trainer are apart: measured whatever is corrected.

    Comes after credit, so that statistics of rewards and advantages are those of the samples as they are.
    """
    if batch.old_logprobs is None or batch.sampled_logprobs is None:
        return batch, {}
    old, sampled, mask = batch.old_logprobs, batch.sampled_logprobs, batch.response_mask
    weights = mismatch_weights(
        log_gap(old, sampled, mask, section.level),
        mask,
        section.treatment,
        1 / section.weight_high,
        section.weight_high,
    )
    metrics = mismatch_metrics(old, sampled, mask, weights, section.weight_high)
    if section.correction == "drop":
        near = within(log_gap(old, sampled, mask), mask, 1 / section.weight_high, section.weight_high)
        metrics["rollout/dropped_share"] = 1 - float(near.float().mean())
        mask = mask & near[:, None]
        batch = batch.replace(response_mask=mask)
        if batch.advantages is not None:
            batch = batch.replace(advantages=torch.where(mask, batch.advantages, 0.0))
    return batch.replace(mismatch_weights=None if section.treatment == "none" else weights), metrics
