"""A reward function in a process of its own, with a time limit: whatever it does, the run goes on.

The function is named (``file.py:name``, ``module:name``), so the other process imports it by itself. The two talk in
lines of JSON over two pipes, as every system has them; what the function prints goes to this process's stderr, up to a
limit. This contains faults, and is no protection from code that means harm: that belongs into a container of its own,
behind a URL.
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
import tempfile
import threading
import time
import weakref
from collections.abc import Collection, Sequence
from typing import IO, Any

from plaudit.awaited import awaiting
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
MOST_PRINTED = 1 << 20
"""Bytes of what a function prints that are shown in all; the rest is left out, and said to be."""
PLAIN = (
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR", "TEMP", "TMP", "VIRTUAL_ENV"),
    *("CONDA_PREFIX", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR", "XDG_CACHE_HOME"),
    *("HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "TORCH_HOME", "NLTK_DATA"),
    *("CUDA_VISIBLE_DEVICES", "SYSTEMROOT", "SYSTEMDRIVE", "COMSPEC", "PATHEXT", "USERPROFILE", "APPDATA"),
)
"""Environment variables that every function gets: where things are, and no secrets. And those that begin as these:"""
PLAIN_BEGINNINGS = ("LC_", "PYTHON", "OMP_", "MKL_", "OPENBLAS_", "KMP_")
GRACE = 5.0
"""Seconds that the guard of the other process has to end all that the function has started; then it is killed."""
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
        self._printed = _Printed(table.path)
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
            with awaiting(f"the process of the reward function {self.name}", limit or 0.0):
                self._worker.send([to_fields(r, self._whole) for r in rollouts])
                answers = self._worker.receive(limit)
        except (TimeoutError, EOFError, OSError) as error:
            slow = isinstance(error, TimeoutError)
            reason = f"took more than {limit:g} s" if slow else f"ended its process ({self._worker.status()})"
            self.close()
            return [RewardResult(None, error=f"{self.name} {reason}")] * len(rollouts), False
        return [RewardResult(**{"value": None, **answer}) for answer in answers], True

    def _start(self) -> dict[str, Any]:
        worker = _Worker(self._table.env, self._printed)
        try:
            worker.send(self._task | {"directory": worker.directory})
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
    """The other process, the two lines to it, and the directory in which calls are made.

    Args:
        named: environment variables that the function gets besides the plain ones.
        printed: takes what the function prints.
    """

    def __init__(self, named: Collection[str], printed: _Printed) -> None:
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        known = {
            name: value
            for name, value in os.environ.items()
            if name in PLAIN or name in named or name.startswith(PLAIN_BEGINNINGS)
        }
        own = tempfile.TemporaryDirectory(prefix="plaudit-reward-", ignore_cleanup_errors=True)
        self.directory = own.name
        # A pipe that this process holds open, and nobody writes into: its end is seen on the other side however this
        # process ends. What the system has for that (PR_SET_PDEATHSIG) looks at the thread that started a process.
        ours, line = os.pipe() if sys.platform != "win32" else (-1, -1)
        theirs = () if ours < 0 else (ours,)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "plaudit.rewards.worker", *map(str, theirs)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=known | {"PYTHONPATH": path},
            pass_fds=theirs,
            start_new_session=True,  # Ctrl-C is for this process; and what it forks can be ended with it
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),  # the same on Windows
        )
        if theirs:
            os.close(ours)
        printing = threading.Thread(target=printed.read, args=(self._process.stderr,), daemon=True)
        printing.start()
        # A thread that reads, since only a queue can be waited for with a time limit on every system.
        self._answers: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        reader = threading.Thread(target=_read, args=(self._process.stdout, self._answers), daemon=True)
        reader.start()
        self.end = weakref.finalize(self, _end, self._process, line, own)

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


class _Printed:
    """Shows what a function prints, up to a limit; reads on beyond it, since a full pipe would stop the function."""

    def __init__(self, path: str) -> None:
        self._path, self._left = path, MOST_PRINTED

    def read(self, stream: IO[bytes]) -> None:
        """Until the other side has closed its end."""
        with stream, contextlib.suppress(ValueError, OSError):
            while part := os.read(stream.fileno(), 1 << 16):
                self._show(part)

    def _show(self, part: bytes) -> None:
        if self._left <= 0:
            return
        text = part[: self._left].decode(errors="replace")
        self._left -= len(part)
        if self._left <= 0:
            text += (
                f"\n{self._path} has printed more than {MOST_PRINTED:,} bytes: what it prints from here on is left out."
                " Let it write to a file of its own\n"
            )
        with contextlib.suppress(ValueError, OSError):  # closed, at the end of this process
            sys.stderr.write(text)
            sys.stderr.flush()


def _end(process: subprocess.Popen[bytes], line: int, own: tempfile.TemporaryDirectory[str]) -> None:
    if line >= 0:
        os.close(line)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if sys.platform == "win32":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert process.stdin is not None
    with contextlib.suppress(OSError):  # what was not read any more
        process.stdin.close()
    own.cleanup()
