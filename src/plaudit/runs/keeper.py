"""Keeps a run safe: checkpoints when due, a clean stop on SIGTERM or Ctrl-C, and resume."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from torch import Tensor

from plaudit.config.sections import CheckpointSection
from plaudit.errors import Stopped, TrainingError
from plaudit.runs.recorder import Recorder
from plaudit.runs import checkpoint

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Kept(Protocol):
    """What has tensors and a step to keep: learners, and the best weights."""

    step: int

    def tensors(self) -> dict[str, Tensor]:
        """What to save."""
        ...

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Inverse of `tensors`."""
        ...


class Keeper:
    """Saves and restores the learners of one run."""

    def __init__(
        self, run: Path, section: CheckpointSection, learners: Mapping[str, Kept], recorder: Recorder
    ) -> None:
        self.directory, self.section = run / "checkpoints", section
        self.learners, self.recorder = dict(learners), recorder
        self.stop_requested = False

    def restore(self) -> tuple[int, dict[str, Any]]:
        """Load the newest valid checkpoint if resuming; (0, {}) for a fresh start."""
        if not self.section.resume:
            return 0, {}
        found = checkpoint.load_latest(self.directory, self._say_bad)
        if found is None:
            self.recorder.rewind(-1)  # step 0 is recorded again as well
            return 0, {}
        if set(found.tensors) != set(self.learners):
            raise TrainingError(
                f"the checkpoint holds {', '.join(sorted(found.tensors))}; "
                f"this run needs {', '.join(sorted(self.learners))}",
                where=str(self.directory),
                cure="resume with the algorithm the run was started with, or start anew with another --out",
            )
        for role, learner in self.learners.items():
            learner.load_tensors(found.tensors[role])
            learner.step = found.trainer["steps"][role]
        dropped = self.recorder.rewind(found.step)
        self.recorder.event("resumed", step=found.step, lines_recorded_again=dropped)
        return found.step, found.trainer["state"]

    def after(self, step: int, state: Callable[[], dict[str, Any]], *, last: bool = False) -> None:
        """Save if this step is due, or if the run was asked to stop, which then raises `Stopped`."""
        due = self.section.every > 0 and step % self.section.every == 0
        if (due and not last) or self.stop_requested:
            self.save(step, state())
        if self.stop_requested and not last:
            raise Stopped(
                f"stopped as asked after step {step}",
                where=str(self.directory.parent),
                cure=f"go on with the same command and --out {self.directory.parent} --resume",
            )

    @contextlib.contextmanager
    def watch(self) -> Iterator[None]:
        """Turn the first SIGTERM or Ctrl-C into a stop after the current step; a second one ends at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._request_stop) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _request_stop(self, number: int, frame: FrameType | None) -> None:
        self.stop_requested = True
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        with contextlib.suppress(OSError):  # not print: the signal may have come in the middle of one
            os.write(2, b"\nstopping after this step, and keeping a checkpoint; once more ends at once, without\n")

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Write a checkpoint now."""
        tensors = {role: learner.tensors() for role, learner in self.learners.items()}
        trainer = {"steps": {role: learner.step for role, learner in self.learners.items()}, "state": state}
        path = checkpoint.save(self.directory, step, tensors, trainer, self.section.keep)
        self.recorder.event("saved", step=step, path=str(path))

    def _say_bad(self, path: Path, reason: str) -> None:
        self.recorder.event("alarm", what=f"checkpoint {path.name} is not used: {reason}; trying the one before")
