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
from dataclasses import replace
from typing import Literal, Self

import torch
from torch import Tensor

from plaudit.algorithms import policy_gradient as pg
from plaudit.algorithms.cautions import Caution, discounted, divided, forward_kl, short_for_lambda, that_hold
from plaudit.algorithms.metrics import (
    advantage_metrics,
    law_metrics,
    ratio_metrics,
    reward_metrics,
    value_metrics,
)
from plaudit.algorithms.parts import Discounted, EstimatedKL, WithCritic
from plaudit.algorithms.protocol import Credit, Phase, Signal, end_warm_up, warm_up
from plaudit.config.values import Count, NotNegative, Positive, Share, settings_value
from plaudit.errors import ConfigError
from plaudit.experience import Experience, Loss, Outputs
from plaudit.functional import advantages as adv
from plaudit.functional import kl as kl_estimators
from plaudit.functional import losses
from plaudit.functional.controllers import Carry, adapt_kl_coef
from plaudit.functional.scores import missing_eos, scale
from plaudit.functional.statistics import whiten, whitening_divisor
from plaudit.functional.weights import loss_weights

SCALED = ("scale", "normalize", "bounded")
"""Ways of reward_scaling that divide scores and not the KL."""
VALUE_COEF = 0.1
"""Default weight of the loss of a critic on the policy's trunk."""
RATIO_LIMIT = 10.0
"""A step over whose tokens the mean ratio is above this is not taken: the policy is no longer the one that sampled."""
KL_HORIZON = 10_000.0
"""Responses over which the adaptive kl_coef corrects a 20 % error by 20 % (Ziegler et al., section 2.2)."""
LENGTH_ALPHA = 0.05
"""Of gae_lambda "length": lambda = 1 - 1 / (alpha * length) (VAPO, arXiv:2504.05118, section 4.2)."""

Lambda = Share | Literal["length"]


@settings_value
class PPO(pg.UpdateSettings, EstimatedKL, Discounted, WithCritic):
    """Proximal policy optimisation with a critic, a reference model and the details that make it work."""

    epochs: Count = 4
    target_kl: NotNegative = 0.02
    dual_clip: NotNegative = 0.0
    """Bounds the loss at dual_clip * |A| for negative advantages; 3 is usual, 0 switches it off."""
    old_policy: Literal["start", "ref"] = "start"
    """Denominator of the ratio: the policy at the start of the update; ref (experimental): the reference, always."""
    kl_in: Literal["reward", "loss"] = "reward"
    """Where the KL counts: in the reward of each token, or as a term of the policy's loss."""
    kl_estimator: Literal["k1", "k2", "k3", "full", "k2_naive", "k3_naive"] = "k1"
    """In the reward: k1, or full (exact over the vocabulary, less noise, more time); k2 and k3 are other objectives.
    In the loss: k1, k2 or k3 with the gradient of KL(policy || reference) at each place, the tokens before it held
    fixed; naive: that of the estimator itself."""
    kl_target: NotNegative = 0.0
    """KL per response in nats that an adaptive kl_coef steers to; 0 keeps kl_coef fixed. 6 is classic."""
    missing_eos: Literal["subtract", "fixed", "mask", "bootstrap"] = "subtract"
    """A response cut by the length limit: subtract the penalty, let its score be minus the penalty, leave it out, or
    let the critic's value after the last token take the place of its score."""
    reward_scaling: Literal["none", "scale", "normalize", "bounded", "whiten"] = "normalize"
    """scale divides scores by their running std; normalize subtracts the running mean as well. bounded (PAR): by mean
    and std of the first iteration, then 2 tanh(z / 2), against a reward that is driven too far. whiten leaves scores,
    and divides the rewards of all tokens, KL included, by their std over the batch (as Ziegler et al.)."""
    reward_clip: NotNegative = 5.0
    """Scores are clipped to +- this after scaling; 0 switches it off. The KL part is never clipped."""
    gae_lambda: Lambda | tuple[Lambda, Share] = 0.95
    """Trades bias (0: trust the critic) for variance (1: trust the sampled return). length: grows with the response,
    1 - 1 / (0.05 * length). Two values: of the advantages, and of the critic's targets (VC-PPO: 0.95 and 1)."""
    whiten_advantages: Literal["batch", "minibatch", "none"] = "batch"
    """Give the advantages mean 0 and variance 1: over the responses of the iteration, or of one optimizer step."""
    advantage_clip: NotNegative = 0.0
    """Clip advantages to +- this after whitening; 0 switches it off."""
    value_clip: NotNegative = 0.2
    """Half-width of the critic's trust region, in units of the scaled reward; 0 switches it off."""
    entropy_coef: NotNegative = 0.0
    """Weight of the entropy bonus."""
    entropy_target: NotNegative | tuple[NotNegative, NotNegative] = 0.0
    """Above 0, the bonus pulls the entropy to this, in nats per token, from either side. Two values: the target, and by
    how much entropy_coef rises in an iteration below it, and falls above it, to 0 at least."""
    ptx_coef: NotNegative = 0.0
    """Weight of the loss on ptx_dataset in each step of the policy; 0 switches it off. 0.1 to 1 on SFT data."""
    ptx_dataset: str = ""
    """Demonstrations or plain texts that the policy must not forget: a file, a directory, or a hub name."""
    critic: Literal["reward", "sft", "trunk"] = "reward"
    """A model of its own that starts from the reward model (a decoder with the policy's tokenizer), or from the policy
    with a zero head; or a zero head on the policy's trunk: one pass trains both, in half the memory of two."""
    value_coef: NotNegative = VALUE_COEF
    """Weight of the critic's loss beside the policy's where they share a trunk."""
    critic_lr: Positive | Literal["auto"] = "auto"
    """Learning rate of the critic, which has its own optimizer; on the policy's trunk that of the head."""

    def __post_init__(self) -> None:
        for contradicts, name, what, cure in _contradictions(self):
            if contradicts:
                raise ConfigError(what, where=f"[algorithm] {name}", cure=cure)

    @property
    def cautions(self) -> tuple[str, ...]:
        """What is allowed and probably not meant, or shifts the optimum of reward and KL, in words for the user."""
        return that_hold(_cautions(self))

    def caution_at(self, tokens: float) -> str:
        """What gae_lambda = "length" comes to for responses of so many tokens; empty where they are long enough."""
        return short_for_lambda(tokens, LENGTH_ALPHA) if self._lambdas[0] == "length" else ""

    @property
    def critic_init(self) -> Literal["reward", "sft"]:
        """What the weights of a critic of its own start from."""
        return "reward" if self.critic == "reward" else "sft"

    @property
    def needs(self) -> frozenset[Signal]:
        """Old log-probs and values always; reference log-probs for the KL, which is measured even at kl_coef 0."""
        needs: set[Signal] = {"old_logprobs", "ref_logprobs", "values"}
        if self.kl_estimator == "full":
            needs.add("full_kl")
        if self.missing_eos == "bootstrap":
            needs.add("last_values")
        return frozenset(needs)

    def start(self) -> Carry:
        """The first coefficients and no reward seen yet."""
        return Carry(kl_coef=self.kl_coef, entropy_coef=self.entropy_coef)

    def while_critic_warms_up(self) -> Self:
        """While only the critic learns: sampled returns as targets, and no trust region. No coefficient adapts."""
        # A bad critic is no good target for itself, and it has to move far.
        lambdas = (self._lambdas[0], 1.0)
        return replace(self, gae_lambda=lambdas, value_clip=0.0, kl_target=0.0, entropy_target=self._entropy[0])

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
        metrics = reward_metrics(scores, rewards, mask)
        # What the reward is divided by and the KL is not: whitening divides a KL that is a part of the rewards as well.
        unit, beside = carry.reward.std if self.reward_scaling in SCALED else 1.0, self.kl_in == "loss"
        if self.reward_scaling == "whiten":
            unit = whitening_divisor(rewards, mask) if beside else 1.0
            # The mean stays: most tokens have no reward but a small KL, and a shift would reward mere length.
            rewards = whiten(rewards, mask, shift_mean=False)
        advantages, returns = self._advantages(batch, rewards, mask)
        if beside and self.whiten_advantages != "none":
            unit *= whitening_divisor(advantages, mask)
        metrics |= pg.kl_metrics(carry.kl_coef, unit)
        if self.kl_estimator == "full":
            advantages = advantages - in_reward * self._own_token(batch, mask)
        metrics |= law_metrics(batch, mask) | value_metrics(batch.values, returns, mask)
        metrics |= advantage_metrics(advantages, mask)
        if self._entropy[1]:
            metrics["policy/entropy_coef"] = carry.entropy_coef
        if self.whiten_advantages != "minibatch":
            # Here, on the whole batch: the mean over a microbatch would depend on how the batch is split.
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
        if self.whiten_advantages == "minibatch" and batch.advantages is not None:
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
            value = value - mean(pg.column(batch.entropy_coefs, self.entropy_coef) * out.entropy)
        if self.kl_in == "loss" and self.kl_estimator != "full":
            assert batch.ref_logprobs is not None
            kl = kl_estimators.kl_loss(
                out.logprobs, batch.old_logprobs, batch.ref_logprobs, *pg.kl_form(self.kl_estimator)
            )
            value = value + mean(pg.column(batch.kl_coefs, self.kl_coef) * kl)
            metrics["policy/kl_loss"] = mean(kl.detach())
        return Loss(value, metrics, maxima, {"policy/ratio_mean": RATIO_LIMIT})

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
        if batch.truncated is not None and self.missing_eos == "bootstrap":
            counted = counted & ~batch.truncated
        elif batch.truncated is not None and self.missing_eos != "bootstrap":
            scores = missing_eos(scores, batch.truncated, self.missing_eos, self.missing_eos_penalty)
            counted = ~scores.isnan()
        fixed = self.reward_scaling == "bounded" and carry.reward.count  # as the policy started
        moments = carry.reward if fixed else carry.reward.update(scores[counted].tolist())
        scaling = "none" if self.reward_scaling == "whiten" else self.reward_scaling
        used = torch.where(counted, scale(scores, moments, scaling, self.reward_clip), 0.0)
        return used, scores.isnan(), replace(carry, reward=moments)

    def _kl(self, batch: Experience) -> Tensor:
        assert batch.old_logprobs is not None and batch.ref_logprobs is not None
        if self.kl_estimator == "full":
            assert batch.full_kl is not None
            return batch.full_kl
        estimator, _ = pg.kl_form(self.kl_estimator)
        estimators = {"k1": kl_estimators.k1, "k2": kl_estimators.k2, "k3": kl_estimators.k3}
        return estimators[estimator](batch.old_logprobs, batch.ref_logprobs)

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
        if self.missing_eos == "bootstrap":
            assert batch.last_values is not None and batch.truncated is not None
            last = torch.where(batch.truncated, batch.last_values, 0.0)
        of_actor, of_critic = self._lambdas
        actor = adv.length_lambda(mask, LENGTH_ALPHA) if of_actor == "length" else of_actor
        advantages, returns = adv.gae(rewards, batch.values, mask, self.gamma, actor, last)
        if of_critic is not None:
            returns = adv.gae(rewards, batch.values, mask, self.gamma, of_critic, last)[1]
        return advantages, returns

    @property
    def _lambdas(self) -> tuple[float | Literal["length"], float | None]:
        """Lambda of the advantages and of the critic's targets; None: the same."""
        return self.gae_lambda if isinstance(self.gae_lambda, tuple) else (self.gae_lambda, None)

    @property
    def _entropy(self) -> tuple[float, float]:
        """The target of the entropy, and the step of its coefficient; 0: none."""
        return self.entropy_target if isinstance(self.entropy_target, tuple) else (self.entropy_target, 0.0)

    def _standardised(self, advantages: Tensor, mask: Tensor) -> Tensor:
        if self.whiten_advantages != "none":
            advantages = whiten(advantages, mask)
        if self.advantage_clip:
            advantages = advantages.clamp(-self.advantage_clip, self.advantage_clip)
        return advantages

    def _entropy_coefs(self, scores: Tensor, entropy: float, carry: Carry) -> Tensor | None:
        """Of each row: what is carried where it adapts; else the slope of ``coef |H - target|``, once an iteration."""
        target, step = self._entropy
        if step:
            return torch.full_like(scores, carry.entropy_coef)
        if not target:
            return None
        above = entropy > target
        return torch.full_like(scores, -self.entropy_coef if above else self.entropy_coef)

    def _adapted(self, carry: Carry, metrics: dict[str, float], episodes: int) -> Carry:
        if self.kl_target:
            kl, target = metrics["objective/kl"], self.kl_target
            carry = replace(carry, kl_coef=adapt_kl_coef(carry.kl_coef, kl, target, KL_HORIZON, episodes))
        aim, step = self._entropy
        if step:
            change = step if metrics["policy/entropy"] < aim else -step
            carry = replace(carry, entropy_coef=max(carry.entropy_coef + change, 0.0))
        return carry


# What no bound of a single setting can say: settings that contradict each other, or mean nothing together.


def _contradictions(ppo: PPO) -> list[tuple[bool, str, str, str]]:
    """Whether it is so, the setting, what is wrong, the cure."""
    in_loss = ppo.kl_in == "loss"
    return [
        (ppo.kl_target > 0 and not ppo.kl_coef, "kl_coef",
         "kl_target asks for an adaptive kl_coef, which cannot grow from 0",
         "set kl_coef to a start value such as 0.1, or kl_target to 0"),
        (0 < ppo.dual_clip <= 1, "dual_clip",
         f"dual_clip is {ppo.dual_clip}: it would bound every loss of a negative advantage",
         "use a number above 1, such as 3, or 0 to switch it off"),
        (in_loss and ppo.kl_estimator == "full", "kl_estimator",
         "the full KL is computed once, without a gradient, so it cannot be a loss",
         'use kl_in = "reward", or kl_estimator = "k3"'),
        (not in_loss and ppo.kl_estimator.endswith("_naive"), "kl_estimator",
         f"{ppo.kl_estimator} says how a KL in the loss is differentiated, and kl_in = 'reward'",
         'use kl_in = "loss", or kl_estimator = "k1"'),
        (ppo.kl_estimator == "full" and ppo.reward_scaling == "whiten", "reward_scaling",
         "whitened rewards have another unit than the KL of kl_estimator = full",
         "switch one of the two off"),
        (ppo._entropy[0] > 0 and not ppo.entropy_coef, "entropy_coef", "entropy_target needs a weight",
         "set entropy_coef, such as 0.01, or entropy_target to 0"),
        (ppo._entropy[1] > 0 and not ppo._entropy[0], "entropy_target",
         "the second value moves entropy_coef while the entropy is off the first, which is 0",
         "set the first in nats per token, or entropy_target to 0"),
        (ppo.critic == "trunk" and not ppo.value_coef, "value_coef",
         "value_coef is 0, so a critic on the policy's trunk would learn nothing",
         'use a weight above 0, such as 0.1, or critic = "sft"'),
        ((ppo.ptx_coef > 0) != bool(ppo.ptx_dataset), "ptx_dataset",
         "ptx_coef and ptx_dataset go together: a weight, and texts for it", "set both, or neither"),
    ]  # fmt: skip


def _cautions(ppo: PPO) -> list[Caution]:
    """What is allowed and probably not meant, or shifts where a KL leads."""
    in_loss, kl, scaled = ppo.kl_in == "loss", ppo.kl_estimator, ppo.reward_scaling in SCALED
    return [
        divided(scaled, f"reward_scaling {ppo.reward_scaling}", ppo.kl_coef, "reward_scaling none"),
        divided(in_loss and ppo.whiten_advantages != "none", "whiten_advantages", ppo.kl_coef, "kl_in reward"),
        discounted(ppo.gamma, ppo.kl_coef),
        forward_kl(in_loss and kl == "k3_naive"),
        (ppo.reward_scaling == "whiten",
         "whiten adds the mean token reward times 1 - 1/std to each token, so that the length counts by itself"),
        (bool(ppo.value_clip) and ppo.reward_scaling in ("none", "whiten"),
         f"value_clip {ppo.value_clip:g} is in units of the reward, which is not scaled: so "
         "the critic may learn slowly; use reward_scaling normalize, or value_clip 0"),
        (ppo.old_policy == "ref",
         "old_policy ref is an experiment of arXiv:2307.04964: steadier, and worse in the end"),
        (not in_loss and kl in ("k2", "k3"),
         f"{kl} in the reward does not have the gradient of the KL; k1 and full do"),
        (bool(ppo.entropy_coef) and not ppo.entropy_target and not ppo.clip,
         "an entropy bonus without clip has no bound"),
        (ppo.missing_eos in ("mask", "bootstrap") and ppo.missing_eos_penalty != pg.MISSING_EOS_PENALTY,
         f"missing_eos_penalty {ppo.missing_eos_penalty:g} has no effect with missing_eos {ppo.missing_eos}"),
        (ppo.critic != "trunk" and ppo.value_coef != VALUE_COEF,
         f"value_coef {ppo.value_coef:g} has no effect: critic {ppo.critic} is a model of its own, with critic_lr"),
        (not ppo.kl_coef, "kl_coef 0: nothing holds the policy near its reference but kl_limit"),
    ]  # fmt: skip
