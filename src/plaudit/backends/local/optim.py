"""AdamW parameter groups and learning-rate schedules."""

from __future__ import annotations

import math

import torch
from torch import nn

from plaudit.config.sections import OptimizerSection

FUSED = {"cpu", "cuda"}
"""Devices for which AdamW in one kernel is known to work."""


def build_optimizer(module: nn.Module, section: OptimizerSection) -> torch.optim.AdamW:
    """AdamW over the trainable parameters; matrices decay, biases and norms do not.

    One fused kernel for all of it where there is one: on a CPU six times as fast as a loop over tensors.
    """
    trainable = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.dim() >= 2], "weight_decay": section.weight_decay},
        {"params": [p for p in trainable if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [g for g in groups if g["params"]],
        lr=section.lr,
        betas=(0.9, 0.95),
        eps=1e-8,
        fused=all(p.device.type in FUSED for p in trainable),
    )


def learning_rate(step: int, total_steps: int, section: OptimizerSection) -> float:
    """Learning rate of the 0-based ``step``: linear warm-up, then the schedule down to its end at ``total_steps``.

    >>> section = OptimizerSection(lr=1.0, warmup_fraction=0.5, schedule="linear")
    >>> [learning_rate(step, 4, section) for step in range(4)]
    [0.5, 1.0, 1.0, 0.5]
    """
    warmup = math.ceil(section.warmup_fraction * total_steps)
    if step < warmup:
        return section.lr * (step + 1) / warmup
    if section.schedule == "constant":
        return section.lr
    # A run resumed with fewer steps may be past the end: the rate stays at its end, and never turns negative.
    progress = min((step - warmup) / max(total_steps - warmup, 1), 1.0)
    if section.schedule == "linear":
        return section.lr * (1 - progress)
    return section.lr * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * progress)))
