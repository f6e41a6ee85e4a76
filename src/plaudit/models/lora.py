"""Low-rank adapters through peft: LoRA (arXiv:2106.09685), QLoRA (arXiv:2305.14314)."""

from __future__ import annotations

import difflib
import re
from importlib.util import find_spec
from typing import Any, Literal

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from torch import nn
from transformers import BitsAndBytesConfig
from transformers.pytorch_utils import Conv1D

from plaudit.config.sections import LoraSection
from plaudit.errors import ConfigError, ModelError
from plaudit.models.forward.reading import UNRUNNABLE, run
from plaudit.models.forward.trunk import bare, body, is_4bit

LLAMA = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
BERT = ("query", "key", "value", "intermediate.dense", "output.dense")
NEOX = ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h")

TARGETS: dict[str, tuple[str, ...]] = {
    "gpt2": ("c_attn", "c_proj", "c_fc"),
    "gpt_bigcode": ("c_attn", "c_proj", "c_fc"),
    "gpt_neo": ("q_proj", "k_proj", "v_proj", "out_proj", "c_fc", "c_proj"),
    "gptj": ("q_proj", "k_proj", "v_proj", "out_proj", "fc_in", "fc_out"),
    "gpt_neox": NEOX,
    "bloom": NEOX,
    "falcon": NEOX,
    "mpt": ("Wqkv", "out_proj", "up_proj", "down_proj"),
    "opt": ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"),
    **dict.fromkeys(("mamba", "falcon_mamba", "mamba2"), ("in_proj", "x_proj")),
    "phi": ("q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2"),
    "phi3": ("qkv_proj", "o_proj", "gate_up_proj", "down_proj"),
    "bert": BERT,
    "roberta": BERT,
    "xlm-roberta": BERT,
    "camembert": BERT,
    "electra": BERT,
    "deberta-v2": ("query_proj", "key_proj", "value_proj", "intermediate.dense", "output.dense"),
    "distilbert": ("q_lin", "k_lin", "v_lin", "out_lin", "lin1", "lin2"),
    "modernbert": ("Wqkv", "Wo", "Wi"),
}
"""Attention and MLP layers by ``model_type``. Others: the names of Llama, else every linear layer."""

HEADS = ("score", "classifier")


def add_lora(
    model: nn.Module, section: LoraSection, *, task: Literal["causal", "scalar"], seed: int = 0
) -> nn.Module:
    """Freeze a transformers model and give its linear layers adapters, which do not change its outputs at first.

    Args:
        model: a causal LM (task causal), or a classifier or a bare trunk (task scalar).
        section: rank 0 returns the model as it is.
        task: scalar: the head stays outside the adapters and is trained in full.
        seed: of the adapters' random halves.

    Raises:
        ConfigError: a target that the model does not have.
        ModelError: the settings say 4bit, but the model was not loaded in 4 bit.
    """
    if section.rank == 0:
        if section.quantize != "none":
            raise ConfigError(
                "quantize = '4bit' without adapters: quantised weights cannot be trained",
                where="[lora] rank",
                cure="set a rank, e.g. 8",
            )
        return model
    if section.quantize == "4bit" and not is_4bit(model):
        raise ModelError(
            "the model was not loaded in 4 bit", where="[lora] quantize", cure="quantize = 'none'"
        )
    layers = linear_layers(model)
    names = _checked(section.targets, layers) if section.targets != "auto" else auto_targets(model, layers)
    full = _matches(names, layers)
    chosen = _in_last_layers(model, full, section.last_layers)
    if not chosen:
        # Short names are what others read in a saved adapter; but they must not name modules that are not linear.
        modules = {name: module for name, module in model.named_modules() if name}
        clear = all(isinstance(modules[n], (nn.Linear, Conv1D)) for n in _matches(names, modules))
        chosen = list(names) if clear else full
    config = LoraConfig(
        r=section.rank,
        lora_alpha=section.alpha,
        # As everywhere (`silence_dropout`): dropout in the adapters would make old and new log-probs differ.
        lora_dropout=0.0,
        bias="none",
        target_modules=chosen,
        # GPT-2's Conv1D stores its weight transposed; peft has to be told, or B A would be added the wrong way round.
        fan_in_fan_out=any(isinstance(layers[name], Conv1D) for name in full),
        task_type=TaskType.CAUSAL_LM if task == "causal" else None,
    )
    # peft draws A from the global random state; so the seed decides alone, and later draws do not depend on LoRA.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        wrapped = _wrapped(model, config)
    # The head of a classifier is random at first: with adapters only, nothing would ever train it.
    for name in HEADS:
        head = getattr(bare(wrapped), name, None)
        if task == "scalar" and head is not None:
            head.requires_grad_(True)
    return wrapped


def _wrapped(model: nn.Module, config: LoraConfig) -> PeftModel:
    try:
        wrapped: PeftModel = get_peft_model(model, config)
    except (
        ValueError
    ) as error:  # peft knows layers whose weight is used without calling them, such as Mamba's
        raise ConfigError(
            f"{bare(model).config.model_type} cannot have adapters there: {' '.join(str(error).split())[:200]}",
            where="[lora] targets",
            cure="name other linear layers, or train all weights: rank = 0",
        ) from error
    return wrapped


def _in_last_layers(model: nn.Module, names: list[str], count: int) -> list[str]:
    """Those of the full names that are in the last ``count`` layers; empty if ``count`` is 0 (all layers)."""
    depth = int(bare(model).config.get_text_config().num_hidden_layers)
    if count > depth:
        raise ConfigError(
            f"last_layers is {count}, but the model has {depth} layers",
            where="[lora] last_layers",
            cure=f"use at most {depth}, or 0 for all",
        )
    # peft's own `layers_to_transform` does not find the layers of a trunk without its head. The first number in a
    # name is that of the layer; linear layers outside of the list count as above all layers.
    numbers = {
        name: next((int(part) for part in name.split(".") if part.isdecimal()), depth) for name in names
    }
    return [name for name in names if numbers[name] >= depth - count] if count else []


def linear_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Layers of the body that can take an adapter, by full name; no embeddings, heads, poolers, routers."""
    # A router decides which experts run: a small change of it is a jump of the output. A pooler belongs to the head.
    layers: dict[str, nn.Module] = {}
    for name, module in body(model).named_modules():
        leaf = name.rpartition(".")[2]
        if (
            isinstance(module, (nn.Linear, Conv1D))
            and "pooler" not in name
            and leaf not in ("router", "gate")
        ):
            layers[name] = module
    used = _used(body(model), layers)
    return {name: module for name, module in layers.items() if re.sub(r"\d+", "N", name) in used}


def _used(trunk: nn.Module, layers: dict[str, nn.Module]) -> set[str]:
    """Names, without their numbers, of those layers that take part when token ids are read.

    A tower for images, or attention to an encoder that is not there, would be given adapters that change nothing.
    """
    names = {id(module): re.sub(r"\d+", "N", name) for name, module in layers.items()}
    seen: set[str] = set()
    device = next(trunk.parameters()).device
    if device.type == "meta":
        return set(names.values())
    hooks = [m.register_forward_hook(lambda m, *_: seen.add(names[id(m)])) for m in layers.values()]
    try:
        with torch.no_grad():
            run(trunk, torch.tensor([[0, 1]], device=device))
    except UNRUNNABLE:
        return set(names.values())
    finally:
        for hook in hooks:
            hook.remove()
    return seen or set(names.values())


def auto_targets(model: nn.Module, layers: dict[str, nn.Module]) -> tuple[str, ...]:
    """Names of the attention and MLP layers of the model's architecture."""
    known = TARGETS.get(bare(model).config.model_type, LLAMA)
    present = tuple(name for name in known if _matches((name,), layers))
    return present or tuple(sorted({name.rpartition(".")[2] for name in layers}))


def _matches(names: tuple[str, ...], layers: dict[str, nn.Module]) -> list[str]:
    return [layer for layer in layers if any(layer == n or layer.endswith(f".{n}") for n in names)]


def _checked(names: tuple[str, ...], layers: dict[str, nn.Module]) -> tuple[str, ...]:
    known = sorted({name.rpartition(".")[2] for name in layers})
    for name in names:
        if not _matches((name,), layers):
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ConfigError(
                f"this model has no linear layer named {name!r}",
                where="[lora] targets",
                cure=f"{hint}It has: {', '.join(known)}; or write targets = 'auto'",
            )
    return names


def quantization_options() -> dict[str, Any]:
    """Keyword arguments of ``from_pretrained`` that load a frozen base in NF4 (QLoRA).

    Raises:
        ModelError: bitsandbytes is not installed.
    """
    if find_spec("bitsandbytes") is None:
        raise ModelError(
            "4-bit weights need the package bitsandbytes",
            where="[lora] quantize",
            cure="pip install 'plaudit[qlora]', or quantize = 'none'",
        )
    # NF4 with double quantisation: 4-bit levels at quantiles of the normal distribution, and their scales in 8 bits
    # (arXiv:2305.14314, sec. 3). Products are computed in bf16 where that is fast; a CPU does fp32 faster.
    on_gpu = torch.cuda.is_available()
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if on_gpu else torch.float32,
    )
    return {"quantization_config": config, "device_map": {"": 0 if on_gpu else "cpu"}}
