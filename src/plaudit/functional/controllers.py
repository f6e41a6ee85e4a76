"""State that an online algorithm keeps from iteration to iteration: KL coefficient, moments of the reward."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Moments:
    """Count, mean and sum of squared deviations of all values seen so far (Welford; merged as Chan et al. 1979)."""

    count: float = 0.0
    mean: float = 0.0
    squares: float = 0.0

    def update(self, values: Sequence[float]) -> Moments:
        """The moments after some more values; the order of updates does not matter up to rounding.

        >>> m = Moments().update([1, 2, 3]).update([5]); (m.mean, m.variance)
        (2.75, 2.1875)
        """
        n = len(values)
        if n == 0:
            return self
        # Squared deviations are added, not squares: sum(x^2) - n mean^2 subtracts two large numbers and can become
        # negative for rewards near 1000 that differ by 0.01.
        mean = math.fsum(values) / n
        squares = math.fsum((v - mean) ** 2 for v in values)
        total, delta = self.count + n, mean - self.mean
        return Moments(
            total,
            self.mean + delta * n / total,
            self.squares + squares + delta * delta * self.count * n / total,
        )

    @property
    def variance(self) -> float:
        """Population variance; 0 before the second value."""
        return self.squares / self.count if self.count else 0.0

    @property
    def std(self) -> float:
        """Square root of the population variance, or 1 where it is no more than rounding: safe to divide by."""
        # Equal rewards have a deviation of some 1e-8 and not always 0; divided by it they would become a signal.
        std = math.sqrt(self.variance)
        return std if std > 1e-6 * max(1.0, abs(self.mean)) else 1.0


@dataclass(frozen=True, slots=True)
class Carry:
    """State of an online algorithm between iterations, made of numbers only: a checkpoint holds it as JSON."""

    kl_coef: float = 0.0
    entropy_coef: float = 0.0
    reward: Moments = Moments()
    baseline: float | None = None
    """Running mean of the return, where an algorithm keeps one; None before the first batch."""
    warmup: int | None = None
    """Iterations in which the critic was trained alone before it was good enough; None: it is not yet."""


def adapt_kl_coef(kl_coef: float, kl: float, target: float, horizon: float, responses: int) -> float:
    """Proportional controller of Ziegler et al. (arXiv:1909.08593, sec. 2.2), clamped to [1e-4, 10].

    Args:
        kl: measured KL to the reference per response, in nats (sum over its tokens).
        target: the KL to keep, in the same unit.
        horizon: responses after which a 20 % error changes the coefficient by 20 %.
        responses: number of responses since the last update.

    >>> round(adapt_kl_coef(0.2, kl=12, target=6, horizon=10_000, responses=256), 6)
    0.201024
    """
    # The error is clipped so that one odd batch cannot move the coefficient far, and the coefficient itself: at 0 it
    # could never grow again, since it is only multiplied.
    error = min(max(kl / target - 1, -0.2), 0.2)
    return min(max(kl_coef * (1 + error * responses / horizon), 1e-4), 10.0)
