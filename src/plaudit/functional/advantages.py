"""From rewards to advantages. All per-token tensors are ``[B, T]``; rows may have gaps (tool tokens) and padding."""

from __future__ import annotations

import torch
from torch import Tensor


def last_counted(mask: Tensor) -> Tensor:
    """``[B, T]`` bool, True at the last counted token of each row: where the reward of the response belongs.

    >>> last_counted(torch.tensor([[False, True, True, False]])).int()
    tensor([[0, 0, 1, 0]], dtype=torch.int32)
    """
    # Counted tokens from here to the end of the row. Not "length - 1": after a gap or before padding the last counted
    # token can be anywhere.
    following = mask.flip(-1).cumsum(-1).flip(-1)
    return mask & (following == 1)


def token_rewards(scores: Tensor, kl: Tensor, kl_coef: float, mask: Tensor) -> Tensor:
    """Per-token reward ``-kl_coef * kl``, plus the score on the last counted token (its own KL term stays).

    Args:
        scores: ``[B]`` reward of each response, already clipped and normalised.
        kl: ``[B, T]`` per-token KL estimate; kl_coef: nats to reward.

    >>> kl = torch.tensor([[0.5, -0.2, 0.0]]); mask = torch.tensor([[True, True, False]])
    >>> token_rewards(torch.tensor([2.0]), kl, 0.1, mask)
    tensor([[-0.0500,  2.0200,  0.0000]])
    """
    assert scores.shape == mask.shape[:1] and kl.shape == mask.shape
    # `where` and not a product: log-probs at padding may be anything, and 0 * inf is NaN.
    penalty = torch.where(mask, -kl_coef * kl, torch.zeros_like(kl))
    return penalty + last_counted(mask) * scores[:, None]


def rewards_to_go(rewards: Tensor, mask: Tensor, gamma: float = 1.0) -> Tensor:
    """``G_t = sum_{s >= t} gamma^(s-t) r_s`` over counted tokens; gaps and padding are stepped over.

    >>> rewards_to_go(torch.tensor([[1.0, 2.0, 3.0]]), torch.ones(1, 3, dtype=torch.bool), 0.5)
    tensor([[2.7500, 3.5000, 3.0000]])
    """
    return gae(rewards, torch.zeros_like(rewards), mask, gamma, 1.0)[1]


def length_lambda(mask: Tensor, alpha: float) -> Tensor:
    """Lambda ``[B]`` that grows with the response, ``1 - 1 / (alpha * length)`` (VAPO, arXiv:2504.05118); at least 0.

    The weights of GAE then sum to ``alpha * length``, so the reward at the end of a long response still reaches its
    first tokens: with a constant 0.95 it is multiplied by 0.006 after 100 tokens.

    >>> length_lambda(torch.ones(1, 40, dtype=torch.bool), 0.5)
    tensor([0.9500])
    """
    return (1 - 1 / (alpha * mask.sum(-1).clamp(min=1))).clamp(min=0.0)


def gae(
    rewards: Tensor,
    values: Tensor,
    mask: Tensor,
    gamma: float = 1.0,
    gae_lambda: float | Tensor = 0.95,
    last_values: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation (arXiv:1506.02438, eq. 16) and the critic's targets, before any whitening.

    ``delta_t = r_t + gamma V_{t+1} - V_t``, ``A_t = delta_t + gamma lambda A_{t+1}``, ``returns = A + V``. The value
    after the last counted token is 0; at uncounted tokens the next value and advantage are carried on unchanged.

    Args:
        gae_lambda: one number, or one for each row, ``[B]``.
        last_values: ``[B]`` values after the last counted token, where the text would have gone on.

    >>> r, v = torch.tensor([[0.0, 0.0, 1.0]]), torch.tensor([[0.5, 0.6, 0.7]])
    >>> advantages, returns = gae(r, v, torch.ones(1, 3, dtype=torch.bool))
    >>> advantages
    tensor([[0.4657, 0.3850, 0.3000]])
    """
    assert rewards.shape == values.shape == mask.shape, "rewards, values and mask must all be [B, T]"
    advantages = torch.zeros_like(values)
    next_value = values.new_zeros(len(values)) if last_values is None else last_values
    assert next_value.shape == values.shape[:1], "last_values must be [B]"
    next_advantage = values.new_zeros(len(values))
    # Backwards, because each step needs the advantage and the value of the one after it. At a token that does not count
    # (a tool's answer, padding) both are carried on, so the last token before a gap is followed by the first one after
    # it: gamma and lambda count sampled tokens only.
    for t in range(values.shape[1] - 1, -1, -1):
        counts = mask[:, t]
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        advantage = delta + gamma * gae_lambda * next_advantage
        next_advantage = torch.where(counts, advantage, next_advantage)
        next_value = torch.where(counts, values[:, t], next_value)
        advantages[:, t] = torch.where(counts, advantage, torch.zeros_like(advantage))
    # Targets from the advantages as they are here: whitening comes after, and would make the critic chase its own
    # scale.
    return advantages, torch.where(mask, advantages + values, torch.zeros_like(values))
