"""The policy: log-probabilities and entropies of response tokens under a causal language model; and its frozen reference."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from plaudit.errors import ModelError
from plaudit.experience import Batch, Outputs
from plaudit.functional.logprobs import at_mask, predicting_states
from plaudit.models.head import LMHead
from plaudit.models.saving import save_causal_lm
from plaudit.models.trunk import bare, body, enable_checkpointing, hidden_states, is_encoder, silence_dropout


class Policy(nn.Module):
    """A causal language model (with or without LoRA) that scores the response tokens of a batch.

    Dropout is off for good, so that sampling, scoring and training see the same law. The LM head is applied where a
    response token is predicted and nowhere else.

    Args:
        lm: a transformers causal LM, plain or wrapped by `add_lora`. It stays usable for generation as ``policy.lm``.
        temperature: divides the logits, as in sampling.
        entropy_grad: let gradients flow through the entropy (for an entropy bonus; costs two more logit buffers).
        gradient_checkpointing: recompute activations in the backward pass.

    Raises:
        ModelError: the model is an encoder, or does something to its logits that is not known here.
    """

    def __init__(
        self,
        lm: nn.Module,
        *,
        temperature: float = 1.0,
        entropy_grad: bool = False,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if is_encoder(lm):
            raise ModelError(
                f"{bare(lm).config.model_type} is an encoder: each state sees the whole text, so it cannot be a policy",
                cure="use a causal language model, such as Llama, Qwen or GPT-2",
            )
        silence_dropout(lm)
        if gradient_checkpointing:
            enable_checkpointing(lm)
        self.lm = lm
        self.head = LMHead(lm, temperature=temperature, entropy_grad=entropy_grad)
        self._check_head()

    def forward(self, batch: Batch) -> Outputs:
        """``logprobs`` and ``entropy`` ``[B, T]`` in fp32 nats, about ``tokens``; 0 outside the response mask."""
        hidden = hidden_states(body(self.lm), batch.tokens, batch.attention_mask)
        states = predicting_states(hidden, batch.response_mask)
        logprobs, entropy = self.head(states, batch.tokens[batch.response_mask])
        return Outputs(
            logprobs=at_mask(logprobs, batch.response_mask), entropy=at_mask(entropy, batch.response_mask)
        )

    def train(self, mode: bool = True) -> Policy:
        """Stays in eval mode: there is no dropout to switch on, and generation needs its cache."""
        return super().train(False)

    @property
    def uses_lora(self) -> bool:
        """Are only adapters trained?"""
        return isinstance(self.lm, PeftModel)

    def save(self, path: str | Path, tokenizer: PreTrainedTokenizerBase) -> None:
        """Write model and tokenizer so that ``AutoModelForCausalLM.from_pretrained(path)`` loads them; LoRA merged."""
        save_causal_lm(self.lm, path, tokenizer)

    @torch.no_grad()
    def _check_head(self) -> None:
        """Our logits of two tokens must be the model's own; a check of what its architecture does after the LM head."""
        weight = bare(self.lm).get_output_embeddings().weight
        if weight.device.type == "meta":
            return
        tokens = torch.tensor([[0, weight.shape[0] // 2]], device=weight.device)
        mask = torch.ones_like(tokens, dtype=torch.bool)
        theirs = self.lm(input_ids=tokens, attention_mask=mask, use_cache=False).logits[0].float()
        ours = self.head.logits(hidden_states(body(self.lm), tokens, mask)[0]) * self.head.temperature
        tolerance = 1e-3 if weight.dtype == torch.float32 else 5e-2
        if not torch.allclose(ours, theirs, rtol=tolerance, atol=tolerance * float(theirs.abs().max().clamp(min=1))):
            raise ModelError(
                f"{bare(self.lm).config.model_type} changes its logits after the LM head in an unknown way",
                cure="use another architecture, or add its scale to models/head.py",
            )


class ReferencePolicy(nn.Module):
    """The frozen law that the KL penalty holds the policy to.

    Under LoRA it is the policy with its adapters off and costs no memory; otherwise a frozen copy, taken now. A copy
    holds no optimizer and never changes.
    """

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.shared = policy.uses_lora
        self._policy = [policy if self.shared else _frozen(policy)]  # in a list: its parameters are not this module's

    @torch.no_grad()
    def forward(self, batch: Batch) -> Outputs:
        """As `Policy.forward`, without gradients."""
        policy = self._policy[0]
        if not self.shared:
            out: Outputs = policy(batch)
            return out
        lm: Any = policy.lm
        with lm.disable_adapter():
            out = policy(batch)
        return out

    def _apply(self, fn: Any, recurse: bool = True) -> ReferencePolicy:
        """Moves (``.to(device)``) reach the frozen copy as well."""
        if not self.shared:
            self._policy[0]._apply(fn)
        return super()._apply(fn, recurse)


def _frozen(policy: Policy) -> Policy:
    twin = copy.deepcopy(policy)
    twin.head = LMHead(twin.lm, temperature=policy.head.temperature)
    for parameter in twin.parameters():
        parameter.requires_grad_(False)
    return twin


def response_logprobs(out: Outputs) -> Tensor:
    """Log-probability ``[B]`` of each whole response: the sum over its tokens."""
    assert out.logprobs is not None, "only a policy gives log-probs"
    return out.logprobs.sum(-1)
