"""A reward model as adapter and head, saved beside the merged model: on the policy's own base it needs little memory.

``model/adapter/`` of a reward model that was trained with LoRA holds

    adapter_model.safetensors, adapter_config.json     the adapter, as peft writes it
    head.safetensors                                   the scalar head
    base.json                                          SHA-256 of the frozen tensors that they belong to

Adapters are LoRA (arXiv:2106.09685): h = W x + (alpha / rank) B A x with W frozen, so models that differ in A, B and
their heads only can share one W.
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
from transformers import AutoConfig, AutoModelForSequenceClassification

from plaudit.errors import ModelError
from plaudit.models.files.integrity import refuse_non_finite
from plaudit.models.files.outline import is_outline
from plaudit.models.files.saving import with_same_tensors, without_adapters
from plaudit.models.forward.trunk import bare, body, is_4bit, is_encoder

FOLDER = "adapter"
WEIGHTS_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"
HEAD_FILE = "head.safetensors"
BASE_FILE = "base.json"


def save_adapter(model: nn.Module, path: Path) -> None:
    """Write ``path/adapter`` for a decoder with LoRA adapters; for any other model there is none afterwards."""
    # base.json is what makes the folder count (`stored_fingerprint`): it is removed first and written last, so that an
    # interrupted save, or a model without adapters saved over one with them, leaves no adapter of another model.
    folder = path / FOLDER
    (folder / BASE_FILE).unlink(missing_ok=True)
    # Not for a base in 4 bit, where adapter and merged model are not the same function to 1e-4.
    if not isinstance(model, PeftModel) or is_4bit(model) or is_encoder(model):
        return
    folder.mkdir(parents=True, exist_ok=True)
    tensors = get_peft_model_state_dict(model, save_embedding_layers=False)
    save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, folder / WEIGHTS_FILE)
    head = bare(model).score.state_dict()
    save_file({name: t.detach().cpu().contiguous() for name, t in head.items()}, folder / HEAD_FILE)
    # Without the base's name: it is a path of this machine, and the fingerprint tells the base exactly.
    config: Any = copy.copy(model.active_peft_config)
    config.base_model_name_or_path, config.inference_mode = None, True
    config.save_pretrained(str(folder))
    text = json.dumps({"format": 1, "sha256": fingerprint(body(model))})
    (folder / BASE_FILE).write_text(text + "\n", encoding="utf-8")


def stored_fingerprint(path: Path) -> str:
    """The fingerprint of the base that ``path/adapter`` belongs to; empty if there is no adapter."""
    file = path / FOLDER / BASE_FILE
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


def frozen_base(model: nn.Module) -> nn.Module:
    """The body of a model with LoRA adapters, without the adapters, around the same tensors (not a copy of them)."""
    assert isinstance(model, PeftModel), "uses LoRA"
    copied: Any = with_same_tensors(model)
    return body(without_adapters(copied.unload()))


def classifier_on(base: nn.Module, path: Path) -> PeftModel:
    """The reward model saved at ``path`` as adapter and head on ``base``, a value of `frozen_base`.

    Raises:
        ModelError: the files are damaged, or not of one model.
    """
    folder = path / FOLDER
    # On the meta device the classifier has shapes but no memory; its trunk is then replaced by the shared one.
    with torch.device("meta"):
        classifier: Any = AutoModelForSequenceClassification.from_config(
            AutoConfig.from_pretrained(str(path))
        )
    setattr(classifier, classifier.base_model_prefix, base)
    try:
        classifier.score = _head(load_file(folder / HEAD_FILE))
        section = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        # Only the values that matter are taken over, each converted: the file may come from another version of peft, or
        # from somebody else. Nothing but safetensors and JSON is read.
        config = LoraConfig(
            r=int(section["r"]),
            lora_alpha=section["lora_alpha"],
            target_modules=[str(name) for name in section["target_modules"]],
            fan_in_fan_out=bool(section["fan_in_fan_out"]),
        )
        # What peft draws is overwritten at once, but the global random state must not move.
        with torch.random.fork_rng(devices=[]):
            model: Any = get_peft_model(classifier, config)
        if is_outline(base):  # which has no values, and maybe fewer layers
            outlined: PeftModel = model.eval()
            return outlined
        tensors = load_file(folder / WEIGHTS_FILE)
        # peft ignores missing and unknown names, and an adapter without B would silently be no adapter.
        if set(tensors) != set(get_peft_model_state_dict(model, save_embedding_layers=False)):
            raise _damaged(folder)
        set_peft_model_state_dict(model, tensors)
        refuse_non_finite(tensors.items(), folder / WEIGHTS_FILE)
        refuse_non_finite(classifier.score.named_parameters(), folder / HEAD_FILE)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise _damaged(folder) from error
    wrapped: PeftModel = model.to(next(base.parameters()).device).eval()
    return wrapped


def _head(tensors: dict[str, torch.Tensor]) -> nn.Linear:
    labels, width = tensors["weight"].shape
    head = nn.Linear(width, labels, bias="bias" in tensors)
    head.load_state_dict(tensors)
    return head


def _damaged(where: Path) -> ModelError:
    return ModelError(
        "the adapter of this reward model is damaged, or its files are not of one model",
        where=str(where),
        cure=f"copy the run directory again; or delete its {FOLDER}/: the merged model beside it is complete",
    )
