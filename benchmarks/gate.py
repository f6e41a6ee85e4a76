"""Workers that wait for their turn: each side is a process that does one step when it is asked to, and idles otherwise.

So the sides alternate within one run and noise of the machine hits them alike. The worker's own loop runs unchanged:
its callback at the end of a step is the gate. Standard library only.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO


class Gate:
    """The worker's end. What libraries print goes to standard error, so that standard output is ours alone.

    Args:
        synchronize: waits for the accelerator, so that a step is over when its time is taken.
        peak: peak memory in GB so far.
        reset: forget the peak.
    """

    def __init__(
        self,
        synchronize: Callable[[], None] = lambda: None,
        peak: Callable[[], float] | None = None,
        reset: Callable[[], None] | None = None,
    ) -> None:
        self._out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self._synchronize, self._peak, self._reset = synchronize, peak or peak_rss, reset or reset_rss
        self._began = 0.0
        raise_priority()

    def ready(self) -> None:
        """Everything is built: say so and wait for the first step."""
        self._say({"ready": True})
        self._wait()

    def step(self, tokens: int, **facts: float) -> None:
        """A step is over: report it and wait for the next."""
        self._synchronize()
        seconds = time.perf_counter() - self._began
        self._say({"seconds": seconds, "tokens": tokens, "peak_gb": self._peak()} | facts)
        self._wait()

    def _say(self, message: Mapping[str, Any]) -> None:
        print(json.dumps(message), file=self._out, flush=True)

    def _wait(self) -> None:
        line = sys.stdin.readline().strip()
        if not line:
            raise SystemExit(0)
        if line == "reset":
            self._reset()
        self._began = time.perf_counter()


def raise_priority() -> None:
    """Come before other work on the machine, as far as the system allows it; without it the sides are still alike."""
    with contextlib.suppress(OSError):  # needs a privilege
        os.nice(-5)
    # Where Linux schedules by session (autogroup), the nice value of a process counts within its session only, and that
    # of the session is written here. Each side has a session of its own; see `Side`.
    with contextlib.suppress(OSError), open("/proc/self/autogroup", "w", encoding="ascii") as file:
        file.write("-5")


def priority() -> str:
    """What this process's priority counts among: for the table."""
    with contextlib.suppress(OSError), open("/proc/self/autogroup", encoding="ascii") as file:
        return f"by session, {file.read().strip()}"
    return f"by process, nice {os.nice(0)}"


def peak_rss() -> float:
    """Largest resident memory of this process in GB."""
    with contextlib.suppress(OSError), open("/proc/self/status", encoding="ascii") as status:
        for line in status:
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024 / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def reset_rss() -> None:
    """Let the peak start again from what is resident now (Linux; elsewhere it counts from the start)."""
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")


class Side:
    """The parent's end: a worker process. A context manager.

    Args:
        name: in tables and in the name of its log.
        command: starts the worker.
        log: where its standard error goes.
        threads: CPU threads; 0 leaves the library's choice.
    """

    def __init__(self, name: str, command: Sequence[str], log: Path, threads: int = 0) -> None:
        self.name, self._log = name, log
        self._file: TextIO = log.open("w", encoding="utf-8")
        quiet = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "TRL_EXPERIMENTAL_SILENCE": "1"}
        some = {"OMP_NUM_THREADS": str(threads)} if threads else {}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._file, text=True,
            env=os.environ | quiet | some, start_new_session=True,
        )  # fmt: skip

    def wait_ready(self) -> None:
        """Until the models are loaded."""
        self._read()

    def step(self, *, reset_peak: bool = False) -> dict[str, float]:
        """One step, while the other sides idle."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write("reset\n" if reset_peak else "go\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._failure() from None
        return self._read()

    def _read(self) -> dict[str, float]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._failure()
        answer: dict[str, float] = json.loads(line)
        return answer

    def _failure(self) -> RuntimeError:
        self._process.wait(timeout=30)
        self._file.flush()
        last = self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-12:]
        return RuntimeError(f"{self.name} stopped; the end of {self._log}:\n" + "\n".join(last))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._file.close()
