"""Importance ratios of whole responses, and the loss that clips the ratio but not its gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from plaudit.functional.losses import log_ratio


def sequence_log_ratio(logprobs: Tensor, old_logprobs: Tensor, mask: Tensor, *, mean: bool = False) -> Tensor:
    """``log pi / pi_old`` of each response, on each of its tokens: ``[B, T]``, clamped to +-20.

    Args:
        mean: mean over the tokens instead of their sum, so that the ratio does not grow with the length (GSPO).

    >>> logp, mask = torch.tensor([[0.1, 0.3, 9.0]]), torch.tensor([[True, True, False]])
    >>> sequence_log_ratio(logp, torch.zeros(1, 3), mask, mean=True)
    tensor([[0.2000, 0.2000, 0.2000]])
    """
    assert logprobs.shape == old_logprobs.shape == mask.shape, "log-probs and mask must all be [B, T]"
    total = torch.where(mask, logprobs - old_logprobs, 0.0).sum(-1, keepdim=True)
    if mean:
        total = total / mask.sum(-1, keepdim=True).clamp(min=1)
    return total.clamp(-20.0, 20.0).expand_as(logprobs)


def straight_through(log_ratio_value: Tensor, logprobs: Tensor) -> Tensor:
    """The value of a log-ratio with the gradient of each token's own log-prob: ``sg[x] + logp - sg[logp]``.

    >>> logp = torch.tensor([-1.0], requires_grad=True)
    >>> ratio = straight_through(torch.tensor([0.2]), logp).exp(); ratio.backward()
    >>> [round(x, 4) for x in (ratio.item(), logp.grad.item())]
    [1.2214, 1.2214]
    """
    # GSPO-token: every token has the ratio of its response, but the gradient of its own log-prob, so that advantages
    # may differ from token to token. Value and gradient of `sequence_log_ratio` itself would mix all tokens.
    return log_ratio_value.detach() + logprobs - logprobs.detach()


def cispo_loss(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, ratio_min: float, ratio_max: float
) -> tuple[Tensor, Tensor]:
    """``-sg[clip(rho, ratio_min, ratio_max)] A logp`` per token (CISPO, arXiv:2506.13585, eq. 4), and where clipped.

    The gradient of a clipped token is bounded, never 0.

    >>> logp = torch.tensor([0.5]).log()
    >>> cispo_loss(logp, logp - torch.tensor([2.0]).log(), torch.tensor([1.0]), 0.0, 1.2)
    (tensor([0.8318]), tensor([True]))
    """
    # PPO's clip sets the gradient of a clipped token to 0, and rare tokens are clipped first. Here the ratio is a
    # constant weight, so the gradient comes from logp alone.
    ratio = log_ratio(logprobs, old_logprobs).exp().detach()
    weight = ratio.clamp(ratio_min, ratio_max)
    return -weight * advantages * logprobs, weight != ratio
