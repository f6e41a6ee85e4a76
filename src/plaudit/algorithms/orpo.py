"""ORPO: fine-tuning and preferences in one loss, without a reference (Hong et al., arXiv:2403.07691, eq. 6 and 7).

loss = -mean logp_w + ratio_coef * -log sigma(log odds_w - log odds_l)
odds = p / (1 - p), p the geometric mean of the token probabilities of a response
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from plaudit.algorithms.dpo import check_positive, gap, pair_loss, pair_mean, response_lengths
from plaudit.algorithms.protocol import Signal
from plaudit.experience import Loss, Outputs, Pairs
from plaudit.functional import preference_losses as losses
from plaudit.records import Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class ORPO:
    """Odds-ratio preference optimisation: imitate what was chosen, and make what was rejected less likely."""

    ratio_coef: float = 0.1
    """Weight of the odds ratio against the imitation, lambda in the paper."""

    needs: ClassVar[frozenset[Signal]] = frozenset()
    learns_from: ClassVar[Kind] = "preference"

    def __post_init__(self) -> None:
        check_positive(self.ratio_coef, "ratio_coef")

    def weights(self, batch: Pairs) -> Pairs:
        """Every pair of the optimizer step weighs the same."""
        return pair_mean(batch)

    def loss(self, batch: Pairs, out: Outputs) -> Loss:
        """Weighted sum over pairs; the imitation is the mean over the tokens of a response, then over responses."""
        assert out.logprobs is not None
        means = losses.row_sums(out.logprobs, batch.response_mask) / response_lengths(batch)
        nll, ahead = -means.view(-1, 2)[:, 0], gap(losses.log_odds(means))
        result = pair_loss(
            batch, out, nll + self.ratio_coef * losses.logistic(ahead), self.ratio_coef * means
        )
        result.metrics["policy/nll_chosen"] = batch.weighted_sum(nll.detach())
        result.metrics["policy/log_odds_ratio"] = batch.weighted_sum(ahead.detach())
        return result
