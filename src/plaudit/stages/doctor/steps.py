"""How long a run will take, from a few real steps."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

from plaudit.stages.doctor.part import Part
from plaudit.tracking.console import duration

LABEL = 12
STEPS, LONG = 4, 60.0
"""Steps that are tried, and the seconds after which no further one is begun."""


class Enough(Exception):  # noqa: N818
    """Enough steps have been tried."""


class Stopwatch:
    """Keeps what the steps of a trial took, and ends it once it has taken long enough.

    Attributes:
        steps: what each took, as of `speed`.
        most: steps, at most.
    """

    def __init__(self, most: int = STEPS) -> None:
        self.steps: list[dict[str, float]] = []
        self.most = most

    def lap(self, step: dict[str, float]) -> None:
        """Add a step.

        Raises:
            Enough: no other one should be tried.
        """
        self.steps.append(step)
        if len(self.steps) >= self.most or sum(step["seconds"] for step in self.steps) > LONG:
            raise Enough



def speed(
    steps: Sequence[dict[str, float]], total: int, unit: str, *, scale: float = 1.0, evaluation: float = 0.0,
    notes: Sequence[str] = (),
) -> Part:  # fmt: skip
    """An estimate of a run.

    Args:
        steps: ``seconds`` of each step that was tried, with ``sampled`` and ``trained`` tokens where there are some and
            the seconds ``sampling`` and ``training`` that they took. The first is left out if there are others: it
            loads and compiles what the next ones have.
        total: steps of the whole run.
        unit: what a step is called.
        scale: how many times as much a step of the run has to do.
        evaluation: seconds of all evaluations.
        notes: lines to add.
    """
    counted = steps[1:] or steps
    seconds = scale * median(step["seconds"] for step in counted)
    whole = total * seconds + evaluation
    figures: dict[str, Any] = {
        f"{unit}s": total, f"seconds_per_{unit}": seconds, "seconds_of_evaluations": evaluation,
        "seconds_in_all": whole, "tried": len(steps), "estimate": True,
    }  # fmt: skip
    lines = []
    for name, tokens, took in (("sampling", "sampled", "sampling"), ("training", "trained", "training")):
        known = [(step[tokens], step[took]) for step in counted if step.get(took)]
        if known:
            rate = sum(count for count, _ in known) / sum(spent for _, spent in known)
            figures[f"{name}_tokens_per_second"] = rate
            lines.append(f"{name:<{LABEL}}{rate:,.0f} tokens/s")
    lines.append(f"{unit:<{LABEL}}{_short(seconds)} each")
    with_them = f", {duration(evaluation)} of it for evaluations" if evaluation > 1 else ""
    lines.append(f"{'in all':<{LABEL}}about {duration(whole)} for {total:,} {unit}s{with_them}")
    lines.append(f"{'':<{LABEL}}an estimate from {len(steps)} {unit}s{' that were really taken' if scale == 1 else ''}")
    return Part("speed", figures, [*lines, *(f"{'':<{LABEL}}{note}" for note in notes)])


def _short(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds < 10 else duration(seconds)
