"""Time of an iteration on so many GPUs, from runs on the user's own cluster; and where most of it goes.

Each part of an iteration is taken to be ``fixed + shared / n`` seconds for one response, on ``n`` processes of its
kind. One run gives ``shared`` alone; runs with other numbers of processes tell both apart. Nothing is known of a
cluster of which there is no run, so no figure is shipped with this.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from plaudit import backends
from plaudit.config.sections import Job
from plaudit.errors import ConfigError, DataError
from plaudit.jobs.online import OnlineJob
from plaudit.runs.reading import Run, read_run
from plaudit.stages.doctor.part import Part

FORMAT = 1
PARTS = {"generate": "generators", "reward": "", "score": "workers", "update": "workers", "publish": ""}
"""Part of an iteration, ``time/<part>`` in the metrics -> what it is divided among; empty: one process does it."""
Rates = Mapping[str, tuple[float, float]]
SKIPPED = 1
"""Iterations at the start that are left out: what is compiled, downloaded and allocated for the first time is there."""
SAME_SIZE = 0.02
"""Share by which two models may differ and count as of one size."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One run on a cluster, in seconds of an iteration."""

    run: str
    command: str
    parameters: int
    workers: int
    generators: int
    responses: int
    """Of an iteration."""
    tokens: float
    """Of a response, on average."""
    iterations: int
    """That the times are means over."""
    seconds: Mapping[str, float]

    @classmethod
    def of(cls, path: Path) -> Measured:
        """A run directory.

        Raises:
            DataError: no run, or one that says no times of iterations on workers.
        """
        run = read_run(path)
        told = {row.key: row.value for row in run.settings}
        rows = [row for row in run.metrics if all(f"time/{part}" in row for part in PARTS)][SKIPPED:]
        if told.get("compute.backend", "").strip('"') != "ray" or not rows:
            why = "was not on Ray workers" if rows else "has no iterations with times, after the first"
            raise DataError(
                f"the run {why}, so it says nothing of a cluster",
                where=str(path),
                cure="run two iterations or more of an online command, such as grpo, with --backend ray",
            )
        lengths = [float(row["response/length_mean"]) for row in rows if "response/length_mean" in row]
        group = told.get("algorithm.group_size", "1")
        return cls(
            run=str(path), command=run.command, parameters=_parameters(run), iterations=len(rows),
            workers=int(told["compute.workers"]), generators=int(told["compute.generators"]),
            responses=int(told["prompts_per_iteration"]) * int(group), tokens=fmean(lengths) if lengths else 0.0,
            seconds={part: fmean(float(row[f"time/{part}"]) for row in rows) for part in PARTS},
        )  # fmt: skip


def _parameters(run: Run) -> int:
    found = backends.parameters(str(run.path / "model")) if (run.path / "model").is_dir() else 0
    if not found:
        raise DataError(
            "the run has no model, so its size is not known",
            where=str(run.path),
            cure="let it end, or stop it with SIGTERM: it then writes model/",
        )
    return found


@dataclass(frozen=True, slots=True)
class Calibration:
    """What some runs say of a cluster."""

    runs: Sequence[Measured]

    def save(self, path: Path) -> None:
        """As JSON."""
        table = {"format": FORMAT, "runs": [asdict(run) for run in self.runs]}
        path.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Calibration:
        """Inverse of `save`.

        Raises:
            DataError: no such file, or none that was written so.
        """
        try:
            table = json.loads(path.read_text(encoding="utf-8"))
            if table["format"] != FORMAT:
                raise ValueError(table["format"])
            return cls([Measured(**run) for run in table["runs"]])
        except (OSError, KeyError, TypeError, ValueError):
            raise DataError(
                "this is no calibration file" if path.is_file() else "there is no such file",
                where=str(path),
                cure="write one from runs on your cluster: plaudit plan --calibrate RUN ... --to FILE",
            ) from None

    def check(self, job: Job, parameters: int, command: str) -> None:
        """Raise ConfigError where the runs were of another command or of a model of another size."""
        if not isinstance(job, OnlineJob):
            raise ConfigError(
                "times are worked out for commands that learn from their own responses only",
                where="--calibration",
                cure="leave --calibration out: memory is worked out without it",
            )
        for run in self.runs:
            apart = abs(run.parameters - parameters) / max(parameters, 1)
            if run.command != command or apart > SAME_SIZE:
                raise ConfigError(
                    f"{run.run} was `plaudit {run.command}` with {run.parameters / 1e9:.3f} billion parameters, and the"
                    f" plan is for `plaudit {command}` with {parameters / 1e9:.3f} billion: times of one are none of"
                    " the other",
                    where="--calibration",
                    cure="calibrate with a run of the same command and size; two iterations are enough",
                )

    def rates(self) -> Rates:
        """By part, seconds for one response: fixed, and shared among the processes of its kind."""
        return {part: _line([self._point(run, part) for run in self.runs]) for part in PARTS}

    def _point(self, run: Measured, part: str) -> tuple[float, float]:
        count = getattr(run, PARTS[part]) if PARTS[part] else 1
        work = 1 if part == "publish" else run.responses
        return 1 / count, run.seconds[part] / work


def _line(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """``y = fixed + shared x`` with both at least 0, by least squares; through 0 where there is one ``x`` only."""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    mean_x, mean_y = fmean(xs), fmean(ys)
    spread = sum((x - mean_x) ** 2 for x in xs)
    if spread < 1e-12:
        return 0.0, mean_y / mean_x
    shared = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread
    fixed = mean_y - shared * mean_x
    if shared < 0:
        return mean_y, 0.0
    if fixed < 0:
        return 0.0, sum(x * y for x, y in points) / sum(x * x for x in xs)
    return fixed, shared


@dataclass(frozen=True, slots=True)
class Row:
    """The fastest split of a number of GPUs."""

    gpus: int
    workers: int
    generators: int
    seconds: Mapping[str, float]

    @property
    def total(self) -> float:
        """Seconds of an iteration."""
        return sum(self.seconds.values())

    @property
    def bottleneck(self) -> str:
        """The part that takes longest."""
        return max(self.seconds, key=lambda part: self.seconds[part])


def time_table(calibration: Calibration, job: OnlineJob, gpus: int, rewards: int) -> list[Row]:
    """The fastest split for GPUs doubled up to ``gpus``; the parts follow each other, as they do in a run.

    Args:
        calibration: of the cluster.
        job: whose responses an iteration has.
        gpus: the most.
        rewards: processes of rewards, with a GPU each.
    """
    counts = [count for k in range(gpus.bit_length()) if (count := 2**k) < gpus and count >= rewards + 2]
    rates = calibration.rates()
    return [_fastest(rates, job.responses_per_iteration, count, rewards) for count in [*counts, gpus]]


def _fastest(rates: Rates, responses: int, gpus: int, rewards: int) -> Row:
    splits = ((gpus - rewards - n, n) for n in range(1, gpus - rewards))
    rows = (Row(gpus, w, n, _seconds(rates, responses, w, n)) for w, n in splits)
    return min(rows, key=lambda row: row.total)


def _seconds(rates: Rates, responses: int, workers: int, generators: int) -> dict[str, float]:
    counts = {"workers": workers, "generators": generators, "": 1}
    found = {}
    for part, (fixed, shared) in rates.items():
        work = 1 if part == "publish" else responses
        found[part] = work * (fixed + shared / counts[PARTS[part]])
    return found


def plan_times(calibration: Calibration, job: OnlineJob, gpus: int, rewards: int) -> Part:
    """The table in words and figures."""
    table = time_table(calibration, job, gpus, rewards)
    figures = {
        "rates": {part: {"fixed": a, "shared": b} for part, (a, b) in calibration.rates().items()},
        "table": [asdict(row) | {"total": row.total, "bottleneck": row.bottleneck} for row in table],
    }
    return Part("time", figures, tuple(_lines(table)), notes=tuple(_notes(calibration, job, gpus)))


def _lines(table: Sequence[Row]) -> Iterator[str]:
    yield f"{'GPUs':>5} {'workers':>8} {'generators':>11} {'s/iteration':>12}   most of it"
    for row in table:
        share = row.seconds[row.bottleneck] / row.total if row.total else 0.0
        yield (
            f"{row.gpus:>5} {row.workers:>8} {row.generators:>11} {row.total:>12.3g}   {row.bottleneck},"
            f" {share:.0%}"
        )


def _notes(calibration: Calibration, job: OnlineJob, gpus: int) -> Iterator[str]:
    workers = {run.workers for run in calibration.runs}
    generators = {run.generators for run in calibration.runs}
    if len(workers) < 2 or len(generators) < 2:
        yield (
            "The runs all had the same number of workers or of generators, so what does not get faster with more of"
            " them cannot be told apart: the table is the best case. A second run with other numbers mends that."
        )
    most = max(run.workers + run.generators for run in calibration.runs)
    if gpus > 2 * most:
        yield f"Measured with at most {most} processes: what is far beyond is a straight line drawn on."
    tokens = fmean(run.tokens for run in calibration.runs)
    yield f"Responses are taken to be as long as in those runs, {tokens:.0f} tokens on average."


def as_json(part: Part) -> dict[str, Any]:
    """The figures of a part with what is to be said of them."""
    return part.figures | {"warnings": list(part.warnings), "notes": list(part.notes)}
