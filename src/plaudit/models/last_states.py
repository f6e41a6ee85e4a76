"""The state that a decoder reward model's head reads, as features; and setting the head."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from plaudit.experience import Batch, Outputs
from plaudit.models.forward.trunk import bare, body, hidden_states
from plaudit.models.reward_model import RewardModel


class LastStates(nn.Module):
    """A decoder reward model without its head: ``features [B, D]``, the state at the last real token, fp32."""

    def __init__(self, model: RewardModel) -> None:
        super().__init__()
        assert not model.is_encoder, "an encoder's head reads more than one state"
        self.trunk, self.packing, self.lower = body(model.model), model.packing, model.lower

    def forward(self, batch: Batch) -> Outputs:
        """Only ``features`` are filled."""
        mask = batch.attention_mask
        hidden = hidden_states(self.trunk, batch.tokens, mask, packing=self.packing, lower=self.lower)
        last = mask.shape[1] - 1 - mask.flip(-1).int().argmax(-1)
        return Outputs(features=hidden[torch.arange(len(mask), device=hidden.device), last].float())


@torch.no_grad()
def set_head(model: RewardModel, weight: Tensor) -> None:
    """Let the score be ``features @ weight`` (``[D]``), with bias 0."""
    head: Any = bare(model.model).score
    assert head.weight.shape[0] == 1, "one score"
    head.weight.copy_(weight[None])
    if head.bias is not None:
        head.bias.zero_()
