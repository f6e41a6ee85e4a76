"""One writer to a run directory: a lock of the operating system, released when the process ends for any reason."""

from __future__ import annotations

import contextlib
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, ValidationError

from plaudit.errors import ConfigError, DataError
from plaudit.runs.files import PARTIAL, Row, merge_json, read_json

LOCK = "lock"
MANIFEST = "manifest.json"
CURE = (
    "mend it, or delete it: --resume then goes on from the checkpoints, without knowing whether settings, models and "
    "data are those of the start"
)


class _Input(BaseModel):
    model_config = ConfigDict(strict=True)
    source: str
    sha256: str


class _Start(BaseModel):
    """What manifest.json may hold of a run. Anything may lie on a disk, so its shape is checked before it is used."""

    model_config = ConfigDict(strict=True)
    settings: dict[str, Any] = {}
    inputs: dict[str, _Input] = {}
    given: dict[str, str] = {}
    rows_sha256: str = ""
    topology: dict[str, Any] = {}
    changed: list[Any] = []
    created: str = ""
    finished: bool = False
    writer: dict[str, Any] = {}


def read_manifest(run: Path) -> Row:
    """What manifest.json says of a run; {} where there is none.

    Raises:
        DataError: it is damaged, or has another shape.
    """
    found = read_json(run / MANIFEST, CURE)
    try:
        _Start.model_validate(found)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][:2])
        what = f"this is not what a run writes: {where} = {str(first['input'])[:80]!r}"
        raise DataError(what, where=str(run / MANIFEST), cure=CURE) from None
    return found


def is_leftover(path: Path) -> bool:
    """Whether a file in a run directory says nothing: the lock, or what a kill left of a file being written."""
    return path.name == LOCK or path.name.endswith(PARTIAL)


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
    try:
        who = read_manifest(run).get("writer")
    except DataError:
        return ""
    return ": process {pid} on {host}, since {since}".format_map(_Unknown(who)) if who else ""


class _Unknown(dict[str, Any]):
    def __missing__(self, key: str) -> str:
        return "unknown"
