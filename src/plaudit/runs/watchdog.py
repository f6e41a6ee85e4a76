"""Watches that a run goes on: one that hangs says what it waits for, and a command starts again by itself.

A function in this process that never gives back cannot be ended, and neither can a call into C. So nothing is done to
it: the stacks of all threads are written down, and the process as a whole is left, to go on from the last checkpoint.
"""

from __future__ import annotations

import contextlib
import faulthandler
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path

from plaudit.awaited import beat, present
from plaudit.runs.recorder import Recorder

STACKS = "stacks.txt"
LOOK = 1.0
"""Seconds between two looks."""
OVER = 30.0
"""Seconds by which something with a known limit may be late: whoever set the limit ends it first, where it can."""

Leave = Callable[[Path, str], None]
"""Given the run directory and what is awaited; does not come back where it can start the run again."""
leave: ContextVar[Leave | None] = ContextVar("leave", default=None)
"""How a process leaves a run that hangs. Set by the command line; a process that belongs to somebody else stays."""


class Watchdog:
    """Looks again and again whether a run goes on.

    Args:
        recorder: told what is awaited.
        seconds: without anything that has happened after which a run hangs; 0: nobody watches.
        clock: of `awaited`.
    """

    def __init__(self, recorder: Recorder, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.recorder, self.seconds, self._clock = recorder, seconds, clock
        self.step = 0
        self._told = False
        self._leave = leave.get()
        self._over = threading.Event()

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """While it lasts, a thread looks."""
        if not self.seconds:
            yield
            return
        beat()
        self._over.clear()
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        try:
            yield
        finally:
            self._over.set()

    def _watch(self) -> None:
        while not self._over.wait(LOOK):
            self.look()

    def look(self) -> None:
        """If the run hangs: write stacks, raise the alarm and leave, once until it goes on."""
        awaited, since = present()
        silent = self._clock() - since
        # What has a limit of its own may be the slower, or by far the faster, of the two.
        if silent <= (awaited.seconds + OVER if awaited.seconds else self.seconds):
            self._told = False
            return
        if self._told or self._over.is_set():
            return
        self._told = True
        run = self.recorder.run_dir
        with contextlib.suppress(OSError), (run / STACKS).open("a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} waiting for {awaited.what}\n")
            file.flush()
            faulthandler.dump_traceback(file, all_threads=True)
        limit = f", which should take {awaited.seconds:g} s at most" if awaited.seconds else ""
        message = (
            f"nothing has happened for {silent:.0f} s: the run waits for {awaited.what}{limit}; "
            f"what each thread does is in {run / STACKS}"
        )
        self.recorder.alarm(self.step, "stuck", message)
        if self._leave is not None:
            self._leave(run, awaited.what)
