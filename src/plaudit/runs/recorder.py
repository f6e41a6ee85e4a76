"""The recorder of a run: its files, which are always written, and trackers beside them (console, W&B ...)."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from plaudit.config.sections import LogSection
from plaudit.errors import PlauditError, Stopped
from plaudit.machine import sync, writing
from plaudit.runs.files import (
    CONFIG,
    EVALUATION,
    EVENTS,
    METRICS,
    SAMPLES,
    STEP,
    SUMMARY,
    Lines,
    jsonable,
    merge_json,
    read_lines,
    read_settings,
)
from plaudit.tracking.protocol import Tracker
from plaudit.tracking.tracker import TRACKERS, Opening


class Files:
    """metrics.jsonl, samples.jsonl and events.jsonl of a run. A tracker, and the one from which a run is resumed.

    Attributes:
        wrong: what is wrong with the files of a run that is resumed, as sentences; known after `rewind`.
    """

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self.wrong: list[str] = []
        self._metrics = Lines(run_dir / METRICS)
        self._samples = Lines(run_dir / SAMPLES)
        self._events = Lines(run_dir / EVENTS)

    def expect(self, total: int, unit: str) -> None:
        """How long the run will be is in its settings."""

    def metrics(self, step: int, values: Mapping[str, float | None]) -> None:
        """One line: ``{"step", "time" (Unix seconds), "role/name": number or null, ...}``."""
        self._metrics.add({"step": step, "time": round(time.time(), 3), **values})

    def start(self, values: Mapping[str, float]) -> None:
        """They are in metrics.jsonl and evaluation.jsonl."""

    def sample(self, step: int, fields: Mapping[str, Any]) -> None:
        """One line: ``{"step", "prompt", "response", ...}``."""
        self._samples.add({"step": step, **fields})

    def event(self, kind: str, fields: Mapping[str, Any]) -> None:
        """One line: ``{"time", "event": kind, ...}``."""
        self._events.add({"time": round(time.time(), 3), "event": kind, **fields})

    def rewind(self, step: int) -> int:
        """Rewrite figures, samples and evaluations without the lines after ``step``; how many were dropped."""
        # Kept, the lines after the checkpoint would be recorded a second time by the resumed run, and a mean over the
        # file would count them twice. Events stay: that the run was stopped is part of its history.
        files, dropped = [self._metrics, self._samples], 0
        self.wrong = []
        with contextlib.ExitStack() as stack:
            if (self._run_dir / EVALUATION).exists():  # only online runs have one
                files.append(stack.enter_context(contextlib.closing(Lines(self._run_dir / EVALUATION))))
            for lines in files:
                rows, moved = lines.keep(lambda row: row["step"] <= step and not _of_an_end(row))
                dropped += rows
                self.wrong += [moved] if moved else []
        steps = [row["step"] for row in read_lines(self._run_dir / METRICS, has=STEP)] if step > 0 else []
        if step > 0 and (not steps or min(steps) > 1 or max(steps) < step):
            has = f"only those of steps {min(steps)} to {max(steps)}" if steps else "none"
            self.wrong.append(
                f"metrics.jsonl should have the figures of steps 1 to {step} and has {has}: it was deleted or cut. The "
                "run goes on exactly, but its curves and its report lack them"
            )
        return dropped

    def sync(self) -> None:
        """Wait until all that was recorded is on the disk, in files of other writers (kept responses) too."""
        for path in (*self._run_dir.glob("*.jsonl"), self._run_dir):
            with writing(path, path.name):
                sync(path)

    def close(self) -> None:
        """Close the three files."""
        for lines in (self._metrics, self._samples, self._events):
            lines.close()


def _of_an_end(row: Mapping[str, Any]) -> bool:
    """Whether a row of evaluation.jsonl was sampled when training had ended: whoever resumes, samples it again."""
    return row.get("set") == "again" or (row.get("set") == "final" and row["step"] > 0)


class Recorder:
    """Writes the files of a run and summary.json, and passes the same on to every tracker.

    A context manager: leaving it records the event ``stopped`` with the reason ("finished", or the error).
    Figures that are not finite are written as ``null``, so that every line stays valid JSON.

    A tracker that raises is left out from then on, and the event ``tracker failed`` says so, once: a console that was
    closed or a server that is down is no reason to lose a training run. The files are: an error there ends the run,
    because without them it could be neither judged nor resumed.

    Args:
        run_dir: made if it does not exist; an existing run is continued, not overwritten.
        command: the command that runs, e.g. "ppo"; it is part of the event ``started`` and of the summary.
        log: which trackers to open; the default writes TensorBoard files if the package is installed.
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
        self.run_dir = Path(run_dir)
        self.run_dir.mkdir(parents=True, exist_ok=True)
        self._has_events = (self.run_dir / EVENTS).exists()
        self._files = Files(self.run_dir)
        self._closed = False
        self.trackers: dict[str, Tracker] = {}
        opening = Opening(self.run_dir, command, _settings(self.run_dir))
        for name in (log or LogSection()).trackers:
            with self._guard(name):
                tracker = TRACKERS[name](opening)
                if tracker is not None:
                    self.trackers[name] = tracker
        self.summary({"command": command})
        self.event("started", command=command)
        if total:
            self.expect(total, unit)

    def expect(self, total: int, unit: str = "step") -> None:
        """Set how many steps the run has in all, the resumed ones included: the end of the progress bar."""
        self._tell(lambda tracker: tracker.expect(total, unit))

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """The figures of one step: a line of metrics.jsonl, and every tracker's."""
        clean = jsonable(values)
        self._files.metrics(step, clean)
        self._tell(lambda tracker: tracker.metrics(step, clean))

    def start(self, values: Mapping[str, float]) -> None:
        """Figures at the start of the run, by name, for trackers that say what has become of them."""
        known = {name: value for name, value in jsonable(values).items() if value is not None}
        self._tell(lambda tracker: tracker.start(known))

    def sample(self, step: int, fields: Mapping[str, Any]) -> None:
        """A prompt and its response at this step, with reward parts: a line of samples.jsonl."""
        self._files.sample(step, fields)
        self._tell(lambda tracker: tracker.sample(step, fields))

    def event(self, kind: str, /, **fields: Any) -> None:
        """Something happened: a line of events.jsonl.

        Kinds: started, saved, resumed, started over, alarm (`alarm` writes it), no step, gone back, rolled back,
        tracker failed, stopped.
        """
        self._files.event(kind, fields)
        self._tell(lambda tracker: tracker.event(kind, fields))

    def alarm(self, step: int, kind: str, message: str, *, is_early: bool = False) -> None:
        """The event ``alarm``: something is wrong that the run goes on with.

        Args:
            step: the step that it is about.
            kind: one word for programs, such as "stale" or "checkpoint".
            message: what is wrong, with its figures, and what to do: for people.
            is_early: nothing was lost yet; the event then has ``"early": true``.
        """
        # The only place that writes this event: what reads events.jsonl relies on these three fields.
        self.event("alarm", step=step, kind=kind, message=message, **({"early": True} if is_early else {}))

    def summary(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Merge ``values`` into summary.json, atomically; returns the whole summary."""
        return merge_json(self.run_dir / SUMMARY, values)

    def sync(self) -> None:
        """Wait until all that was recorded is on the disk: before a checkpoint that goes on from there."""
        self._files.sync()

    def rewind(self, step: int) -> int:
        """Remove figures, samples and evaluations after ``step``: a run resumed there records them again.

        Returns:
            How many lines were removed. Events are kept; that of a run which has to begin anew says which still stand.
        """
        self._tell(lambda tracker: tracker.rewind(step))
        if step < 0 and self._has_events:
            self.event("started over")
        dropped = self._files.rewind(step)
        for message in self._files.wrong:
            self.event("caution", step=max(step, 0), message=message)
        first: dict[str, float] = {}
        for row in read_lines(self.run_dir / METRICS):
            for name in row.keys() - {"step", "time"} - first.keys():
                if row[name] is not None:
                    first[name] = row[name]
        self.start(first)
        return dropped

    def close(self, reason: str = "finished") -> None:
        """Record why the run stopped and close everything; a second call does nothing."""
        if self._closed:
            return
        self._closed = True
        # Trackers first: whoever reads the run takes the last event for the reason of its end, so what a tracker
        # that fails in its last call adds must come before it.
        self._tell(lambda tracker: tracker.event("stopped", {"reason": reason}))
        self._tell(lambda tracker: tracker.close())
        try:
            self._files.event("stopped", {"reason": reason})
        finally:
            self._files.close()

    def _tell(self, call: Callable[[Tracker], object]) -> None:
        for name, tracker in list(self.trackers.items()):
            with self._guard(name):
                call(tracker)

    @contextlib.contextmanager
    def _guard(self, name: str) -> Iterator[None]:
        """Within it a tracker may raise: it is left out from then on, and an event says so."""
        try:
            yield
        except Stopped:
            raise  # A signal can arrive while a tracker works; the stop that it asks for is not a failure.
        except Exception as error:
            self.trackers.pop(name, None)
            message = (
                f"the tracker {name} failed ({type(error).__name__}: {error}); the run goes on without it"
            )
            self.event("tracker failed", tracker=name, message=message)

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


def _settings(run_dir: Path) -> dict[str, Any]:
    """The settings of the run by dotted name, from its config.toml; empty where it has none."""
    tables: list[tuple[str, Any]] = [("", read_settings(run_dir / CONFIG)[0])]
    flat: dict[str, Any] = {}
    while tables:
        above, table = tables.pop()
        for name, value in table.items():
            if isinstance(value, dict):
                tables.append((f"{above}{name}.", value))
            else:
                flat[above + name] = jsonable(value)
    return flat
