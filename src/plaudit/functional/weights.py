"""How the mean of a loss is taken, fixed once for a whole optimizer step.

With these weights every loss is a weighted sum, so the gradients of microbatches and ranks add up to that of the step,
whatever the split. Rows without a counted token are not counted as sequences.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

Aggregation = Literal["token_mean", "sequence_mean_token_mean", "sequence_mean_token_sum", "constant"]


def loss_weights(mask: Tensor, aggregation: Aggregation = "token_mean", max_length: int = 0) -> Tensor:
    """Weights ``[B, T]`` of the response tokens.

    Args:
        mask: ``[B, T]`` bool, tokens that count.
        aggregation: token_mean: all tokens alike (DAPO, PPO). sequence_mean_token_mean: mean of each response, then of
            the responses (GRPO). sequence_mean_token_sum: sum of each response, then mean (REINFORCE, RLOO).
            constant: sum divided by ``B * max_length`` (Dr. GRPO).
        max_length: the constant of ``constant``.

    >>> import torch
    >>> mask = torch.tensor([[True, False, False], [True, True, True]])
    >>> loss = torch.tensor([[1.0, 0, 0], [2, 2, 2]])
    >>> [round((loss * loss_weights(mask, mode, 4)).sum().item(), 4) for mode in Aggregation.__args__]
    [1.75, 1.5, 3.5, 0.875]
    """
    # Computed from the whole step, before it is split. A mean taken in each microbatch would weigh a token of a short
    # microbatch more, so the result would depend on memory: the fault of gradient accumulation in many trainers.
    counts = mask.float()
    lengths = counts.sum(-1, keepdim=True)
    sequences = (lengths > 0).sum().clamp(min=1)
    if aggregation == "token_mean":
        return counts / counts.sum().clamp(min=1)
    if aggregation == "sequence_mean_token_mean":
        return counts / lengths.clamp(min=1) / sequences
    if aggregation == "sequence_mean_token_sum":
        return counts / sequences
    return counts / (sequences * max(max_length, 1))
