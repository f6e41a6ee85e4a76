"""The critic: the expected return before each response token is emitted."""

from __future__ import annotations

import copy
from typing import Any, Self, Unpack

import torch
from peft import PeftModel
from torch import nn

from plaudit.config.sections import LoraSection
from plaudit.errors import ConfigError
from plaudit.experience import Batch, Outputs
from plaudit.functional.logprobs import at_mask, predicting_states
from plaudit.models.files.saving import merged, with_same_tensors, without_adapters
from plaudit.models.forward.lower import LowerStates
from plaudit.models.forward.reading import Reading
from plaudit.models.forward.trunk import (
    ForwardOptions,
    bare,
    body,
    enable_checkpointing,
    hidden_states,
    is_4bit,
    is_encoder,
    packs,
    silence_dropout,
)
from plaudit.models.lora import add_lora
from plaudit.models.reward_model import RewardModel


class Critic(nn.Module):
    """A causal trunk with a linear head. The value at token t is computed from the state before it.

    Args:
        trunk: the body of a decoder, plain or wrapped by `add_lora`; it becomes this critic's own.
        head: ``Linear(D, 1)``, kept in fp32.
        gradient_checkpointing: recompute activations in the backward pass.
        packing: compute no padding, and shared prompts once, where the architecture allows it.
        lower_states_gb: memory for the states of frozen lower layers, which are then computed once; 0: none.

    Raises:
        ConfigError: the trunk is an encoder, whose state at token t depends on the tokens after t.
    """

    def __init__(
        self, trunk: nn.Module, head: nn.Linear, *, gradient_checkpointing: bool = False, packing: bool = True,
        lower_states_gb: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        _refuse_encoder(trunk)
        silence_dropout(trunk)
        if gradient_checkpointing:
            enable_checkpointing(trunk)
        self.trunk, self.head = trunk, head.float()
        self.together = Reading.of(body(trunk)).together
        self.packing = packing and self.together > 0 and packs(body(trunk))
        self.lower = LowerStates.of(body(trunk), lower_states_gb) if self.packing else None

    @classmethod
    def from_reward(
        cls, reward: RewardModel, lora: LoraSection | None = None, **options: Unpack[ForwardOptions]
    ) -> Self:
        """Start as a copy of a decoder reward model; values are its normalised scores. ``options`` as of the class.

        Under LoRA a reward model's own adapters are copied and trained further, whatever rank ``lora`` has; a reward
        model without adapters gets new ones.
        """
        _refuse_encoder(reward.model)
        weight, bias = reward.value_head()
        head = nn.Linear(weight.shape[1], 1)
        with torch.no_grad():
            head.weight.copy_(weight)
            head.bias.fill_(bias)
        # Merging the adapters and putting new ones on top would give the same values at first, but needs a second base:
        # the merged weights are no longer those that policy, reference and reward model have in common.
        adapted = isinstance(reward.model, PeftModel) and lora is not None and lora.rank > 0
        trunk = _own_adapters(reward.model) if adapted else _trunk_to_train(reward.model, lora)
        return cls(trunk, head.to(weight.device), **options)

    @classmethod
    def from_policy(
        cls, lm: nn.Module, lora: LoraSection | None = None, **options: Unpack[ForwardOptions]
    ) -> Self:
        """A copy of a causal LM's body with a zero head: every value is 0 at first. ``options`` as of the class."""
        # Zero and not random: a random head would subtract noise from the first returns.
        _refuse_encoder(lm)
        trunk = _trunk_to_train(lm, lora)
        weight = bare(lm).get_input_embeddings().weight
        head = nn.Linear(Reading.of(body(lm)).width, 1, device=weight.device)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        return cls(trunk, head, **options)

    def forward(self, batch: Batch) -> Outputs:
        """``values [B, T]`` in fp32, about ``tokens``; 0 outside the response mask."""
        hidden = hidden_states(
            body(self.trunk), batch.tokens, batch.attention_mask,
            packing=self.packing, lower=self.lower, together=self.together,
        )  # fmt: skip
        # The state before token t, so that a value depends on the same tokens as the policy's choice of t. Read from
        # the state of t itself, it would depend on that choice, and as a baseline it would bias the gradient.
        states = predicting_states(hidden, batch.response_mask)
        with torch.autocast(states.device.type, enabled=False):
            values = self.head(states.float()).squeeze(-1)
        return Outputs(values=at_mask(values, batch.response_mask))

    def train(self, mode: bool = True) -> Self:
        """Does nothing: the module stays in eval mode, there is no dropout to switch on."""
        return super().train(False)


def _trunk_to_train(model: nn.Module, lora: LoraSection | None) -> nn.Module:
    """Under LoRA new adapters on the same frozen tensors; otherwise a copy of the whole body, all of it trained."""
    if lora is None or not lora.rank:
        return copy.deepcopy(body(merged(model))).requires_grad_(True)
    # "quantize" says how a base is loaded. This one is loaded: it is in 4 bit or it is not.
    section = lora if is_4bit(model) else lora.model_copy(update={"quantize": "none"})
    return add_lora(with_same_tensors(body(_plain(model))), section, task="scalar")


def _own_adapters(model: nn.Module) -> nn.Module:
    """A copy of the adapters, to be trained, on the same frozen tensors; without the classifier's head."""
    # deepcopy takes everything in its memo as already copied, so the frozen tensors are shared and only the adapters
    # and the module objects are new.
    adapters = {id(p): p for name, p in model.named_parameters() if "lora_" in name}
    shared = [t for t in (*model.parameters(), *model.buffers()) if id(t) not in adapters]
    copied = copy.deepcopy(model, {id(tensor): tensor for tensor in shared})
    bare(
        copied
    ).score = nn.Identity()  # its weights are in the critic's own head, folded with the normalisation
    for name, parameter in copied.named_parameters():
        parameter.requires_grad_("lora_" in name)
    return copied


def _plain(model: nn.Module) -> nn.Module:
    """The model without adapters: merged if they have learned something and the base is not in 4 bit."""
    if not isinstance(model, PeftModel):
        return model
    # B starts at 0 (arXiv:2106.09685), so an adapter whose B is still 0 changes nothing: removing it leaves the same
    # function on the shared tensors, where merging would copy the whole base.
    untrained = not any(p.any() for name, p in model.named_parameters() if "lora_B" in name)
    if untrained or is_4bit(model):
        copied: Any = with_same_tensors(model)
        return without_adapters(copied.unload())
    return merged(model)


def _refuse_encoder(model: nn.Module) -> None:
    if is_encoder(model):
        raise ConfigError(
            f"{bare(model).config.model_type} is an encoder: its state at a token depends on the tokens after it, "
            "so it cannot be a critic",
            where="[algorithm] critic",
            cure="use critic = 'sft', or a decoder as reward model",
        )
