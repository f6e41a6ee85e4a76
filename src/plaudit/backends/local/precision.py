"""What the settings say about device and precision; and what memory a device has."""

from __future__ import annotations

from typing import Literal

import psutil
import torch

from plaudit.config.sections import ComputeSection
from plaudit.errors import ConfigError, MachineError, PlauditError
from plaudit.functional.precision import Context, native_bf16, products_in
from plaudit.machine import memory_limit
from plaudit.models.files.outline import config_of
from plaudit.models.files.source import resolve
from plaudit.runtime import Room


def resolve_device(name: str) -> torch.device:
    """``auto`` is the first GPU if there is one, of NVIDIA, AMD or Apple; else the CPU.

    Raises:
        ConfigError: no name of a device.
        MachineError: this machine has no such device.
    """
    if name == "auto":
        here = (kind for kind in ("cuda", "mps") if _count(kind))
        return torch.device(next(here, "cpu"))
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(
            f"{name!r} is no device", where="[compute] device", cure="--device takes auto, cpu, cuda, cuda:1 or mps"
        ) from None
    count = _count(device.type)
    if (device.index or 0) >= count:
        found = f"{count} of them: {device.type}:0 to {device.type}:{count - 1}" if count else "none"
        raise MachineError(
            f"there is no device {name}: this machine, or this build of PyTorch, has {found}",
            where="[compute] device",
            cure="--device auto takes the first GPU if there is one, --device cpu none; `plaudit doctor` lists them",
        )
    return device


def check(compute: ComputeSection) -> None:
    """Make sure that the device that is asked for is there.

    Raises:
        ConfigError, MachineError: see `resolve_device`.
    """
    resolve_device(compute.device)


def _count(kind: str) -> int:
    """How many devices of a kind there are here that can compute."""
    if kind == "cpu":
        return 1
    if kind == "mps":
        return int(torch.backends.mps.is_available())
    module = getattr(torch, kind, None)  # none for "meta", which computes nothing
    if module is None or not hasattr(module, "is_available") or not module.is_available():
        return 0
    return int(module.device_count())


def room_of(device: torch.device) -> Room:
    """What a device has, and what is free of it now."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return Room(total, free, str(device), 0)
    used = psutil.Process().memory_info().rss
    if device.type == "mps":
        return Room(torch.mps.recommended_max_memory(), torch.mps.recommended_max_memory(), "the GPU", used)
    limit = memory_limit()
    return Room(limit.total, limit.free, limit.of, used)


BF16_FROM_WIDTH = 256
"""Width of a model from which bf16 products gain on a CPU that has them natively. From a trial with a prototype on an
AVX-512 processor with bf16, at widths of 256 and 576; to be confirmed there by `benchmarks/products.py`."""


def chosen_precision(device: str, model: str) -> tuple[Literal["fp32", "bf16"], str]:
    """What ``precision = "auto"`` is on this machine for a model, and why, in words.

    By what the processor says of itself and by the size of the model, so that two runs of a job choose alike; nothing
    is timed.

    Raises:
        ConfigError, MachineError: see `resolve_device`.
    """
    place = resolve_device(device)
    if place.type == "cuda":
        able = torch.cuda.is_bf16_supported()
        return ("bf16", "which this GPU has") if able else ("fp32", "since this GPU has no bf16")
    if place.type != "cpu" or not native_bf16():
        return "fp32", f"since this {'processor' if place.type == 'cpu' else 'device'} does not multiply in bf16"
    try:
        width = int(config_of(resolve(model)).get_text_config().hidden_size)
    except (OSError, ValueError, AttributeError, PlauditError):
        return "fp32", "since the size of the model is not known before it is loaded"
    if width < BF16_FROM_WIDTH:
        return "fp32", f"since a model {width} wide gains nothing by bf16"
    return "bf16", f"which this processor multiplies in natively, for a model {width} wide; weights stay fp32"


def product_dtype(compute: ComputeSection, device: torch.device) -> torch.dtype:
    """Type of the matrix products: bf16 where asked for, or ``auto`` on a GPU that has it. Weights stay fp32.

    A stage that trains has replaced ``auto`` before, by `chosen_precision`.
    """
    automatic = device.type == "cuda" and torch.cuda.is_bf16_supported()
    half = compute.precision == "bf16" or (compute.precision == "auto" and automatic)
    return torch.bfloat16 if half else torch.float32


def autocast(compute: ComputeSection, device: torch.device) -> Context:
    """Matrix products in `product_dtype`; within another such context, with the weights that it has cast."""
    return products_in(product_dtype(compute, device), device)
