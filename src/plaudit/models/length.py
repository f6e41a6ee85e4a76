"""Removing the effect of length from a score after training: fitted once to reference responses, saved in the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

import torch
from torch import Tensor

Kind = Literal["none", "divide", "residual", "penalty"]


@dataclass(frozen=True, slots=True)
class LengthRule:
    """What a raw score ``s`` of a response of ``n`` tokens becomes.

    divide: ``(s - centre) / n^coef``; residual: ``s - (centre + coef n)``; penalty: ``s - coef n``; none: ``s``.
    Dividing needs a centre, because comparisons do not determine the zero of the score.
    """

    kind: Kind = "none"
    coef: float = 0.0
    centre: float = 0.0
    typical: float = 1.0
    """Mean length of the reference responses, in tokens."""

    @classmethod
    def fit(cls, kind: Kind, coef: float, scores: Tensor, lengths: Tensor) -> Self:
        """The rule for raw scores ``[N]`` of reference responses with ``[N]`` tokens.

        Args:
            kind: residual fits its line by least squares and does not read ``coef``.
            coef: divide: the exponent; penalty: standard deviations of the score per 100 tokens.
        """
        # fp64: the slope is a quotient of small differences of large sums.
        s, n = scores.double(), lengths.double()
        typical = float(n.mean())
        if kind == "divide":
            return cls(kind, coef, float(s.mean()), typical)
        if kind == "penalty":
            return cls(kind, coef * float(s.std(correction=0)) / 100, 0.0, typical)
        if kind == "residual":
            spread = float((n - n.mean()).square().sum())
            # All lengths equal: no slope can be fitted, and none is needed.
            slope = float(((n - n.mean()) * (s - s.mean())).sum()) / spread if spread else 0.0
            return cls(kind, slope, float(s.mean()) - slope * typical, typical)
        return cls(typical=typical)

    def apply(self, scores: Tensor, lengths: Tensor) -> Tensor:
        """Corrected scores ``[N]``.

        >>> LengthRule("residual", 0.5, 1.0).apply(torch.tensor([4.0]), torch.tensor([2]))
        tensor([2.])
        """
        assert scores.shape == lengths.shape, "one length for each score"
        if self.kind == "divide":
            return (scores - self.centre) / lengths.clamp(min=1).to(scores.dtype) ** self.coef
        return scores - (self.centre + self.coef * lengths.to(scores.dtype)) if self.kind != "none" else scores

    def at_typical_length(self) -> tuple[float, float]:
        """Factor and offset ``(a, b)`` with ``apply(s) = a s + b`` for a response of the typical length.

        A critic that starts from a reward model needs a linear head, whose input does not include the final length.
        """
        one, zero = (float(self.apply(torch.tensor([x]), torch.tensor([self.typical]))) for x in (1.0, 0.0))
        return one - zero, zero
