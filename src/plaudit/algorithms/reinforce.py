"""REINFORCE (Williams 1992), with the classical baselines, for language models (Ahmadian et al., arXiv:2402.14740).

    r_t  = -kl_coef (logp_old - logp_ref)_t, and on the last token + score
    G_t  = sum_{s >= t} gamma^(s-t) r_s             rewards-to-go; or the full return G_0 on every token
    loss = -1/N sum_i sum_t (G_t - b) logp_t        the unbiased gradient: a sum over tokens, a mean over responses

Any baseline b that does not depend on the token taken leaves the gradient's mean alone and lowers its variance. One
optimizer step is taken per batch, since there is no importance ratio for a second one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from plaudit.algorithms import cautions
from plaudit.algorithms import policy_gradient as pg
from plaudit.algorithms.metrics import reward_metrics, value_metrics
from plaudit.algorithms.parts import Discounted, NearReference, WithCritic
from plaudit.algorithms.protocol import Credit, Phase, Signal, end_warm_up, warm_up
from plaudit.config.values import settings_value
from plaudit.experience import Experience, Loss, Outputs
from plaudit.functional import advantages as adv
from plaudit.functional.controllers import Carry
from plaudit.functional.losses import value_loss
from plaudit.functional.statistics import masked_mean

EMA_DECAY = 0.99
"""Share of the old value that baseline ema keeps: it is the mean of about the last hundred batches."""


@settings_value
class REINFORCE(pg.SampledSettings, NearReference, Discounted, WithCritic):
    """Policy gradient with the return and a baseline, one step a batch: the simplest method, and unbiased."""

    rewards_to_go: bool = True
    """Weigh a token by what came after it only, not by the whole return: the same mean, less variance."""
    baseline: Literal["none", "mean", "ema", "greedy", "value"] = "mean"
    """Taken off the return. mean: of the batch. ema: running mean of earlier batches. greedy: reward of the most
    likely response to the prompt, one more sample each (ReMax). value: a critic, as PPO's is by default."""

    # One step a batch: after it the samples are no longer the policy's, and there is no ratio that would correct this.
    epochs: ClassVar[int] = 1
    minibatches: ClassVar[int] = 1
    target_kl: ClassVar[float] = 0.0
    # The critic of baseline value. Who wants to tune a critic wants PPO.
    critic_lr: ClassVar[Literal["auto"]] = "auto"
    critic_init: ClassVar[Literal["reward", "sft"]] = "reward"

    @property
    def cautions(self) -> tuple[str, ...]:
        """Why a run ends elsewhere than at the optimum of reward and KL, in words for the user."""
        return cautions.that_hold([cautions.discounted(self.gamma, self.kl_coef)])

    @property
    def needs(self) -> frozenset[Signal]:
        """Log-probs; values or greedy rewards where the baseline is made of them."""
        extra: dict[str, frozenset[Signal]] = {
            "value": frozenset({"values"}),
            "greedy": frozenset({"greedy_rewards"}),
        }
        return pg.NEEDS | extra.get(self.baseline, frozenset())

    def start(self) -> Carry:
        """No reward seen yet."""
        return Carry(kl_coef=self.kl_coef)

    def phase(self, iteration: int, carry: Carry) -> Phase:
        """At first only the critic of baseline value learns; its targets are sampled returns, then and later."""
        return warm_up(self, self, iteration, carry)

    def after(self, iteration: int, carry: Carry, metrics: Mapping[str, float]) -> Carry:
        """The warm-up ends early once the critic explains half the variance."""
        return end_warm_up(self, iteration, carry, metrics)

    def credit(self, batch: Experience, carry: Carry) -> Credit:
        """Score -> per-token reward -> returns minus baseline. Rows whose scoring failed are masked out."""
        assert batch.old_logprobs is not None and batch.ref_logprobs is not None
        valid, mask = self._counted(batch)
        scores = torch.where(valid, pg.scores(batch, self.missing_eos_penalty), 0.0)
        kl = batch.old_logprobs - batch.ref_logprobs
        rewards = adv.token_rewards(scores, kl, carry.kl_coef, mask)
        returns = adv.rewards_to_go(rewards, mask, self.gamma)
        whole = returns.gather(-1, mask.int().argmax(-1, keepdim=True)).squeeze(-1)
        weight = returns if self.rewards_to_go else whole[:, None].expand_as(returns)
        mean = float(masked_mean(whole, valid))
        advantages = torch.where(mask, weight - self._baseline(batch, carry, mean), 0.0)
        metrics = pg.credit_metrics(batch, mask, advantages, carry.kl_coef)
        metrics |= reward_metrics(scores, rewards, mask)
        if batch.values is not None:
            metrics |= value_metrics(batch.values, returns, mask)
        if self.baseline == "ema":
            old = mean if carry.baseline is None else carry.baseline
            carry = replace(carry, baseline=EMA_DECAY * old + (1 - EMA_DECAY) * mean)
        batch = batch.replace(
            response_mask=mask, token_rewards=rewards, advantages=advantages, returns=returns
        )
        return Credit(batch, carry, metrics)

    def weights(self, batch: Experience) -> Experience:
        """Sum over the tokens of a response, mean over the responses of the optimizer step."""
        return pg.weighted(batch, "sequence_mean_token_sum")

    def loss(self, batch: Experience, out: Outputs) -> Loss:
        """``-(G_t - b) logp``."""
        assert out.logprobs is not None and batch.advantages is not None
        never = torch.zeros_like(batch.response_mask)
        return pg.policy_loss(batch, out, -batch.advantages * out.logprobs, never)

    def value_loss(self, batch: Experience, out: Outputs) -> Loss:
        """Halved squared error of the critic of baseline value, mean over tokens."""
        assert out.values is not None and batch.returns is not None
        error, _ = value_loss(out.values, batch.returns, batch.returns, 0.0)
        value = batch.token_mean(error)
        return Loss(value, {"critic/loss": value.detach()})

    def _counted(self, batch: Experience) -> tuple[Tensor, Tensor]:
        """Rows that were scored, and whose greedy response was, where that is the baseline."""
        valid, mask = pg.counted(batch)
        if self.baseline == "greedy":
            assert batch.greedy_rewards is not None
            valid = valid & ~batch.greedy_rewards.isnan()
        return valid, mask & valid[:, None]

    def _baseline(self, batch: Experience, carry: Carry, mean: float) -> Tensor | float:
        """What is taken off every return of a row: a number, ``[B, 1]``, or ``[B, T]``."""
        if self.baseline == "mean" or (self.baseline == "ema" and carry.baseline is None):
            return mean
        if self.baseline == "ema":
            assert carry.baseline is not None
            return carry.baseline
        if self.baseline == "value":
            assert batch.values is not None
            return batch.values
        if self.baseline == "greedy":
            assert batch.greedy_rewards is not None and batch.greedy_truncated is not None
            return (batch.greedy_rewards - self.missing_eos_penalty * batch.greedy_truncated)[:, None]
        return 0.0
