"""Policy and critic on one trunk: the critic is a linear head on the policy's last hidden states.

One forward and one backward pass train both, where separate models need two of each (Schulman et al.,
arXiv:1707.06347, eq. 9). The price: what the critic learns moves the policy's states as well, which is why
Stiennon et al. (arXiv:2009.01325, section 3.4) keep them apart.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from plaudit.experience import Batch, Outputs
from plaudit.functional.logprobs import at_mask
from plaudit.models.forward.trunk import bare
from plaudit.models.policy import Policy

HEAD_FILE = "value_head.safetensors"


class TrunkCritic(nn.Module):
    """A value head on a policy's trunk. By itself it trains the head and nothing else: the trunk is only read.

    The head starts at zero, so every value is 0 at first, and stays in fp32.
    """

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self._policy = (policy,)  # in a tuple: its parameters are not this module's
        self.packing = policy.packing
        inner = bare(policy.lm)
        device = inner.get_input_embeddings().weight.device
        self.head = nn.Linear(inner.config.get_text_config().hidden_size, 1, device=device)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, batch: Batch) -> Outputs:
        """``values [B, T]`` in fp32, about ``tokens``; 0 outside the response mask. No gradient to the trunk."""
        with torch.no_grad():
            states = self._policy[0].states(batch)
        return Outputs(values=self.values(states, batch.response_mask))

    def values(self, states: Tensor, mask: Tensor) -> Tensor:
        """``states [N, D]`` before the N masked tokens -> values ``[B, T]``."""
        with torch.autocast(states.device.type, enabled=False):
            return at_mask(self.head(states.float()).squeeze(-1), mask)

    def save(self, folder: Path) -> None:
        """Write ``value_head.safetensors``: weight ``[1, D]``, bias ``[1]``, for the last states of the policy."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: t.detach().cpu().contiguous() for name, t in self.head.state_dict().items()}
        save_file(tensors, folder / HEAD_FILE)


class SharedTrunk(nn.Module):
    """Policy and critic in one pass; gradients of both reach the trunk. The head's parameters stay the critic's own."""

    def __init__(self, policy: Policy, critic: TrunkCritic) -> None:
        super().__init__()
        self.policy, self.packing = policy, policy.packing
        self._critic = (critic,)

    def forward(self, batch: Batch) -> Outputs:
        """``logprobs``, ``entropy`` as of the policy, ``values`` as of the critic; all ``[B, T]``."""
        states = self.policy.states(batch)
        law = self.policy.read(states, batch)
        values = self._critic[0].values(states, batch.response_mask)
        return Outputs(logprobs=law.logprobs, entropy=law.entropy, values=values)

    def train(self, mode: bool = True) -> Self:
        """Stays in eval mode, as the policy."""
        return super().train(False)
