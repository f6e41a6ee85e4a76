"""Keeps a run safe: checkpoints when due, a clean stop on SIGTERM or Ctrl-C, and resume.

A checkpoint is written beside the training: the learners copy their state, which takes a moment, and a thread writes,
hashes and syncs the copies. There is one such thread at most, and the run does not end before it has.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from plaudit.awaited import awaiting
from plaudit.config.sections import CheckpointSection
from plaudit.errors import Stopped, TrainingError
from plaudit.runs import checkpoint
from plaudit.runs.best import BestWeights
from plaudit.runs.recorder import Recorder

SIGNALS = (signal.SIGTERM, signal.SIGINT)
OVERDUE = getattr(signal, "SIGUSR2", None)
"""Sent to the main thread by this process itself, to interrupt a step that takes too long after SIGTERM."""
LAST_SECONDS = 10.0
"""After a step was given up: so long the run may take to close its files before its process is ended."""
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

    def snapshot(self) -> Callable[[Path], None] | None:
        """A copy of its state, as what writes the files of `save`; None if there is no memory for a copy."""
        ...

    def restore(self, directory: Path) -> None:
        """Inverse of `save`."""
        ...


class _Overdue(BaseException):
    """The time after SIGTERM is over. No Exception, so that a reward's own ``except Exception`` lets it through."""


class _Writing:
    """A checkpoint that a thread of its own writes."""

    # No daemon: at the end of the process, whatever the reason, Python waits for it.
    def __init__(self, write: Callable[[], Path], step: int) -> None:
        self.step, self._write = step, write
        self._path: Path | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="checkpoint")
        self._thread.start()

    def _run(self) -> None:
        try:
            self._path = self._write()
        except BaseException as error:  # raised in the main thread, by `result`
            self._error = error

    @property
    def is_done(self) -> bool:
        """Whether `result` comes at once."""
        return not self._thread.is_alive()

    def result(self) -> Path:
        """The checkpoint, when it is there; raises what writing it has raised."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        assert self._path is not None, "a thread that raised nothing has written it"
        return self._path


class Keeper:
    """Saves and restores the learners of one run.

    Args:
        run: the run directory.
        section: how often, and how many stay.
        learners: by role.
        recorder: told what is saved and resumed.
        best: the best weights so far, where a run keeps them.
        clock: seconds since any moment; it never goes back, whatever becomes of the time of day.
    """

    def __init__(
        self,
        run: Path,
        section: CheckpointSection,
        learners: Mapping[str, Kept],
        recorder: Recorder,
        best: BestWeights | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.directory, self.section = run / "checkpoints", section
        self.learners, self.recorder, self.best = dict(learners), recorder, best
        self.stop_requested = False
        self._words = AFTER_STEP
        self._clock, self._saved_at = clock, clock()
        self._writing: _Writing | None = None
        self._overdue_at: float | None = None
        self._left = threading.Event()

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
        if self.best:  # what a kill left between the end of a checkpoint and that of the file it named
            self.best.prune(self.directory)
        dropped = self.recorder.rewind(latest.step)
        self.recorder.event("resumed", step=latest.step, lines_recorded_again=dropped)
        return latest.step, latest.trainer["state"]

    def after(self, step: int, state: Callable[[], dict[str, Any]], *, last: bool = False) -> None:
        """Save if this step is due, or if the run was asked to stop, which then raises `Stopped`.

        Raises:
            MachineError: the disk refused this checkpoint or the one before.
        """
        if self._writing is not None and self._writing.is_done:
            self.finish()
        late = self._clock() - self._saved_at >= 60 * self.section.every_minutes > 0
        due = late or (self.section.every > 0 and step % self.section.every == 0)
        if (due and not last) or self.stop_requested:
            self.save(step, state())
        if self.stop_requested and not last:
            self.finish()
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
        if OVERDUE is not None:  # not put back: one that comes late is passed over, and the default ends the process
            signal.signal(OVERDUE, self._interrupt)
        self._left.clear()
        if self._overdue_at is not None:  # asked already, while it was trained
            self._allow(self._overdue_at - self._clock())
        try:
            yield
        except _Overdue:
            raise self._given_up() from None
        finally:
            self._left.set()
            for number, handler in before.items():
                signal.signal(number, handler)

    def _allow(self, seconds: float) -> None:
        """Interrupt what is under way after so many seconds, unless `watch` has been left by then."""
        if OVERDUE is not None:
            threading.Thread(target=self._wait, args=(OVERDUE, max(0.0, seconds)), daemon=True).start()

    def _wait(self, overdue: int, seconds: float) -> None:
        if self._left.wait(seconds) or sys.platform == "win32":
            return
        signal.pthread_kill(threading.main_thread().ident or 0, overdue)
        if self._left.wait(LAST_SECONDS):
            return
        # It is in a call that nothing can interrupt, or swallows what interrupts it. Whoever asked the run to stop will
        # kill it next; nothing is lost by ending now, with the code that says that it can go on.
        stopped = self._given_up()
        self.recorder.event("stopped", reason=stopped.what)
        with contextlib.suppress(OSError):
            os.write(2, f"\n{stopped}\n".encode())
        os._exit(stopped.exit_code)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if not self._left.is_set():
            raise _Overdue

    def _given_up(self) -> Stopped:
        """What is said of a step that took too long after SIGTERM."""
        kept = [path.name for path in checkpoint.steps(self.directory)[-1:]]
        stopped = Stopped(
            f"what was under way did not end within {self.section.grace:g} s of SIGTERM and was given up; "
            + (f"the run goes on from {kept[0]}" if kept else "there is no checkpoint yet, so the run starts anew"),
            where=str(self.directory.parent),
            cure=f"the same command with --out {self.directory.parent} --resume; --grace SECONDS allows more",
        )
        stopped.abandoned = True
        return stopped

    def _request_stop(self, number: int, frame: FrameType | None) -> None:
        self.stop_requested = True
        if number == signal.SIGTERM:  # at Ctrl-C somebody is there, who can press it again
            self._overdue_at = self._clock() + self.section.grace
            self._allow(self.section.grace)
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        with contextlib.suppress(OSError):  # not print: the signal may have come in the middle of one
            os.write(2, f"\n{self._words}\n".encode())

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Take a checkpoint of this moment; it is written while the run goes on, where memory allows a copy of it.

        Raises:
            MachineError: the disk refused it, or the one before.
        """
        self.finish()
        steps = {role: learner.step for role, learner in self.learners.items()}
        # After a power cut the files must reach at least as far as the checkpoint that the run goes on from.
        self.recorder.sync()
        needed = [self.best.file] if self.best and self.best.file else []
        if self.best:
            steps["best"] = self.best.step
            self.best.held = {file.name for file in needed}
        copies = [learner.snapshot() for learner in self.learners.values()]
        copied = [copy for copy in copies if copy is not None]
        together = len(copied) == len(copies)
        writers = copied if together else [learner.save for learner in self.learners.values()]
        self._saved_at = self._clock()
        self._writing = _Writing(
            lambda: checkpoint.save(
                self.directory, step, writers, {"steps": steps, "state": state}, self.section.keep, needed
            ),
            step,
        )
        if not together:  # what is written is the learners' own memory, which the next step changes
            self.finish()

    def finish(self) -> None:
        """Wait until the checkpoint that is being written is on the disk; there may be none.

        Raises:
            MachineError: the disk refused it.
        """
        if self._writing is None:
            return
        writing, self._writing = self._writing, None
        with awaiting(f"the disk, for the checkpoint of step {writing.step}"):
            path = writing.result()
        if self.best:
            # Only now: until the new checkpoint stood, an older one that names another file was the one to go back to.
            self.best.held = set()
            self.best.prune(self.directory)
        self.recorder.event("saved", step=writing.step, path=str(path))

    def _say_bad(self, path: Path, reason: str) -> None:
        message = f"checkpoint {path.name} is not used: {reason}; trying the one before"
        self.recorder.alarm(checkpoint.step_of(path), "checkpoint", message)
