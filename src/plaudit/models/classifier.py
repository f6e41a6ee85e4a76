"""A transformers sequence classifier as a reward model uses it: where its outputs are read, and how it is prepared."""

from __future__ import annotations

from collections.abc import Sequence
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from plaudit.errors import ModelError
from plaudit.models.forward.trunk import bare, to_the_left


def last_real(mask: Tensor) -> Tensor:
    """``[B]`` column of the last real token of each row; ``mask [B, T]`` bool, padded on either side."""
    # From the mask and not by comparing ids with the pad token: a text may contain the pad token, and with pad = end
    # token the end token of every response would be taken for padding.
    return mask.shape[1] - 1 - mask.flip(-1).int().argmax(-1)


def decoder_outputs(model: nn.Module, hidden: Tensor, mask: Tensor) -> Tensor:
    """Outputs ``[B, H]`` in fp32 of a decoder with a classification head, at the last real token of each row.

    Args:
        model: ``...ForSequenceClassification``, plain or wrapped by `add_lora`.
        hidden: ``[B, T, D]`` last hidden states; mask: ``[B, T]`` bool, real tokens.
    """
    head = bare(model).score
    # fp32 also under autocast: differences of scores are the whole signal of a comparison, and bf16 has no digit for a
    # difference of 0.01 between two scores near 4.
    with torch.autocast(hidden.device.type, enabled=False):
        bias = None if head.bias is None else head.bias.float()
        state = hidden[torch.arange(len(mask), device=hidden.device), last_real(mask)].float()
        return nn.functional.linear(state, head.weight.float(), bias)


def encoder_outputs(model: nn.Module, tokens: Tensor, mask: Tensor) -> Tensor:
    """Outputs ``[B, H]`` in fp32 of an encoder with a classification head; ``tokens``, ``mask`` ``[B, T]``."""
    inner = bare(model)
    # The head reads column 0, so padding has to be on the right; and RoBERTa derives positions from the ids, counting
    # those that are not the pad id, so padding has to hold exactly that id.
    tokens, mask = to_the_left(tokens.masked_fill(~mask, inner.config.pad_token_id), mask)
    inputs = {"input_ids": tokens, "attention_mask": mask.long()} | _segments(inner, tokens)
    head: Any = getattr(inner, "classifier", None)
    if not hasattr(head, "out_proj"):  # BERT and others pool inside their body
        return inner(**inputs).logits.float()
    hidden = inner.base_model(**inputs).last_hidden_state
    with torch.autocast(tokens.device.type, enabled=False):
        scores: Tensor = head(hidden.float())
    return scores


def init_head(model: PreTrainedModel, seed: int) -> None:
    """Draw the last layer of a fresh head with deviation ``1 / sqrt(D + 1)`` and bias 0 (arXiv:1909.08593).

    Raises:
        ModelError: the head holds no linear layer.
    """
    head: Any = getattr(model, "score", None) or model.classifier
    layers = [m for m in head.modules() if isinstance(m, nn.Linear)]
    if not layers:
        raise ModelError(
            f"{model.config.model_type} has a head of an unknown kind", cure="use another architecture"
        )
    # A generator of its own: what transformers drew for the head depends on everything that was drawn before.
    generator = torch.Generator().manual_seed(seed)
    weight = layers[-1].weight.data
    fresh = torch.randn(weight.shape, generator=generator) / (weight.shape[1] + 1) ** 0.5
    weight.copy_(fresh)
    if layers[-1].bias is not None:
        layers[-1].bias.data.zero_()


def name_attributes(model: PreTrainedModel, names: Sequence[str], weights: Sequence[float]) -> None:
    """Write into a classifier's config which quality each of its outputs scores, and its weight in the sum.

    Raises:
        ModelError: no names are given, but the model scores named qualities.
    """
    config: Any = model.config
    if names:
        config.id2label = dict(enumerate(names))
        config.label2id = {name: i for i, name in enumerate(names)}
        config.plaudit_attributes, config.plaudit_attribute_weights = list(names), list(weights)
    elif getattr(config, "plaudit_attributes", None):
        raise ModelError(
            f"the model scores {', '.join(config.plaudit_attributes)}, but no such heads are set",
            where="[algorithm] attributes",
            cure="name the same attributes (of quality and length: length = 'odin'), or start from a language model",
        )


def know_separator(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Write the id of the token between two texts into the config, where `encoder_outputs` reads it."""
    # Into the config, because the model has to score the same after loading, when there may be no tokenizer.
    config: Any = model.config
    if tokenizer.sep_token_id is not None:
        config.sep_token_id = tokenizer.sep_token_id


def _segments(inner: Any, tokens: Tensor) -> dict[str, Tensor]:
    """``token_type_ids`` of an encoder that was pretrained with them (BERT): 0 to the first separator, then 1."""
    separator = getattr(inner.config, "sep_token_id", None)
    takes = "token_type_ids" in signature(inner.base_model.forward).parameters
    if separator is None or not takes or getattr(inner.config, "type_vocab_size", 0) < 2:
        return {}
    separators = (tokens == separator).long()
    # Separators before each token, itself not counted: the first separator still belongs to the first text.
    before = separators.cumsum(-1) - separators
    real = tokens != inner.config.pad_token_id
    return {"token_type_ids": ((before > 0) & real).long()}
