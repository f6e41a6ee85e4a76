"""Losses on preferences without a reward model: one number a pair (or a rated response), to be minimised.

``gap`` is the difference of implicit rewards, before beta and chosen minus rejected:
``(logp_w - ref_w) - (logp_l - ref_l)``.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def row_sums(logprobs: Tensor, mask: Tensor) -> Tensor:
    """Log-probability of each response: the sum over its tokens. ``[B, T]`` -> ``[B]``.

    >>> row_sums(torch.tensor([[-9.0, -1.0, -2.0]]), torch.tensor([[False, True, True]]))
    tensor([-3.])
    """
    return torch.where(mask, logprobs, 0.0).sum(-1)


def logistic(margin: Tensor, targets: Tensor | float = 1.0) -> Tensor:
    """``-t log sigma(h) - (1 - t) log sigma(-h)``: DPO (arXiv:2305.18290, eq. 7) for ``h = beta gap`` and t = 1.

    Targets below 1 are smoothed labels (conservative DPO) or shares of annotators.

    >>> logistic(torch.tensor([0.3, 0.3]), torch.tensor([1.0, 0.9]))
    tensor([0.5544, 0.5844])
    """
    return -targets * F.logsigmoid(margin) - (1 - targets) * F.logsigmoid(-margin)


def robust_logistic(margin: Tensor, flipped: float) -> Tensor:
    """Logistic loss that is unbiased if labels are flipped with probability ``flipped`` (arXiv:2403.00409).

    ``[-(1 - e) log sigma(h) + e log sigma(-h)] / (1 - 2e)``: its mean over the flips is the clean loss.

    >>> robust_logistic(torch.tensor([0.3]), 0.1)
    tensor([0.5169])
    """
    clean, other = F.logsigmoid(margin), F.logsigmoid(-margin)
    return (flipped * other - (1 - flipped) * clean) / (1 - 2 * flipped)


def squared(gap: Tensor, tau: float) -> Tensor:
    """IPO (arXiv:2310.12036, eq. 17): ``(gap - 1 / (2 tau))^2``, whose optimum is finite also for certain labels.

    >>> squared(torch.tensor([3.0]), 0.1)
    tensor([4.])
    """
    return (gap - 1 / (2 * tau)).square()


def hinge(margin: Tensor) -> Tensor:
    """``max(0, 1 - h)`` (SLiC, arXiv:2305.10425, with the rewards of DPO): no gradient once the margin is 1.

    >>> hinge(torch.tensor([0.3, 2.0]))
    tensor([0.7000, 0.0000])
    """
    return F.relu(1 - margin)


def kto(log_ratio: Tensor, zero: Tensor | float, beta: float, desirable: Tensor) -> Tensor:
    """KTO's loss without its class weights (arXiv:2402.01306), small where a response is on the right side of zero.

    ``1 - sigma(beta (log_ratio - zero))`` where desirable, ``1 - sigma(beta (zero - log_ratio))`` elsewhere.

    Args:
        log_ratio: ``[B]`` log-probability of the response, policy minus reference.
        zero: KL of the policy to the reference, 0 or more, without gradient.
        desirable: ``[B]`` bool.

    >>> kto(torch.tensor([2.0, -1.0]), 0.5, 0.1, torch.tensor([True, False]))
    tensor([0.4626, 0.4626])
    """
    assert log_ratio.shape == desirable.shape and log_ratio.dim() == 1
    # 1 - sigma(x) as sigma(-x): where x is large, 1 - sigma(x) is rounded to 0 and has no gradient.
    ahead = torch.where(desirable, log_ratio - zero, zero - log_ratio)
    return torch.sigmoid(-beta * ahead)


def log1mexp(x: Tensor) -> Tensor:
    """``log(1 - exp(x))`` for x < 0 without cancellation (Maechler 2012); x is kept below -1e-7.

    >>> log1mexp(torch.tensor([-0.5, -50.0]))
    tensor([-9.3275e-01, -1.9287e-22])
    """
    x = x.clamp(max=-1e-7)
    near = x > -math.log(2)
    # Each branch gets only values it can compute, -1 elsewhere: `where` picks the right value, but its gradient is
    # 0 * NaN = NaN for the branch that was not picked.
    close = torch.log(-torch.expm1(torch.where(near, x, -1.0)))
    far = torch.log1p(-torch.exp(torch.where(near, -1.0, x)))
    return torch.where(near, close, far)


def log_odds(mean_logprob: Tensor) -> Tensor:
    """``log p / (1 - p)`` of the geometric-mean probability of a token (ORPO, arXiv:2403.07691, eq. 4). ``[B]``.

    >>> log_odds(torch.tensor([-0.5])) - log_odds(torch.tensor([-1.0]))
    tensor([0.9741])
    """
    return mean_logprob - log1mexp(mean_logprob)
