"""RLOO: REINFORCE with a leave-one-out baseline (Kool et al. 2019; Ahmadian et al., arXiv:2402.14740).

R_i  = score_i - kl_coef sum_t (logp_old - logp_ref)_t      the KL of the whole response, inside the reward
A_i  = R_i - mean of the other R of the same prompt         sums to 0 over a prompt
rho  = exp(sum_t (logp - logp_old)_t)                       the response is one action
loss = mean_i max(-A_i rho_i, -A_i clip(rho_i, 1 +- clip))
"""

from __future__ import annotations

import torch

from plaudit.algorithms import policy_gradient as pg
from plaudit.algorithms.metrics import reward_metrics
from plaudit.algorithms.protocol import Credit, Signal
from plaudit.config.values import settings_value
from plaudit.experience import Experience, Loss, Outputs
from plaudit.functional.advantages import last_counted
from plaudit.functional.controllers import Carry
from plaudit.functional.groups import leave_one_out
from plaudit.functional.losses import clipped_policy_loss
from plaudit.functional.ratios import sequence_log_ratio
from plaudit.functional.statistics import whiten


@settings_value
class RLOO(pg.UpdateSettings):
    """Each response against the mean of the others to its prompt: no critic, unbiased, the KL in the reward."""

    group_size: pg.SeveralResponses = 4
    whiten_advantages: bool = False
    """Give the advantages of a batch mean 0 and variance 1."""

    @property
    def needs(self) -> frozenset[Signal]:
        """Old and reference log-probs."""
        return pg.NEEDS

    def start(self) -> Carry:
        """The KL coefficient."""
        return Carry(kl_coef=self.kl_coef)

    def credit(self, batch: Experience, carry: Carry) -> Credit:
        """Score minus KL, minus the mean of the others. A row whose scoring failed is no one's baseline."""
        assert batch.group_ids is not None
        valid, mask = pg.counted(batch)
        penalty = -carry.kl_coef * pg.sequence_kl(batch, mask)
        total = pg.scores(batch, self.missing_eos_penalty) + penalty
        per_row = leave_one_out(total, batch.group_ids, valid)
        advantages = torch.where(mask, per_row[:, None], 0.0)
        rewards = torch.where(last_counted(mask), total[:, None], 0.0)
        metrics = pg.credit_metrics(batch, mask, advantages, carry.kl_coef)
        metrics |= reward_metrics(total - penalty, rewards, mask)
        metrics |= pg.group_metrics(total, batch, valid)
        if self.whiten_advantages:
            advantages = torch.where(mask, whiten(per_row, valid)[:, None], 0.0)
        return Credit(batch.replace(response_mask=mask, advantages=advantages), carry, metrics)

    def weights(self, batch: Experience) -> Experience:
        """Every response of the optimizer step weighs the same."""
        return pg.weighted(batch, "sequence_mean_token_mean")

    def loss(self, batch: Experience, out: Outputs) -> Loss:
        """Clipped surrogate of whole responses: one loss a response, which stands on each of its tokens."""
        assert out.logprobs is not None
        assert batch.old_logprobs is not None and batch.advantages is not None
        moved = sequence_log_ratio(out.logprobs, batch.old_logprobs, batch.response_mask)
        surrogate, clipped = clipped_policy_loss(
            moved, torch.zeros_like(moved), batch.advantages, self.clip, self.clip_high or self.clip
        )
        return pg.policy_loss(batch, out, surrogate, clipped)
