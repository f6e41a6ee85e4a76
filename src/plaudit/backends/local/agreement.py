"""Before anything is trained: do the sampler and the trainer give the same tokens the same log-probs?

Both compute log p(token | tokens before it), along different paths: one token at a time with a cache, and whole rows at
once. Where an architecture, a kernel or a precision makes them differ, each importance ratio is wrong by that much from
the first step on, and no loss shows it. So a few real prompts are answered and scored first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from plaudit.config.sections import SamplingSection
from plaudit.data.collate import collate_rollouts
from plaudit.errors import ModelError
from plaudit.runtime import Generator, Scorer, TokenPrompt

PROMPTS, TOKENS = 4, 16
"""How many prompts are answered, and with how many tokens at most."""
EXACT, ROUNDED = 0.01, 0.1
"""Nats per token by which log-probs may differ on average in the worst row: with fp32 all through they are within 1e-4,
and products in bf16 (8 bits) or weights in 4 bit make differences of some hundredths."""
TRIAL = -2
"""The "iteration" of these samples: their random numbers are used nowhere else."""


@dataclass(frozen=True, slots=True)
class SamplerCheck:
    """Compares a sampler with a trainer on some prompts.

    Args:
        generator: draws the responses, with their log-probs.
        trainer: computes log-probs of the same tokens.
        name: of the architecture, for the error.
        pad_id: token of the padding.
        sampling: of the run; the temperature counts.
        exact: whether weights and products are fp32 in both.
    """

    generator: Generator
    trainer: Scorer
    name: str
    pad_id: int
    sampling: SamplingSection
    exact: bool

    def __call__(self, prompts: Sequence[TokenPrompt]) -> tuple[str, ...]:
        """What a run should say of the outcome; nothing if both agree to fp32.

        Raises:
            ModelError: they differ by more than rounding explains.
        """
        chosen = spread_by_length(prompts)
        most = min(TOKENS, self.sampling.max_new_tokens)
        # No response ends early, so that there is something to compare in each row.
        sampling = self.sampling.model_copy(
            update={"max_new_tokens": most, "min_new_tokens": most, "stop": ()}
        )
        rollouts = self.generator.generate(chosen, 1, sampling, seed=0, iteration=TRIAL)
        batch = collate_rollouts(rollouts, self.pad_id)
        (found,) = self.trainer.read(batch, "logprobs")
        assert batch.sampled_logprobs is not None, "rollouts have log-probs"
        apart = _by_row(found - batch.sampled_logprobs, batch.response_mask)
        worst, tolerance = float(apart.max()), EXACT if self.exact else ROUNDED
        if not worst <= tolerance:
            row = int(apart.nan_to_num(torch.inf).argmax())
            raise ModelError(
                f"sampler and trainer disagree about the same tokens: by {worst:.3g} nats a token on average in the"
                f" worst of {len(chosen)} responses (a prompt of {len(chosen[row].ids)} tokens), where {tolerance:g}"
                f" is allowed with {self._precision}",
                where=self.name,
                cure="training would correct for a difference that is none of the policy's: try --precision fp32 and"
                " compute.packing = false; if that does not help, use another architecture",
            )
        if self.exact:
            return ()
        return (
            f"sampler and trainer differ by {worst:.2g} nats a token at most over {len(chosen)} responses;"
            f" {tolerance:g} is allowed with {self._precision}",
        )

    @property
    def _precision(self) -> str:
        return (
            "weights and products in fp32"
            if self.exact
            else "weights or products of lower precision than fp32"
        )


def spread_by_length(prompts: Sequence[TokenPrompt]) -> list[TokenPrompt]:
    """A few prompts with different ids, from the shortest to the longest."""
    known = {prompt.prompt.id: prompt for prompt in prompts}
    ordered = sorted(known.values(), key=lambda p: (len(p.ids), p.prompt.id))
    count = min(PROMPTS, len(ordered))
    return [ordered[round(i * (len(ordered) - 1) / max(1, count - 1))] for i in range(count)]


def in_fp32(module: nn.Module) -> bool:
    """Are all weights fp32 or wider? Those in 4 bit are stored as integers and are not."""
    return all(p.dtype in (torch.float32, torch.float64) for p in module.parameters())


def _by_row(difference: Tensor, mask: Tensor) -> Tensor:
    """``[B]`` mean absolute difference over the masked tokens of each row."""
    return (difference.abs() * mask).sum(-1) / mask.sum(-1).clamp(min=1)
