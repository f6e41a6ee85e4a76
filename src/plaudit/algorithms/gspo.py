"""GSPO (Zheng et al., arXiv:2507.18071) and CISPO (MiniMax, arXiv:2506.13585): GRPO with another use of the ratio.

GSPO:   s_i  = exp(mean_t (logp - logp_old)_t)         one ratio a response, its geometric mean over tokens
        loss = mean_i max(-A s_i, -A clip(s_i, 1 - clip, 1 + clip_high))                          eq. 5
CISPO:  loss = mean_t -sg[clip(rho_t, 0, ratio_max)] A logp_t                                     eq. 4
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from plaudit.algorithms import policy_gradient as pg
from plaudit.algorithms.protocol import Credit, Signal
from plaudit.errors import ConfigError
from plaudit.experience import Experience, Loss, Outputs
from plaudit.functional.controllers import Carry
from plaudit.functional.losses import clipped_policy_loss
from plaudit.functional.ratios import cispo_loss, sequence_log_ratio, straight_through


@dataclass(frozen=True, slots=True, kw_only=True)
class GSPO:
    """GRPO whose ratio and clip are those of whole responses; made for mixtures of experts and long responses."""

    group_size: int = 8
    """Responses sampled per prompt; at least 2."""
    epochs: int = 1
    """Passes over each batch of rollouts."""
    minibatches: int = 4
    """Optimizer steps per pass."""
    ratio: Literal["sequence", "token"] = "sequence"
    """token: the same value and clip, with the gradient of each token by itself (GSPO-token)."""
    clip: float = 3e-4
    """Lower half-width for the ratio of a response. It is a mean over tokens: 0.2 would switch clipping off."""
    clip_high: float = 4e-4
    """Upper half-width."""
    kl_coef: float = 0.0
    """Weight of the KL to the reference in the loss (k3, unbiased gradient), per nat; the paper has none."""
    missing_eos_penalty: float = 0.0
    """Taken off the score of a response that ran into the length limit."""
    target_kl: float = 0.0
    """Inner epochs stop when the policy moved 1.5 times this from where it sampled (nats per token); 0: never."""

    def __post_init__(self) -> None:
        pg.check_counts(
            "GSPO", 2, group_size=self.group_size, epochs=self.epochs, minibatches=self.minibatches
        )

    @property
    def needs(self) -> frozenset[Signal]:
        """Old and reference log-probs."""
        return pg.needs(self.kl_coef)

    def start(self) -> Carry:
        """The KL coefficient."""
        return Carry(kl_coef=self.kl_coef)

    def credit(self, batch: Experience, carry: Carry) -> Credit:
        """Scores to advantages within the groups."""
        return pg.group_credit(batch, carry, pg.scores(batch, self.missing_eos_penalty), "group")

    def weights(self, batch: Experience) -> Experience:
        """Every response of the optimizer step weighs the same."""
        return pg.weighted(batch, "sequence_mean_token_mean")

    def loss(self, batch: Experience, out: Outputs) -> Loss:
        """Clipped surrogate of whole responses, which stands on each of their tokens."""
        assert out.logprobs is not None
        assert batch.old_logprobs is not None and batch.advantages is not None
        moved = sequence_log_ratio(out.logprobs, batch.old_logprobs, batch.response_mask, mean=True)
        if self.ratio == "token":
            moved = straight_through(moved, out.logprobs)
        surrogate, clipped = clipped_policy_loss(
            moved, torch.zeros_like(moved), batch.advantages, self.clip, self.clip_high
        )
        return pg.with_kl(pg.policy_loss(batch, out, surrogate, clipped), batch, out, self.kl_coef)


@dataclass(frozen=True, slots=True, kw_only=True)
class CISPO:
    """GRPO that clips the weight of a token, not its gradient: every token is learned from at every step."""

    group_size: int = 8
    """Responses sampled per prompt; at least 2."""
    epochs: int = 1
    """Passes over each batch of rollouts."""
    minibatches: int = 4
    """Optimizer steps per pass."""
    ratio_max: float = 5.0
    """Largest weight of a token: a cap on the ratio itself, not a distance from 1."""
    kl_coef: float = 0.0
    """Weight of the KL to the reference in the loss (k3, unbiased gradient), per nat; the paper has none."""
    missing_eos_penalty: float = 0.0
    """Taken off the score of a response that ran into the length limit."""
    target_kl: float = 0.0
    """Inner epochs stop when the policy moved 1.5 times this from where it sampled (nats per token); 0: never."""

    def __post_init__(self) -> None:
        pg.check_counts(
            "CISPO", 2, group_size=self.group_size, epochs=self.epochs, minibatches=self.minibatches
        )
        if self.ratio_max < 1:
            raise ConfigError(
                f"ratio_max must be at least 1, found {self.ratio_max}",
                where="[algorithm] ratio_max",
                cure="it caps the ratio itself: 1.28 here is what others call an epsilon of 0.28",
            )

    @property
    def needs(self) -> frozenset[Signal]:
        """Old and reference log-probs."""
        return pg.needs(self.kl_coef)

    def start(self) -> Carry:
        """The KL coefficient."""
        return Carry(kl_coef=self.kl_coef)

    def credit(self, batch: Experience, carry: Carry) -> Credit:
        """Scores to advantages within the groups."""
        return pg.group_credit(batch, carry, pg.scores(batch, self.missing_eos_penalty), "group")

    def weights(self, batch: Experience) -> Experience:
        """Every response token of the optimizer step weighs the same."""
        return pg.weighted(batch, "token_mean")

    def loss(self, batch: Experience, out: Outputs) -> Loss:
        """Log-probs weighted by the capped ratio, which is a constant here, and the advantage."""
        assert out.logprobs is not None
        assert batch.old_logprobs is not None and batch.advantages is not None
        surrogate, clipped = cispo_loss(
            out.logprobs, batch.old_logprobs, batch.advantages, 0.0, self.ratio_max
        )
        return pg.with_kl(pg.policy_loss(batch, out, surrogate, clipped), batch, out, self.kl_coef)
