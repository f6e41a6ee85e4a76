"""Attention in fp32 where everything around it is bf16: on a CPU its kernels are faster so.

A kernel that works on bf16 keys turns them into fp32 block by block, and back, and its backward pass does so again:
with rows of a hundred tokens that takes 1.6 to 1.8 times as long as fp32, and a decoding step takes five times as long.
Autocast decides by the name of an operation and cannot be told to leave this one out, so transformers is given an
attention function of another name for as long as `exact_attention` lasts.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

_NAME = "plaudit_fp32"


def is_better_exact(device: torch.device) -> bool:
    """Is attention to be computed in fp32 although autocast is on?"""
    return device.type == "cpu" and torch.is_autocast_enabled("cpu")


@contextmanager
def exact_attention(trunk: nn.Module, device: torch.device) -> Iterator[None]:
    """Within it the attention of a trunk is computed in fp32 where that is better; see `is_better_exact`."""
    config: Any = trunk.config
    # Only PyTorch's own kernel is replaced: another one was chosen by the user, or is the only one that fits the model.
    if not is_better_exact(device) or config._attn_implementation != "sdpa":
        yield
        return
    config._attn_implementation = _NAME
    try:
        yield
    finally:
        config._attn_implementation = "sdpa"


def attention_fp32(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """transformers' function for PyTorch's kernel, in fp32. ``query [B, heads, T, d]`` -> ``[B, T, heads, d]``."""
    with torch.autocast(query.device.type, enabled=False):
        if attention_mask is not None and attention_mask.is_floating_point():
            attention_mask = attention_mask.float()
        out, _ = sdpa_attention_forward(
            module, query.float(), key.float(), value.float(), attention_mask, **options
        )
    return out, None


AttentionInterface.register(_NAME, attention_fp32)
AttentionMaskInterface.register(_NAME, sdpa_mask)
