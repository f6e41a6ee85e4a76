"""Measurements, the targets they are held against, and the tables that are printed and saved."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Target:
    """What is aimed at, as ratios; 0: nothing was set."""

    default: float = 0.0
    """Tokens per second over TRL's default, at least."""
    fast: float = 0.0
    """Tokens per second over the fastest setting of TRL, at least."""
    memory: float = 0.0
    """Peak memory over TRL's default, at most."""


TARGETS: dict[tuple[str, str], Target] = {
    ("sft", "varied"): Target(2.6, 2.1, 1.0),
    ("rm", "varied"): Target(2.6, 2.0, 1.0),
    ("dpo", "varied"): Target(3.3, 2.8, 0.9),
    ("grpo", "varied"): Target(3.8, 3.2, 1.0),
    ("rloo", "varied"): Target(3.8, 3.2, 1.0),
    ("ppo", "varied"): Target(3.5, 1.8, 0.9),
    ("ppo_trunk", "varied"): Target(5.0),
    ("", "fixed"): Target(fast=1.3),
}
"""By task and lengths, on a processor with native bf16 and SmolLM2; "" holds for every task."""


def target_of(task: str, lengths: str) -> Target:
    """The target of a task, or an empty one."""
    return TARGETS.get((task, lengths)) or TARGETS.get(("", lengths)) or Target()


@dataclass(frozen=True, slots=True)
class Measured:
    """One side of one task."""

    side: str
    tokens: list[int]
    """Of each timed step."""
    seconds: list[float]
    peak_gb: float
    phases: dict[str, float]
    """Median seconds of the parts of a step, where the side says them."""
    first_step: float
    """Seconds of the very first step, compilation and caches included."""

    @property
    def rate(self) -> float:
        """Tokens per second: the median over the steps."""
        return statistics.median(n / s for n, s in zip(self.tokens, self.seconds, strict=True))


@dataclass(frozen=True, slots=True)
class Case:
    """One task on one model with one kind of lengths, all sides measured in turns."""

    model: str
    task: str
    lengths: str
    sides: list[Measured]
    bounds: dict[str, float] = field(default_factory=dict)
    """By precision: tokens per second that the matrix products alone would allow."""

    def side(self, name: str) -> Measured | None:
        """The side of that name, if it was measured."""
        return next((s for s in self.sides if s.side == name), None)

    def fastest_trl(self) -> Measured | None:
        """The fastest of TRL's settings, the default included: fast settings are not fast on every machine."""
        return max((s for s in self.sides if s.side.startswith("trl-")), key=lambda s: s.rate, default=None)

    def to_json(self) -> dict[str, Any]:
        """With the ratios."""
        ours = self.side("plaudit")
        values: dict[str, Any] = asdict(self)
        if ours is not None:
            values["ratios"] = {
                s.side: {
                    "speed": ratio(ours, s),
                    "range": spread(ours, s),
                    "memory": ours.peak_gb / s.peak_gb,
                }
                for s in self.sides
                if s is not ours
            }
        return values


def ratio(ours: Measured, theirs: Measured) -> float:
    """Our tokens per second over theirs: the median over the rounds, in each of which both did the same step."""
    return statistics.median(pairwise(ours, theirs))


def spread(ours: Measured, theirs: Measured) -> tuple[float, float]:
    """Smallest and largest ratio of a round."""
    return min(pairwise(ours, theirs)), max(pairwise(ours, theirs))


def pairwise(ours: Measured, theirs: Measured) -> list[float]:
    """The ratio in each round."""
    assert ours.tokens == theirs.tokens, "both sides did the same work"
    return [t / o for o, t in zip(ours.seconds, theirs.seconds, strict=True)]


HEAD = (
    "| model | task | lengths | Plaudit, tok/s (GB) | TRL default | TRL fastest | over default | over fastest "
    "| memory |\n"
    "|---|---|---|---|---|---|---|---|---|"
)


def markdown(cases: Sequence[Case], machine: Mapping[str, Any]) -> str:
    """The table, the machine and what was and was not reached."""
    told = ", ".join(f"{name} {value}" for name, value in machine.items())
    lines = [f"Machine: {told}.", "", HEAD, *(row(case) for case in cases), ""]
    lines += [
        "A ratio is the median over the rounds (smallest to largest); in each round every side does the same step."
    ]
    lines += ["In brackets after it: the target, and whether it was reached.", ""]
    if others := [line for case in cases if (line := bound_row(case))]:
        lines += ["Plaudit by precision, and how far each side is from what matrix products alone would allow:", ""]
        lines += [BOUND_HEAD, *others, ""]
    phases = [line for case in cases if (line := phase_row(case))]
    if phases:
        lines += ["Where Plaudit's time goes in an iteration:", "", PHASE_HEAD, *phases, ""]
    return "\n".join(lines)


def row(case: Case) -> str:
    """One line of the table."""
    ours, default, fast = case.side("plaudit"), case.side("trl-default"), case.fastest_trl()
    target = target_of(case.task, case.lengths)
    cells = [case.model, case.task.upper(), case.lengths]
    cells += [
        figure(ours),
        figure(default),
        f"{figure(fast)} {fast.side.removeprefix('trl-')}" if fast else "-",
    ]
    cells += [compared(ours, default, target.default), compared(ours, fast, target.fast)]
    cells.append(memory(ours, default, target.memory))
    return f"| {' | '.join(cells)} |"


def figure(side: Measured | None) -> str:
    """Tokens per second and peak memory."""
    return "-" if side is None else f"{side.rate:.4g} ({side.peak_gb:.2f})"


def compared(ours: Measured | None, theirs: Measured | None, target: float) -> str:
    """The ratio of speeds with its range, and the target."""
    if ours is None or theirs is None:
        return "-"
    value, (low, high) = ratio(ours, theirs), spread(ours, theirs)
    return (
        f"**{value:.2f}** ({low:.2f} to {high:.2f}){verdict(value / target if target else 0, target, '>=')}"
    )


def memory(ours: Measured | None, theirs: Measured | None, target: float) -> str:
    """The ratio of peaks, and the target."""
    if ours is None or theirs is None:
        return "-"
    value = ours.peak_gb / theirs.peak_gb
    return f"**{value:.2f}**{verdict(target / value, target, '<=')}"


def verdict(share: float, target: float, sign: str) -> str:
    """Whether the target was reached; otherwise how much of it."""
    if not target:
        return ""
    return f" [{sign} {target:g}: {'reached' if share >= 1 else f'{share:.0%} of it'}]"


BOUND_HEAD = "| model | task | lengths | bound, tok/s | times slower than the bound |\n|---|---|---|---|---|"


def bound_row(case: Case) -> str:
    """Every side's distance from the best bound; empty where none was worked out."""
    if not case.bounds:
        return ""
    best = max(case.bounds.values())
    told = ", ".join(f"{name} {value:.4g}" for name, value in case.bounds.items())
    apart = ", ".join(f"{side.side} {best / side.rate:.1f}" for side in case.sides)
    return f"| {case.model} | {case.task.upper()} | {case.lengths} | {told} | {apart} |"


PARTS = ("time/generate", "time/reward", "time/score", "time/update")
PHASE_HEAD = (
    f"| model | task | lengths | {' | '.join(p.removeprefix('time/') for p in PARTS)} | rest | first step, s |\n"
    + ("|---" * (len(PARTS) + 5) + "|")
)


def phase_row(case: Case) -> str:
    """Shares of the parts of an iteration; empty for offline tasks."""
    ours = case.side("plaudit")
    if ours is None or not ours.phases:
        return ""
    whole = statistics.median(ours.seconds)
    parts = [ours.phases.get(name, 0.0) / whole for name in PARTS]
    cells = [
        case.model,
        case.task.upper(),
        case.lengths,
        *(f"{p:.0%}" for p in [*parts, max(0.0, 1 - sum(parts))]),
    ]
    return f"| {' | '.join([*cells, f'{ours.first_step:.1f}'])} |"
