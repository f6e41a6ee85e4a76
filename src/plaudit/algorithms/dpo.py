"""Preferences without a reward model, against a frozen reference: DPO, IPO, hinge.

With the gap of a pair, ``(logp_w - ref_w) - (logp_l - ref_l)``, log-probs summed over the response:

    DPO    -log sigma(beta gap)                 Rafailov et al., arXiv:2305.18290, eq. 7
    IPO    (gap - 1 / (2 beta))^2               Azar et al., arXiv:2310.12036, eq. 17
    hinge  max(0, 1 - beta gap)                 the loss of SLiC, Zhao et al., arXiv:2305.10425
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from plaudit.algorithms.protocol import Signal
from plaudit.errors import ConfigError
from plaudit.experience import Loss, Outputs, Pairs
from plaudit.functional import preference_losses as losses
from plaudit.records import Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class DPO:
    """Direct preference optimisation: the reward model is the policy itself, measured against its start."""

    beta: float = 0.1
    """Strength of the KL to the reference that is implied: smaller lets the policy go further."""
    label_smoothing: float = 0.0
    """Assumed share of preferences that are wrong, in [0, 0.5): conservative DPO."""
    robust: bool = False
    """Correct for label_smoothing without bias instead of smoothing (arXiv:2403.00409)."""
    use_agreement: bool = True
    """Use the share of annotators who agreed as soft target instead of 1."""

    needs: ClassVar[frozenset[Signal]] = frozenset({"ref_logprobs"})
    learns_from: ClassVar[Kind] = "preference"

    def __post_init__(self) -> None:
        check_positive(self.beta, "beta")
        if not 0 <= self.label_smoothing < 0.5:
            raise ConfigError(
                f"label_smoothing must be in [0, 0.5), found {self.label_smoothing}",
                where="[algorithm] label_smoothing",
                cure="give the share of preferences you expect to be wrong, e.g. 0.1",
            )
        if self.robust and not self.label_smoothing:
            raise ConfigError(
                "robust corrects for a known share of wrong preferences, and label_smoothing says there are none",
                where="[algorithm] robust",
                cure="set label_smoothing to that share, e.g. 0.1",
            )

    def weights(self, batch: Pairs) -> Pairs:
        """Every pair of the optimizer step weighs the same."""
        return pair_mean(batch)

    def loss(self, batch: Pairs, out: Outputs) -> Loss:
        """Weighted sum over pairs."""
        policy, reference = sums(batch, out)
        margin = self.beta * gap(policy - reference)
        if self.robust:
            values = losses.robust_logistic(margin, self.label_smoothing)
        else:
            targets = batch.targets if self.use_agreement else torch.ones_like(batch.targets)
            smoothing = self.label_smoothing
            values = losses.logistic(margin, targets * (1 - smoothing) + (1 - targets) * smoothing)
        return pair_loss(batch, out, values, self.beta * (policy - reference))


@dataclass(frozen=True, slots=True, kw_only=True)
class IPO:
    """Identity preference optimisation: a finite gap is aimed at, so sure labels do not drive the policy away."""

    beta: float = 0.1
    """Strength of the regularisation, tau in the paper: the gap aimed at is 1 / (2 beta)."""
    average: bool = True
    """Measure the gap in nats per token, as the paper's authors do; off: in nats per response, as it is printed."""

    needs: ClassVar[frozenset[Signal]] = frozenset({"ref_logprobs"})
    learns_from: ClassVar[Kind] = "preference"

    def __post_init__(self) -> None:
        check_positive(self.beta, "beta")

    def weights(self, batch: Pairs) -> Pairs:
        """Every pair of the optimizer step weighs the same."""
        return pair_mean(batch)

    def loss(self, batch: Pairs, out: Outputs) -> Loss:
        """Weighted sum over pairs."""
        policy, reference = sums(batch, out)
        ratio = policy - reference
        if self.average:
            ratio = ratio / response_lengths(batch)
        return pair_loss(batch, out, losses.squared(gap(ratio), self.beta), self.beta * ratio)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hinge:
    """Hinge loss on the rewards of DPO: a pair that is ranked right by a margin of 1 teaches nothing any more."""

    beta: float = 0.1
    """Turns log-ratios into rewards, as in DPO."""

    needs: ClassVar[frozenset[Signal]] = frozenset({"ref_logprobs"})
    learns_from: ClassVar[Kind] = "preference"

    def __post_init__(self) -> None:
        check_positive(self.beta, "beta")

    def weights(self, batch: Pairs) -> Pairs:
        """Every pair of the optimizer step weighs the same."""
        return pair_mean(batch)

    def loss(self, batch: Pairs, out: Outputs) -> Loss:
        """Weighted sum over pairs."""
        policy, reference = sums(batch, out)
        margin = self.beta * gap(policy - reference)
        return pair_loss(batch, out, losses.hinge(margin), self.beta * (policy - reference))


# What the losses on pairs share. Rows are chosen, rejected, chosen, rejected ...


def pair_mean(batch: Pairs) -> Pairs:
    """The batch with the weights of a mean over the pairs of one optimizer step."""
    return batch.replace(loss_weights=torch.full((len(batch),), 1 / max(len(batch), 1)))


def sums(batch: Pairs, out: Outputs) -> tuple[Tensor, Tensor]:
    """``[2P]`` log-probs of whole responses under policy and reference, in nats."""
    assert out.logprobs is not None and batch.ref_logprobs is not None, (
        "the reference must have scored the batch"
    )
    mask = batch.response_mask
    return losses.row_sums(out.logprobs, mask), losses.row_sums(batch.ref_logprobs, mask)


def response_lengths(batch: Pairs) -> Tensor:
    """``[2P]`` response tokens of each row, at least 1."""
    return batch.response_mask.sum(-1).clamp(min=1)


def gap(rows: Tensor) -> Tensor:
    """Chosen minus rejected: ``[2P]`` -> ``[P]``."""
    chosen, rejected = rows.view(-1, 2).unbind(-1)
    return chosen - rejected


def pair_loss(batch: Pairs, out: Outputs, values: Tensor, rewards: Tensor) -> Loss:
    """Loss and metrics of a microbatch of pairs.

    Args:
        values: ``[P]`` loss of each pair.
        rewards: ``[2P]`` implicit rewards of the rows, in the unit in which margins are reported.
    """
    assert out.logprobs is not None and out.entropy is not None
    mean = batch.weighted_sum
    value = mean(values)
    mask = batch.response_mask
    chosen, rejected = rewards.detach().view(-1, 2).unbind(-1)
    logps = losses.row_sums(out.logprobs.detach(), mask).view(-1, 2)
    entropy = (losses.row_sums(out.entropy.detach(), mask) / response_lengths(batch)).view(-1, 2).mean(-1)
    right = (chosen > rejected).float() + 0.5 * (chosen == rejected).float()
    metrics = {
        "loss": value.detach(),
        "rewards/chosen": mean(chosen),
        "rewards/rejected": mean(rejected),
        "rewards/margins": mean(chosen - rejected),
        "rewards/accuracies": mean(right),
        "logps/chosen": mean(logps[:, 0]),
        "logps/rejected": mean(logps[:, 1]),
        "policy/entropy": mean(entropy),
    }
    return Loss(value, metrics)


def check_positive(value: float, name: str) -> None:
    """Raise ConfigError unless a setting is over 0."""
    if value <= 0:
        raise ConfigError(
            f"{name} must be positive, found {value}",
            where=f"[algorithm] {name}",
            cure=f"leave {name} at its default",
        )
