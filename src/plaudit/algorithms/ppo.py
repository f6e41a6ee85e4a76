"""PPO for language models (Schulman et al., arXiv:1707.06347; Ziegler et al., arXiv:1909.08593).

One step of credit, on the whole batch, and two losses, on each microbatch:

    r_t   = -kl_coef * (logp_old - logp_ref)_t, and on the last token + clip(normalise(score))   token_rewards
    A, R  = GAE(r, V_old; gamma, gae_lambda); A is whitened over the batch                        gae, whiten
    policy loss = mean_t max(-A rho, -A clip(rho, 1 +- clip)) - entropy_coef * entropy            eq. 7
    critic loss = mean_t 1/2 max((V - R)^2, (V_clipped - R)^2)

Each of the twelve details of PPO-max (Zheng et al., arXiv:2307.04964) is a setting that can be off; see
docs/algorithms/ppo.md for the list, and ppo_presets.py for the values of that paper and of its code.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, Self

import torch
from torch import Tensor

from plaudit.algorithms import ppo_checks
from plaudit.algorithms.metrics import (
    advantage_metrics,
    law_metrics,
    ratio_metrics,
    reward_metrics,
    value_metrics,
)
from plaudit.algorithms.protocol import Credit, Phase, Signal, end_warm_up, warm_up
from plaudit.experience import Experience, Loss, Outputs
from plaudit.functional import advantages as adv
from plaudit.functional import kl as kl_estimators
from plaudit.functional import losses
from plaudit.functional.controllers import Carry, adapt_kl_coef
from plaudit.functional.scores import missing_eos, scale
from plaudit.functional.statistics import whiten
from plaudit.functional.weights import loss_weights


@dataclass(frozen=True, slots=True, kw_only=True)
class PPO:
    """Proximal policy optimisation with a critic, a reference model and the details that make it work."""

    group_size: int = 1
    """Responses sampled per prompt."""
    epochs: int = 4
    """Passes over each batch of rollouts."""
    minibatches: int = 1
    """Optimizer steps per pass."""
    clip: float = 0.2
    """Half-width of the ratio's trust region; 0 switches the clip off."""
    clip_high: float = 0.0
    """Upper half-width where it differs (DAPO's clip-higher); 0: the same as clip."""
    dual_clip: float = 0.0
    """Bounds the loss at dual_clip * |A| for negative advantages; 3 is usual, 0 switches it off."""
    old_policy: Literal["start", "ref"] = "start"
    """Denominator of the ratio: the policy at the start of the update; ref (experimental): the reference, always."""
    kl_coef: float = 0.05
    """Weight of the KL to the reference, per nat; 0 switches it off."""
    kl_in: Literal["reward", "loss"] = "reward"
    """Where the KL counts: in the reward of each token, or as a term of the policy's loss."""
    kl_estimator: Literal["k1", "k2", "k3", "full"] = "k1"
    """In the reward: k1, or full (exact over the vocabulary, less noise, more time); k2 and k3 are other objectives.
    In the loss: k2 or k3."""
    kl_grad: Literal["naive", "unbiased"] = "unbiased"
    """Gradient of a KL in the loss: that of KL(policy || reference); naive: of the estimator as it stands."""
    kl_target: float = 0.0
    """KL per response in nats that an adaptive kl_coef steers to; 0 keeps kl_coef fixed. 6 is classic."""
    kl_horizon: float = 10_000.0
    """Responses over which the adaptive kl_coef corrects a 20 % error by 20 %."""
    missing_eos: Literal["subtract", "fixed", "mask"] = "subtract"
    """A response cut by the length limit: subtract the penalty, let its score be minus the penalty, or leave it out."""
    missing_eos_penalty: float = 1.0
    """What subtract takes off the score, and what fixed puts in its place with a minus; before any scaling."""
    bootstrap_truncated: bool = False
    """The critic's value after the last token replaces the score of a response cut by the length limit."""
    reward_scaling: Literal["none", "scale", "normalize"] = "normalize"
    """scale divides scores by their running std; normalize subtracts the running mean as well."""
    reward_clip: float = 5.0
    """Scores are clipped to +- this after scaling; 0 switches it off. The KL part is never clipped."""
    whiten_rewards: bool = False
    """Divide the rewards of all tokens, KL included, by their std over the batch (as Ziegler et al.)."""
    gamma: float = 1.0
    """Discount per token."""
    gae_lambda: float = 0.95
    """Trades bias (0: trust the critic) for variance (1: trust the sampled return)."""
    critic_lambda: float | Literal["auto"] = "auto"
    """The lambda of the critic's targets; auto: that of the advantages. 1 for long responses (VC-PPO)."""
    lambda_alpha: float = 0.0
    """Above 0, lambda grows with the response: 1 - 1 / (lambda_alpha * length), instead of gae_lambda."""
    whiten_advantages: bool = True
    """Give the advantages mean 0 and variance 1."""
    whiten_scope: Literal["batch", "minibatch"] = "batch"
    """Over which responses advantages are whitened: all of the iteration, or those of one optimizer step."""
    advantage_clip: float = 0.0
    """Clip advantages to +- this after whitening; 0 switches it off."""
    value_clip: float = 0.2
    """Half-width of the critic's trust region, in units of the scaled reward; 0 switches it off."""
    entropy_coef: float = 0.0
    """Weight of the entropy bonus."""
    entropy_target: float = 0.0
    """Above 0, the bonus pulls the entropy to this, in nats per token, from either side."""
    entropy_step: float = 0.0
    """Above 0, entropy_coef rises by this in an iteration below entropy_target, and falls above it, to 0 at least."""
    ptx_coef: float = 0.0
    """Weight of the loss on ptx_dataset in each step of the policy; 0 switches it off. 0.1 to 1 on SFT data."""
    ptx_dataset: str = ""
    """Demonstrations or plain texts that the policy must not forget: a file, a directory, or a hub name."""
    target_kl: float = 0.02
    """Inner epochs stop when the policy moved 1.5 times this from where it sampled (nats per token); 0: never."""
    ratio_limit: float = 10.0
    """A step over whose tokens the mean ratio is above this is not taken; 0 switches it off."""
    critic: Literal["separate", "trunk"] = "separate"
    """A model of its own, or a value head on the policy's trunk: one pass trains both, in half the memory of two."""
    value_coef: float = 0.1
    """Weight of the critic's loss beside the policy's where they share a trunk."""
    critic_lr: float = 1e-5
    """Learning rate of the critic, which has its own optimizer; on the policy's trunk that of the head."""
    critic_init: Literal["reward", "sft"] = "reward"
    """Start the critic from the reward model (a decoder with the policy's tokenizer), or the policy and a zero head.
    On the policy's trunk it starts with a zero head."""
    critic_warmup: int = 5
    """Iterations at the start in which only the critic learns, fewer once it explains half the variance."""

    def __post_init__(self) -> None:
        ppo_checks.refuse_impossible(self)

    @property
    def cautions(self) -> tuple[str, ...]:
        """What is allowed and probably not meant, in words for the user."""
        return ppo_checks.cautions(self)

    @property
    def needs(self) -> frozenset[Signal]:
        """Old log-probs and values always; reference log-probs for the KL, which is measured even at kl_coef 0."""
        needs: set[Signal] = {"old_logprobs", "ref_logprobs", "values"}
        if self.kl_estimator == "full":
            needs.add("full_kl")
        if self.bootstrap_truncated:
            needs.add("last_values")
        return frozenset(needs)

    def start(self) -> Carry:
        """The first coefficients and no reward seen yet."""
        return Carry(kl_coef=self.kl_coef, entropy_coef=self.entropy_coef)

    def while_critic_warms_up(self) -> Self:
        """While only the critic learns: sampled returns as targets, and no trust region. No coefficient adapts."""
        return replace(self, critic_lambda=1.0, value_clip=0.0, kl_target=0.0, entropy_step=0.0)

    def phase(self, iteration: int, carry: Carry) -> Phase:
        """At first only the critic learns: advantages from a critic that knows nothing would be noise."""
        return warm_up(self, self.while_critic_warms_up(), iteration, carry)

    def after(self, iteration: int, carry: Carry, metrics: Mapping[str, float]) -> Carry:
        """The warm-up ends early once the critic explains half the variance."""
        return end_warm_up(self, iteration, carry, metrics)

    def credit(self, batch: Experience, carry: Carry) -> Credit:
        """Score -> per-token reward -> advantages and returns. Rows whose scoring failed are masked out."""
        assert batch.rewards is not None and batch.values is not None and batch.old_logprobs is not None
        scores, failed, carry = self._scores(batch, carry)
        mask = batch.response_mask & ~failed[:, None]
        kl, in_reward = self._kl(batch), carry.kl_coef if self.kl_in == "reward" else 0.0
        rewards = adv.token_rewards(scores, kl, in_reward, mask)
        metrics = {"objective/kl_coef": carry.kl_coef} | reward_metrics(scores, rewards, mask)
        if self.whiten_rewards:
            rewards = whiten(rewards, mask, shift_mean=False)
        advantages, returns = self._advantages(batch, rewards, mask)
        if self.kl_estimator == "full":
            advantages = advantages - in_reward * self._own_token(batch, mask)
        metrics |= law_metrics(batch, mask) | value_metrics(batch.values, returns, mask)
        metrics |= advantage_metrics(advantages, mask)
        if self.entropy_step:
            metrics["policy/entropy_coef"] = carry.entropy_coef
        if self.whiten_scope == "batch":
            advantages = self._standardised(advantages, mask)
            metrics |= advantage_metrics(advantages, mask, "_used")
        batch = batch.replace(
            response_mask=mask, token_rewards=rewards, advantages=advantages, returns=returns,
            entropy_coefs=self._entropy_coefs(scores, metrics["policy/entropy"], carry),
            kl_coefs=torch.full_like(scores, carry.kl_coef) if self.kl_target else None,
        )  # fmt: skip
        return Credit(batch, self._adapted(carry, metrics, int((~failed).sum())), metrics)

    def weights(self, batch: Experience) -> Experience:
        """Every response token of the optimizer step weighs the same."""
        if self.whiten_scope == "minibatch" and batch.advantages is not None:
            batch = batch.replace(advantages=self._standardised(batch.advantages, batch.response_mask))
        return batch.replace(loss_weights=loss_weights(batch.response_mask, "token_mean"))

    def loss(self, batch: Experience, out: Outputs) -> Loss:
        """Clipped surrogate, minus the entropy bonus, plus the KL where it is a part of the loss."""
        assert out.logprobs is not None and out.entropy is not None
        assert batch.old_logprobs is not None and batch.advantages is not None
        mean, low = batch.weighted_sum, self.clip or math.inf
        old = batch.ref_logprobs if self.old_policy == "ref" else batch.old_logprobs
        assert old is not None
        surrogate, clipped = losses.clipped_policy_loss(
            out.logprobs, old, batch.advantages, low, self.clip_high or low
        )
        # The step from where it sampled is measured from there, whatever the ratio's denominator is.
        metrics, maxima = ratio_metrics(batch, out, clipped, batch.old_logprobs)
        if self.dual_clip:
            bounded = losses.dual_clip(surrogate, batch.advantages, self.dual_clip)
            metrics["policy/dual_clip_fraction"] = mean((bounded < surrogate).float())
            surrogate = bounded
        if batch.mismatch_weights is not None:
            surrogate = surrogate * batch.mismatch_weights
        value = mean(surrogate)
        metrics["policy/loss"] = value.detach()
        if self.entropy_coef:
            value = value - mean(_column(batch.entropy_coefs, self.entropy_coef) * out.entropy)
        if self.kl_in == "loss" and self.kl_estimator != "full":
            assert batch.ref_logprobs is not None
            kl = kl_estimators.kl_loss(
                out.logprobs, batch.old_logprobs, batch.ref_logprobs, self.kl_estimator, self.kl_grad
            )
            value = value + mean(_column(batch.kl_coefs, self.kl_coef) * kl)
            metrics["policy/kl_loss"] = mean(kl.detach())
        return Loss(
            value, metrics, maxima, {"policy/ratio_mean": self.ratio_limit} if self.ratio_limit else {}
        )

    def value_loss(self, batch: Experience, out: Outputs) -> Loss:
        """Clipped squared error of the critic."""
        assert out.values is not None and batch.values is not None and batch.returns is not None
        error, clipped = losses.value_loss(out.values, batch.values, batch.returns, self.value_clip)
        mean = batch.weighted_sum
        value = mean(error)
        return Loss(value, {"critic/loss": value.detach(), "critic/clip_fraction": mean(clipped.float())})

    def joint_loss(self, batch: Experience, out: Outputs) -> Loss:
        """Policy loss + ``value_coef`` * critic loss, of one pass through a trunk that both share (eq. 9)."""
        policy, critic = self.loss(batch, out), self.value_loss(batch, out)
        value = policy.value + self.value_coef * critic.value
        return Loss(value, policy.metrics | critic.metrics, policy.maxima, policy.limits)

    def ptx_loss(self, batch: Experience, out: Outputs) -> Loss:
        """``ptx_coef`` times the mean negative log-likelihood of texts not to forget (arXiv:2203.02155, eq. 2)."""
        assert out.logprobs is not None
        nll = batch.weighted_sum(-out.logprobs)
        return Loss(self.ptx_coef * nll, {"policy/ptx_loss": nll.detach()})

    def _scores(self, batch: Experience, carry: Carry) -> tuple[Tensor, Tensor, Carry]:
        """Scores as used, rows that take part in nothing, and the carry whose moments have seen these scores."""
        assert batch.rewards is not None
        scores, counted = batch.rewards, ~batch.rewards.isnan()
        if batch.truncated is not None and self.bootstrap_truncated:
            counted = counted & ~batch.truncated
        elif batch.truncated is not None:
            scores = missing_eos(scores, batch.truncated, self.missing_eos, self.missing_eos_penalty)
            counted = ~scores.isnan()
        moments = carry.reward.update(scores[counted].tolist())
        used = torch.where(counted, scale(scores, moments, self.reward_scaling, self.reward_clip), 0.0)
        return used, scores.isnan(), replace(carry, reward=moments)

    def _kl(self, batch: Experience) -> Tensor:
        assert batch.old_logprobs is not None and batch.ref_logprobs is not None
        if self.kl_estimator == "full":
            assert batch.full_kl is not None
            return batch.full_kl
        estimate: Tensor = getattr(kl_estimators, self.kl_estimator)(batch.old_logprobs, batch.ref_logprobs)
        return estimate

    def _own_token(self, batch: Experience, mask: Tensor) -> Tensor:
        """``k1 - full``, ``[B, T]``: the part of the KL penalty that depends on the token itself.

        The exact KL of a position is an expectation over all tokens, the same whichever token was drawn there: as a
        reward it acts on the tokens before. For the drawn token itself the sampled k1 is needed.
        """
        assert batch.old_logprobs is not None and batch.ref_logprobs is not None and batch.full_kl is not None
        return torch.where(
            mask, kl_estimators.k1(batch.old_logprobs, batch.ref_logprobs) - batch.full_kl, 0.0
        )

    def _advantages(self, batch: Experience, rewards: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Advantages before whitening, and the critic's targets."""
        assert batch.values is not None
        last = None
        if self.bootstrap_truncated:
            assert batch.last_values is not None and batch.truncated is not None
            last = torch.where(batch.truncated, batch.last_values, 0.0)
        actor = adv.length_lambda(mask, self.lambda_alpha) if self.lambda_alpha else self.gae_lambda
        advantages, returns = adv.gae(rewards, batch.values, mask, self.gamma, actor, last)
        if self.critic_lambda != "auto":
            returns = adv.gae(rewards, batch.values, mask, self.gamma, self.critic_lambda, last)[1]
        return advantages, returns

    def _standardised(self, advantages: Tensor, mask: Tensor) -> Tensor:
        if self.whiten_advantages:
            advantages = whiten(advantages, mask)
        if self.advantage_clip:
            advantages = advantages.clamp(-self.advantage_clip, self.advantage_clip)
        return advantages

    def _entropy_coefs(self, scores: Tensor, entropy: float, carry: Carry) -> Tensor | None:
        """Of each row: what is carried where it adapts; else the slope of ``coef |H - target|``, once an iteration."""
        if self.entropy_step:
            return torch.full_like(scores, carry.entropy_coef)
        if not self.entropy_target:
            return None
        above = entropy > self.entropy_target
        return torch.full_like(scores, -self.entropy_coef if above else self.entropy_coef)

    def _adapted(self, carry: Carry, metrics: dict[str, float], episodes: int) -> Carry:
        if self.kl_target:
            kl, target = metrics["objective/kl"], self.kl_target
            carry = replace(
                carry, kl_coef=adapt_kl_coef(carry.kl_coef, kl, target, self.kl_horizon, episodes)
            )
        if self.entropy_step:
            step = (
                self.entropy_step if metrics["policy/entropy"] < self.entropy_target else -self.entropy_step
            )
            carry = replace(carry, entropy_coef=max(carry.entropy_coef + step, 0.0))
        return carry


def _column(rows: Tensor | None, constant: float) -> Tensor | float:
    """A coefficient that the batch brings, one a row ``[B, 1]``; else the constant."""
    return constant if rows is None else rows[:, None]
