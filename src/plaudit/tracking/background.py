"""A tracker behind a thread of its own: however slow its service is, the run does not wait for it."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from plaudit.tracking.protocol import Tracker

PATIENCE = 60.0
"""Seconds that a service may take for one call, and to write what is left at the end of a run."""


class InBackground:
    """Passes every call on to a tracker, in order, on a thread of its own, which also opens it.

    What the tracker raises is raised here by the next call, or by `close`; so is a `TimeoutError` where a call has
    not come back in time. After either, nothing more is passed on.

    Args:
        opened: opens the tracker. It is called on the thread: to connect may take long as well.
        patience: seconds that a call, or all that are left at the end, may take.
    """

    def __init__(self, opened: Callable[[], Tracker], patience: float = PATIENCE) -> None:
        self._opened, self._patience = opened, patience
        self._waiting: queue.SimpleQueue[Callable[[Tracker], object] | None] = queue.SimpleQueue()
        self._error: Exception | None = None
        self._since: float | None = time.monotonic()  # when the call under way began; None: there is none
        self._closed = False
        # A daemon: a service that hangs must not keep the process alive after the run.
        self._thread = threading.Thread(target=self._work, name="tracker", daemon=True)
        self._thread.start()

    def expect(self, total: int, unit: str) -> None:
        """Passed on."""
        self._pass_on(lambda tracker: tracker.expect(total, unit))

    def metrics(self, step: int, values: Mapping[str, float | None]) -> None:
        """Passed on."""
        self._pass_on(lambda tracker: tracker.metrics(step, values))

    def start(self, values: Mapping[str, float]) -> None:
        """Passed on."""
        self._pass_on(lambda tracker: tracker.start(values))

    def sample(self, step: int, fields: Mapping[str, Any]) -> None:
        """Passed on."""
        self._pass_on(lambda tracker: tracker.sample(step, fields))

    def event(self, kind: str, fields: Mapping[str, Any]) -> None:
        """Passed on."""
        self._pass_on(lambda tracker: tracker.event(kind, fields))

    def rewind(self, step: int) -> int:
        """Passed on; 0, since nobody waits for the answer."""
        self._pass_on(lambda tracker: tracker.rewind(step))
        return 0

    def close(self) -> None:
        """Wait until all is passed on and the tracker is closed, but not for ever."""
        if self._closed:
            return
        self._pass_on(lambda tracker: tracker.close())
        self._closed = True
        self._waiting.put(None)
        self._thread.join(self._patience)
        if self._error is not None:
            raise self._error
        if self._thread.is_alive():
            raise TimeoutError(self._late())

    def _pass_on(self, call: Callable[[Tracker], object]) -> None:
        if self._error is not None:
            raise self._error
        since = self._since
        if since is not None and time.monotonic() - since > self._patience:
            raise TimeoutError(self._late())
        self._waiting.put(call)

    def _late(self) -> str:
        return f"it did not answer for {self._patience:g} seconds; the files of the run have all figures"

    def _work(self) -> None:
        try:
            tracker = self._opened()
            while True:
                self._since = None
                call = self._waiting.get()
                if call is None:
                    return
                self._since = time.monotonic()
                call(tracker)
        except Exception as error:
            self._error = error
