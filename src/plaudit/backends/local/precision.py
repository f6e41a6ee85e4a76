"""What the settings say about device and precision; and what memory a device has."""

from __future__ import annotations

import psutil
import torch

from plaudit.config.sections import ComputeSection
from plaudit.errors import ConfigError, MachineError
from plaudit.functional.precision import Context, products_in
from plaudit.machine import memory_limit
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


def product_dtype(compute: ComputeSection, device: torch.device) -> torch.dtype:
    """Type of the matrix products: bf16 where asked for, or ``auto`` on a GPU that has it. Weights stay fp32."""
    automatic = device.type == "cuda" and torch.cuda.is_bf16_supported()
    half = compute.precision == "bf16" or (compute.precision == "auto" and automatic)
    return torch.bfloat16 if half else torch.float32


def autocast(compute: ComputeSection, device: torch.device) -> Context:
    """Matrix products in `product_dtype`; within another such context, with the weights that it has cast."""
    return products_in(product_dtype(compute, device), device)
