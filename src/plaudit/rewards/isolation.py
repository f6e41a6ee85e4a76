"""A reward function in a process of its own, with a time limit: whatever it does, the run goes on.

The function is named (``file.py:name``, ``module:name``), so the other process imports it by itself. The two talk in
lines of JSON over a socket of their own; what the function prints goes where this process prints.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
import weakref
from collections.abc import Collection, Sequence
from typing import Any

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
    """The other process and the line to it."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair()
        command = [sys.executable, "-m", "plaudit.rewards.worker", str(theirs.fileno())]
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        with theirs:
            self._process = subprocess.Popen(
                command,
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                env=os.environ | {"PYTHONPATH": path},
                start_new_session=True,  # Ctrl-C is for this process; and what it forks can be ended with it
            )
        self._read = b""
        self.end = weakref.finalize(self, _end, self._process, self._socket)

    def send(self, message: Any) -> None:
        """One line."""
        self._socket.settimeout(None)
        self._socket.sendall(json.dumps(message, default=as_json).encode() + b"\n")

    def receive(self, timeout: float | None) -> Any:
        """The next line within ``timeout`` seconds; TimeoutError, or EOFError where the process has ended."""
        ends = None if timeout is None else time.monotonic() + timeout
        while b"\n" not in self._read:
            left = None if ends is None else ends - time.monotonic()
            if left is not None and left <= 0:
                raise TimeoutError
            self._socket.settimeout(left)
            more = self._socket.recv(1 << 16)
            if not more:
                raise EOFError
            self._read += more
        line, _, self._read = self._read.partition(b"\n")
        return json.loads(line)

    def status(self) -> str:
        """How the process ended, in words."""
        try:
            code = self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            return "it does not answer"
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _end(process: subprocess.Popen[bytes], line: socket.socket) -> None:
    line.close()
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
