"""One writer to a run directory: a lock of the operating system, which ends with the process however it ends."""

from __future__ import annotations

import contextlib
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from plaudit.errors import ConfigError
from plaudit.runs.files import merge_json, read_json

LOCK = "lock"
MANIFEST = "manifest.json"


@contextlib.contextmanager
def only_writer(run: Path) -> Iterator[None]:
    """Within it no other process, and no other thread, writes to the run directory, which must exist.

    The empty file ``lock`` stays behind: to delete it would let two processes hold two locks of one name.

    Raises:
        ConfigError: somebody else writes to the directory; with the process and the machine, where they are known.
    """
    lock = FileLock(run / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise ConfigError(
            f"another process writes to the run directory{_holder(run)}",
            where=str(run),
            cure="wait until it ends, end it, or choose another --out",
        ) from None
    try:
        yield
    finally:
        lock.release()


def sign(run: Path) -> None:
    """Write into the run's manifest who writes to it."""
    who = {"pid": os.getpid(), "host": platform.node(), "since": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
    merge_json(run / MANIFEST, {"writer": who})


def _holder(run: Path) -> str:
    who = read_json(run / MANIFEST).get("writer")
    return f": process {who['pid']} on {who['host']}, since {who['since']}" if who else ""
