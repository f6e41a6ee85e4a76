"""The body of a transformers model, without its head: how to call it, dropout, recomputation."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from inspect import signature
from typing import Any, TypedDict

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from plaudit.models.forward.attention import exact_attention
from plaudit.models.forward.lower import LowerStates
from plaudit.models.forward.packing import can_pack, fits_window, pack, packed_states
from plaudit.models.forward.reading import ANY, row_limit, rows_apart

POSITION_TABLES = ("wpe", "embed_positions", "position_embeddings")
"""What models call their table of learned positions."""

# Some architectures advise an attention mask as soon as a row holds the pad token. Rows are padded on the right or
# packed here, where causal attention needs none, so the advice would only worry users.
logging.getLogger("transformers.modeling_utils").addFilter(
    lambda record: "passing in an `attention_mask`" not in record.getMessage()
)


class ForwardOptions(TypedDict, total=False):
    """How a model's trunk is run; options that policy, critic and reward model have in common."""

    gradient_checkpointing: bool
    packing: bool
    lower_states_gb: float


def bare(model: nn.Module) -> Any:
    """The transformers model inside a peft wrapper; adapters stay in its layers."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def body(model: nn.Module) -> nn.Module:
    """The part of a model that ends in hidden states ``[B, T, D]``."""
    inner: PreTrainedModel = bare(model)
    trunk: nn.Module = inner.base_model
    # Some name their body otherwise than `base_model` thinks (the text part of Llama 4).
    if trunk is inner and inner.get_output_embeddings() is not None:
        bodies = [child for child in inner.children() if isinstance(child, PreTrainedModel)]
        return bodies[0] if len(bodies) == 1 else trunk
    return trunk


def is_encoder(model: nn.Module) -> bool:
    """Does every state depend on the whole text (BERT, RoBERTa ...)? Then it can be neither critic nor policy."""
    config = bare(model).config
    return config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(config, "is_decoder", False)


def is_4bit(model: nn.Module) -> bool:
    """Does it hold weights quantised by bitsandbytes?"""
    # By the name of the class, because bitsandbytes is an optional package and need not be installed to ask.
    return any(type(module).__name__ == "Linear4bit" for module in model.modules())


def hidden_states(
    trunk: nn.Module,
    tokens: Tensor,
    attention_mask: Tensor,
    *,
    packing: bool = False,
    lower: LowerStates | None = None,
    together: int = ANY,
) -> Tensor:
    """Last hidden states ``[B, T, D]`` of a causal trunk, whichever side is padded; undefined at padding.

    Positions count real tokens, so a row's states do not depend on its padding.

    Args:
        packing: leave padding out and compute what neighbouring rows share at their start once (see packing.py);
            only for a trunk that `can_pack`.
        lower: keeps the states of the trunk's frozen lower layers; only together with packing.
        together: of `Reading`, how long rows may be that are read side by side.
    """
    if tokens.shape[1] > together:
        with recomputing(trunk) if torch.is_grad_enabled() else nullcontext():
            return rows_apart(trunk, tokens, attention_mask)
    # A mask never grows along a row that is padded on the right. No attention mask is needed then, because a causal
    # kernel never looks to the right; without a mask argument the fast kernels are used.
    right_padded = bool((attention_mask[:, 1:] <= attention_mask[:, :-1]).all())
    if packing and right_padded and fits_window(trunk, tokens.shape[1]):
        # With stored lower states packing pays even where rows share nothing: all layers below the cut are left out.
        packed = pack(tokens, attention_mask, always=lower is not None)
        if packed is not None and lower is not None:
            return lower.states(trunk, packed, tokens, attention_mask)
        if packed is not None:
            return packed_states(trunk, packed)
    # Padding on the left gets position 0 like the first real token: any value that the position table has will do.
    positions = (attention_mask.long().cumsum(-1) - 1).clamp(min=0)
    options: dict[str, Any] = {"use_cache": False}
    if right_padded:
        # Padding is read as the row's first token: the state of a pad token whose embedding is zero can have a gradient
        # that is not finite, and 0 times that is NaN (norms of Gemma 3n).
        tokens = torch.where(attention_mask, tokens, tokens[:, :1])
    else:
        options["attention_mask"] = attention_mask.long()
    # BLOOM and MPT have no positions (ALiBi) and would refuse the argument.
    if "position_ids" in signature(trunk.forward).parameters:
        arange = torch.arange(tokens.shape[1], device=tokens.device)[None]
        options["position_ids"] = arange if right_padded else positions
    # A layer that is computed again in the backward pass must find the same attention there, and this one ends here.
    again = torch.is_grad_enabled() and is_checkpointed(trunk)
    with recomputing(trunk) if again else exact_attention(trunk, tokens.device):
        states: Tensor = trunk(input_ids=tokens, **options)[0]
    return states


def packs(trunk: nn.Module) -> bool:
    """Can its batches be packed? Not with gradient checkpointing, which runs attention again after the forward pass."""
    return not is_checkpointed(trunk) and can_pack(trunk)


def is_checkpointed(trunk: nn.Module) -> bool:
    """Are activations of its layers computed again in the backward pass?"""
    return any(getattr(m, "gradient_checkpointing", False) for m in trunk.modules())


def position_limit(model: nn.Module) -> int | None:
    """Most tokens of a row that a model can read: its table of positions ends there (GPT-2, OPT, BERT), or see
    `row_limit`. None: there is no such limit.
    """
    for name, module in bare(model).named_modules():
        if isinstance(module, nn.Embedding) and name.rpartition(".")[2] in POSITION_TABLES:
            before = int(getattr(module, "offset", 0))  # OPT begins to count at 2, RoBERTa after its padding
            return module.num_embeddings - (before if module.padding_idx is None else module.padding_idx + 1)
    config = bare(model).config
    if config.model_type in ("gptj", "codegen"):
        return int(config.max_position_embeddings)
    limit = row_limit(bare(model))
    return None if limit is None else limit[0]


def to_the_left(tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Rows ``[B, T]`` and their mask with all padding on the right, so that an encoder's [CLS] is in column 0."""
    order = (~mask).int().argsort(dim=-1, stable=True)
    return tokens.gather(-1, order), mask.gather(-1, order)


def silence_dropout(model: nn.Module) -> None:
    """Set every dropout of the modules to 0 and the model to eval mode. Gradients are computed as before.

    The config is not touched: a saved model keeps the dropout it came with.
    """
    # With dropout, log-probs in the update would differ from those recorded at sampling although no weight has
    # changed: the first ratio pi / pi_old would not be 1, and clipping would act on noise. Some models keep their
    # rate as a plain float and apply it functionally, so modules alone are not enough; nor is eval mode, which
    # `recomputing` suspends.
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        for name, value in vars(module).items():
            if ("dropout" in name or "layerdrop" in name) and isinstance(value, float):
                setattr(module, name, 0.0)
    model.eval()


def enable_checkpointing(model: nn.Module) -> None:
    """Keep only the inputs of layers and recompute the rest in the backward pass."""
    inner = bare(model)
    # The name changes between versions of transformers.
    enable = getattr(inner, "activation_checkpointing_enable", None) or inner.gradient_checkpointing_enable
    enable({"use_reentrant": False})


@contextmanager
def recomputing(trunk: nn.Module) -> Iterator[None]:
    """Within it, layers with gradient checkpointing are in train mode: only then does transformers recompute."""
    # They go back to eval mode at once: a checkpointed layer in train mode drops its KV cache and only logs a line, and
    # generation would read every token without those before it.
    layers = [
        m for m in trunk.modules() if isinstance(m, GradientCheckpointingLayer) and m.gradient_checkpointing
    ]
    for layer in layers:
        layer.training = True
    try:
        yield
    finally:
        for layer in layers:
            layer.training = False
