"""The policy: log-probs and entropies of response tokens under a causal LM; and its frozen reference."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from plaudit.errors import ModelError
from plaudit.experience import Batch, Outputs
from plaudit.functional.logprobs import at_mask, predicting_states
from plaudit.models.files.saving import Saved, save_causal_lm
from plaudit.models.files.vocabulary import Words
from plaudit.models.forward.head import LMHead
from plaudit.models.forward.lower import LowerStates
from plaudit.models.forward.reading import Reading
from plaudit.models.forward.trunk import (
    bare,
    body,
    enable_checkpointing,
    hidden_states,
    is_encoder,
    packs,
    silence_dropout,
)


class Policy(nn.Module):
    """A causal language model (with or without LoRA) that scores the response tokens of a batch.

    Dropout is off, so that sampling, scoring and training compute the same next-token distribution. The LM head is
    applied where a response token is predicted and nowhere else.

    Args:
        lm: a transformers causal LM, plain or wrapped by `add_lora`; a generator may use ``policy.lm`` too.
        temperature: divides the logits, as in sampling.
        entropy_grad: let gradients flow through the entropy, for an entropy bonus; needs more memory.
        gradient_checkpointing: recompute activations in the backward pass.
        packing: compute no padding, and shared prompts once, where the architecture allows it.
        lower_states_gb: memory for the states of frozen lower layers, which are then computed once; 0: none.
        words: which ids are tokens; all others have probability 0. See `plaudit.models.files.vocabulary.Words`.

    Attributes:
        notes: what is done otherwise for this architecture than for most, in words for the user.
        saved: what `save` writes of a model with adapters.

    Raises:
        ModelError: the model is an encoder, or cannot be run from left to right on token ids alone.
    """

    def __init__(
        self,
        lm: nn.Module,
        *,
        temperature: float = 1.0,
        entropy_grad: bool = False,
        gradient_checkpointing: bool = False,
        packing: bool = True,
        lower_states_gb: float = 0.0,
        words: Words | None = None,
    ) -> None:
        super().__init__()
        if is_encoder(lm):
            raise ModelError(
                f"{bare(lm).config.model_type} is an encoder: its states depend on later tokens, so it is no policy",
                cure="use a causal language model, such as Llama, Qwen or GPT-2",
            )
        self.saved: Saved = "both"
        silence_dropout(lm)
        if gradient_checkpointing:
            enable_checkpointing(lm)
        self.lm = lm
        self.head = LMHead(lm, temperature=temperature, entropy_grad=entropy_grad, words=words)
        reading = Reading.of(self.head.trunk(lm))
        self.together = reading.together
        # Only packed rows have their states stored: both need rows padded on the right and positions from their start.
        self.packing = packing and not self.head.whole and self.together > 0 and packs(body(lm))
        self.lower = LowerStates.of(body(lm), lower_states_gb) if self.packing else None
        notes = (reading.note("training"), LMHead.NOTE if self.head.whole else "")
        self.notes = tuple(note for note in notes if note)

    def forward(self, batch: Batch) -> Outputs:
        """``logprobs`` and ``entropy`` ``[B, T]`` in fp32 nats, about ``tokens``; 0 outside the responses."""
        return self.read(self.states(batch), batch)

    def states(self, batch: Batch) -> Tensor:
        """Last hidden states ``[N, D]`` at the positions before the N response tokens, row by row."""
        # Prompts are most of the tokens and the vocabulary is 50 to 500 times the width of a state: logits at response
        # tokens only are what makes a step fit into memory.
        hidden = hidden_states(
            self.head.trunk(self.lm), batch.tokens, batch.attention_mask,
            packing=self.packing, lower=self.lower, together=self.together,
        )  # fmt: skip
        return predicting_states(hidden, batch.response_mask)

    def read(self, states: Tensor, batch: Batch) -> Outputs:
        """The outputs of `forward`, computed from the value of `states`."""
        logprobs, entropy = self.head(states, batch.tokens[batch.response_mask])
        return Outputs(
            logprobs=at_mask(logprobs, batch.response_mask), entropy=at_mask(entropy, batch.response_mask)
        )

    def train(self, mode: bool = True) -> Policy:
        """Does nothing: the module stays in eval mode."""
        # There is no dropout to switch on, and a layer in train mode with checkpointing would drop generation's cache.
        return super().train(False)

    @property
    def uses_lora(self) -> bool:
        """Are only adapters trained?"""
        return isinstance(self.lm, PeftModel)

    def save(self, path: str | Path, tokenizer: PreTrainedTokenizerBase) -> None:
        """Write model and tokenizer for ``AutoModelForCausalLM.from_pretrained(path)``; see `save_causal_lm`."""
        save_causal_lm(self.lm, path, tokenizer, self.saved)


class ReferencePolicy(nn.Module):
    """The frozen policy that the KL penalty measures distance from.

    Under LoRA it is the policy with its adapters off and costs no memory; otherwise a frozen copy, made here.

    Args:
        policy: as it is at the start.
        copied: False: the policy itself, for one that is never trained.
    """

    def __init__(self, policy: Policy, *, copied: bool = True) -> None:
        super().__init__()
        self.shared = policy.uses_lora
        self._policy = [policy]  # in a list: the parameters of a shared policy are not this module's
        # A copy of all weights, so it has to be made before the first update.
        if not self.shared:
            self._policy = [copy.deepcopy(policy) if copied else policy]
            self.frozen = self._policy[0].requires_grad_(False)
            self.frozen.head.entropy_grad = False

    @torch.no_grad()
    def forward(self, batch: Batch) -> Outputs:
        """As `Policy.forward`, without gradients."""
        with self.as_policy() as policy:
            out: Outputs = policy(batch)
        return out

    @contextmanager
    def as_policy(self) -> Iterator[Policy]:
        """Within it, the yielded policy computes the reference: under LoRA its adapters are off."""
        policy = self._policy[0]
        lm: Any = policy.lm
        with lm.disable_adapter() if self.shared else nullcontext():
            yield policy
