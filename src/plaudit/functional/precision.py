"""The type in which matrix products run, with weights cast to it once in a generation or an optimizer step.

Weights are fp32, the master copy that AdamW needs. Under autocast each product would cast its weight again; an autocast
context keeps a cast weight until it ends, but only of weights with ``requires_grad``. So one context is held around all
microbatches of a step or all tokens of a generation, and where nothing is trained, frozen weights get ``requires_grad``
for that time. (A backward pass casts frozen weights again: once for thousands of tokens.)
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

import torch
from torch import nn

Context = contextlib.AbstractContextManager[object]


# Weights cast within the context in progress, by the identity of the weight. Not by its version counter: AdamW's fused
# kernel changes a weight without counting.
_casts: ContextVar[dict[int, torch.Tensor] | None] = ContextVar("casts", default=None)


@contextlib.contextmanager
def products_in(dtype: torch.dtype, device: torch.device) -> Iterator[None]:
    """Matrix products in ``dtype``; fp32 changes nothing. Weights must not change within it."""
    if dtype == torch.float32:
        yield
        return
    token = _casts.set({})
    try:
        with torch.autocast(device.type, dtype):
            yield
    finally:
        _casts.reset(token)


def half(weight: torch.Tensor) -> torch.Tensor:
    """A weight in bf16, without gradient, for a product that autocast does not see; within `products_in` cast once."""
    casts = _casts.get()
    if casts is None:
        return weight.detach().bfloat16()
    if id(weight) not in casts:
        casts[id(weight)] = weight.detach().bfloat16()
    return casts[id(weight)]


def native_bf16() -> bool:
    """Does this CPU multiply in bf16? One that does not is many times slower in it than in fp32."""
    flags = torch.cpu.get_capabilities()
    return any(bool(flags.get(name)) for name in ("avx512_bf16", "amx_bf16"))


def packs(dtype: torch.dtype, device: torch.device) -> bool:
    """Can weights of this type be laid out for the products of this device? Only on a CPU (oneDNN)."""
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    return dtype == torch.float32 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def as_in_forward(device: torch.device) -> Context:
    """For a backward pass inside `products_in`: each product in the type that its forward pass had."""
    # autograd remembers the types of the forward pass. With autocast still on, products that the forward pass made in
    # fp32 on purpose (the LM head) would be made in bf16 on the way back.
    return torch.autocast(device.type, enabled=False)


WITHOUT_FLOAT64 = {"mps"}
"""Kinds of devices that have no 64-bit floating-point numbers: Apple's GPUs."""


def in_float64(x: torch.Tensor) -> torch.Tensor:
    """``x`` in fp64, on its device; where the device has no such numbers, on the CPU."""
    # The one place where models, generators and losses turn to fp64, so that none is made on a device without it.
    return (x.cpu() if x.device.type in WITHOUT_FLOAT64 else x).double()


@contextlib.contextmanager
def without_gradients(module: nn.Module, dtype: torch.dtype, device: torch.device) -> Iterator[None]:
    """No gradients; products in ``dtype`` with every weight of ``module`` cast once, frozen ones too."""
    frozen = [p for p in module.parameters() if p.is_floating_point() and not p.requires_grad]
    # no_grad is around all, so the flags make no graph; they are what autocast looks at when it decides to keep a cast.
    with torch.no_grad(), products_in(dtype, device):
        try:
            for p in frozen if dtype != torch.float32 else ():
                p.requires_grad_(True)
            yield
        finally:
            for p in frozen:
                p.requires_grad_(False)
