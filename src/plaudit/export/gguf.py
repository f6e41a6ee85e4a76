"""GGUF files, as llama.cpp, Ollama and LM Studio read them: names, keys and types of tensors, and the tokenizer.

The layout is that of the GGUF specification (repository ggml-org/ggml); names of tensors come from the package gguf.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type
from numpy.typing import NDArray
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from plaudit.errors import ModelError
from plaudit.export.origin import Origin
from plaudit.export.vocabulary import Vocabulary

Floats = NDArray[np.float32]
BLOCK = 32
"""Weights that share a scale in Q8_0 and Q4_0; a row is a whole number of blocks."""
TYPES = {"f16": Type.F16, "q8_0": Type.Q8_0, "q4_0": Type.Q4_0}
_FILE_TYPES = {"f16": 1, "q8_0": 7, "q4_0": 2}
"""llama.cpp's number for a file that is mostly of a type."""
OUTER = ("token_embd.weight", "output.weight")
"""What turns tokens into states and states into tokens: kept in 8 bit in a file of 4, as llama.cpp does with 6."""


@dataclass(frozen=True)
class Family:
    """How llama.cpp knows an architecture of transformers."""

    arch: gguf.MODEL_ARCH
    change: Callable[[str, Floats, Any], Floats] = lambda name, tensor, config: tensor
    """What it does otherwise with a tensor, by its GGUF name."""
    refuse: tuple[tuple[str, object], ...] = ()
    """Values of the config that it does not run."""


def _interleaved(name: str, tensor: Floats, config: Any) -> Floats:
    """Rows of queries and keys in the order of llama.cpp's rotation, which turns neighbours and not halves."""
    if ".attn_q." not in name and ".attn_k." not in name:
        return tensor
    heads = config.num_attention_heads if ".attn_q." in name else config.num_key_value_heads
    halves = tensor.reshape(heads, 2, tensor.shape[0] // heads // 2, *tensor.shape[1:])
    return halves.swapaxes(1, 2).reshape(tensor.shape)


def _transposed(name: str, tensor: Floats, config: Any) -> Floats:
    """GPT-2 multiplies from the other side."""
    inner = ("attn_qkv.weight", "attn_output.weight", "ffn_up.weight", "ffn_down.weight")
    return tensor.T if name.startswith("blk.") and name.endswith(inner) else tensor


def _one_added(name: str, tensor: Floats, config: Any) -> Floats:
    """Gemma's norms multiply by 1 + w, those of llama.cpp by w."""
    return tensor + 1 if name.endswith("norm.weight") else tensor


FAMILIES = {
    "llama": Family(gguf.MODEL_ARCH.LLAMA, _interleaved, (("attention_bias", True), ("mlp_bias", True))),
    "qwen2": Family(gguf.MODEL_ARCH.QWEN2, refuse=(("use_sliding_window", True),)),
    "qwen3": Family(gguf.MODEL_ARCH.QWEN3, refuse=(("use_sliding_window", True), ("attention_bias", True))),
    "gemma2": Family(gguf.MODEL_ARCH.GEMMA2, _one_added),
    "gemma3_text": Family(gguf.MODEL_ARCH.GEMMA3, _one_added),
    "gpt2": Family(gguf.MODEL_ARCH.GPT2, _transposed),
    "phi3": Family(gguf.MODEL_ARCH.PHI3),
}
"""``model_type`` of transformers -> how llama.cpp knows it."""


def check(model_type: str, config: Any, tokenizer: PreTrainedTokenizerBase) -> None:
    """Make sure, from the config and the tokenizer alone, that GGUF can hold a model.

    Raises:
        ModelError: another architecture, a setting of it that is not carried, or a tokenizer that GGUF cannot hold.
    """
    family = FAMILIES.get(model_type)
    instead = "export to merged (safetensors), which transformers and vLLM run"
    if family is None:
        known = ", ".join(FAMILIES)
        raise ModelError(
            f"no GGUF of the architecture {model_type} is written: known are {known}",
            where="--to gguf:...", cure=instead,
        )  # fmt: skip
    wrong = [f"{name} = {value}" for name, value in family.refuse if getattr(config, name, None) == value]
    rope: dict[str, Any] = getattr(config, "rope_parameters", None) or {}
    nested = [part for part in rope.values() if isinstance(part, dict)] or [rope]
    kinds = {str(part.get("rope_type", "default")) for part in nested} - {"default"}
    wrong += [f"rope_type = {kind}" for kind in sorted(kinds)]
    if wrong:
        raise ModelError(f"a {model_type} with {wrong[0]} is not carried to GGUF", where="--to gguf:...", cure=instead)
    Vocabulary.of(tokenizer, int(config.vocab_size))


def write_gguf(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, path: Path, kind: str, *, ends: tuple[int, ...],
    name: str, origin: Origin | None = None,
) -> dict[str, list[str]]:  # fmt: skip
    """Write a model with its tokenizer and chat template.

    Args:
        model: fp32, of an architecture that `check` passes.
        tokenizer: its own.
        path: of the file.
        kind: of `TYPES`.
        ends: tokens that end a response, the tokenizer's end first.
        name: shown by programs that load it.
        origin: what it was made from, and its licence.

    Returns:
        Type -> names of the matrices that are of it because their rows are no whole number of blocks.
    """
    config: Any = model.config
    family = FAMILIES[config.model_type]
    writer = gguf.GGUFWriter(str(path), gguf.MODEL_ARCH_NAMES[family.arch])
    writer.add_name(name)
    _add_origin(writer, origin)
    writer.add_file_type(_FILE_TYPES[kind])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _add_config(writer, config)
    _add_vocabulary(writer, Vocabulary.of(tokenizer, config.vocab_size), tokenizer, ends)
    fallen: dict[str, list[str]] = {}
    for tensor_name, tensor in _tensors(model, family):
        chosen = _type(tensor_name, tensor, TYPES[kind])
        if chosen is Type.F16 and kind != "f16":
            fallen.setdefault("F16", []).append(tensor_name)
        data = gguf.quants.quantize(np.ascontiguousarray(tensor), chosen)
        writer.add_tensor(tensor_name, data, raw_dtype=chosen)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return fallen


def _add_origin(writer: gguf.GGUFWriter, origin: Origin | None) -> None:
    if origin is None:
        return
    if origin.licence:
        writer.add_license(origin.licence)
    if origin.bases:
        writer.add_base_model_count(1)
        writer.add_base_model_name(0, origin.bases[-1].split("/")[-1])
        if origin.hub:
            writer.add_base_model_organization(0, origin.hub.split("/")[0])


def _tensors(model: PreTrainedModel, family: Family) -> Iterator[tuple[str, Floats]]:
    config: Any = model.config
    names = gguf.get_tensor_name_map(family.arch, config.num_hidden_layers)
    for name, parameter in model.named_parameters():  # tied weights once
        new = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if new is None:
            raise ModelError(f"GGUF has no place for the weights {name}", cure="export to merged (safetensors)")
        yield new, family.change(new, parameter.detach().float().cpu().numpy(), config)


def _type(name: str, tensor: Floats, wanted: Type) -> Type:
    """Vectors and positions stay fp32, as in every GGUF file; a row that is no whole number of blocks is F16."""
    if tensor.ndim == 1 or name.startswith("position_embd"):
        return Type.F32
    if wanted is not Type.F16 and tensor.shape[-1] % BLOCK:
        return Type.F16
    return Type.Q8_0 if wanted is Type.Q4_0 and name in OUTER else wanted


def _add_config(writer: gguf.GGUFWriter, config: Any) -> None:
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    inner = getattr(config, "intermediate_size", None) or config.n_inner
    writer.add_feed_forward_length(inner or 4 * config.hidden_size)
    writer.add_head_count(heads)
    writer.add_vocab_size(config.vocab_size)
    if config.model_type == "gpt2":
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
        return
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_key_length(width)
    writer.add_value_length(width)
    rope: dict[str, Any] = config.rope_parameters
    whole = rope.get("full_attention", rope)
    writer.add_rope_freq_base(float(whole["rope_theta"]))
    writer.add_rope_dimension_count(int(width * whole.get("partial_rotary_factor", 1.0)))
    if getattr(config, "sliding_window", None):
        writer.add_sliding_window(config.sliding_window)
    if getattr(config, "attn_logit_softcapping", None):
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
    if getattr(config, "final_logit_softcapping", None):
        writer.add_final_logit_softcapping(config.final_logit_softcapping)


def _add_vocabulary(
    writer: gguf.GGUFWriter, vocabulary: Vocabulary, tokenizer: PreTrainedTokenizerBase, ends: tuple[int, ...]
) -> None:
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.split)
    writer.add_token_list(vocabulary.pieces)
    writer.add_token_types(vocabulary.kinds)
    if vocabulary.merges:
        writer.add_token_merges(vocabulary.merges)
    if vocabulary.scores:
        writer.add_token_scores(vocabulary.scores)
        writer.add_add_space_prefix(vocabulary.adds_prefix_space)
    writer.add_add_bos_token(vocabulary.adds_bos)
    if ends:
        writer.add_eos_token_id(ends[0])
    if len(ends) > 1:  # the end of a turn, where it is another token than the end of a text
        writer.add_eot_token_id(ends[1])
    for add, index in (
        (writer.add_bos_token_id, tokenizer.bos_token_id),
        (writer.add_unk_token_id, tokenizer.unk_token_id),
        (writer.add_pad_token_id, tokenizer.pad_token_id),
    ):
        if index is not None:
            add(index)
    template = tokenizer.chat_template
    if isinstance(template, str) and template:
        writer.add_chat_template(template)
