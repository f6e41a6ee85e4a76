"""Responses of given lengths for Hugging Face's ``generate``. Torch and transformers only."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import LogitsProcessor


class ForcedLength(LogitsProcessor):
    """The end token at each row's length, and nowhere before.

    Args:
        lengths: of each row, end token included.
        prompt: columns before the responses.
        end: the end token.
        device: of the scores.
    """

    def __init__(self, lengths: Sequence[int], prompt: int, end: int, device: torch.device) -> None:
        self.lengths = torch.tensor(lengths, device=device)
        self.prompt, self.end = prompt, end

    def __call__(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        last = self.lengths - 1 <= ids.shape[1] - self.prompt
        scores[:, self.end] = -1e9
        scores.masked_fill_(last[:, None], -1e9)
        scores[:, self.end] = torch.where(last, 0.0, scores[:, self.end])
        return scores
