"""Reading a run directory as it lies on disk, finished or still running; and which runs a directory holds."""

from __future__ import annotations

import contextlib
import json
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from plaudit.config.show import toml_value
from plaudit.errors import ConfigError, DataError
from plaudit.jobs.reward_tables import from_mapping, on_one_line
from plaudit.runs.files import (
    BENCHMARK,
    BEST,
    CONFIG,
    EVALUATION,
    EVENTS,
    HELDOUT,
    METRICS,
    SAMPLES,
    STEP,
    SUMMARY,
    Row,
    read_json,
    read_lines,
    read_settings,
)
from plaudit.runs.lock import MANIFEST

EDGE = 5
"""`Run.early` and `Run.late` are means over at most this many steps, and at most a tenth of them."""


class Setting(NamedTuple):
    """One value of config.toml and where it came from."""

    key: str
    value: str
    source: str


@dataclass(frozen=True)
class Run:
    """A run directory, read.

    ``settings`` has the values of config.toml, ``manifest`` the rest of manifest.json as (dotted key, text).
    """

    path: Path
    command: str
    metrics: list[Row]
    samples: list[Row]
    events: list[Row]
    summary: Row
    settings: list[Setting]
    manifest: list[tuple[str, str]]

    @property
    def reason(self) -> str:
        """Why the run stopped; "" while it runs."""
        last = self.events[-1] if self.events else {}
        return str(last.get("reason", "")) if last.get("event") == "stopped" else ""

    @property
    def said(self) -> list[str]:
        """What the run said of its data, its settings, its model and what these cannot do, each sentence once."""
        rows = [row for row in self.standing if row.get("event") in ("data", "note", "caution")]
        told = [
            f"{row['source']}: {row.get('message')}"
            if row.get("source")
            else str(row.get("message", row.get("what")))
            for row in rows
        ]
        return list(dict.fromkeys(told))

    @property
    def standing(self) -> list[Row]:
        """The events that still stand after the run was resumed; see `standing`."""
        return standing(self.events)

    @property
    def seconds(self) -> float | None:
        """Between the first and the last thing that was recorded."""
        times = [float(row["time"]) for row in (*self.events, *self.metrics) if row.get("time")]
        return max(times) - min(times) if len(times) > 1 else None

    def series(self, name: str) -> tuple[list[float], list[float]]:
        """Steps and finite values of a metric."""
        rows = [row for row in self.metrics if isinstance(row.get(name), (int, float))]
        return [row["step"] for row in rows], [row[name] for row in rows]

    def first(self, name: str) -> float | None:
        """The first value of a metric, as it was recorded; None where it was not."""
        values = self.series(name)[1]
        return values[0] if values else None

    def last(self, name: str) -> float | None:
        """The last value of a metric, as it was recorded; None where it was not."""
        values = self.series(name)[1]
        return values[-1] if values else None

    def early(self, name: str) -> float | None:
        """Mean of a metric over its first steps, for what a single noisy step must not decide; None: not recorded."""
        values = self.series(name)[1]
        return fmean(values[: _edge(values)]) if values else None

    def late(self, name: str) -> float | None:
        """Mean of a metric over its last steps; see `early`."""
        values = self.series(name)[1]
        return fmean(values[-_edge(values) :]) if values else None


def _edge(values: list[float]) -> int:
    # A single step is one batch, and noisy; many steps would mix the start of a short run with its end.
    return min(EDGE, len(values) // 10 + 1)


HANDED_OUT = ("rolled back", "not judged")
"""Events of the weights that were handed out: a run that is resumed hands out others."""


def standing(events: Iterable[Row]) -> list[Row]:
    """Events without those of steps that were done again after a resume.

    The file keeps all of them, as they happened. But an alarm of a step that was done again was raised again, or did
    not come again: counted from the file it would be there twice, or although the run no longer has it.
    """
    kept: list[Row] = []
    began = 0  # what this process has said before it resumed, such as of a broken checkpoint, stands
    for row in events:
        if row.get("event") == "started":
            began = len(kept)
        elif row.get("event") in ("resumed", "started over"):
            done = row.get("step", 0) if row["event"] == "resumed" else -1
            earlier = [one for one in kept[:began] if _stands(one, done)]
            kept, began = earlier + kept[began:], len(earlier)
        kept.append(row)
    return kept


def _stands(event: Row, done: int) -> bool:
    step = event.get("step")
    return event.get("event") not in HANDED_OUT and (not isinstance(step, int) or step <= done)


def is_run(path: Path) -> bool:
    """Whether a directory is a run: something was recorded in it."""
    # Rows without metrics: a reward model that was evaluated on another data set has a directory of its own.
    return any((path / name).is_file() for name in (METRICS, EVALUATION, HELDOUT, BEST, BENCHMARK))


def read_run(path: Path) -> Run:
    """Read a run directory.

    Raises:
        DataError: not a run, or a broken file in it.
    """
    if not is_run(path):
        raise _no_run(path)
    summary = read_json(path / SUMMARY)
    return Run(
        path=path,
        command=str(summary.get("command") or path.name),
        metrics=sorted(read_lines(path / METRICS, has=STEP), key=lambda row: row["step"]),
        samples=read_lines(path / SAMPLES),
        events=read_lines(path / EVENTS),
        summary=summary,
        settings=_settings(path / CONFIG),
        # Its settings are those of config.toml, which has their sources as well.
        manifest=_flat({k: v for k, v in read_json(path / MANIFEST).items() if k != "settings"}),
    )


KNOWN: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("step", "k"), (int,)),
    **dict.fromkeys(("id", "prompt_id"), (str, int)),
    **dict.fromkeys(("time", "reward", "gold", "kl", "length", "loss", "logprob", "ref_logprob"), (int, float)),
    **dict.fromkeys(("event", "message", "response", "finish_reason"), (str,)),
}
"""Columns that mean the same in every file of rows, with their types; beside them None."""
_DAMAGE = (KeyError, TypeError, ValueError, AttributeError, IndexError)


@contextlib.contextmanager
def naming_odd_rows(run: Path) -> Iterator[None]:
    """Within it rows of a run are used: what fails because one of them is damaged is an error that names the row.

    The rows are only looked at once something has failed, so that runs of all versions are read as they are; where all
    of them are sound, the failure is a bug and stays one.

    Raises:
        DataError: a row without a column that was asked for, or with a value of another type than it can have.
    """
    try:
        yield
    except _DAMAGE as error:
        missing = error.args[0] if isinstance(error, KeyError) and error.args else None
        where, what = next(_odd_rows(run, missing), ("", ""))
        if not what:
            raise
        cure = "delete the line, or put the file back as it was"
        raise DataError(f"this row is not what a run writes: {what}", where=where, cure=cure) from error


def _odd_rows(run: Path, missing: str | None) -> Iterator[tuple[str, str]]:
    """Rows that no run writes: file and line, and what is odd; ``missing``: a column that was asked for in vain."""
    for path in sorted(run.glob("*.jsonl")):
        rows = read_lines(path)
        # A column that no sound row of the file has was not asked of it, or the failure is our own.
        asked = any(missing in row for row in rows) or not any(row.keys() & KNOWN.keys() for row in rows)
        wanted = missing if asked and path.name != METRICS else None  # whose rows have other columns at each step
        for number, row in enumerate(rows, 1):
            if what := _oddity(row, wanted):
                yield f"{path}:{number}", what


def _oddity(row: Row, missing: str | None) -> str:
    """What is odd in a row, in words; "" if nothing is."""
    for name, types in KNOWN.items():
        value = row.get(name)
        if value is not None and (not isinstance(value, types) or isinstance(value, bool)):
            return f"{name} = {str(value)[:40]!r}"
    return f"it has no {missing}" if missing is not None and missing not in row else ""


def runs_in(path: Path) -> list[Path]:
    """``path`` itself if it is a run, else those of its sub-directories that are runs, by name.

    Raises:
        DataError: neither.
    """
    if is_run(path):
        return [path]
    inside = sorted(child for child in path.iterdir() if child.is_dir()) if path.is_dir() else []
    runs = [child for child in inside if is_run(child)]
    if not runs:
        raise _no_run(path)
    return runs


def run_directory(path: Path) -> Path:
    """The path, if it is a run directory or an evaluation's (or a quickstart's, which holds several).

    Raises:
        DataError: it is not.
    """
    if not path.is_dir():
        raise DataError(
            "there is no such run directory", where=str(path), cure="the runs are usually under runs/"
        )
    if not is_run(path) and not any(is_run(inside) for inside in path.glob("**/")):
        raise DataError(
            "the directory holds no run: it has no metrics.jsonl, and no rows of an evaluation",
            where=str(path),
            cure="give the directory that `plaudit sft`, `reward`, `ppo` or `evaluate` printed",
        )
    return path


def _no_run(path: Path) -> DataError:
    return DataError(
        "this directory is not a run: it has no metrics.jsonl",
        where=str(path),
        cure="give the directory that the training command named at its end",
    )


def _settings(path: Path) -> list[Setting]:
    """The values of config.toml, each with the comment behind it, which names its source.

    Raises:
        DataError: not TOML.
    """
    values, text = read_settings(path)
    settings = []
    for key, source in _sources(text).items():
        value: Any = values
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if value is not None:
            settings.append(Setting(key, _shown(key, value), source))
    return settings


def _sources(text: str) -> dict[str, str]:
    """The dotted key of each setting in the order of the file, with its comment; a list of tables is one setting."""
    # The comments alone are read from the lines, as tomllib drops them.
    section = ""
    sources: dict[str, str] = {}
    for line in text.splitlines():
        plain, _, comment = line.strip().partition(" # ")
        if plain.startswith("[["):
            section = plain.strip("[] ")
            sources.setdefault(section, comment.strip())
        elif plain.startswith("["):
            section = plain.strip("[] ")
        elif "=" in plain and not plain.startswith("#") and section not in sources:
            key = plain.partition("=")[0].strip()
            sources[f"{section}.{key}" if section else key] = _comment(line)
    return sources


def _comment(line: str) -> str:
    """What stands behind a value, which may hold the sign of a comment itself."""
    parts = line.split(" # ")
    for end in range(1, len(parts)):
        with contextlib.suppress(tomllib.TOMLDecodeError):
            tomllib.loads(" # ".join(parts[:end]))
            return " # ".join(parts[end:]).strip()
    return ""


def _shown(key: str, value: Any) -> str:
    """A value as TOML on one line; of the tables of rewards what is not as by default."""
    if not (isinstance(value, list) and value and all(isinstance(one, dict) for one in value)):
        return toml_value(value)
    try:
        return ", ".join(on_one_line(from_mapping(one, key)) for one in value)
    except ConfigError:  # of another version, which knew other keys
        return ", ".join(map(toml_value, value))


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
