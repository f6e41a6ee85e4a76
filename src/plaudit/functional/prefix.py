"""Tokens that neighbouring rows have in common at their start."""

from __future__ import annotations

import torch
from torch import Tensor


def shared_with_previous(tokens: Tensor, attention_mask: Tensor) -> Tensor:
    """``[B]`` leading real tokens that each row has in common with the row before it; 0 for the first.

    Args:
        tokens, attention_mask: ``[B, T]``, padded on the right.

    >>> shared_with_previous(torch.tensor([[1, 2, 3], [1, 2, 4]]), torch.ones(2, 3, dtype=torch.bool))
    tensor([0, 2])
    """
    equal = (tokens[1:] == tokens[:-1]) & attention_mask[1:] & attention_mask[:-1]
    # The running product is 1 up to the first difference: equal tokens after it are in another context and not shared.
    lengths = equal.long().cumprod(-1).sum(-1)
    return torch.cat([lengths.new_zeros(1), lengths])
