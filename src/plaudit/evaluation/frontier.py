"""Reward and gold reward over the distance from the start, with the curves of Gao, Schulman and Hilton (2210.10760).

The distance is ``d``, the root of the KL to the start in nats. What is gained follows ``d (a - b log d)`` where a
policy is trained by reinforcement learning, and ``d (a - b d)`` for the best of n responses (their equation 1): it
rises, has a peak, and falls, since the reward is an imperfect copy of what is wanted.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from plaudit.errors import DataError
from plaudit.evaluation.comparing.distance import Track, track_of
from plaudit.statistics.resampling import percentile

Floats = NDArray[np.float64]
Form = Literal["rl", "best_of_n"]
BEND: dict[Form, Callable[[Floats], Floats]] = {"rl": lambda d: d * np.log(d), "best_of_n": lambda d: d * d}
"""What ``b`` is multiplied with."""
LEAST = 4
"""Points that a fit of two numbers needs, beyond the start."""
NEAREST = 0.1
"""Root of nats. Nearer points are the start itself."""
BEYOND = 1.2
"""A peak is predicted up to so many times the largest distance that was seen: a fit does not know what lies beyond."""
DRAWS = 1000


@dataclass(frozen=True)
class Fit:
    """A curve of what was gained over ``d``, and where it has its peak."""

    judge: str
    """gold, or reward."""
    form: Form
    points: tuple[tuple[float, float], ...]
    """Distance and mean gain of each evaluation."""
    a: float
    b: float
    a_ci: tuple[float, float]
    b_ci: tuple[float, float]
    """95 % intervals of a bootstrap over prompts; NaN with a single prompt."""
    peak: float | None
    """Distance of the peak; None where the curve has none within 1.2 times the distances that were seen."""
    gain: float | None
    """What is gained at the peak."""
    peak_ci: tuple[float, float]
    """95 % interval of the distance of the peak, over the draws that have one; NaN where most have none."""

    @property
    def words(self) -> str:
        """The fit in a sentence."""
        name = "gold reward" if self.judge == "gold" else "reward"
        bend = "log d" if self.form == "rl" else "d"
        curve = f"the {name} follows d ({self.a:.2f} {'-' if self.b >= 0 else '+'} {abs(self.b):.2f} {bend})"
        if self.peak is None:
            far = max(d for d, _ in self.points)
            return f"{curve}; no peak is seen up to d = {BEYOND * far:.1f}, a KL of {(BEYOND * far) ** 2:.1f} nats"
        where = f"{curve}; its peak is predicted at a KL of {self.peak**2:.1f} nats, with a gain of {self.gain:.2f}"
        low, high = self.peak_ci
        return where if math.isnan(low) else f"{where} (95 % interval of that KL {low**2:.1f} to {high**2:.1f})"

    def at(self, distances: Floats) -> Floats:
        """What the curve gains at some distances."""
        d = np.maximum(distances, 1e-12)
        gained: Floats = self.a * d - self.b * BEND[self.form](d)
        return gained


def frontier(run_dir: Path, form: Form = "rl") -> list[Fit]:
    """The fits of a run: of the reward it was trained on, and of the gold reward where there is one.

    Raises:
        DataError: too few evaluations away from the start.
    """
    fits = [fit(track, form) for judge in ("reward", "gold") if len((track := track_of(run_dir, judge)).points) > 1]
    if not fits or any(one is None for one in fits):
        raise DataError(
            f"fewer than {LEAST} evaluations lie away from the start, too few to fit a curve",
            where=str(run_dir / "evaluation.jsonl"),
            cure="train longer, or with a smaller --eval-every",
        )
    return [one for one in fits if one is not None]


def fit(track: Track, form: Form = "rl", seed: int = 0) -> Fit | None:
    """The curve through the start that fits best by least squares; None with too few points."""
    far = [point for point in track.points if point.kl > NEAREST**2 and point.change]
    if len(far) < LEAST:
        return None
    distances = np.array([math.sqrt(point.kl) for point in far])
    prompts = sorted(set.intersection(*(set(point.change) for point in far)))
    if not prompts:  # a judge that failed here and there has no prompt that it always judged
        return None
    gains = np.array([[point.change[prompt] for prompt in prompts] for point in far])
    a, b = _solve(distances, gains.mean(1), form)
    rng = np.random.default_rng(seed)
    draws = np.array(
        [
            _solve(distances, gains[:, rng.integers(len(prompts), size=len(prompts))].mean(1), form)
            for _ in range(DRAWS if len(prompts) > 1 else 0)
        ]
    ).reshape(-1, 2)
    limit = BEYOND * float(distances.max())
    peak = peak_of(a, b, form, limit)
    found = [peak_of(float(one), float(other), form, limit) for one, other in draws]
    peaks = np.array([math.nan if place is None else place for place in found])
    return Fit(
        judge=track.judge,
        form=form,
        points=tuple(zip(distances.tolist(), gains.mean(1).tolist(), strict=True)),
        a=a,
        b=b,
        a_ci=percentile(a, draws[:, 0], len(prompts)).interval,
        b_ci=percentile(b, draws[:, 1], len(prompts)).interval,
        peak=peak,
        gain=None if peak is None else float(peak * a - b * BEND[form](np.array([peak]))[0]),
        peak_ci=percentile(peak if peak else math.nan, peaks, len(prompts)).interval,
    )


def _solve(distances: Floats, gains: Floats, form: Form) -> tuple[float, float]:
    design = np.stack([distances, -BEND[form](distances)], axis=1)
    (a, b), *_ = np.linalg.lstsq(design, gains, rcond=None)
    return float(a), float(b)


def peak_of(a: float, b: float, form: Form, limit: float = math.inf) -> float | None:
    """The distance at which the curve is highest: ``exp(a / b - 1)``, or ``a / 2b``; None beyond the limit.

    >>> round(peak_of(2.0, 1.0, "rl"), 3), peak_of(2.0, 0.5, "best_of_n"), peak_of(1.0, -0.1, "rl")
    (2.718, 2.0, None)
    """
    if b <= 0 or (form == "best_of_n" and a <= 0):
        return None
    power = a / b - 1
    peak = a / (2 * b) if form == "best_of_n" else math.exp(power) if power < 50 else math.inf
    return peak if peak <= limit else None
