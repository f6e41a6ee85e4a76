"""Models without their weights: every shape and type, from config.json and the tokenizer, and not one value.

Within `outlines` a model that is loaded becomes an outline: its tensors are PyTorch's fake ones, which know shape, type
and device and hold no memory. Whatever is then computed with them gives fake tensors again, so a forward and a backward
pass can be rehearsed before anything is loaded.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from types import MethodType
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import AutoConfig, PreTrainedModel

from plaudit.models.files.source import Source


@dataclass(frozen=True, slots=True)
class Stored:
    """What the headers of a model's safetensors files say; nothing of the weights is read."""

    shapes: dict[str, tuple[int, ...]]
    """By tensor name; empty where there are no such files here."""

    @classmethod
    def of(cls, place: Source) -> Stored:
        """The headers of the files of a directory, or of those that were downloaded of a hub model."""
        shapes: dict[str, tuple[int, ...]] = {}
        for path in _files(place):
            with contextlib.suppress(OSError, SafetensorError):  # who loads the weights says what is wrong with them
                for name, shape in _shapes(path):
                    shapes[name] = shape
        return cls(shapes)


def _shapes(path: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    with safe_open(path, "pt") as file:
        for name in file.keys():  # noqa: SIM118
            yield name, tuple(file.get_slice(name).get_shape())


def _files(place: Source) -> list[Path]:
    if place.gguf:
        return []
    folder = Path(place.name)
    if not folder.is_dir():
        found = try_to_load_from_cache(place.name, "config.json")
        if not isinstance(found, str):
            return []
        folder = Path(found).parent
    return sorted(folder.glob("*.safetensors"))


@dataclass(frozen=True, slots=True)
class Outlining:
    """How models are outlined at the moment."""

    depth: int | None
    """Most layers of a model; None: all that it has."""
    device: torch.device
    """Where they would be computed."""
    mode: Any
    """PyTorch's mode that makes fake tensors; one for all models, since tensors of two such modes do not mix."""


_current: ContextVar[Outlining | None] = ContextVar("outlining", default=None)


@contextmanager
def outlines(depth: int | None = None, device: torch.device | None = None) -> Iterator[None]:
    """Within it every model is loaded as its outline.

    Args:
        depth: most layers of each; what a whole model needs follows from two depths, since its layers are alike.
        device: where they would be computed; None: the CPU.
    """
    token = _current.set(Outlining(depth, device or torch.device("cpu"), _fake_mode()))
    try:
        yield
    finally:
        _current.reset(token)


def outlining() -> Outlining | None:
    """Whether models are outlined now, and how."""
    return _current.get()


def is_outline(model: nn.Module) -> bool:
    """Whether a model has no values."""
    return any(is_fake(p) for p in model.parameters())


def config_of(place: Source) -> Any:
    """The settings of a model, from its config.json or the head of its GGUF file.

    Raises:
        OSError, ValueError: there is none that can be read.
    """
    return AutoConfig.from_pretrained(place.name, **place.options)


def layers_of(config: Any) -> int:
    """How many layers a model has."""
    return int(getattr(config.get_text_config(), "num_hidden_layers", 0) or 1)


def repeats_of(config: Any) -> tuple[int, int]:
    """How many layers at the start are of their own kind, and after how many the others are alike again."""
    text = config.get_text_config()
    kinds = list(getattr(text, "layer_types", None) or ())
    alike = (n for n in range(1, len(kinds)) if all(a == b for a, b in zip(kinds, kinds[n:], strict=False)))
    return int(getattr(text, "first_k_dense_replace", 0) or 0), next(alike, 1)


def outline(
    auto: Any, place: Source, rows: int, options: dict[str, Any]
) -> tuple[PreTrainedModel, list[str]]:
    """The outline of a model, as `_load_weights` gives a model: and the names of tensors that are not in the file.

    Args:
        auto: one of transformers' Auto classes.
        rows: embedding rows that it must have at least.
        options: as of ``from_pretrained``; a base in 4 bit is outlined as it is in fp32.
    """
    now = _current.get()
    assert now is not None, "called within outlines()"
    config = config_of(place)
    text = config.get_text_config()
    # Rows that a tokenizer needs are added here: added later they would be real memory.
    text.vocab_size = max(int(text.vocab_size), rows)
    if now.depth is not None and layers_of(config) > now.depth:
        text.num_hidden_layers = now.depth
        if getattr(text, "layer_types", None):
            text.layer_types = list(text.layer_types)[: now.depth]
    if "num_labels" in options:
        config.num_labels = options["num_labels"]
    with now.mode, now.device:
        model: PreTrainedModel = auto.from_config(config, dtype=options.get("dtype", torch.float32))
    for module in model.modules():
        # PyTorch moves a module by swapping its tensors, which it refuses for fake ones; these are where they belong.
        module._apply = MethodType(_as_it_is, module)  # type: ignore[method-assign]
    classifier = any(
        "SequenceClassification" in name for name in getattr(config, "architectures", None) or ()
    )
    wanted = "SequenceClassification" in type(model).__name__
    return model, ["score.weight"] if wanted and not classifier else []


def _as_it_is(module: nn.Module, fn: Any, recurse: bool = True) -> nn.Module:
    return module


def _fake_mode() -> Any:
    from torch._subclasses.fake_tensor import FakeTensorMode

    # Token ids and masks are real, since what is computed with them decides the shapes of everything else.
    return FakeTensorMode(allow_non_fake_inputs=True)


def _fake_tensor() -> type[torch.Tensor]:
    from torch._subclasses.fake_tensor import FakeTensor

    return FakeTensor


def is_fake(value: object) -> bool:
    """Whether a value is a tensor without values."""
    return isinstance(value, _fake_tensor())
