"""A reward model as adapter and head, saved beside the merged model: on the policy's own base it needs little memory.

``model/adapter/`` of a reward model that was trained with LoRA holds

    adapter_model.safetensors, adapter_config.json     the adapter, as peft writes it
    head.safetensors                                   the scalar head
    base.json                                          SHA-256 of the frozen tensors that they belong to

Adapters are LoRA (arXiv:2106.09685): h = W x + (alpha / rank) B A x with W frozen, so models that differ in A, B and
their heads only can share one W.
"""

from __future__ import annotations

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
from plaudit.models.files.layout import BASE_FILE, CONFIG_FILE, FOLDER, WEIGHTS_FILE, write_layout
from plaudit.models.files.outline import is_outline
from plaudit.models.files.saving import with_same_tensors, without_adapters
from plaudit.models.forward.trunk import bare, body, is_4bit, is_encoder

HEAD_FILE = "head.safetensors"


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
    head = bare(model).score.state_dict()
    save_file({name: t.detach().cpu().contiguous() for name, t in head.items()}, folder / HEAD_FILE)
    # Without the base's name: the fingerprint tells the base exactly, and the merged model lies beside it.
    write_layout(model, folder, base=None)


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
