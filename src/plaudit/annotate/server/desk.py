"""Where requests queue for the database: what came while one lot was being done is done as the next lot.

One thread for each kind of work, instead of one for each request: handing work to a thread and back costs more than
asking the database, and writes that are done together wait for the disk once. Nobody waits for anybody who has not
come yet: a single person's answer is done, and committed, at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from plaudit.preferences.store.together import Outcome

T = TypeVar("T")
MOST_AT_ONCE = 64
"""So many make one lot at most: those at its head should not wait for an endless queue."""


class Desk:
    """A queue before one thread. Its own state is touched by the event loop's thread only.

    Args:
        serve: does one lot and returns the outcome of each; an exception is everybody's failure.
        name: of the thread.
    """

    def __init__(self, serve: Callable[[Sequence[Any]], list[Outcome]], name: str) -> None:
        self._serve = serve
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._queue: list[tuple[Any, asyncio.Future[Any]]] = []
        self._busy = False

    async def do(self, job: Callable[[Any], T]) -> T:
        """The value of ``job`` once its lot is done; its exception, if it raised one."""
        mine: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._queue.append((job, mine))
        if not self._busy:
            self._next()
        return await mine

    def _next(self) -> None:
        lot, self._queue = self._queue[:MOST_AT_ONCE], self._queue[MOST_AT_ONCE:]
        self._busy = bool(lot)
        if not lot:
            return
        loop = asyncio.get_running_loop()
        done = loop.run_in_executor(self._thread, self._lot, [job for job, _ in lot])
        done.add_done_callback(lambda ended: self._hand_out([mine for _, mine in lot], ended))

    def _lot(self, jobs: Sequence[Any]) -> list[Outcome]:
        """What becomes of each, whatever goes wrong: an exception of a thread may not reach those who wait."""
        try:
            return self._serve(jobs)
        except BaseException as failure:
            return [Outcome(failure=_settable(failure))] * len(jobs)

    def _hand_out(self, waiting: list[asyncio.Future[Any]], ended: asyncio.Future[list[Outcome]]) -> None:
        try:
            self._next()  # first, so that the thread is not idle while this one goes on
        finally:
            for mine, outcome in zip(waiting, ended.result(), strict=True):
                if mine.cancelled():
                    continue
                if outcome.failure is not None:
                    mine.set_exception(_settable(outcome.failure))
                else:
                    mine.set_result(outcome.value)


def _settable(failure: BaseException) -> Exception:
    """A future takes no StopIteration, and a cancelled lot is a failure to those who wait for it."""
    if isinstance(failure, Exception) and not isinstance(failure, StopIteration):
        return failure
    return RuntimeError(f"the work ended with {type(failure).__name__}: {failure}")
