"""Reward model from pairwise preferences (Bradley-Terry) or from class labels.

    pairs:   -log sigma((s_chosen - s_rejected) / temperature - margin), with smoothed or annotators' targets
    labels:  binary cross-entropy, so that the score is the log-odds of label 1
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from plaudit.algorithms.protocol import Signal
from plaudit.errors import ConfigError
from plaudit.experience import Experience, Loss, Outputs, Pairs
from plaudit.functional import losses


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardModel:
    """Learn a score that ranks responses as people do."""

    temperature: float = 1.0
    """Divides score differences. Anything but 1 changes the unit of the KL coefficient in RL."""
    margin: float = 0.0
    """Multiplies the margin of each preference, which is asked of the score difference; 0 ignores margins."""
    label_smoothing: float = 0.0
    """Assumed share of wrong labels, in [0, 0.5)."""
    use_agreement: bool = True
    """Use the share of annotators who agreed as soft target instead of 1."""
    centering: float = 0.0
    """Weight of (s_chosen + s_rejected)^2, which pulls the mean score to 0; 0.01 is usual."""

    needs: ClassVar[frozenset[Signal]] = frozenset()

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 0.5:
            raise ConfigError(
                f"label_smoothing must be in [0, 0.5), found {self.label_smoothing}",
                where="[algorithm] label_smoothing",
                cure="give the share of labels you expect to be wrong, e.g. 0.1",
            )
        if self.temperature <= 0:
            raise ConfigError(
                f"temperature must be positive, found {self.temperature}",
                where="[algorithm] temperature",
                cure="use 1.0",
            )

    def weights(self, batch: Experience | Pairs) -> Experience | Pairs:
        """Every pair, or every labelled row, weighs the same. A row's weight stands at its last real token."""
        if isinstance(batch, Pairs):
            return batch.replace(loss_weights=torch.full((len(batch),), 1 / len(batch)))
        last = torch.arange(batch.tokens.shape[1]) == (batch.lengths - 1)[:, None]
        return batch.replace(loss_weights=last / len(batch))

    def loss(self, batch: Experience | Pairs, out: Outputs) -> Loss:
        """Weighted sum over pairs or labelled rows."""
        assert out.scores is not None
        if isinstance(batch, Pairs):
            return self._pair_loss(batch, out.scores)
        assert batch.rewards is not None and batch.loss_weights is not None
        weights = batch.loss_weights.sum(-1)
        value = (losses.label_loss(out.scores, batch.rewards) * weights).sum()
        right = ((out.scores > 0) == (batch.rewards > 0.5)).float()
        return Loss(value, {"loss": value.detach(), "reward_model/accuracy": (right * weights).sum()})

    def _pair_loss(self, batch: Pairs, scores: torch.Tensor) -> Loss:
        chosen, rejected = scores.view(-1, 2).unbind(-1)
        targets = batch.targets if self.use_agreement else torch.ones_like(batch.targets)
        targets = targets * (1 - self.label_smoothing) + (1 - targets) * self.label_smoothing
        loss = losses.bradley_terry(
            chosen, rejected, margins=self.margin * batch.margins, targets=targets, temperature=self.temperature
        )
        if self.centering:
            loss = loss + self.centering * losses.centering(chosen, rejected)
        value = batch.weighted_sum(loss)
        difference = (chosen - rejected).detach()
        right = (difference > 0).float() + 0.5 * (difference == 0).float()
        metrics = {
            "loss": value.detach(),
            "reward_model/accuracy": batch.weighted_sum(right),
            "reward_model/margin": batch.weighted_sum(difference),
            "reward_model/chosen_mean": batch.weighted_sum(chosen.detach()),
            "reward_model/rejected_mean": batch.weighted_sum(rejected.detach()),
        }
        return Loss(value, metrics)
