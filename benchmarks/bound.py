"""How fast a step could be: the matrix products that its task needs, at the best rate that a core reaches.

Products only, each prompt once for all its responses, no padding, logits where a loss reads them: attention, norms,
optimizer and everything else are free. So no implementation reaches the bound, and the distance from it says what is
left to gain. Torch only, because a worker may run without Plaudit.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from plan import Plan

FORWARD, BOTH = 2, 6
"""Operations of a weight for a token: forward, and with the two products of the backward pass."""


@dataclass(frozen=True, slots=True)
class Size:
    """Weights of a model that take part in products."""

    trunk: int
    """Of all layers: every token meets them."""
    head: int
    """Of the LM head: tokens whose logits are read meet it."""


def operations(plan: Plan, step: int, size: Size) -> float:
    """Floating-point operations of the products of a step.

    GRPO has no KL here and so no reference; RLOO and PPO have one. PPO's reward model and critic have the policy's
    trunk.
    """
    rows = plan.step_rows(step)
    prompts = sum(len(row.prompt) for row in rows)
    if plan.task == "sft":
        answers = sum(len(row.chosen) for row in rows)
        return BOTH * (size.trunk * (prompts + answers) + size.head * answers)
    pairs = sum(len(row.chosen) + len(row.rejected) for row in rows)
    if plan.task == "rm":
        return BOTH * size.trunk * (prompts + pairs)
    if plan.task == "dpo":
        return (BOTH + FORWARD) * (size.trunk * (prompts + pairs) + size.head * pairs)
    answers = sum(sum(row.lengths) for row in rows)
    trunk, head = size.trunk * (prompts + answers), size.head * answers
    if plan.task == "grpo":
        return (FORWARD + BOTH) * (trunk + head)
    if plan.task == "rloo":
        return (2 * FORWARD + BOTH) * (trunk + head)
    # Sampled, scored by the reference, the reward model and the critic; then four passes over all of it.
    fixed = FORWARD * (2 * (trunk + head) + 2 * trunk)
    learned = trunk + head + (0 if plan.task == "ppo_trunk" else trunk)
    return fixed + 4 * BOTH * learned


def best_rate(dtype: torch.dtype, device: str = "cpu", seconds: float = 0.5) -> float:
    """Operations per second of a product of 512 rows, the best of those that fit into the time."""
    a, b = (torch.randn(512, 1024, device=device).to(dtype) for _ in range(2))
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end or best == float("inf"):
        began = time.perf_counter()
        float((a @ b.T)[0, 0])  # read, so that an accelerator has finished
        best = min(best, time.perf_counter() - began)
    return 2 * 512 * 512 * 1024 / best


def size_of(model: str) -> Size:
    """From a model's settings; nothing is loaded."""
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        lm = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model))
    head = lm.get_output_embeddings().weight.numel()
    layers = [m for name, m in lm.named_modules() if isinstance(m, torch.nn.Linear) and "lm_head" not in name]
    return Size(sum(layer.weight.numel() for layer in layers), head)
