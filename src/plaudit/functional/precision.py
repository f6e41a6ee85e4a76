"""In which type matrix products run, and how often weights are cast to it: once in a generation or optimizer step.

Weights are fp32, the master copy that AdamW needs. Under autocast each product would cast its weight anew; an autocast
context keeps what it has cast until it ends, if the weight is one that asks for a gradient. So one context is held
around all microbatches of a step or all tokens of a generation, and where nothing is learned a module's frozen weights
ask for a gradient they never get. (A backward pass casts frozen weights anew: once for thousands of tokens.)
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

Context = contextlib.AbstractContextManager[object]


def products_in(dtype: torch.dtype, device: torch.device) -> Context:
    """Matrix products in ``dtype``; fp32 changes nothing."""
    return contextlib.nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype)


def as_in_forward(device: torch.device) -> Context:
    """For a backward pass inside `autocast`: each product in the type that its forward pass had."""
    return torch.autocast(device.type, enabled=False)


@contextlib.contextmanager
def without_gradients(module: nn.Module, dtype: torch.dtype, device: torch.device) -> Iterator[None]:
    """No gradients; products in ``dtype`` with every weight of ``module`` cast once, frozen ones too."""
    frozen = [p for p in module.parameters() if p.is_floating_point() and not p.requires_grad]
    with torch.no_grad(), products_in(dtype, device):
        try:
            for p in frozen if dtype != torch.float32 else ():
                p.requires_grad_(True)
            yield
        finally:
            for p in frozen:
                p.requires_grad_(False)
