"""Short database jobs of many requests, run in batches by one thread.

While a batch runs, new jobs queue; they are the next batch. A job that comes when the thread is idle starts at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from plaudit.preferences.store.transaction import Job, Outcome, Transaction

T = TypeVar("T")
MOST_AT_ONCE = 64
"""Jobs of one batch at most: the first of them are answered when the last is done, so a batch must stay short."""

# Why one thread, not the usual thread for each request: handing a request to a thread and back costs more than asking
# the database. Why batches: a commit waits for the disk (fsync), and all jobs of a batch share one commit. There is no
# timer that waits for a batch to fill, so with a single person at work every answer is committed at once.


class Batcher:
    """A queue of jobs and the one thread that runs them.

    Args:
        run_batch: runs one batch and returns the outcome of each job; if it raises, every job of the batch failed.
        name: of the thread.
    """

    # No lock guards the fields: only the event loop's thread reads and writes them. The worker thread gets a list of
    # jobs and returns a list of outcomes.

    def __init__(self, run_batch: Callable[[Sequence[Job]], list[Outcome]], name: str) -> None:
        self._run_batch = run_batch
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._queue: list[tuple[Job, asyncio.Future[Any]]] = []
        self._busy = False

    async def run(self, job: Callable[[Transaction], T]) -> T:
        """The value of ``job`` once its batch is committed; its exception, if it raised one."""
        result: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._queue.append((job, result))
        if not self._busy:
            self._start_batch()
        return await result

    def _start_batch(self) -> None:
        batch, self._queue = self._queue[:MOST_AT_ONCE], self._queue[MOST_AT_ONCE:]
        self._busy = bool(batch)
        if not batch:
            return
        loop = asyncio.get_running_loop()
        running = loop.run_in_executor(self._thread, self._outcomes, [job for job, _ in batch])
        running.add_done_callback(lambda ended: self._deliver([result for _, result in batch], ended))

    def _outcomes(self, jobs: Sequence[Job]) -> list[Outcome]:
        """The outcome of each job; an exception of the batch becomes the failure of each."""
        # BaseException, because whatever ends the worker's call here would otherwise leave every request of the batch
        # waiting for a result that never comes.
        try:
            return self._run_batch(jobs)
        except BaseException as failure:
            return [Outcome(failure=_settable(failure))] * len(jobs)

    def _deliver(self, results: list[asyncio.Future[Any]], ended: asyncio.Future[list[Outcome]]) -> None:
        try:
            self._start_batch()  # before the results, so that the thread works while the responses are written
        finally:
            for result, outcome in zip(results, ended.result(), strict=True):
                if result.cancelled():  # its client has gone; what the job stored stays stored
                    continue
                if outcome.failure is not None:
                    result.set_exception(_settable(outcome.failure))
                else:
                    result.set_result(outcome.value)


def _settable(failure: BaseException) -> Exception:
    """The failure as an exception that a future accepts."""
    # A future refuses StopIteration, and a CancelledError or KeyboardInterrupt from the worker must reach the requests
    # as an ordinary failure, not cancel their tasks.
    if isinstance(failure, Exception) and not isinstance(failure, StopIteration):
        return failure
    return RuntimeError(f"the work ended with {type(failure).__name__}: {failure}")
