"""Sampler against trainer: weights for samples from a distribution mu that is not exactly pi_old, and its distance.

Precision, kernels, or weights a few steps old make ``pi_old / mu`` differ from 1 although both have the same weights.
The gradient is unbiased again if each token's policy loss is multiplied by that ratio; the ratio is then bounded to
limit its variance (TIS: truncated; IcePop and MIS: masked). The weights are constants; only the policy loss has them:
not a KL term, not the statistics of the advantages. Updates since the rollout are corrected elsewhere, by the ratio
``pi / pi_old`` of the loss.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from plaudit.functional.statistics import masked_mean

Correction = Literal["none", "truncate", "mask"]
Level = Literal["token", "sequence", "geometric"]


def log_gap(old_logprobs: Tensor, sampled_logprobs: Tensor, mask: Tensor, level: Level = "token") -> Tensor:
    """``log pi_old / mu`` in nats, ``[B, T]``, without gradient; 0 where masked out.

    Args:
        level: token: of each token. sequence: summed over the response, on each of its tokens; exact, but its variance
            grows with the length. geometric: the mean over the response; biased, of small variance, good to filter by.

    >>> old, sampled = torch.tensor([[-1.0, -1.0]]), torch.tensor([[-1.5, -1.25]])
    >>> everywhere = torch.ones(1, 2, dtype=torch.bool)
    >>> [log_gap(old, sampled, everywhere, level).tolist() for level in ("token", "sequence", "geometric")]
    [[[0.5, 0.25]], [[0.75, 0.75]], [[0.375, 0.375]]]
    """
    assert old_logprobs.shape == sampled_logprobs.shape == mask.shape, "log-probs and mask must all be [B, T]"
    # Without gradient: the weight corrects where samples come from. Differentiated, it would be a second ratio in the
    # loss.
    gap = torch.where(mask, (old_logprobs - sampled_logprobs).detach(), 0.0)
    if level != "token":
        total = gap.sum(-1, keepdim=True)
        gap = total / mask.sum(-1, keepdim=True).clamp(min=1) if level == "geometric" else total
    return torch.where(mask, gap.clamp(-20.0, 20.0), 0.0)


def mismatch_weights(
    gap: Tensor, mask: Tensor, correction: Correction = "truncate", low: float = 0.0, high: float = 2.0
) -> Tensor:
    """``w = pi_old / mu`` per token, bounded: what to multiply the policy loss by. ``[B, T]``; 0 where masked out.

    Args:
        gap: ``[B, T]`` from `log_gap`, of any level.
        correction: truncate: ``min(w, high)`` (truncated importance sampling, TIS). mask: 0 outside ``[low, high]``
            (IcePop, MIS). none: 1.

    >>> gap, everywhere = torch.tensor([[0.9, 0.0, -3.0]]), torch.ones(1, 3, dtype=torch.bool)
    >>> mismatch_weights(gap, everywhere)
    tensor([[2.0000, 1.0000, 0.0498]])
    >>> mismatch_weights(gap, everywhere, "mask", 0.5, 2.0)
    tensor([[0., 1., 0.]])
    """
    weights = torch.ones_like(gap) if correction == "none" else gap.exp()
    if correction == "truncate":
        weights = weights.clamp(max=high)
    # A masked token has weight 0 and not a clipped one: so far off, its ratio says that the two disagree about it,
    # not how much it should count.
    if correction == "mask":
        weights = torch.where((weights < low) | (weights > high), 0.0, weights)
    return torch.where(mask, weights, 0.0)


def within(gap: Tensor, mask: Tensor, low: float, high: float) -> Tensor:
    """``[B]`` bool: responses whose geometric-mean ratio is inside ``[low, high]``, to drop the others whole.

    0.99 to 1.01 is strict, 0.5 to 2 loose. ``gap`` is that of the tokens.

    >>> within(torch.tensor([[0.5, -0.5], [1.0, 0.5]]), torch.ones(2, 2, dtype=torch.bool), 0.5, 2.0)
    tensor([ True, False])
    """
    total = torch.where(mask, gap, 0.0).sum(-1)
    ratio = (total / mask.sum(-1).clamp(min=1)).exp()
    return (ratio >= low) & (ratio <= high)


def effective_share(weights: Tensor, mask: Tensor) -> Tensor:
    """Effective sample size over sample size, ``(sum w)^2 / (n sum w^2)``: 1 where all weigh the same.

    >>> effective_share(torch.tensor([2.0, 1.0, 0.0, 0.0]), torch.ones(4, dtype=torch.bool))
    tensor(0.4500)
    """
    counted = torch.where(mask, weights, 0.0)
    return counted.sum().square() / (mask.sum() * counted.square().sum()).clamp(min=1e-12)


def mismatch_metrics(
    old_logprobs: Tensor,
    sampled_logprobs: Tensor,
    mask: Tensor,
    weights: Tensor | None = None,
    high: float = 2.0,
) -> dict[str, float]:
    """How far sampler and trainer are apart, over the tokens that count. To be logged always.

    Args:
        weights: ``[B, T]`` weights in use; None: no correction is applied, the unbounded ratios are measured.
        high: bound above which a token's ratio counts as truncated.

    Returns:
        Mean and largest ``|log pi_old - log mu|`` in nats, KL(mu || pi_old) in nats per token (k3 on samples of mu),
        effective sample share of the weights, largest ratio before any bound, and share of ratios over ``high``.
    """
    gap = log_gap(old_logprobs, sampled_logprobs, mask)
    ratio = gap.exp()
    metrics = {
        "rollout/logprob_diff_mean": masked_mean(gap.abs(), mask),
        "rollout/logprob_diff_max": gap.abs().max(),
        "rollout/mismatch_kl": masked_mean(torch.expm1(gap) - gap, mask),
        "rollout/effective_share": effective_share(ratio if weights is None else weights, mask),
        "rollout/weight_max": torch.where(mask, ratio, 0.0).max(),
        "rollout/truncated_share": masked_mean((ratio > high).float(), mask),
    }
    return {name: float(value) for name, value in metrics.items()}
