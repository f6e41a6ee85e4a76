"""What the settings say about device and precision."""

from __future__ import annotations

import torch

from plaudit.config.sections import ComputeSection
from plaudit.functional.precision import Context, products_in


def resolve_device(name: str) -> torch.device:
    """``auto`` is the first GPU if there is one, else the CPU."""
    if name != "auto":
        return torch.device(name)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def product_dtype(compute: ComputeSection, device: torch.device) -> torch.dtype:
    """Type of the matrix products: bf16 where asked for, or ``auto`` on a GPU that has it. Weights stay fp32."""
    automatic = device.type == "cuda" and torch.cuda.is_bf16_supported()
    half = compute.precision == "bf16" or (compute.precision == "auto" and automatic)
    return torch.bfloat16 if half else torch.float32


def autocast(compute: ComputeSection, device: torch.device) -> Context:
    """Matrix products in `product_dtype`; within another such context, with the weights that it has cast."""
    return products_in(product_dtype(compute, device), device)
