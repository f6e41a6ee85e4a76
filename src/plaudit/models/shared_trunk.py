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
from transformers import PreTrainedTokenizerBase

from plaudit.errors import ConfigError
from plaudit.experience import Batch, Outputs
from plaudit.functional.logprobs import at_mask
from plaudit.models.files.integrity import seal
from plaudit.models.forward.reading import Reading
from plaudit.models.forward.trunk import bare, body
from plaudit.models.policy import Policy

HEAD_FILE = "value_head.safetensors"


class TrunkCritic(nn.Module):
    """A value head on a policy's trunk. Used alone it trains the head and nothing else: the trunk gets no gradient.

    The head starts at zero, so every value is 0 at first, and stays in fp32.
    """

    # Alone it is used for scoring, and for the critic's warm-up: a gradient into the trunk would move the policy in
    # iterations in which the policy must not change. `SharedTrunk` is the pass in which both are trained.

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self._policy = (policy,)  # in a tuple: its parameters are not this module's
        self.packing = policy.packing
        inner = bare(policy.lm)
        if policy.head.whole:
            raise ConfigError(
                f"{inner.config.model_type} has an output layer of its own kind: its states cannot carry a critic",
                where="[algorithm] critic",
                cure="use critic = 'sft'",
            )
        device = inner.get_input_embeddings().weight.device
        self.head = nn.Linear(Reading.of(body(policy.lm)).width, 1, device=device)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, batch: Batch) -> Outputs:
        """``values [B, T]`` in fp32, about ``tokens``; 0 outside the response mask. No gradient to the trunk."""
        # Only the trunk is without gradient; the head below is outside of the block and learns.
        with torch.no_grad():
            states = self._policy[0].states(batch)
        return Outputs(values=self.values(states, batch.response_mask))

    def values(self, states: Tensor, mask: Tensor) -> Tensor:
        """``states [N, D]`` before the N masked tokens -> values ``[B, T]``."""
        # fp32 as in `Critic`: errors of a value enter every advantage before it.
        with torch.autocast(states.device.type, enabled=False):
            return at_mask(self.head(states.float()).squeeze(-1), mask)

    def save(self, path: Path, tokenizer: PreTrainedTokenizerBase | None = None) -> None:
        """Write ``value_head.safetensors``: weight ``[1, D]``, bias ``[1]``, for the last states of the policy."""
        path.mkdir(parents=True, exist_ok=True)
        tensors = {name: t.detach().cpu().contiguous() for name, t in self.head.state_dict().items()}
        save_file(tensors, path / HEAD_FILE)
        seal(path)


class SharedTrunk(nn.Module):
    """Policy and critic in one forward pass; gradients of both losses reach the trunk.

    The value head is a parameter of the critic only, so the two optimizers never own one tensor together.
    """

    def __init__(self, policy: Policy, critic: TrunkCritic) -> None:
        super().__init__()
        self.policy, self.packing = policy, policy.packing
        self._critic = (critic,)

    def forward(self, batch: Batch) -> Outputs:
        """``logprobs``, ``entropy`` as of the policy, ``values`` as of the critic; all ``[B, T]``."""
        states = self.policy.states(batch)
        policy = self.policy.read(states, batch)
        values = self._critic[0].values(states, batch.response_mask)
        return Outputs(logprobs=policy.logprobs, entropy=policy.entropy, values=values)

    def save(self, path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
        """Write the policy, a plain model; the head is written by the critic."""
        self.policy.save(path, tokenizer)

    def train(self, mode: bool = True) -> Self:
        """Stays in eval mode, as the policy."""
        return super().train(False)
