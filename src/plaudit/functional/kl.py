"""Estimators of KL(policy || reference) from log-probs of sampled tokens (Schulman, "Approximating KL divergence")."""

from __future__ import annotations

import torch
from torch import Tensor


def k1(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """``logp - logp_ref``: unbiased, can be negative. In the reward it is the one whose gradient is that of the KL."""
    return logprobs - ref_logprobs


def k2(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """``(logp - logp_ref)^2 / 2``: biased in value, but its gradient on samples of the policy is that of the KL."""
    return 0.5 * (logprobs - ref_logprobs).square()


def k3(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """``exp(-d) - 1 + d`` with ``d = logp - logp_ref``: unbiased in value, never negative.

    >>> k3(torch.tensor([0.0]), torch.tensor([0.0]))
    tensor([0.])
    """
    difference = logprobs - ref_logprobs
    return torch.expm1(-difference) + difference
