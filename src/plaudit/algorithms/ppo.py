"""PPO for language models (Schulman et al., arXiv:1707.06347; Ziegler et al., arXiv:1909.08593).

One step of credit, on the whole batch, and two losses, on each microbatch:

    r_t   = -kl_coef * (logp_old - logp_ref)_t, and on the last token + clip(normalise(score))   token_rewards
    A, R  = GAE(r, V_old; gamma, gae_lambda); A is whitened over the batch                        gae, whiten
    policy loss = mean_t max(-A rho, -A clip(rho, 1 +- clip)) - entropy_coef * entropy            eq. 7
    critic loss = mean_t 1/2 max((V - R)^2, (V_clipped - R)^2)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from plaudit.algorithms.protocol import Credit, Signal
from plaudit.errors import ConfigError
from plaudit.experience import Experience, Loss, Outputs
from plaudit.functional import advantages as adv
from plaudit.functional import kl as kl_estimators
from plaudit.functional import losses
from plaudit.functional.controllers import Carry, adapt_kl_coef
from plaudit.functional.statistics import explained_variance, masked_mean, masked_var, whiten
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
    """Half-width of the ratio's trust region."""
    clip_high: float = 0.0
    """Upper half-width where it differs (DAPO's clip-higher); 0: the same as clip."""
    dual_clip: float = 0.0
    """Bounds the loss at dual_clip * |A| for negative advantages; 3 is usual, 0 switches it off."""
    kl_coef: float = 0.05
    """Weight of the KL to the reference in the reward, per nat."""
    kl_estimator: Literal["k1", "k3"] = "k1"
    """k1 has the gradient of the KL when it is part of the reward; k3 is another objective."""
    kl_target: float = 0.0
    """KL per response in nats that an adaptive kl_coef steers to; 0 keeps kl_coef fixed. 6 is classic."""
    kl_horizon: float = 10_000.0
    """Responses over which the adaptive kl_coef corrects a 20 % error by 20 %."""
    missing_eos_penalty: float = 1.0
    """Taken off the score of a response that ran into the length limit."""
    reward_scaling: Literal["none", "scale", "normalize"] = "normalize"
    """scale divides scores by their running std; normalize subtracts the running mean as well."""
    reward_clip: float = 5.0
    """Scores are clipped to +- this after scaling; 0 switches it off. The KL part is never clipped."""
    gamma: float = 1.0
    """Discount per token."""
    gae_lambda: float = 0.95
    """Trades bias (0: trust the critic) for variance (1: trust the sampled return)."""
    whiten_advantages: bool = True
    """Give the advantages of a batch mean 0 and variance 1."""
    advantage_clip: float = 0.0
    """Clip advantages to +- this after whitening; 0 switches it off."""
    value_clip: float = 0.2
    """Half-width of the critic's trust region, in units of the scaled reward; 0 switches it off."""
    entropy_coef: float = 0.0
    """Weight of the entropy bonus."""
    target_kl: float = 0.02
    """Inner epochs stop when the policy moved 1.5 times this from where it sampled (nats per token); 0: never."""
    critic_lr: float = 1e-5
    """Learning rate of the critic, which has its own optimizer."""
    critic_init: Literal["reward", "sft"] = "reward"
    """Start the critic from the reward model (a decoder with the policy's tokenizer), or the policy and a zero head."""
    critic_warmup: int = 5
    """Iterations at the start in which only the critic learns."""

    def __post_init__(self) -> None:
        if self.group_size < 1 or self.epochs < 1 or self.minibatches < 1:
            raise ConfigError(
                f"group_size, epochs and minibatches must be at least 1, found "
                f"{self.group_size}, {self.epochs}, {self.minibatches}",
                where="[algorithm]",
                cure="set them to 1 or more",
            )
        if self.kl_target > 0 and self.kl_coef <= 0:
            raise ConfigError(
                "kl_target asks for an adaptive kl_coef, which cannot grow from 0",
                where="[algorithm] kl_coef",
                cure="set kl_coef to a start value such as 0.1, or kl_target to 0",
            )

    @property
    def needs(self) -> frozenset[Signal]:
        """Old log-probs and values always; reference log-probs for the KL, which is measured even at kl_coef 0."""
        return frozenset({"old_logprobs", "ref_logprobs", "values"})

    def start(self) -> Carry:
        """The first KL coefficient and no reward seen yet."""
        return Carry(kl_coef=self.kl_coef)

    def credit(self, batch: Experience, carry: Carry) -> Credit:
        """Score -> per-token reward -> advantages and returns. Rows whose scoring failed are masked out."""
        assert batch.rewards is not None and batch.values is not None
        assert batch.old_logprobs is not None and batch.ref_logprobs is not None
        failed = batch.rewards.isnan()
        mask = batch.response_mask & ~failed[:, None]
        scores, carry = self._scale(self._penalise(batch), failed, carry)
        estimate = getattr(kl_estimators, self.kl_estimator)
        rewards = adv.token_rewards(scores, estimate(batch.old_logprobs, batch.ref_logprobs), carry.kl_coef, mask)
        advantages, returns = adv.gae(rewards, batch.values, mask, self.gamma, self.gae_lambda)
        metrics = self._metrics(batch, mask, rewards, scores, advantages, returns, carry)
        if self.whiten_advantages:
            advantages = whiten(advantages, mask)
        if self.advantage_clip:
            advantages = advantages.clamp(-self.advantage_clip, self.advantage_clip)
        if self.kl_target:
            coefficient = adapt_kl_coef(
                carry.kl_coef, metrics["objective/kl"], self.kl_target, self.kl_horizon, int((~failed).sum())
            )
            carry = replace(carry, kl_coef=coefficient)
        batch = batch.replace(
            response_mask=mask, token_rewards=rewards, advantages=advantages * mask, returns=returns
        )
        return Credit(batch, carry, metrics)

    def weights(self, batch: Experience) -> Experience:
        """Every response token of the optimizer step weighs the same."""
        return batch.replace(loss_weights=loss_weights(batch.response_mask, "token_mean"))

    def loss(self, batch: Experience, out: Outputs) -> Loss:
        """Clipped surrogate minus the entropy bonus."""
        assert out.logprobs is not None and out.entropy is not None
        assert batch.old_logprobs is not None and batch.advantages is not None
        surrogate, clipped = losses.clipped_policy_loss(
            out.logprobs, batch.old_logprobs, batch.advantages, self.clip, self.clip_high or self.clip
        )
        if self.dual_clip:
            surrogate = losses.dual_clip(surrogate, batch.advantages, self.dual_clip)
        mean = batch.weighted_sum
        log_ratio = losses.log_ratio(out.logprobs, batch.old_logprobs).detach()
        metrics = {
            "policy/loss": mean(surrogate.detach()),
            "policy/entropy": mean(out.entropy.detach()),
            "policy/clip_fraction": mean(clipped.float()),
            "policy/approx_kl": mean(torch.expm1(log_ratio) - log_ratio),
            "policy/ratio_mean": mean(log_ratio.exp()),
        }
        ratio_max = torch.where(batch.response_mask, log_ratio, -20.0).exp().max()
        value = mean(surrogate) - self.entropy_coef * mean(out.entropy)
        return Loss(value, metrics, {"policy/ratio_max": ratio_max})

    def value_loss(self, batch: Experience, out: Outputs) -> Loss:
        """Clipped squared error of the critic."""
        assert out.values is not None and batch.values is not None and batch.returns is not None
        error, clipped = losses.value_loss(out.values, batch.values, batch.returns, self.value_clip)
        mean = batch.weighted_sum
        value = mean(error)
        return Loss(value, {"critic/loss": value.detach(), "critic/clip_fraction": mean(clipped.float())})

    def _penalise(self, batch: Experience) -> Tensor:
        assert batch.rewards is not None
        if batch.truncated is None:
            return batch.rewards
        return batch.rewards - self.missing_eos_penalty * batch.truncated

    def _scale(self, scores: Tensor, failed: Tensor, carry: Carry) -> tuple[Tensor, Carry]:
        """Scores scaled by the running moments (which see them first) and clipped; failed rows become 0."""
        moments = carry.reward.update(scores[~failed].tolist())
        if self.reward_scaling != "none":
            center = moments.mean if self.reward_scaling == "normalize" else 0.0
            scores = (scores - center) / moments.std
        if self.reward_clip:
            scores = scores.clamp(-self.reward_clip, self.reward_clip)
        return torch.where(failed, 0.0, scores), replace(carry, reward=moments)

    def _metrics(
        self, batch: Experience, mask: Tensor, rewards: Tensor, scores: Tensor, advantages: Tensor,
        returns: Tensor, carry: Carry,
    ) -> dict[str, float]:  # fmt: skip
        assert batch.old_logprobs is not None and batch.ref_logprobs is not None and batch.values is not None
        rows = mask.any(-1)
        gap = torch.where(mask, batch.old_logprobs - batch.ref_logprobs, 0.0)
        sampled = torch.where(mask, -batch.old_logprobs, 0.0)
        metrics = {
            "objective/kl": masked_mean(gap.sum(-1), rows),
            "objective/kl_tok": masked_mean(gap, mask),
            "objective/entropy": masked_mean(sampled.sum(-1), rows),
            "objective/rlhf_reward": masked_mean(rewards.sum(-1), rows),
            "objective/non_score_reward": masked_mean(rewards.sum(-1) - scores, rows),
            "policy/entropy": masked_mean(sampled, mask),  # an estimate, replaced by the exact one after an update
            "policy/advantages_mean": masked_mean(advantages, mask),
            "policy/advantages_std": masked_var(advantages, mask).sqrt(),
            "critic/explained_variance": explained_variance(batch.values, returns, mask),
            "critic/value_mean": masked_mean(batch.values, mask),
            "critic/returns_mean": masked_mean(returns, mask),
        }
        return {"objective/kl_coef": carry.kl_coef} | {name: float(value) for name, value in metrics.items()}
