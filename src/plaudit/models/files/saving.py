"""Writing models so that plain transformers loads them: adapters merged, safetensors, tokenizer along."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from plaudit.models.files.load import dequantized, quiet
from plaudit.models.forward.trunk import is_4bit


def merged(model: nn.Module) -> PreTrainedModel:
    """The plain model: itself, or under LoRA a copy with the adapters added to its weights, dequantised."""
    if not isinstance(model, PeftModel):
        return dequantized(model)
    copied: Any = copy.deepcopy(model)
    result = _merged_4bit(copied) if is_4bit(model) else copied.merge_and_unload()
    return without_adapters(result)


def with_same_tensors(model: nn.Module) -> Any:
    """A copy of the modules around the very same parameters and buffers: for other adapters on one frozen base."""
    tensors = [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})


def without_adapters(plain: Any) -> PreTrainedModel:
    """Forget that there were adapters (or a quantised file), so that the whole model is saved."""
    if hasattr(plain, "peft_config"):
        del plain.peft_config
    plain._hf_peft_config_loaded = False
    return dequantized(plain)


@torch.no_grad()
def _merged_4bit(copied: Any) -> Any:
    """Dequantise first and add the adapters then: adding them in 4 bit would round most of them away."""
    layers: dict[str, Any] = {
        n: m for n, m in copied.get_base_model().named_modules() if isinstance(m, LoraLayer)
    }
    changes = {
        name: sum(layer.get_delta_weight(a) for a in layer.active_adapters) for name, layer in layers.items()
    }
    plain = copied.unload().dequantize(torch.float32)
    for name, change in changes.items():
        plain.get_submodule(name).weight += change
    return plain.float()


def save_causal_lm(model: nn.Module, path: str | Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """Write a causal LM, its tokenizer, and a generation config that knows how responses end."""
    plain = merged(model)
    ends = end_tokens(plain, tokenizer)
    plain.config.pad_token_id = tokenizer.pad_token_id
    plain.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=ends if len(ends) > 1 else ends[0],
        pad_token_id=tokenizer.pad_token_id,
    )
    write(plain, path, tokenizer)


def write(plain: PreTrainedModel, path: str | Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """``save_pretrained`` of both, in safetensors."""
    Path(path).mkdir(parents=True, exist_ok=True)
    with quiet():
        plain.save_pretrained(path, safe_serialization=True)
        tokenizer.save_pretrained(path)


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids that end a response: those of the generation config, and the tokenizer's own."""
    known = getattr(model.generation_config, "eos_token_id", None)
    ids = known if isinstance(known, list) else [known]
    return sorted({int(i) for i in (*ids, tokenizer.eos_token_id) if i is not None})
