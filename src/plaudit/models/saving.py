"""Writing models so that plain transformers loads them: adapters merged, safetensors, tokenizer along."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from peft import PeftModel
from torch import nn
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from plaudit.models.load import dequantized


def merged(model: nn.Module) -> PreTrainedModel:
    """The plain model: itself, or under LoRA a copy with the adapters added to its weights."""
    if not isinstance(model, PeftModel):
        plain: Any = model
        return dequantized(plain)
    copied: Any = copy.deepcopy(model)
    result: PreTrainedModel = dequantized(copied.merge_and_unload())
    if hasattr(result, "peft_config"):
        del result.peft_config
    result._hf_peft_config_loaded = False
    return result


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
    plain.save_pretrained(path, safe_serialization=True)
    tokenizer.save_pretrained(path)


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids that end a response: those of the generation config, and the tokenizer's own."""
    known = getattr(model.generation_config, "eos_token_id", None)
    ids = known if isinstance(known, list) else [known]
    return sorted({int(i) for i in (*ids, tokenizer.eos_token_id) if i is not None})
