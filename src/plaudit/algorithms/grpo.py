"""GRPO (Shao et al., arXiv:2402.03300) and Dr. GRPO (Liu et al., arXiv:2503.20783): responses against their group.

    A_i  = (score_i - mean of the prompt's responses) / (std + 1e-4)        Dr. GRPO: no division
    loss = mean of max(-A rho_t, -A clip(rho_t, 1 +- clip)) + kl_coef KL_t   Dr. GRPO: sum / (responses * length limit)

A group whose scores are all equal has advantages of exactly 0. The paper's loss is the mean over responses of the mean
over tokens, with the KL as k3 and its naive gradient; see `aggregation` and `kl_grad` for what is done here instead.
"""

from __future__ import annotations

from dataclasses import dataclass

from plaudit.algorithms import policy_gradient as pg
from plaudit.algorithms.protocol import Credit, Signal
from plaudit.experience import Experience, Loss, Outputs
from plaudit.functional.controllers import Carry
from plaudit.functional.groups import Scale
from plaudit.functional.kl import Estimator, Gradient
from plaudit.functional.losses import clipped_policy_loss
from plaudit.functional.weights import Aggregation


@dataclass(frozen=True, slots=True, kw_only=True)
class GRPO:
    """Each response against the mean and spread of its group; no critic, the KL in the loss."""

    group_size: int = 8
    """Responses sampled per prompt; at least 2."""
    epochs: int = 1
    """Passes over each batch of rollouts."""
    minibatches: int = 1
    """Optimizer steps per pass."""
    clip: float = 0.2
    """Half-width of the ratio's trust region."""
    clip_high: float = 0.0
    """Upper half-width where it differs (clip-higher); 0: the same as clip."""
    scale: Scale = "group"
    """What a score minus the group's mean is divided by: the group's standard deviation, which favours very easy and
    very hard prompts; the batch's; or nothing."""
    aggregation: Aggregation = "token_mean"
    """How the mean is taken. sequence_mean_token_mean is the paper's; it goes easy on long bad responses."""
    kl_coef: float = 0.04
    """Weight of the KL to the reference in the loss, per nat."""
    kl_estimator: Estimator = "k3"
    """k1, k2 or k3, see kl_grad."""
    kl_grad: Gradient = "unbiased"
    """unbiased: the gradient of the KL, whatever the estimator. naive: that of the estimator, as in the paper; for k3
    it belongs to the reverse KL, for k1 it is noise."""
    missing_eos_penalty: float = 0.0
    """Taken off the score of a response that ran into the length limit."""
    target_kl: float = 0.0
    """Inner epochs stop when the policy moved 1.5 times this from where it sampled (nats per token); 0: never."""

    def __post_init__(self) -> None:
        pg.check_counts(
            "GRPO", 2, group_size=self.group_size, epochs=self.epochs, minibatches=self.minibatches
        )

    @property
    def needs(self) -> frozenset[Signal]:
        """Old and reference log-probs."""
        return pg.needs(self.kl_coef)

    def start(self) -> Carry:
        """The KL coefficient."""
        return Carry(kl_coef=self.kl_coef)

    def credit(self, batch: Experience, carry: Carry) -> Credit:
        """Scores to advantages within the groups; failed rows are masked out and no part of a mean."""
        return pg.group_credit(batch, carry, pg.scores(batch, self.missing_eos_penalty), self.scale)

    def weights(self, batch: Experience) -> Experience:
        """As `aggregation` says."""
        return pg.weighted(batch, self.aggregation)

    def loss(self, batch: Experience, out: Outputs) -> Loss:
        """Clipped surrogate plus the KL."""
        assert out.logprobs is not None
        assert batch.old_logprobs is not None and batch.advantages is not None
        surrogate, clipped = clipped_policy_loss(
            out.logprobs, batch.old_logprobs, batch.advantages, self.clip, self.clip_high or self.clip
        )
        loss = pg.policy_loss(batch, out, surrogate, clipped)
        return pg.with_kl(loss, batch, out, self.kl_coef, self.kl_estimator, self.kl_grad)


@dataclass(frozen=True, slots=True, kw_only=True)
class DrGRPO:
    """GRPO without its two biases: no division by the group's spread, none by the response's own length."""

    group_size: int = 8
    """Responses sampled per prompt; at least 2."""
    epochs: int = 1
    """Passes over each batch of rollouts."""
    minibatches: int = 1
    """Optimizer steps per pass."""
    clip: float = 0.2
    """Half-width of the ratio's trust region."""
    kl_coef: float = 0.0
    """Weight of the KL to the reference in the loss (k3, unbiased gradient), per nat; the paper has none."""
    missing_eos_penalty: float = 0.0
    """Taken off the score of a response that ran into the length limit."""
    target_kl: float = 0.0
    """Inner epochs stop when the policy moved 1.5 times this from where it sampled (nats per token); 0: never."""

    def __post_init__(self) -> None:
        pg.check_counts(
            "Dr. GRPO", 2, group_size=self.group_size, epochs=self.epochs, minibatches=self.minibatches
        )

    @property
    def needs(self) -> frozenset[Signal]:
        """Old and reference log-probs."""
        return pg.needs(self.kl_coef)

    def start(self) -> Carry:
        """The KL coefficient."""
        return Carry(kl_coef=self.kl_coef)

    def credit(self, batch: Experience, carry: Carry) -> Credit:
        """Score minus the mean of the group."""
        return pg.group_credit(batch, carry, pg.scores(batch, self.missing_eos_penalty), "none")

    def weights(self, batch: Experience) -> Experience:
        """A sum over tokens, divided by a constant: responses times the length limit."""
        return pg.weighted(batch, "constant")

    def loss(self, batch: Experience, out: Outputs) -> Loss:
        """Clipped surrogate, and the KL where asked for."""
        assert out.logprobs is not None
        assert batch.old_logprobs is not None and batch.advantages is not None
        surrogate, clipped = clipped_policy_loss(
            out.logprobs, batch.old_logprobs, batch.advantages, self.clip, self.clip
        )
        return pg.with_kl(pg.policy_loss(batch, out, surrogate, clipped), batch, out, self.kl_coef)
