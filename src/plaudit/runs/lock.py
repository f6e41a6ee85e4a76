"""One writer to a run directory: a lock of the operating system, released when the process ends for any reason."""

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

    The empty file ``lock`` is left in the directory.

    Raises:
        ConfigError: another process holds the lock; names the process and the machine, where they are known.
    """
    # The system's lock and not "does the file exist": after a kill or a power cut a file would stay and refuse every
    # resume. The file is not deleted at the end: a second process that has it open would lock the deleted file, a third
    # one a new file of the same name, and both would believe that they are alone.
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
    """Write process, machine and time into the run's manifest."""
    # The lock itself cannot say who holds it, above all not on a shared file system; the manifest is for the error
    # text.
    who = {"pid": os.getpid(), "host": platform.node(), "since": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
    merge_json(run / MANIFEST, {"writer": who})


def _holder(run: Path) -> str:
    who = read_json(run / MANIFEST).get("writer")
    return f": process {who['pid']} on {who['host']}, since {who['since']}" if who else ""
