"""KL between the next-token distributions of policy and reference, summed over the vocabulary, not estimated."""

from __future__ import annotations

import torch
from torch import nn

from plaudit.experience import Batch, Outputs
from plaudit.functional.kl import full_kl
from plaudit.functional.logprobs import at_mask
from plaudit.models.forward.head import CHUNK
from plaudit.models.policy import Policy, ReferencePolicy


class ExactKL(nn.Module):
    """``full_kl [B, T]``: KL(policy || reference) at each response token, along the sampled prefix. No gradient.

    Costs a forward pass of both models, and two rows of logits for each token, computed chunk by chunk.
    """

    def __init__(self, policy: Policy, reference: ReferencePolicy) -> None:
        super().__init__()
        self._models = policy, reference  # in a tuple: their parameters are not this module's
        self.packing = policy.packing

    @torch.no_grad()
    def forward(self, batch: Batch) -> Outputs:
        """``full_kl`` in fp32 nats, about ``tokens``; 0 outside the responses."""
        policy, reference = self._models
        # Under LoRA policy and reference are one object with adapters on or off, so each pass has to be inside or
        # outside of `as_policy` as a whole; states of both are kept, since they are small beside logits.
        with reference.as_policy() as frozen:
            ref_states = frozen.states(batch)
        states = policy.states(batch)
        size = max(1, CHUNK // (2 * policy.head.vocabulary))
        parts = []
        for state, ref_state in zip(states.split(size), ref_states.split(size), strict=True):
            with reference.as_policy() as frozen:
                # The output layer may carry an adapter as well, hence inside.
                ref_logits = frozen.head.logits(ref_state)
            parts.append(full_kl(policy.head.logits(state), ref_logits))
        return Outputs(full_kl=at_mask(torch.cat(parts), batch.response_mask))
