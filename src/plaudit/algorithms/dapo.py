"""DAPO (Yu et al., arXiv:2503.14476): GRPO with clip-higher, dynamic sampling, a token mean, overlong shaping.

A_i  = (score_i + overlong_i - mean) / (std + 1e-4) within the group; groups with equal scores are sampled anew
loss = mean over all tokens of max(-A rho, -A clip(rho, 1 - clip, 1 + clip_high))          eq. 8, no KL
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from plaudit.algorithms import policy_gradient as pg
from plaudit.algorithms.protocol import Credit, Signal
from plaudit.errors import ConfigError
from plaudit.experience import Experience, Loss, Outputs
from plaudit.functional.controllers import Carry
from plaudit.functional.groups import compare, overlong_penalty
from plaudit.functional.losses import clipped_policy_loss


@dataclass(frozen=True, slots=True, kw_only=True)
class DAPO:
    """GRPO for rewards that are right or wrong: learns from prompts that are neither solved nor hopeless; no KL."""

    group_size: int = 8
    """Responses sampled per prompt; at least 2."""
    epochs: int = 1
    """Passes over each batch of rollouts."""
    minibatches: int = 1
    """Optimizer steps per pass."""
    clip: float = 0.2
    """Lower half-width of the ratio's trust region."""
    clip_high: float = 0.28
    """Upper half-width: larger, so that unlikely tokens may become likely."""
    sampling_rounds: int = 3
    """Batches of prompts sampled at most until enough groups have unequal scores; 1: no dynamic sampling."""
    overlong_penalty: float = 1.0
    """Taken off the score of a response at the length limit, less where it ends a little before; 0: off."""
    overlong_buffer: float = 0.2
    """Share of max_new_tokens, at its end, in which that penalty grows from 0."""
    filter_overlong: bool = False
    """Keep responses that ran into the length limit out of the loss."""
    target_kl: float = 0.0
    """Inner epochs stop when the policy moved 1.5 times this from where it sampled (nats per token); 0: never."""

    def __post_init__(self) -> None:
        counts = {"group_size": self.group_size, "epochs": self.epochs, "minibatches": self.minibatches}
        pg.check_counts("DAPO", 2, **counts, sampling_rounds=self.sampling_rounds)
        if not 0 < self.overlong_buffer <= 1:
            raise ConfigError(
                f"overlong_buffer must be in (0, 1], found {self.overlong_buffer}",
                where="[algorithm] overlong_buffer",
                cure="give a share of max_new_tokens such as 0.2; overlong_penalty = 0 switches the penalty off",
            )

    @property
    def needs(self) -> frozenset[Signal]:
        """Old log-probs, and those of the reference to measure the KL."""
        return pg.needs(0.0)

    def start(self) -> Carry:
        """Nothing is carried."""
        return Carry()

    def keeps(self, rewards: Tensor, group_ids: Tensor) -> Tensor:
        """Rows of groups whose rewards, before any penalty, are not all equal."""
        return ~compare(rewards, group_ids, ~rewards.isnan()).equal

    def credit(self, batch: Experience, carry: Carry) -> Credit:
        """Shaped scores to advantages within the groups; what is filtered takes part in the means, not in the loss."""
        assert batch.rewards is not None and batch.length_limits is not None and batch.truncated is not None
        lengths = batch.response_mask.sum(-1)
        shaping = overlong_penalty(lengths, batch.length_limits, self.overlong_buffer)
        credit = pg.group_credit(batch, carry, batch.rewards + self.overlong_penalty * shaping, "group")
        if not self.filter_overlong:
            return credit
        shaped = credit.batch
        assert isinstance(shaped, Experience) and shaped.advantages is not None
        mask = shaped.response_mask & ~batch.truncated[:, None]
        advantages = torch.where(mask, shaped.advantages, 0.0)
        return Credit(shaped.replace(response_mask=mask, advantages=advantages), carry, credit.metrics)

    def weights(self, batch: Experience) -> Experience:
        """Every response token of the optimizer step weighs the same."""
        return pg.weighted(batch, "token_mean")

    def loss(self, batch: Experience, out: Outputs) -> Loss:
        """Clipped surrogate with its two widths."""
        assert out.logprobs is not None
        assert batch.old_logprobs is not None and batch.advantages is not None
        surrogate, clipped = clipped_policy_loss(
            out.logprobs, batch.old_logprobs, batch.advantages, self.clip, self.clip_high
        )
        return pg.policy_loss(batch, out, surrogate, clipped)
