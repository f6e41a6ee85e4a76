"""KTO: thumbs up and thumbs down on single responses (Ethayarajh et al., arXiv:2402.01306).

lr   = logp - ref, summed over the response
zero = max(0, mean of lr over prompts with another prompt's response), without gradient: a KL, from above
loss = w_up   (1 - sigma(beta (lr - zero)))     thumbs up
       w_down (1 - sigma(beta (zero - lr)))     thumbs down
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch

from plaudit.algorithms.parts import ImplicitReward
from plaudit.algorithms.protocol import Signal
from plaudit.config.values import Positive, settings_value
from plaudit.experience import Experience, Loss, Outputs
from plaudit.functional import preference_losses as losses
from plaudit.records import Kind

RATIO = (1.0, 4 / 3)
"""Where up_weight * ups : down_weight * downs should lie (section 4.1 of the paper)."""


@settings_value
class KTO(ImplicitReward):
    """Kahneman-Tversky optimisation: learns from thumbs, which need no second response to compare with."""

    up_weight: Positive = 1.0
    """Weight of responses that were liked. With few of them, raise it: see the line that the run prints."""
    down_weight: Positive = 1.0
    """Weight of responses that were disliked."""
    good_above: float = 0.5
    """Ratings over this are thumbs up, ratings under it thumbs down, and equal ones are left out. 5 for 1 to 10."""

    needs: ClassVar[frozenset[Signal]] = frozenset({"ref_logprobs", "mismatched_kl"})
    learns_from: ClassVar[Kind] = "rating"

    def weights(self, batch: Experience) -> Experience:
        """Every response weighs the same; a row's weight stands at its last real token."""
        assert batch.rewards is not None
        last = torch.arange(batch.tokens.shape[1]) == (batch.lengths - 1)[:, None]
        up = batch.rewards > self.good_above
        rows = torch.where(up, up.sum(), (~up).sum())
        return batch.replace(loss_weights=last / max(len(batch), 1), class_weights=1 / rows)

    def loss(self, batch: Experience, out: Outputs) -> Loss:
        """Weighted sum over responses. ``rewards`` are ratings; ``mismatched_kl`` is the same for a whole step."""
        assert out.logprobs is not None and out.entropy is not None and batch.ref_logprobs is not None
        assert batch.rewards is not None and batch.mismatched_kl is not None
        assert batch.loss_weights is not None and batch.class_weights is not None
        mask, weights = batch.response_mask, batch.loss_weights.sum(-1)
        up = batch.rewards > self.good_above
        logps = losses.row_sums(out.logprobs, mask)
        ratio = logps - losses.row_sums(batch.ref_logprobs, mask)
        importance = torch.where(up, self.up_weight, self.down_weight)
        value = (weights * importance * losses.kto(ratio, batch.mismatched_kl, self.beta, up)).sum()
        rewards = self.beta * ratio.detach()
        right = (rewards > self.beta * batch.mismatched_kl) == up
        entropy = losses.row_sums(out.entropy.detach(), mask) / mask.sum(-1).clamp(min=1)
        metrics = {
            "loss": value.detach(),
            "rewards/accuracies": (weights * right).sum(),
            "objective/mismatched_kl": (weights * batch.mismatched_kl).sum(),
            "policy/entropy": (weights * entropy).sum(),
        }
        for name, side in (("chosen", up), ("rejected", ~up)):
            if side.any():  # a step without thumbs of one side has no mean of it
                metrics[f"rewards/{name}"] = (batch.class_weights * rewards)[side].sum()
                metrics[f"logps/{name}"] = (batch.class_weights * logps.detach())[side].sum()
        return Loss(value, metrics)

    def is_good(self, rating: float) -> bool:
        """Whether a rating is a thumbs up."""
        return rating > self.good_above

    def is_tie(self, rating: float) -> bool:
        """Whether a rating says neither thumbs up nor thumbs down."""
        return rating == self.good_above

    def advice(self, ratings: Sequence[float]) -> str:
        """How many thumbs there are, and whether the weights balance them as the paper recommends."""
        ups = sum(map(self.is_good, ratings))
        downs = len(ratings) - ups
        said = f"{ups} thumbs up, {downs} down"
        if not ups or not downs:
            return f"{said}: one side is missing, so nothing says what to prefer"
        ratio = self.up_weight * ups / (self.down_weight * downs)
        if RATIO[0] <= ratio <= RATIO[1]:
            return f"{said}; weighted, {ratio:.2f} to 1, as recommended"
        middle = sum(RATIO) / 2
        weight = middle * self.down_weight * downs / ups
        cure = (
            f"--up-weight {weight:.2g}"
            if ratio < RATIO[0]
            else f"--down-weight {self.up_weight * ups / (middle * downs):.2g}"
        )
        return f"{said}; weighted, {ratio:.2f} to 1, and 1 to 1.33 is recommended: try {cure}"
