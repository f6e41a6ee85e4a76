"""REINFORCE++ and its form with a group baseline (Hu, arXiv:2501.03262): PPO's clip without a critic.

    r_t  = -kl_coef (logp_old - logp_ref)_t, and on the last token + score
    A    = whiten(rewards-to-go of r)                     over all response tokens of the batch
    loss = mean_t max(-A rho, -A clip(rho, 1 +- clip))

With baseline "group" the mean score of the prompt's other responses and its own is taken off first, on every token, and
the KL becomes a term of the loss.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from plaudit.algorithms import cautions
from plaudit.algorithms import policy_gradient as pg
from plaudit.algorithms.metrics import reward_metrics
from plaudit.algorithms.parts import Discounted
from plaudit.algorithms.protocol import Credit, Signal
from plaudit.config.values import NotNegative, settings_value
from plaudit.errors import ConfigError
from plaudit.experience import Experience, Loss, Outputs
from plaudit.functional import advantages as adv
from plaudit.functional.controllers import Carry
from plaudit.functional.groups import compare, reward_per_advantage
from plaudit.functional.losses import clipped_policy_loss
from plaudit.functional.statistics import whiten, whitening_divisor


@settings_value
class REINFORCEPlusPlus(pg.UpdateSettings, Discounted):
    """Rewards-to-go whitened over the whole batch, and PPO's clip; no critic, and no groups unless asked for."""

    type_name: ClassVar[str] = "reinforce_pp"

    kl_coef: NotNegative = 0.01
    baseline: Literal["none", "group"] = "none"
    """group: take the mean score of the prompt's responses off first (REINFORCE++-baseline). The KL is then a term of
    the loss (k2, whose gradient is that of the KL); else it is part of each token's reward (k1)."""

    def __post_init__(self) -> None:
        if self.baseline == "group" and self.group_size < 2:
            raise ConfigError(
                "baseline group compares a response with others to the same prompt, and group_size is 1",
                where="[algorithm] group_size",
                cure="set --group-size to 4 or more, or --baseline none",
            )

    @property
    def cautions(self) -> tuple[str, ...]:
        """Why a run ends elsewhere than at the optimum of reward and KL, in words for the user."""
        whitened = cautions.divided(self.kl_in_loss, "baseline group", self.kl_coef, "baseline none")
        return cautions.that_hold([whitened, cautions.discounted(self.gamma, self.kl_coef)])

    @property
    def needs(self) -> frozenset[Signal]:
        """Old and reference log-probs."""
        return pg.NEEDS

    @property
    def kl_in_loss(self) -> bool:
        """Is the KL a term of the loss? With a group baseline the reward is only compared within a prompt."""
        return self.baseline == "group"

    def start(self) -> Carry:
        """The KL coefficient."""
        return Carry(kl_coef=self.kl_coef)

    def credit(self, batch: Experience, carry: Carry) -> Credit:
        """Score -> per-token reward -> rewards-to-go -> whitened over the batch. Failed rows are masked out."""
        assert batch.old_logprobs is not None and batch.ref_logprobs is not None
        valid, mask = pg.counted(batch)
        in_reward = 0.0 if self.kl_in_loss else carry.kl_coef
        kl = batch.old_logprobs - batch.ref_logprobs
        scores = self._scores(batch, valid)
        rewards = adv.token_rewards(scores, kl, in_reward, mask)
        returns = adv.rewards_to_go(rewards, mask, self.gamma)
        unit = self._unit(batch, valid, returns, mask)
        metrics = pg.credit_metrics(batch, mask, returns, carry.kl_coef, unit)
        metrics |= reward_metrics(scores, rewards, mask)
        batch = batch.replace(response_mask=mask, token_rewards=rewards, advantages=whiten(returns, mask))
        return Credit(batch, carry, metrics)

    def weights(self, batch: Experience) -> Experience:
        """Every response token of the optimizer step weighs the same."""
        return pg.weighted(batch, "token_mean")

    def loss(self, batch: Experience, out: Outputs) -> Loss:
        """Clipped surrogate, plus the KL where it belongs to the loss."""
        assert out.logprobs is not None
        assert batch.old_logprobs is not None and batch.advantages is not None
        surrogate, clipped = clipped_policy_loss(
            out.logprobs, batch.old_logprobs, batch.advantages, self.clip, self.clip_high or self.clip
        )
        loss = pg.policy_loss(batch, out, surrogate, clipped)
        return pg.with_kl(loss, batch, out, self.kl_coef if self.kl_in_loss else 0.0, "k2")

    def _unit(self, batch: Experience, valid: Tensor, returns: Tensor, mask: Tensor) -> float | None:
        """Of `kl_metrics`: whitening divides a KL in the reward along with it, and a KL in the loss not."""
        if not self.kl_in_loss:
            return 1.0
        assert batch.rewards is not None and batch.group_ids is not None
        unit = reward_per_advantage(batch.rewards, batch.group_ids, valid, "none")
        return None if unit is None else unit * whitening_divisor(returns, mask)

    def _scores(self, batch: Experience, valid: Tensor) -> Tensor:
        scores = pg.scores(batch, self.missing_eos_penalty)
        if self.baseline == "none":
            return torch.where(valid, scores, 0.0)
        assert batch.group_ids is not None
        return compare(scores, batch.group_ids, valid).centred.to(scores.dtype)
