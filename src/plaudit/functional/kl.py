"""Estimators of KL(policy || reference) from log-probs of sampled tokens (Schulman, "Approximating KL divergence")."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Estimator = Literal["k1", "k2", "k3"]
Gradient = Literal["naive", "unbiased"]


def k1(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """``logp - logp_ref``: unbiased, can be negative. As a part of the reward, its gradient is that of the KL."""
    return logprobs - ref_logprobs


def k2(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """``(logp - logp_ref)^2 / 2``: biased in value, but its gradient on samples of the policy is that of the KL."""
    return 0.5 * (logprobs - ref_logprobs).square()


def k3(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """``exp(-d) - 1 + d`` with ``d = logp - logp_ref``: unbiased in value, never negative.

    >>> k3(torch.tensor([0.0]), torch.tensor([0.0]))
    tensor([0.])
    """
    # expm1, because exp(-d) - 1 loses all digits where d is small, and d is small for nearly every token.
    difference = logprobs - ref_logprobs
    return torch.expm1(-difference) + difference


def full_kl(logits: Tensor, ref_logits: Tensor) -> Tensor:
    """Exact ``KL(p || q) = sum_v p_v (log p_v - log q_v)`` of next-token distributions; ``[N, V]`` to ``[N]`` nats.

    >>> p, q = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.75, 0.25]]).log()
    >>> round(full_kl(p, q).item(), 6)
    0.143841
    """
    logp, ref_logp = logits.log_softmax(-1), ref_logits.log_softmax(-1)
    # Where p is 0 its log is -inf, and the term is 0. Both logs are replaced before they are subtracted: -inf less -inf
    # would be NaN, and `where` around the result would not keep it out of the gradient.
    ruled_out = logp == -torch.inf
    gap = logp.masked_fill(ruled_out, 0.0) - ref_logp.masked_fill(ruled_out, 0.0)
    return (logp.exp() * gap).sum(-1)


def kl_loss(
    logprobs: Tensor, old_logprobs: Tensor, ref_logprobs: Tensor, estimator: Estimator, gradient: Gradient
) -> Tensor:
    """Per-token KL to the reference as a term of the loss, on tokens that the old policy sampled.

    Args:
        gradient: naive: the estimator is differentiated as it stands. On samples of the policy that gives 0 for k1, the
            gradient of KL(policy || reference) for k2, and that of KL(reference || policy) for k3, as papers have it.
            unbiased: all three give the gradient of KL(policy || reference), off the policy too: k1 and k3 are
            multiplied by the ratio ``pi / pi_old`` with its gradient, k2 by the ratio as a constant.

    It is the KL of the next token at each place, with the tokens before it held fixed: a token does not answer for the
    KL that comes after it, as it does where the KL is a part of the reward.
    """
    value = {"k1": k1, "k2": k2, "k3": k3}[estimator](logprobs, ref_logprobs)
    if gradient == "naive":
        return value
    # k2 is differentiated as it stands: its own gradient is that of the KL already, the ratio only corrects for the
    # samples of the old policy. For k1 and k3 the missing part comes from the gradient of the ratio.
    ratio = (logprobs - old_logprobs).clamp(-20.0, 20.0).exp()
    return value * (ratio.detach() if estimator == "k2" else ratio)
