"""The recorder of a run: files that are always written, and sinks (console, TensorBoard) that look on."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from plaudit.config.sections import LogSection
from plaudit.errors import PlauditError
from plaudit.runs.files import Lines, jsonable, merge_json
from plaudit.tracking.console import ConsoleSink
from plaudit.tracking.tensorboard import tensorboard_sink


class Sink(Protocol):
    """Something that looks on while a run records."""

    def expect(self, total: int, unit: str) -> None:
        """The run will have ``total`` steps, called ``unit``."""

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """One step's figures."""

    def event(self, kind: str, fields: Mapping[str, Any]) -> None:
        """Something happened."""

    def close(self) -> None:
        """The run is over."""


class Recorder:
    """Writes metrics.jsonl, samples.jsonl, events.jsonl and summary.json of a run; fans out to sinks.

    A context manager: leaving it records the event ``stopped`` with the reason ("finished", or the error).
    Figures that are not finite are written as ``null``, so that every line stays valid JSON.

    Args:
        run_dir: made if it does not exist; an existing run is continued, not overwritten.
        command: the command that runs, e.g. "ppo"; it is part of the event ``started`` and of the summary.
        log: which sinks there are; the default writes TensorBoard files if the package is installed.
        total: steps to come, if known already; otherwise call ``expect``.
        unit: what a step is called, "iteration" for online commands.
    """

    def __init__(
        self,
        run_dir: Path,
        *,
        command: str,
        log: LogSection | None = None,
        total: int = 0,
        unit: str = "step",
    ) -> None:
        log = log or LogSection()
        self.run_dir = Path(run_dir)
        self.run_dir.mkdir(parents=True, exist_ok=True)
        self._metrics = Lines(self.run_dir / "metrics.jsonl")
        self._samples = Lines(self.run_dir / "samples.jsonl")
        self._events = Lines(self.run_dir / "events.jsonl")
        self._closed = False
        self.sinks: list[Sink] = []
        if log.progress:
            self.sinks.append(ConsoleSink(command))
        writer = tensorboard_sink(self.run_dir / "tensorboard") if log.tensorboard else None
        if writer is not None:
            self.sinks.append(writer)
        self.summary({"command": command})
        self.event("started", command=command)
        if total:
            self.expect(total, unit)

    def expect(self, total: int, unit: str = "step") -> None:
        """Say how many steps the run has in all, the resumed ones included: gives the bar its end."""
        for sink in self.sinks:
            sink.expect(total, unit)

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """One line of metrics.jsonl: ``{"step", "time" (Unix seconds), "role/name": number, ...}``."""
        clean = jsonable(values)
        self._metrics.add({"step": step, "time": round(time.time(), 3), **clean})
        numbers = {name: value for name, value in clean.items() if value is not None}
        for sink in self.sinks:
            sink.metrics(step, numbers)

    def sample(self, step: int, fields: Mapping[str, Any]) -> None:
        """One line of samples.jsonl: a prompt and its response at this step, with reward parts."""
        self._samples.add({"step": step, **fields})

    def event(self, kind: str, **fields: Any) -> None:
        """One line of events.jsonl: ``{"time", "event": kind, ...}``.

        Kinds: started, saved, resumed, alarm, rolled back, stopped. An alarm says what in ``message``.
        """
        self._events.add({"time": round(time.time(), 3), "event": kind, **fields})
        for sink in self.sinks:
            sink.event(kind, fields)

    def summary(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Merge ``values`` into summary.json, atomically; returns the whole summary."""
        return merge_json(self.run_dir / "summary.json", values)

    def rewind(self, step: int) -> int:
        """Forget figures and samples after ``step``: a run resumed from that checkpoint records them again.

        Returns:
            How many lines were dropped. Events stay: they happened.
        """
        dropped = self._metrics.keep(lambda row: row["step"] <= step)
        return dropped + self._samples.keep(lambda row: row["step"] <= step)

    def close(self, reason: str = "finished") -> None:
        """Record why the run stopped and close all files; closing twice is fine."""
        if self._closed:
            return
        self._closed = True
        self.event("stopped", reason=reason)
        for sink in self.sinks:
            sink.close()
        for lines in (self._metrics, self._samples, self._events):
            lines.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        elif isinstance(error, PlauditError):
            self.close(f"{error.code}: {error.what}")
        else:
            self.close(f"{type(error).__name__}: {error}")
