"""Writing models so that plain transformers loads them: adapters merged, safetensors, with the tokenizer."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from plaudit.models.files.integrity import seal
from plaudit.models.files.load import dequantized, quiet
from plaudit.models.files.vocabulary import end_ids_of, set_end_ids
from plaudit.models.forward.trunk import is_4bit


def merged(model: nn.Module) -> PreTrainedModel:
    """The plain model: itself, or under LoRA a copy with the adapters added to its weights, dequantised."""
    # A copy, because training goes on after a checkpoint or an intermediate save: merging and taking the adapters out
    # again would leave rounding in the frozen weights that policy and reference share.
    if not isinstance(model, PeftModel):
        return dequantized(model)
    copied: Any = copy.deepcopy(model)
    result = _merged_4bit(copied) if is_4bit(model) else copied.merge_and_unload()
    return without_adapters(result)


def with_same_tensors(model: nn.Module) -> Any:
    """A copy of the modules around the same parameters and buffers: for other adapters on one frozen base."""
    # deepcopy takes what is in its memo as already copied. Tied weights stay tied: they are one tensor with one id.
    tensors = [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})


def without_adapters(plain: Any) -> PreTrainedModel:
    """The same model without the marks that peft and quantisation leave, so that the whole model is saved."""
    # With these marks `save_pretrained` would write an adapter only, although the adapters are merged and gone.
    if hasattr(plain, "peft_config"):
        del plain.peft_config
    plain._hf_peft_config_loaded = False
    return dequantized(plain)


@torch.no_grad()
def _merged_4bit(copied: Any) -> Any:
    """The fp32 model of a 4-bit base with adapters: dequantised first, then the adapters added."""
    # peft's own merge writes the sum back in 4 bit, where a step between levels is larger than most of what the
    # adapters have learned.
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
    """Write a causal LM, its tokenizer, and a generation config with the tokens that end a response.

    These are the model's own, see `set_end_ids`, and the tokenizer's: plain ``generate`` stops where sampling stopped
    in training.
    """
    # A new generation config: sampling settings of the base (a temperature, a repetition penalty) were not those that
    # the policy was trained with.
    plain = merged(model)
    ends = sorted({*end_ids_of(plain), tokenizer.eos_token_id} - {None})
    plain.config.pad_token_id = tokenizer.pad_token_id
    plain.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    set_end_ids(plain, ends)
    write(plain, path, tokenizer)
    seal(Path(path))


def write(plain: PreTrainedModel, path: str | Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """``save_pretrained`` of model and tokenizer, in safetensors; the directory is made if needed."""
    # `save_pretrained` writes tied weights once; raw `save_file` would refuse tensors that share memory.
    Path(path).mkdir(parents=True, exist_ok=True)
    with quiet():
        plain.save_pretrained(path, safe_serialization=True)
        tokenizer.save_pretrained(path)

