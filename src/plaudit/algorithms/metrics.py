"""What online algorithms report (see tracking/names.py): of a whole batch, and of a microbatch in the loss."""

from __future__ import annotations

import torch
from torch import Tensor

from plaudit.experience import Experience, Outputs
from plaudit.functional.losses import log_ratio
from plaudit.functional.statistics import explained_variance, masked_mean, masked_var


def law_metrics(batch: Experience, mask: Tensor) -> dict[str, float]:
    """How far the policy is from its reference, and how sure it is, on its own samples.

    Sums over the response are averaged over responses with a counted token.
    """
    assert batch.old_logprobs is not None
    rows = mask.any(-1)
    sampled = torch.where(mask, -batch.old_logprobs, 0.0)
    metrics = {
        "objective/entropy": masked_mean(sampled.sum(-1), rows),
        "objective/perplexity": masked_mean(sampled, mask).exp(),
        "policy/entropy": masked_mean(
            sampled, mask
        ),  # an estimate, replaced by the exact one after an update
    }
    if batch.ref_logprobs is not None:
        known = mask & ~batch.ref_logprobs.isnan()  # where no KL is learned from, some rows only
        gap = torch.where(known, batch.old_logprobs - batch.ref_logprobs, 0.0)
        metrics["objective/kl"] = masked_mean(gap.sum(-1), known.any(-1))
        metrics["objective/kl_tok"] = masked_mean(gap, known)
        metrics["objective/ref_perplexity"] = masked_mean(
            torch.where(known, -batch.ref_logprobs, 0.0), known
        ).exp()
    if batch.full_kl is not None:
        metrics["objective/kl_full"] = masked_mean(torch.where(mask, batch.full_kl, 0.0).sum(-1), rows)
    return numbers(metrics)


def reward_metrics(scores: Tensor, rewards: Tensor, mask: Tensor) -> dict[str, float]:
    """Of the scores as used ``[B]`` (penalised, scaled, clipped) and of the rewards per token ``[B, T]``."""
    rows = mask.any(-1)
    total = rewards.sum(-1)
    return numbers(
        {
            "objective/scores": masked_mean(scores, rows),
            "objective/scores_std": masked_var(scores, rows).sqrt(),
            "objective/rlhf_reward": masked_mean(total, rows),
            "objective/non_score_reward": masked_mean(total - scores, rows),
        }
    )


def advantage_metrics(advantages: Tensor, mask: Tensor, suffix: str = "") -> dict[str, float]:
    """Mean and standard deviation over counted tokens; ``suffix`` tells those after whitening from those before."""
    return numbers(
        {
            f"policy/advantages{suffix}_mean": masked_mean(advantages, mask),
            f"policy/advantages{suffix}_std": masked_var(advantages, mask).sqrt(),
        }
    )


def value_metrics(values: Tensor, returns: Tensor, mask: Tensor) -> dict[str, float]:
    """How good the critic was before it learns from this batch."""
    return numbers(
        {
            "critic/explained_variance": explained_variance(values, returns, mask),
            "critic/error": masked_mean((values - returns).square(), mask),
            "critic/value_mean": masked_mean(values, mask),
            "critic/value_std": masked_var(values, mask).sqrt(),
            "critic/returns_mean": masked_mean(returns, mask),
            "critic/returns_std": masked_var(returns, mask).sqrt(),
        }
    )


def ratio_metrics(
    batch: Experience, out: Outputs, clipped: Tensor, old_logprobs: Tensor
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """How far one microbatch has moved from ``old_logprobs``: sums that make a mean over tokens, and maxima.

    Args:
        clipped: ``[B, T]`` bool, where the clipped loss was the larger one.
    """
    assert out.logprobs is not None and out.entropy is not None and batch.advantages is not None
    mean = batch.token_mean
    gap = log_ratio(out.logprobs, old_logprobs).detach()
    ratio = gap.exp()
    sums = {
        "policy/entropy": mean(out.entropy.detach()),
        "policy/clip_fraction": mean(clipped.float()),
        "policy/clip_fraction_low": mean((clipped & (batch.advantages < 0)).float()),
        "policy/clip_fraction_high": mean((clipped & (batch.advantages > 0)).float()),
        "policy/approx_kl": mean(torch.expm1(gap) - gap),
        "policy/kl_k1": mean(-gap),
        "policy/ratio_mean": mean(ratio),
        "policy/ratio_var": mean((ratio - 1).square()),
    }
    return sums, {"policy/ratio_max": torch.where(batch.response_mask, ratio, 0.0).max()}


def numbers(metrics: dict[str, Tensor]) -> dict[str, float]:
    """Tensors with one element as plain numbers."""
    return {name: float(value) for name, value in metrics.items()}
