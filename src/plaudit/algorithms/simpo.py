"""SimPO: preferences without a reference (Meng et al., arXiv:2405.14734, eq. 6).

loss = -log sigma(beta (mean logp_w - mean logp_l) - margin)     means over the tokens of each response
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from plaudit.algorithms.dpo import check_positive, gap, pair_loss, pair_mean, response_lengths
from plaudit.algorithms.protocol import Signal
from plaudit.errors import ConfigError
from plaudit.experience import Loss, Outputs, Pairs
from plaudit.functional import preference_losses as losses
from plaudit.records import Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class SimPO:
    """Simple preference optimisation: the reward is the mean log-probability of a token, and there is no reference."""

    beta: float = 2.0
    """Scale of the reward; 2 to 2.5 is usual."""
    margin: float = 1.0
    """How far chosen should be ahead, in units of the reward; 0.3 to 0.5 times beta is usual."""

    type_name: ClassVar[str] = "simpo"
    needs: ClassVar[frozenset[Signal]] = frozenset()
    learns_from: ClassVar[Kind] = "preference"

    def __post_init__(self) -> None:
        check_positive(self.beta, "beta")
        if self.margin < 0:
            raise ConfigError(
                f"margin must be 0 or more, found {self.margin}",
                where="[algorithm] margin",
                cure=f"0.3 to 0.5 times beta is usual: {0.4 * self.beta:g}",
            )

    def weights(self, batch: Pairs) -> Pairs:
        """Every pair of the optimizer step weighs the same."""
        return pair_mean(batch)

    def loss(self, batch: Pairs, out: Outputs) -> Loss:
        """Weighted sum over pairs."""
        assert out.logprobs is not None
        means = losses.row_sums(out.logprobs, batch.response_mask) / response_lengths(batch)
        values = losses.logistic(self.beta * gap(means) - self.margin)
        return pair_loss(batch, out, values, self.beta * means)
