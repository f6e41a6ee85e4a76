"""Directories in int8 and int4 by torchao, which transformers loads where torchao is installed.

Only matrices of the layers are quantised; embeddings, norms, the output and the head of a reward model stay in bf16.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, PreTrainedModel, TorchAoConfig

from plaudit.errors import ModelError
from plaudit.models.files.load import quiet

KINDS = ("int8", "int4")
GROUP = 32
"""Weights of a row that share a scale in int4; in int8 it is the whole row."""


def check_integers(auto: Any, config: Any) -> None:
    """Make sure that torchao is there and has something to quantise in a model.

    Args:
        auto: one of transformers' Auto classes.
        config: of the model.

    Raises:
        ModelError: torchao is not installed, or the layers of this architecture are none that it quantises.
    """
    if find_spec("torchao") is None:
        raise ModelError(
            "int8 and int4 need the package torchao", where="--to", cure="pip install 'plaudit[torchao]'"
        )
    with torch.device("meta"):
        outline: PreTrainedModel = auto.from_config(config)
    if len(_left(outline)) == len(_linear(outline)):
        raise ModelError(
            f"torchao quantises nothing of a {config.model_type}: its layers have no nn.Linear with rows of a multiple"
            f" of {GROUP}",
            where="--to", cure="export to merged, or to gguf:q8_0",
        )  # fmt: skip


def write_integers(auto: Any, plain: Path, path: Path, kind: str) -> list[str]:
    """Quantise a directory of safetensors into another.

    Args:
        auto: one of transformers' Auto classes.
        plain: the directory that is read; tokenizer files are not copied.
        path: the directory that is written.
        kind: of `KINDS`.

    Returns:
        Names of the matrices that stay in bf16, because their rows are no multiple of `GROUP`.
    """
    from torchao.quantization import Int8WeightOnlyConfig, IntxWeightOnlyConfig
    from torchao.quantization.granularity import PerGroup

    # Of torchao's layouts of int4 this is the only one that it computes on every device and that safetensors holds. It
    # keeps a weight of 4 bit in a byte.
    four = IntxWeightOnlyConfig(torch.int4, PerGroup(GROUP))  # type: ignore[attr-defined]
    way = Int8WeightOnlyConfig() if kind == "int8" else four
    with torch.device("meta"):
        outline = auto.from_config(AutoConfig.from_pretrained(str(plain)))
    left, whole = _left(outline), _outer(outline)
    with quiet():
        made = auto.from_pretrained(
            str(plain), dtype=torch.bfloat16, use_safetensors=True,
            quantization_config=TorchAoConfig(way, modules_to_not_convert=[*whole, *left]),
        )  # fmt: skip
        made.save_pretrained(str(path))
    return left


def read_integers(auto: Any, path: Path) -> PreTrainedModel:
    """A directory that `write_integers` wrote, as torchao computes it."""
    with quiet():
        model: PreTrainedModel = auto.from_pretrained(str(path), dtype="auto", use_safetensors=True)
    return model.eval()


def _linear(model: PreTrainedModel) -> dict[str, nn.Linear]:
    """The matrices of the layers by their names in the model."""
    outer = _outer(model)
    found = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    return {name: module for name, module in found.items() if name not in outer}


def _outer(model: PreTrainedModel) -> list[str]:
    """What turns states into tokens, scores or labels: all that is not in the trunk."""
    inside = f"{model.base_model_prefix}."
    return [n for n, m in model.named_modules() if isinstance(m, nn.Linear) and not n.startswith(inside)]


def _left(model: PreTrainedModel) -> list[str]:
    return [name for name, module in _linear(model).items() if module.in_features % GROUP]
