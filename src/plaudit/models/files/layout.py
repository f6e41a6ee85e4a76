"""LoRA adapters of policies on disk, in the layout of peft: written, found, and merged into their base.

    adapter_model.safetensors, adapter_config.json     what `peft.PeftModel.from_pretrained` reads
    base.json                                          SHA-256 of the frozen tensors that the adapter belongs to

The config names the base: a hub name, or the absolute path of a directory or of a GGUF file. An adapter that another
program wrote has no base.json; of its base, names and shapes are checked, and not the values.
"""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from plaudit.errors import ModelError
from plaudit.models.files.integrity import refuse_non_finite
from plaudit.models.forward.trunk import body

FOLDER = "adapter"
WEIGHTS_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"
BASE_FILE = "base.json"

TAKEN = ("r", "lora_alpha", "target_modules", "fan_in_fan_out", "use_rslora", "use_dora", "rank_pattern",
         "alpha_pattern", "layers_to_transform", "layers_pattern")  # fmt: skip
"""Values of an adapter's config that say which function it is."""
REFUSED = ("modules_to_save", "target_parameters", "trainable_token_indices", "exclude_modules", "layer_replication")
"""Values that say that more than low-rank changes of linear layers is stored, or that they lie elsewhere."""


def write_layout(model: PeftModel, folder: Path, base: str | None) -> None:
    """Write the adapters of a model and the fingerprint of their base into ``folder``.

    Args:
        base: what the config names as base; None for none.
    """
    # base.json is removed first and written last: an interrupted save leaves no adapter that seems to be whole.
    folder.mkdir(parents=True, exist_ok=True)
    (folder / BASE_FILE).unlink(missing_ok=True)
    tensors = get_peft_model_state_dict(model, save_embedding_layers=False)
    # The mark that transformers asks for before it reads a safetensors file.
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(plain, folder / WEIGHTS_FILE, {"format": "pt"})
    config: Any = copy.copy(model.active_peft_config)
    config.base_model_name_or_path, config.inference_mode = base, True
    config.save_pretrained(str(folder))
    text = json.dumps({"format": 1, "sha256": fingerprint(body(model))})
    (folder / BASE_FILE).write_text(text + "\n", encoding="utf-8")


def is_adapter(path: Path) -> bool:
    """Does a directory hold an adapter and no model?"""
    models = any(path.glob("model*.safetensors")) or any(path.glob("*.gguf"))
    return (path / CONFIG_FILE).is_file() and not models


def base_named(path: Path) -> str:
    """What the config of an adapter names as its base.

    Raises:
        ModelError: it names none, or cannot be read.
    """
    name = _config(path).get("base_model_name_or_path")
    if not name:
        raise ModelError(
            f"{path} is a LoRA adapter whose config does not name its base",
            where=str(path / CONFIG_FILE),
            cure="write the name or the path of the base into base_model_name_or_path",
        )
    return str(name)


def stored_fingerprint(folder: Path) -> str:
    """The fingerprint of the base that the adapter in ``folder`` belongs to; empty if none was stored."""
    file = folder / BASE_FILE
    if not file.is_file():
        return ""
    try:
        return str(json.loads(file.read_text(encoding="utf-8"))["sha256"])
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(file) from error


def fingerprint(trunk: nn.Module) -> str:
    """SHA-256 of a trunk's architecture and of its tensors without adapters, names and types included."""
    # Names and paths cannot tell whether two models have one base: the same base can be in several directories, and a
    # directory can be written anew. Hashing all weights takes seconds, at the start of a run and at a save.
    config: Any = trunk.config
    digest = hashlib.sha256(str(config.model_type).encode())
    # peft renames a layer that it wraps; sorted, because the order of modules is no property of the function.
    plain = {n.replace(".base_layer", ""): p for n, p in trunk.named_parameters() if "lora_" not in n}
    for name, parameter in sorted(plain.items()):
        digest.update(f"\n{name} {list(parameter.shape)} {parameter.dtype}\n".encode())
        digest.update(parameter.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def merge_into(model: Any, folder: Path) -> Any:
    """A causal language model, or a classifier on the same body, with the adapter in ``folder`` added to its weights.

    Raises:
        ModelError: the adapter belongs to another base, is of another kind than LoRA, or is damaged.
    """
    stored = stored_fingerprint(folder)
    if stored and stored != fingerprint(body(model)):
        raise ModelError(
            f"the adapter {folder} was trained on another base: the weights of {base_named(folder)} are not those that"
            " it belongs to",
            where=str(folder / BASE_FILE),
            cure="put the base back as it was, or take the merged model of that run",
        )
    section = _config(folder)
    extra = [name for name in REFUSED if section.get(name)]
    if section.get("peft_type", "LORA") != "LORA" or extra or section.get("bias", "none") != "none":
        kind = extra[0] if extra else section.get("peft_type")
        raise ModelError(
            f"the adapter {folder} is not plain LoRA ({kind})",
            where=str(folder / CONFIG_FILE),
            cure="merge it with the program that wrote it, and give the merged model",
        )
    try:
        config = LoraConfig(**{name: section[name] for name in TAKEN if section.get(name) is not None})
        with torch.random.fork_rng(devices=[]):  # what peft draws is overwritten at once
            wrapped: Any = get_peft_model(model, config)
        tensors = load_file(folder / WEIGHTS_FILE)
        # peft ignores missing and unknown names, and an adapter without B would silently be no adapter.
        if set(tensors) != set(get_peft_model_state_dict(wrapped, save_embedding_layers=False)):
            raise _damaged(folder)
        refuse_non_finite(tensors.items(), folder / WEIGHTS_FILE)
        set_peft_model_state_dict(wrapped, tensors)
        merged = wrapped.merge_and_unload()
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise _damaged(folder) from error
    if hasattr(merged, "peft_config"):
        del merged.peft_config
    merged._hf_peft_config_loaded = False
    return merged.eval()


def _config(folder: Path) -> dict[str, Any]:
    try:
        section: dict[str, Any] = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        return dict(section)
    except (OSError, ValueError, TypeError) as error:
        raise _damaged(folder / CONFIG_FILE) from error


def _damaged(where: Path) -> ModelError:
    return ModelError(
        "the adapter is damaged, or it does not belong to its base: names or shapes differ",
        where=str(where),
        cure="copy the directory again, and check base_model_name_or_path in its adapter_config.json",
    )
