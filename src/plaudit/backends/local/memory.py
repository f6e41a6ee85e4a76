"""How much memory each role of a run has to itself, and the most that the process ever had."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping

import torch
from torch import nn

GIGABYTE = 1e9
TRAINED = 4
"""fp32 copies of a trained tensor: itself, its gradient, and the two moments of AdamW."""


def role_memory(roles: Mapping[str, Iterable[nn.Module]]) -> dict[str, float]:
    """``memory/<role>`` in GB: the tensors of each role, and for what is trained its gradient and moments.

    A tensor that several roles stand on counts once, for the first of them. Activations are not in it.

    Args:
        roles: the models of each role, the policy first.
    """
    seen: set[int] = set()
    return {
        f"memory/{role}": sum(_bytes(m, seen) for m in modules) / GIGABYTE for role, modules in roles.items()
    }


def _bytes(module: nn.Module, seen: set[int]) -> int:
    """Bytes of the tensors whose storage is not in ``seen``, to which they are added."""
    total = 0
    for tensor in (*module.parameters(), *module.buffers()):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in seen:
            seen.add(storage.data_ptr())
            total += storage.nbytes() * (TRAINED if tensor.requires_grad else 1)
    return total


def peak_gb(device: torch.device) -> float:
    """The most memory that was ever allocated on a GPU; on a CPU the most that the process had resident. GB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / GIGABYTE
    return _peak_resident() / GIGABYTE


def _peak_resident() -> int:
    """Bytes. What systems call it and count it in differs."""
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
