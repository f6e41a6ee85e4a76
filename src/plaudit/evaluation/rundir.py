"""What the report reads: one finished (or still running) run directory, as it lies on disk."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Literal, NamedTuple

from plaudit.errors import DataError
from plaudit.evaluation import best_of_n, policy, preferences, reward_model
from plaudit.runs.files import Row, read_json, read_lines
from plaudit.tracking.console import duration

Kind = Literal["sft", "reward", "dpo", "best_of_n", "rl"]
KINDS: tuple[Kind, ...] = ("sft", "reward", "dpo", "best_of_n", "rl")
EDGE = 5
"""The start and the end of a curve are means over at most this many steps, and at most a tenth of them."""


CARDS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "sft": lambda path: read_json(path / "summary.json"),  # training wrote all there is to know
    "reward": reward_model.card,
    "preference": preferences.card,
    "best_of_n": best_of_n.card,
    "policy": policy.card,
}
"""Kind of a command's run (see `plaudit.jobs.registry`) -> what computes its figures."""


class Setting(NamedTuple):
    """One value of config.toml and where it came from."""

    key: str
    value: str
    source: str


@dataclass(frozen=True)
class Run:
    """A run directory, read."""

    path: Path
    kind: Kind
    command: str
    metrics: list[Row]
    samples: list[Row]
    events: list[Row]
    summary: Row
    settings: list[Setting]
    manifest: list[tuple[str, str]]

    @property
    def unit(self) -> str:
        """What a step of this run is called."""
        return "iteration" if self.kind == "rl" else "step"

    @property
    def reason(self) -> str:
        """Why the run stopped; "" while it runs."""
        last = self.events[-1] if self.events else {}
        return str(last.get("reason", "")) if last.get("event") == "stopped" else ""

    @property
    def seconds(self) -> float | None:
        """Between the first and the last thing that was recorded."""
        times = [float(row["time"]) for row in (*self.events, *self.metrics) if row.get("time")]
        return max(times) - min(times) if len(times) > 1 else None

    @property
    def log(self) -> list[tuple[str, str, str]]:
        """Events as (time since the start, kind, details)."""
        began: float = self.events[0].get("time", 0.0) if self.events else 0.0
        rows = []
        for event in self.events:
            said = [f"{k} {v}" for k, v in event.items() if k not in ("time", "event")]
            rows.append(
                (duration(event.get("time", began) - began), str(event.get("event", "")), ", ".join(said))
            )
        return rows

    def series(self, name: str) -> tuple[list[float], list[float]]:
        """Steps and finite values of a metric."""
        rows = [row for row in self.metrics if isinstance(row.get(name), (int, float))]
        return [row["step"] for row in rows], [row[name] for row in rows]

    def start(self, name: str) -> float | None:
        """Mean of a metric over its first steps."""
        values = self.series(name)[1]
        return fmean(values[: _edge(values)]) if values else None

    def end(self, name: str) -> float | None:
        """Mean of a metric over its last steps."""
        values = self.series(name)[1]
        return fmean(values[-_edge(values) :]) if values else None


def _edge(values: list[float]) -> int:
    return min(EDGE, len(values) // 10 + 1)


def is_run(path: Path) -> bool:
    """Whether a directory is a run: something was recorded in it."""
    return any(
        (path / name).is_file()
        for name in ("metrics.jsonl", "evaluation.jsonl", "heldout.jsonl", "best.jsonl")
    )


def load_run(path: Path) -> Run:
    """Read a run directory; makes the report card if its data are there and it is not.

    Raises:
        DataError: not a run, or a broken file in it.
    """
    if not is_run(path):
        raise DataError(
            "this directory is not a run: it has no metrics.jsonl",
            where=str(path),
            cure="give the directory that the training command named at its end",
        )
    summary = read_json(path / "summary.json")
    if (path / "heldout.jsonl").is_file() and "accuracy" not in summary:
        summary |= reward_model.card(path)
    if (path / "preferences.jsonl").is_file() and "accuracy" not in summary:
        summary |= preferences.card(path)
    if (path / "best.jsonl").is_file() and "curve" not in summary:
        summary |= best_of_n.card(path)
    if (path / "evaluation.jsonl").is_file() and "evaluated_step" not in summary:
        summary |= policy.card(path)
    command = str(summary.get("command") or path.name)
    return Run(
        path=path,
        kind=_kind(path, command),
        command=command,
        metrics=sorted(read_lines(path / "metrics.jsonl"), key=lambda row: row["step"]),
        samples=read_lines(path / "samples.jsonl"),
        events=read_lines(path / "events.jsonl"),
        summary=summary,
        settings=_settings(path / "config.toml"),
        # Its settings are those of config.toml, which has their sources as well.
        manifest=_flat({k: v for k, v in read_json(path / "manifest.json").items() if k != "settings"}),
    )


def _kind(path: Path, command: str) -> Kind:
    named: dict[str, Kind] = {"sft": "sft", "reward": "reward", "dpo": "dpo"}
    if command in named:
        return named[command]
    if (path / "preferences.jsonl").is_file():
        return "dpo"
    if (path / "best.jsonl").is_file() and not (path / "evaluation.jsonl").is_file():
        return "best_of_n"  # at inference: nothing was trained
    if (path / "evaluation.jsonl").is_file():
        return "rl"
    if (path / "heldout.jsonl").is_file():
        return "reward"
    rows = read_lines(path / "metrics.jsonl")
    return "rl" if any("reward/mean" in row for row in rows[:1]) else "sft"


def load_runs(path: Path) -> list[Run]:
    """The run in ``path``, or the runs in its sub-directories, in the order of the pipeline.

    Raises:
        DataError: neither.
    """
    path = Path(path)
    if is_run(path):
        return [load_run(path)]
    inside = sorted(child for child in path.iterdir() if child.is_dir()) if path.is_dir() else []
    runs = [load_run(child) for child in inside if is_run(child)]
    if not runs:
        load_run(path)
    return sorted(runs, key=lambda run: KINDS.index(run.kind))


def _settings(path: Path) -> list[Setting]:
    """The values of config.toml with the comment behind each, which names its source."""
    if not path.is_file():
        return []
    section, settings = "", []
    for line in path.read_text(encoding="utf-8").splitlines():
        text = line.strip()
        if text.startswith("["):
            section = text.strip("[]") + "."
        elif "=" in text and not text.startswith("#"):
            key, _, rest = text.partition("=")
            value, _, source = rest.rpartition(" # ") if " # " in rest else (rest, "", "")
            settings.append(Setting(section + key.strip(), value.strip(), source.strip()))
    return settings


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{prefix}{key}.")
        else:
            rows.append(
                (prefix + key, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
            )
    return rows
