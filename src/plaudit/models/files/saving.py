"""Writing models so that plain transformers loads them: adapters merged, safetensors, with the tokenizer."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from plaudit.models.files.integrity import seal
from plaudit.models.files.layout import BASE_FILE, CONFIG_FILE, FOLDER, WEIGHTS_FILE, is_adapter, write_layout
from plaudit.models.files.load import dequantized, quiet
from plaudit.models.files.vocabulary import end_ids_of
from plaudit.models.forward.trunk import bare, is_4bit


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


Saved = Literal["both", "merged", "adapter"]
"""What is written of a model with LoRA adapters: the merged model with the adapter beside it, or one of them."""


def save_causal_lm(
    model: nn.Module, path: str | Path, tokenizer: PreTrainedTokenizerBase, saved: Saved = "both"
) -> None:
    """Write a causal LM, its tokenizer, and a generation config with the tokens that end a response.

    These are the model's own, see `set_end_ids`, and the tokenizer's: plain ``generate`` stops where sampling stopped
    in training. With ``saved`` both there is an adapter in ``path/adapter``, with adapter in ``path`` itself.
    """
    folder = Path(path)
    for stale in (folder / FOLDER, folder):  # of an earlier save here
        for name in (BASE_FILE, CONFIG_FILE, WEIGHTS_FILE):
            (stale / name).unlink(missing_ok=True)
    base = named_base(model)
    if saved == "adapter" and isinstance(model, PeftModel) and base:
        _save_adapter(model, folder, tokenizer, base)
        return
    # A new generation config: sampling settings of the base (a temperature, a repetition penalty) were not those that
    # the policy was trained with.
    plain = merged(model)
    plain.config.pad_token_id = tokenizer.pad_token_id
    plain.generation_config = generation_config(tokenizer, end_ids_of(plain))
    write(plain, path, tokenizer)
    if saved == "both" and isinstance(model, PeftModel) and base:
        write_layout(model, folder / FOLDER, base)
    seal(folder)


def named_base(model: nn.Module) -> str:
    """What an adapter of this model would name as its base; empty where no adapter can be saved by itself."""
    # The sum of a base and an adapter is nowhere on disk as one model, and a base in 4 bit is not the one on disk.
    if not isinstance(model, PeftModel) or is_4bit(model):
        return ""
    name = str(getattr(bare(model), "name_or_path", "") or "")
    return "" if not name or is_adapter(Path(name)) else name


def _save_adapter(model: PeftModel, folder: Path, tokenizer: PreTrainedTokenizerBase, base: str) -> None:
    plain: Any = bare(model)
    folder.mkdir(parents=True, exist_ok=True)
    for stale in (*folder.glob("model*.safetensors*"), folder / "config.json"):
        stale.unlink(missing_ok=True)
    with quiet():
        tokenizer.save_pretrained(folder)
        generation_config(tokenizer, end_ids_of(plain)).save_pretrained(folder)
    write_layout(model, folder, base)
    seal(folder)


def generation_config(tokenizer: PreTrainedTokenizerBase, ends: Sequence[int]) -> GenerationConfig:
    """Where ``generate`` stops and what it pads with, and nothing of how the base was sampled."""
    stops = sorted({*ends, tokenizer.eos_token_id} - {None})
    return GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=stops if len(stops) > 1 else stops[0],
    )


def write(plain: PreTrainedModel, path: str | Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """``save_pretrained`` of model and tokenizer, in safetensors; the directory is made if needed."""
    # `save_pretrained` writes tied weights once; raw `save_file` would refuse tensors that share memory.
    Path(path).mkdir(parents=True, exist_ok=True)
    with quiet():
        plain.save_pretrained(path, safe_serialization=True)
        tokenizer.save_pretrained(path)

