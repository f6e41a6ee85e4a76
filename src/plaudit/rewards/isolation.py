"""A reward function in a process of its own, with a time limit: whatever it does, the run goes on.

The function is named (``file.py:name``, ``module:name``), so the other process imports it by itself. The two talk in
lines of JSON over two pipes, as every system has them; what the function prints goes to this process's stderr.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Collection, Sequence
from typing import IO, Any

from plaudit.data.reading.rows import as_json
from plaudit.errors import ConfigError
from plaudit.jobs.reward_tables import FunctionTable
from plaudit.jobs.reward_texts import meant_by
from plaudit.records import RewardResult, Rollout
from plaudit.rewards.worker import to_fields

STARTUP = 300.0
"""Seconds for importing the function's file, which may load a model."""
SLACK = 5.0
"""Seconds beyond the limits of its calls that an async function may take before its process is ended."""
LOOK = 0.5
"""Seconds between two looks whether the process is alive, while it is waited for."""
MOST_LOST = 0.2
"""Share of a batch that may be lost to timeouts and crashes; then the rest is not tried: the run stops there."""


class IsolatedReward:
    """A named Python function or class as a reward, run in a process of its own; see `FunctionReward` for its
    parameters.

    A call that takes too long, or that ends its process, is an error of its rollout (of the whole batch, for a function
    that takes batches, groups, or is async). The process is then started anew.

    Args:
        table: the function, with its time and options.
        columns: further columns of the data, which are names of parameters too.
        where: the config key, for errors.
        memory: most bytes of data the process may hold; 0: half of the machine's.

    Raises:
        ConfigError: no such function, or one whose parameters cannot be filled.
    """

    # A process and not a thread: a thread that hangs cannot be ended, a call into C that crashes takes the run with
    # it, and neither can hold a limit of memory of its own. The run may have cost days when the function meets the
    # one response that it cannot handle.

    def __init__(
        self, table: FunctionTable, *, columns: Collection[str] = (), where: str = "reward", memory: int = 0
    ) -> None:
        self._table, self._where = table, where
        extra = {"columns": sorted(columns), "where": where, "memory": memory, "meant": meant_by(table.path)}
        self._task = {**table.model_dump(), **extra}
        self._worker: _Worker | None = None
        started = self._start()
        self.name: str = started["name"]
        self._shape: str = started["shape"]
        self._is_async: bool = started["async"]
        self._whole: bool = started["whole"]

    def __call__(self, rollouts: Sequence[Rollout]) -> list[RewardResult]:
        """One result per rollout."""
        if not rollouts:
            return []
        if self._is_async or self._shape != "response":
            results, _ = self._ask(list(rollouts))
            return results
        results = []
        lost = 0
        for rollout in rollouts:
            if lost > MOST_LOST * len(rollouts):
                reason = f"{self.name} was not tried after {lost} calls were lost"
                results.append(RewardResult(None, error=reason))
                continue
            one, alive = self._ask([rollout])
            lost += not alive
            results += one
        return results

    def _limit(self, count: int) -> float | None:
        """Seconds that a question about so many rollouts may take; None: any."""
        timeout = self._table.timeout
        if not timeout:
            return None
        if not self._is_async:
            return timeout * count
        # The other process stops each await in its time. This limit is only for one that never gives the loop back.
        rounds = math.ceil(count / self._table.concurrency) if self._shape == "response" else count
        return timeout * (rounds + 1) + SLACK

    def close(self) -> None:
        """End the process. A later call starts another."""
        if self._worker is not None:
            self._worker.end()
            self._worker = None

    def _ask(self, rollouts: list[Rollout]) -> tuple[list[RewardResult], bool]:
        """Results, and whether the process lives on."""
        if self._worker is None:
            self._start()
        assert self._worker is not None
        limit = self._limit(len(rollouts))
        try:
            self._worker.send([to_fields(r, self._whole) for r in rollouts])
            answers = self._worker.receive(limit)
        except (TimeoutError, EOFError, OSError) as error:
            slow = isinstance(error, TimeoutError)
            reason = f"took more than {limit:g} s" if slow else f"ended its process ({self._worker.status()})"
            self.close()
            return [RewardResult(None, error=f"{self.name} {reason}")] * len(rollouts), False
        return [RewardResult(**{"value": None, **answer}) for answer in answers], True

    def _start(self) -> dict[str, Any]:
        worker = _Worker()
        try:
            worker.send(self._task)
            started: dict[str, Any] = worker.receive(STARTUP)
        except (TimeoutError, EOFError, OSError) as error:
            status = "it took too long" if isinstance(error, TimeoutError) else worker.status()
            worker.end()
            raise ConfigError(
                f"{self._table.path} could not be imported: {status}",
                where=self._where,
                cure="make it importable by itself first",
            ) from error
        if "what" in started:
            worker.end()
            raise ConfigError(started["what"], where=started["where"], cure=started["cure"])
        self._worker = worker
        return started


class _Worker:
    """The other process and the two lines to it."""

    def __init__(self) -> None:
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "plaudit.rewards.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": path},
            start_new_session=True,  # Ctrl-C is for this process; and what it forks can be ended with it
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),  # the same on Windows
        )
        # A thread that reads, since only a queue can be waited for with a time limit on every system.
        self._answers: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        reader = threading.Thread(target=_read, args=(self._process.stdout, self._answers), daemon=True)
        reader.start()
        self.end = weakref.finalize(self, _end, self._process)

    def send(self, message: Any) -> None:
        """One line."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message, default=as_json).encode() + b"\n")
        self._process.stdin.flush()

    def receive(self, timeout: float | None) -> Any:
        """The next line within ``timeout`` seconds; TimeoutError, or EOFError where the process has ended."""
        ends = None if timeout is None else time.monotonic() + timeout
        while True:
            left = LOOK if ends is None else ends - time.monotonic()
            if left <= 0:
                raise TimeoutError
            ended = self._process.poll() is not None
            try:
                line = self._answers.get(timeout=min(left, LOOK))
            except queue.Empty:
                # What it forked may hold the pipe open, so its end would not be seen there.
                if ended:
                    raise EOFError from None
                continue
            if not line.endswith(b"\n"):
                raise EOFError
            return json.loads(line)

    def status(self) -> str:
        """How the process ended, in words."""
        try:
            code = self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            return "it does not answer"
        named = {s.value: s.name for s in signal.Signals}
        return named.get(-code, f"exit code {code}") if code < 0 else f"exit code {code}"


def _read(stream: IO[bytes], answers: queue.SimpleQueue[bytes]) -> None:
    """Every line, and at the end an empty one."""
    with stream, contextlib.suppress(ValueError):  # closed meanwhile
        for line in stream:
            answers.put(line)
    answers.put(b"")


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if sys.platform == "win32":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert process.stdin is not None
    with contextlib.suppress(OSError):  # what was not read any more
        process.stdin.close()
