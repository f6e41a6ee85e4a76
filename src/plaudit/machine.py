"""What this machine allows: places that can be written to, and threads. Asked before data are read or models loaded."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from plaudit.errors import ConfigError, MachineError

THREADS_A_CPU, ALWAYS_ALLOWED = 16, 64
"""More threads than so many for each CPU are a slip of the pen, or more than the system gives; fewer than the second
number are allowed anywhere, so that a run of a larger machine can be repeated to the bit."""


def existing(path: Path) -> Path:
    """The path, or its nearest parent that exists."""
    path = path.absolute()
    return next(p for p in (path, *path.parents) if os.path.lexists(p) or p == p.parent)


def check_writable(path: Path, where: str = "--out") -> None:
    """Make sure that a file or directory of this name can be made, or that a directory that is there can be written in.

    Args:
        path: of what is to be written.
        where: what names it, for errors.

    Raises:
        ConfigError: a part of the path is a file, or a link that leads nowhere, or no name that a file can have.
        MachineError: no permission, a read-only file system, no space.
    """
    cure = f"choose another place with {where}" if where.startswith("--") else "choose another place"
    try:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            os.lstat(path)
        place = existing(path)
        if place == path.absolute() and place.is_file():
            place = place.parent
    except (OSError, ValueError) as error:
        raise ConfigError(f"{str(path)!r} is no usable path: {error}", where=where, cure=cure) from None
    if not place.is_dir():
        kind = "a link that leads nowhere" if place.is_symlink() else "a file"
        raise ConfigError(f"cannot write to {path}: {place} is {kind}", where=where, cure=cure)
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"plaudit")
    except OSError as error:
        raise MachineError(
            f"cannot write to {path}: {error.strerror or error} in {place}",
            where=where,
            cure=f"{cure}, or mend the permissions of {place}",
        ) from None


def check_threads(threads: int | str) -> None:
    """Raise ConfigError for more threads than this machine can be meant to run; "auto" is never too many."""
    if isinstance(threads, str):
        return
    cpus = os.cpu_count() or 1
    most = max(ALWAYS_ALLOWED, THREADS_A_CPU * cpus)
    if threads > most:
        raise ConfigError(
            f"{threads} threads are too many for {cpus} CPUs: at most {most} are allowed",
            where="[compute] threads",
            cure=f"use --threads {cpus}, or leave it out",
        )
