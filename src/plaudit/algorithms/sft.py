"""Supervised fine-tuning: the mean negative log-likelihood of response tokens, end token included."""

from __future__ import annotations

from typing import ClassVar

from plaudit.algorithms.protocol import Signal
from plaudit.config.values import settings_value
from plaudit.experience import Experience, Loss, Outputs
from plaudit.functional.weights import loss_weights


@settings_value
class SFT:
    """Imitate demonstrations."""

    all_turns: bool = True
    """Train on every assistant turn of a chat, not on the last one only."""

    needs: ClassVar[frozenset[Signal]] = frozenset()

    def weights(self, batch: Experience) -> Experience:
        """Every trained token of the optimizer step weighs the same, however it is split."""
        return batch.replace(loss_weights=loss_weights(batch.response_mask, "token_mean"))

    def loss(self, batch: Experience, out: Outputs) -> Loss:
        """``-sum w logp``."""
        assert out.logprobs is not None and out.entropy is not None
        value = batch.weighted_sum(-out.logprobs)
        return Loss(
            value, {"loss": value.detach(), "policy/entropy": batch.weighted_sum(out.entropy.detach())}
        )
