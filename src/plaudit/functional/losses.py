"""Losses before aggregation: one number a token, a pair or a row, to be minimised. See weights.py for the mean."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def log_ratio(logprobs: Tensor, old_logprobs: Tensor) -> Tensor:
    """``log pi / pi_old`` clamped to +-20, so that its exponential stays finite."""
    # exp overflows fp32 at 88, and inf * 0 of a masked token is NaN. exp(20) = 5e8 is far outside of every clip
    # range, so no ratio that counts is changed.
    return (logprobs - old_logprobs).clamp(-20.0, 20.0)


def clipped_policy_loss(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, clip_low: float, clip_high: float
) -> tuple[Tensor, Tensor]:
    """PPO's clipped surrogate (arXiv:1707.06347, eq. 7) as a loss per token, and where the clipped branch was chosen.

    ``max(-A rho, -A clip(rho, 1 - clip_low, 1 + clip_high))`` with ``rho = exp(logp - logp_old)``.

    >>> rho, A = torch.tensor([1.5, 0.5, 1.1, 0.9]), torch.tensor([1.0, -1.0, -1.0, 1.0])
    >>> clipped_policy_loss(rho.log(), torch.zeros(4), A, 0.2, 0.2)[0]
    tensor([-1.2000,  0.8000,  1.1000, -0.9000])
    """
    # The maximum of the two losses is the pessimistic one: a ratio outside of the range stops the gradient only where
    # going on would improve the surrogate, never where the step has to be taken back.
    ratio = log_ratio(logprobs, old_logprobs).exp()
    plain, clipped = -advantages * ratio, -advantages * ratio.clamp(1 - clip_low, 1 + clip_high)
    return torch.maximum(plain, clipped), clipped > plain


def dual_clip(loss: Tensor, advantages: Tensor, bound: float) -> Tensor:
    """Upper bound ``-bound * A`` on the loss where A < 0 (arXiv:1912.09729, eq. 5).

    Without it a token with A < 0 whose ratio has become large has a loss without bound and dominates the batch.

    >>> dual_clip(torch.tensor([10.0]), torch.tensor([-1.0]), 3.0)
    tensor([3.])
    """
    return torch.where(advantages < 0, torch.minimum(loss, -bound * advantages), loss)


def value_loss(values: Tensor, old_values: Tensor, returns: Tensor, clip: float) -> tuple[Tensor, Tensor]:
    """``1/2 max((V - R)^2, (V_clip - R)^2)`` with V at most ``clip`` from its old value, and where the clip was active.

    ``clip = 0`` switches clipping off. Implementations differ in the factor 1/2; here it is part of the loss.

    >>> value_loss(torch.tensor([0.9]), torch.tensor([0.5]), torch.tensor([1.0]), 0.2)
    (tensor([0.0450]), tensor([True]))
    """
    assert values.shape == old_values.shape == returns.shape, "a [B] against [B, 1] would broadcast to [B, B]"
    plain = (values - returns).square()
    if clip == 0:
        return 0.5 * plain, torch.zeros_like(plain, dtype=torch.bool)
    near = old_values + (values - old_values).clamp(-clip, clip)
    clipped = (near - returns).square()
    return 0.5 * torch.maximum(plain, clipped), clipped > plain


def bradley_terry(
    chosen: Tensor,
    rejected: Tensor,
    *,
    margins: Tensor | float = 0.0,
    targets: Tensor | float = 1.0,
    temperature: float = 1.0,
) -> Tensor:
    """Pairwise loss ``-p log sigma(d) - (1 - p) log sigma(-d)`` with ``d = (s_c - s_r) / temperature - margin``.

    Args:
        chosen, rejected: ``[P]`` raw scores.
        margins: how far chosen should be ahead (Llama 2, arXiv:2307.09288, eq. 2).
        targets: probability p that chosen is better: 1, 1 - label smoothing, or annotator agreement.

    >>> bradley_terry(torch.tensor([2.0]), torch.tensor([1.0]))
    tensor([0.3133])
    >>> bradley_terry(torch.tensor([-800.0]), torch.tensor([0.0]))
    tensor([800.])
    """
    # logsigmoid and not log(sigmoid(d)): at d = -800 the sigmoid is 0 and its log -inf, where the loss is 800.
    assert chosen.shape == rejected.shape and chosen.dim() == 1
    difference = (chosen - rejected) / temperature - margins
    return -targets * F.logsigmoid(difference) - (1 - targets) * F.logsigmoid(-difference)


def centering(chosen: Tensor, rejected: Tensor) -> Tensor:
    """``(s_c + s_r)^2``: pulls the mean score of a pair to 0; Bradley-Terry does not fix it (arXiv:2312.09244).

    >>> centering(torch.tensor([2.0]), torch.tensor([1.0]))
    tensor([9.])
    """
    return (chosen + rejected).square()


def label_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy of ``[B]`` scores against labels in [0, 1]; the trained score is the log-odds of label 1.

    >>> label_loss(torch.tensor([0.0]), torch.tensor([1.0]))
    tensor([0.6931])
    """
    assert scores.shape == labels.shape and scores.dim() == 1
    return F.binary_cross_entropy_with_logits(scores, labels, reduction="none")
