"""Rewards at equal distance from the start: a policy that went further has more of the reward for that reason alone.

So policies are compared where all of them are equally far (Gao et al. 2023): at the largest KL that each of them
reached.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from plaudit.runs.files import EVALUATION, Row, read_lines
from plaudit.statistics.clustered import mean_over
from plaudit.statistics.intervals import Estimate

NEAR = 0.1
"""Nats per response. A policy that stayed nearer to its start has hardly moved: there is nothing to compare."""


@dataclass(frozen=True)
class Point:
    """One evaluation of a policy."""

    step: int
    kl: float
    """Mean over the responses, in nats per response."""
    change: Mapping[str, float]
    """Prompt id -> mean of the judge over its responses, less the same at the start of the run."""


@dataclass(frozen=True)
class Track:
    """The evaluations of a run in their order; ``judge`` is "gold", or "reward" where there is no gold reward."""

    judge: str
    points: tuple[Point, ...]

    @property
    def reach(self) -> float:
        """The largest KL at an evaluation."""
        return max((point.kl for point in self.points), default=0.0)

    def at(self, kl: float) -> dict[str, float] | None:
        """Change of each prompt where the run first reached a KL, on the line between two evaluations; None if never.

        Args:
            kl: in nats per response, above 0.
        """
        for before, after in zip(self.points, self.points[1:], strict=False):
            if before.kl < kl <= after.kl:
                way = (kl - before.kl) / (after.kl - before.kl)
                both = before.change.keys() & after.change.keys()
                return {p: (1 - way) * before.change[p] + way * after.change[p] for p in sorted(both)}
        return None


def track_of(run_dir: Path, judge: str) -> Track:
    """The evaluations in evaluation.jsonl, judged by the column ``judge``.

    They are the points of the curve on the run's own page: rows of the set "selection", one evaluation each. Rows of
    other sets are of other prompts, or of the same ones sampled anew to compare two steps. Rows of the first release
    have no set, and all of them make the curve.
    """
    newest = {
        (row["step"], row.get("prompt_id"), row.get("k", 0)): row
        for row in read_lines(run_dir / EVALUATION)
        if row.get("set", "selection") == "selection" and row.get("kl") is not None
    }
    steps: dict[int, list[Row]] = {}
    for row in newest.values():
        steps.setdefault(row["step"], []).append(row)
    steps = {step: rows for step, rows in steps.items() if any(row.get(judge) is not None for row in rows)}
    if not steps:
        return Track(judge, ())
    start = _by_prompt(steps[min(steps)], judge)
    points = []
    for step, rows in sorted(steps.items()):
        means = _by_prompt(rows, judge)
        change = {prompt: means[prompt] - start[prompt] for prompt in means.keys() & start.keys()}
        points.append(Point(step, fmean(row["kl"] for row in rows), change))
    return Track(judge, tuple(points))


def _by_prompt(rows: Sequence[Row], judge: str) -> dict[str, float]:
    values: dict[str, list[float]] = {}
    for row in rows:
        if row.get(judge) is not None:
            values.setdefault(str(row.get("prompt_id")), []).append(float(row[judge]))
    return {prompt: fmean(each) for prompt, each in values.items()}


def common_kl(tracks: Sequence[Track]) -> float | None:
    """The largest KL that all of them reached, in nats per response; None where one of them has hardly moved."""
    if len(tracks) < 2:
        return None
    reach = min(track.reach for track in tracks)
    return reach if reach >= NEAR else None


def change_at(tracks: Sequence[Track], kl: float) -> dict[str, float]:
    """Prompt id -> mean change over repetitions of one run at a KL, of the prompts that all of them have."""
    each = [change for track in tracks if (change := track.at(kl))]
    both = set.intersection(*(set(change) for change in each)) if each else set()
    return {prompt: fmean(change[prompt] for change in each) for prompt in sorted(both)}


def mean_change(change: Mapping[str, float]) -> Estimate | None:
    """The mean over prompts with its interval; None without any."""
    return mean_over(list(change.values()), list(change)) if change else None


def difference(one: Mapping[str, float], other: Mapping[str, float], among: int) -> Estimate | None:
    """How much larger a change is than another, prompt by prompt; None where they share no prompt.

    Args:
        one, other: prompt id -> change.
        among: how many were there to choose from. The two were chosen by the same prompts, so the interval is that of
            Bonferroni for all their pairs: it holds whichever two are looked at.
    """
    both = sorted(one.keys() & other.keys())
    pairs = max(among * (among - 1) // 2, 1)
    gaps = [one[prompt] - other[prompt] for prompt in both]
    return mean_over(gaps, both, confidence=1 - 0.05 / pairs) if both else None
