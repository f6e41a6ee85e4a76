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

from plaudit.config.sections import CheckpointSection
from plaudit.errors import Stopped, TrainingError
from plaudit.runs import checkpoint
from plaudit.runs.best import BestWeights
from plaudit.runs.recorder import Recorder

SIGNALS = (signal.SIGTERM, signal.SIGINT)
AFTER_STEP = "stopping after this step, and keeping a checkpoint; once more ends at once, without"


class Kept(Protocol):
    """What can write itself into a checkpoint: a learner."""

    @property
    def step(self) -> int:
        """Steps that it has taken."""
        ...

    def save(self, directory: Path) -> None:
        """Write its files."""
        ...

    def restore(self, directory: Path) -> None:
        """Inverse of `save`."""
        ...


class Keeper:
    """Saves and restores the learners of one run.

    Args:
        run: the run directory.
        section: how often, and how many stay.
        learners: by role.
        recorder: told what is saved and resumed.
        best: the best weights so far, where a run keeps them.
    """

    def __init__(
        self,
        run: Path,
        section: CheckpointSection,
        learners: Mapping[str, Kept],
        recorder: Recorder,
        best: BestWeights | None = None,
    ) -> None:
        self.directory, self.section = run / "checkpoints", section
        self.learners, self.recorder, self.best = dict(learners), recorder, best
        self.stop_requested = False
        self._words = AFTER_STEP

    def restore(self) -> tuple[int, dict[str, Any]]:
        """Load the newest valid checkpoint if resuming; (0, {}) for a fresh start."""
        if not self.section.resume:
            return 0, {}
        latest = checkpoint.load_latest(self.directory, self._say_bad, self.section.keep)
        if latest is None:
            self.recorder.rewind(-1)  # step 0 is recorded again as well
            return 0, {}
        steps = latest.trainer["steps"]
        roles = {*self.learners, *(["best"] if self.best else [])}
        # A checkpoint may come from a version that kept no best weights of such a run.
        if {*steps, *({"best"} & roles)} != roles:
            raise TrainingError(
                f"the checkpoint holds {', '.join(sorted(steps))}; this run needs {', '.join(sorted(roles))}",
                where=str(self.directory),
                cure="resume with the algorithm the run was started with, or start anew with another --out",
            )
        for learner in self.learners.values():
            learner.restore(latest.path)
        if self.best and latest.lost:
            self.recorder.alarm(
                latest.step,
                "checkpoint",
                f"the best weights so far are lost: {latest.lost}. The run goes on from {latest.path.name} "
                "without them, and what is best counts anew from there",
            )
        elif self.best and "best" in steps:
            self.best.resume(latest.path, steps["best"], next(iter(latest.needs), None))
        dropped = self.recorder.rewind(latest.step)
        self.recorder.event("resumed", step=latest.step, lines_recorded_again=dropped)
        return latest.step, latest.trainer["state"]

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
    def watch(self, words: str = AFTER_STEP) -> Iterator[None]:
        """Turn the first SIGTERM or Ctrl-C into a stop after the current step; a second one ends at once.

        Args:
            words: said at the first one.
        """
        self._words = words
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
            os.write(2, f"\n{self._words}\n".encode())

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Write a checkpoint now."""
        steps = {role: learner.step for role, learner in self.learners.items()}
        # After a power cut the files must reach at least as far as the checkpoint that the run goes on from.
        self.recorder.sync()
        needed = [self.best.file] if self.best and self.best.file else []
        if self.best:
            steps["best"] = self.best.step
        path = checkpoint.save(
            self.directory,
            step,
            [learner.save for learner in self.learners.values()],
            {"steps": steps, "state": state},
            self.section.keep,
            needed,
        )
        if self.best:
            # Only now: until the new checkpoint stood, an older one that names another file was the one to go back to.
            self.best.prune(self.directory)
        self.recorder.event("saved", step=step, path=str(path))

    def _say_bad(self, path: Path, reason: str) -> None:
        message = f"checkpoint {path.name} is not used: {reason}; trying the one before"
        self.recorder.alarm(checkpoint.step_of(path), "checkpoint", message)
