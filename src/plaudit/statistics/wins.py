"""Win rates of one policy against another: judged in both orders, and with the influence of length taken out.

An outcome is 1 where the policy that is measured wins, 0 where it loses, 1/2 at a tie. A pair is a response of each of
the two to one prompt; prompts are the units of all intervals (see `plaudit.statistics.clustered`).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from plaudit.statistics.clustered import Floats, share
from plaudit.statistics.intervals import Estimate, wilson

Array = NDArray[np.float64]
NEAR = 0.1
"""Two lengths are about the same where they differ by at most this share of the longer one."""
SLOPE_SD, PROMPT_SD = 3.0, 1.0
"""Standard deviations, in logits, of the normal priors on the effect of length and on the difficulty of a prompt. They
keep the fit finite where the longer response always wins, or one side wins everything at a prompt."""
MOST_STEPS, TOLERANCE, FARTHEST = 100, 1e-9, 30.0


def both_orders(shown_first: Floats, shown_second: Floats) -> Array:
    """Outcomes of pairs that were judged twice, once in each order; where the orders disagree it is a tie.

    Args:
        shown_first: ``[pairs]``, outcomes where the response of the policy that is measured was shown first.
        shown_second: the same pairs, where it was shown second.

    >>> both_orders([1.0, 1.0, 0.0, 0.5], [1.0, 0.0, 0.0, 1.0]).tolist()
    [1.0, 0.5, 0.0, 0.5]
    """
    first, second = np.asarray(shown_first, dtype=np.float64), np.asarray(shown_second, dtype=np.float64)
    return np.where(first == second, first, 0.5)


def same_length(
    outcomes: Floats, lengths: Floats, other_lengths: Floats, clusters: Sequence[Hashable]
) -> Estimate:
    """Win rate over the pairs whose two lengths are about the same, with Wilson's interval over prompts.

    Args:
        outcomes: ``[pairs]``.
        lengths, other_lengths: of the response that is measured, and of the one it is compared with.
        clusters: the prompt of each pair.

    >>> same_length([1.0, 0.0, 1.0], [20, 20, 40], [20, 19, 20], ["a", "b", "c"]).value
    0.5
    """
    one, other = np.asarray(lengths, dtype=np.float64), np.asarray(other_lengths, dtype=np.float64)
    near = np.abs(one - other) <= NEAR * np.maximum(one, other)
    kept = np.flatnonzero(near)
    return share(np.asarray(outcomes, dtype=np.float64)[kept], [clusters[int(i)] for i in kept])


def length_controlled(
    outcomes: Floats, length_differences: Floats, clusters: Sequence[Hashable]
) -> Estimate:
    """The win rate that responses of equal length would have, by logistic regression (Dubois et al. 2024).

    ``logit P(win) = theta + phi tanh(difference / sd) + gamma[prompt]``, where the difficulty ``gamma`` of a prompt is
    in the model only where some prompt has several pairs. The figure is the mean of ``sigmoid(theta + gamma)`` over the
    pairs: ``sigmoid(theta)`` without difficulties, and the plain win rate where all lengths are equal.

    Args:
        outcomes: ``[pairs]``, a tie is 1/2.
        length_differences: length of the response that is measured, less that of the other.
        clusters: the prompt of each pair.

    Returns:
        Wilson's interval at the effective number of pairs, from the variance over prompts. NaN in (0, 1) without any
        pairs, and where all differ in length by the same amount: then what length does cannot be told from the rest.

    >>> length_controlled([1.0, 0.0, 1.0, 0.5], [0, 0, 0, 0], "abcd").value
    0.625
    """
    y, difference = np.asarray(outcomes, dtype=np.float64), np.asarray(length_differences, dtype=np.float64)
    sd = float(difference.std()) if len(difference) else 0.0
    if not len(y) or (sd == 0 and difference[0] != 0):
        return Estimate(math.nan, 0.0, 1.0, len(set(clusters)), len(y))
    numbers: dict[Hashable, int] = {}
    prompts = np.array([numbers.setdefault(name, len(numbers)) for name in clusters], dtype=np.intp)
    fit = _Fit.of(y, np.tanh(difference / sd) if sd else np.zeros(len(y)), prompts)
    value, variance = round(float(fit.level.mean()), 9), fit.variance()
    plain, count = value * (1 - value) / len(y), len(numbers)
    # As in `share`: where no pair differs there is no variance to see, and every prompt counts once.
    effective = len(y) / max(1.0, variance / plain) if plain > TOLERANCE else float(count)
    low, high = wilson(value * effective, effective)
    return Estimate(value, low, high, count, len(y))


@dataclass(frozen=True, slots=True)
class _Fit:
    """The regression at its maximum; ``[P]`` is over prompts, ``[N]`` over pairs."""

    residual: Array
    slope: Array
    """``p (1 - p)`` of each pair."""
    level: Array
    """``sigmoid(theta + gamma)`` of each pair: what it would be at equal length."""
    length: Array
    prompts: NDArray[np.intp]
    precision: float
    """Of the prior on the difficulties; 0: there are none."""

    @classmethod
    def of(cls, y: Array, length: Array, prompts: NDArray[np.intp]) -> _Fit:
        """Newton's method with bounded steps; the penalised likelihood is concave."""
        several = int(np.bincount(prompts).max()) > 1
        precision = 1 / PROMPT_SD**2 if several else 0.0
        theta, phi, gamma = 0.0, 0.0, np.zeros(int(prompts.max()) + 1)
        for _ in range(MOST_STEPS):
            p = 1 / (1 + np.exp(-(theta + phi * length + gamma[prompts])))
            r, v = y - p, p * (1 - p)
            fit = cls(r, v, p, length, prompts, precision)
            top = np.array([r.sum(), r @ length - phi / SLOPE_SD**2])
            own = np.bincount(prompts, r) - precision * gamma
            bend, cross, below = fit.curvature()
            rest = cross @ (own / below) if precision else 0.0
            step = np.linalg.solve(bend, top - rest)
            inner = (own - step @ cross) / below if precision else np.zeros_like(gamma)
            longest = float(max(np.abs(step).max(), np.abs(inner).max()))
            scale = min(1.0, 1.0 / max(longest, 1e-300))
            theta = min(FARTHEST, max(-FARTHEST, theta + scale * float(step[0])))
            phi, gamma = phi + scale * float(step[1]), gamma + scale * inner
            if longest < TOLERANCE or abs(theta) == FARTHEST:
                break
        p = 1 / (1 + np.exp(-(theta + phi * length + gamma[prompts])))
        level = 1 / (1 + np.exp(-(theta + gamma[prompts])))
        return cls(y - p, p * (1 - p), level, length, prompts, precision)

    def curvature(self) -> tuple[Array, Array, Array]:
        """The negative Hessian: of (theta, phi) with the difficulties solved for ``[2, 2]``, its part between both
        ``[2, P]``, and of the difficulties ``[P]``."""
        v, x = self.slope, self.length
        whole = np.array([[v.sum(), v @ x], [v @ x, v @ (x * x) + 1 / SLOPE_SD**2]])
        cross = np.array([np.bincount(self.prompts, v), np.bincount(self.prompts, v * x)])
        below = np.bincount(self.prompts, v) + self.precision
        # Where every pair is won all slopes vanish; without the small number nothing could be solved.
        small = 1e-12 * np.eye(2)
        bend = np.asarray(whole - (cross / below) @ cross.T) if self.precision else whole
        return bend + small, cross, np.asarray(below, dtype=np.float64)

    def variance(self) -> float:
        """Of the mean level, from the influence of each prompt on it (the infinitesimal jackknife, Jaeckel 1972)."""
        bend, cross, below = self.curvature()
        n, number = len(self.level), int(self.prompts.max()) + 1
        rise = self.level * (1 - self.level) / n
        upward = np.array([rise.sum(), 0.0])
        if self.precision:
            upward = upward - cross @ (np.bincount(self.prompts, rise) / below)
        weights = np.linalg.solve(bend, upward)
        scores = np.array([np.bincount(self.prompts, self.residual * each) for each in (np.ones(n), self.length)])
        direct = np.bincount(self.prompts, self.level - self.level.mean()) / n
        influence = weights @ scores + direct
        return float((influence**2).sum()) * number / max(number - 1, 1)
