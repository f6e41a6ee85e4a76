"""What this machine allows: places that can be written to, space, and threads; and what it says where it refuses."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import psutil

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


REFUSALS = {
    getattr(errno, name)
    for name in ("ENOSPC", "EDQUOT", "EIO", "EROFS", "EACCES", "EPERM", "EMFILE", "ENFILE", "ENODEV", "ENXIO", "EFBIG")
    if hasattr(errno, name)
}
"""Errors of the system that are nobody's fault but the machine's, also where no file is named."""
DENIED = {errno.EACCES, errno.EPERM}
"""Errors of what this user may not do."""
FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
"""Errors of a file system that has no space left, or none for this user."""


def refusal(error: BaseException) -> str:
    """What the system said, where it refused something; else empty."""
    if isinstance(error, OSError) and (error.filename or error.errno in REFUSALS):
        return f"{error.strerror or error}"
    # Libraries in Rust (safetensors, tokenizers) pass the system's words on in an exception of their own.
    if not isinstance(error, OSError) and _number_in(error) is not None:
        return (str(error).splitlines() or [""])[0][:200]
    return ""


def is_full(error: BaseException) -> bool:
    """Whether the system refused for want of space."""
    number = error.errno if isinstance(error, OSError) else _number_in(error)
    return number in FULL


def _number_in(error: BaseException) -> int | None:
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found[1]) if found else None


def free_bytes(path: Path) -> int:
    """Space for files at a path that need not exist yet."""
    return shutil.disk_usage(existing(path)).free


def size(count: int) -> str:
    """Bytes in words.

    >>> size(999), size(4_200_000), size(1_260_000_000)
    ('999 bytes', '4.2 MB', '1.26 GB')
    """
    if count < 1e5:
        return f"{count} bytes"
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


KEPT = "what was saved before is as it was: free some space, then the same command with --resume goes on"


@contextlib.contextmanager
def writing(path: Path, what: str, *, needed: int = 0, cure: str = KEPT) -> Iterator[None]:
    """Within it a file is written; where the system refuses, it says which, how much it needs, and what is free.

    Args:
        path: of the file or directory.
        what: it is, as "the checkpoint of step 3".
        needed: bytes that will be written; 0 where that is not known.
        cure: what the user can do.

    Raises:
        MachineError: no space, an input or output error, no permission.
    """
    try:
        yield
    except MachineError:
        raise
    except Exception as error:
        reason = refusal(error)
        if not reason:
            raise
        number, named = (error.errno, error.filename) if isinstance(error, OSError) else (None, None)
        if number in DENIED:
            place = os.fsdecode(named) if isinstance(named, (str, bytes)) else str(path)
            mend = f"mend the permissions of {place}; what was saved before is as it was, and --resume goes on from it"
            raise MachineError(f"could not write {what}: {reason}", where=place, cure=mend) from error
        raise _refused(path, what, needed, reason, cure) from error


def check_space(path: Path, what: str, needed: int, cure: str = KEPT) -> None:
    """Make sure that there is space for what will be written.

    Raises:
        MachineError: there is not, with the bytes that are needed and those that are free.
    """
    with contextlib.suppress(OSError):  # a file system that does not say how much is left is tried
        if needed > free_bytes(path):
            raise _refused(path, what, needed, "not enough space", cure)


def _refused(path: Path, what: str, needed: int, reason: str, cure: str) -> MachineError:
    room = f"{size(needed)} needed" if needed else ""
    with contextlib.suppress(OSError):
        room = f"{room}, {size(free_bytes(path))} free" if room else f"{size(free_bytes(path))} free"
    return MachineError(f"could not write {what}: {reason}{f' ({room})' if room else ''}", where=str(path), cure=cure)


def reach_cure() -> str:
    """What to do where the hub of Hugging Face was not reached: a variable may forbid to ask."""
    # The three that its libraries read, and the words that they take for yes.
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
    is_set = [name for name in names if os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE")]
    return f"unset {is_set[0]}, which forbids to ask the hub" if is_set else "check the network"


def sync(path: Path) -> None:
    """Wait until a file, or the names in a directory, are on the disk."""
    windows = sys.platform == "win32"  # which waits for files alone, and for those only that may be written
    if windows and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDWR if windows else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(path: Path) -> None:
    """Make a directory and those that it lies in, which a power cut does not take away again."""
    # A directory that is synced keeps what it holds; its own name is kept by the one that it lies in.
    new = [one for one in (path, *path.parents) if not one.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for one in new:
        sync(one.parent)


def sync_all(folder: Path) -> None:
    """Wait until all files below a directory are on the disk, and their names."""
    for path in (*folder.rglob("*"), folder):
        if not path.is_symlink() and (path.is_file() or path.is_dir()):
            sync(path)


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


class TooSlow(BaseException):
    """Code took longer than it may. No Exception, so that its own ``except Exception`` lets it through."""


def can_interrupt() -> bool:
    """Whether this system can stop Python code after a time: by an alarm, which Windows does not have."""
    return hasattr(signal, "setitimer")


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Within it, Python code of the main thread is stopped with `TooSlow` after so many seconds; 0: no limit.

    Where the system has no alarm (`can_interrupt`) there is no limit either. One within another has its own limit, and
    gives the outer one the time back that was left of it.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not seconds or not in_main_thread or not hasattr(signal, "setitimer"):
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise TooSlow(f"more than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    left, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if left:
            signal.setitimer(signal.ITIMER_REAL, left)


@dataclass(frozen=True, slots=True)
class Limit:
    """Memory that this process may use."""

    total: int
    """Bytes in all, swap included: more than that can never be used."""
    free: int
    """Bytes that are left of it now, caches of files among them."""
    of: str
    """Whose they are, in words."""


def memory_limit(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> Limit:
    """The machine's memory, or that of the control group that this process is in, whichever leaves less.

    Args:
        root, own: where Linux tells of control groups; on other systems there is nothing there.
    """
    machine = psutil.virtual_memory()
    limits = [Limit(machine.total + psutil.swap_memory().total, machine.available, "this machine")]
    for folder in _groups(root, own):
        for most, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
            total = _number(folder / most)
            # Without a limit the file holds "max", or a number beyond every machine.
            if total is None or total >= machine.total:
                continue
            held = (_number(folder / used) or 0) - _file_cache(folder)
            limits.append(Limit(total, max(0, min(total - held, machine.available)), "its control group (cgroup)"))
    return min(limits, key=lambda limit: limit.free)


def _groups(root: Path, own: Path) -> list[Path]:
    """The folders of this process's control groups, from the root down."""
    folders = [root, root / "memory"]
    with contextlib.suppress(OSError):
        for line in own.read_text(encoding="utf-8").splitlines():
            _, kinds, path = (*line.split(":", 2), "", "")[:3]
            if kinds in ("", "memory"):
                base = root / kinds if kinds else root
                parts = Path(path.lstrip("/")).parts
                folders += [base.joinpath(*parts[: n + 1]) for n in range(len(parts))]
    return folders


def _file_cache(folder: Path) -> int:
    """Bytes that a control group holds of files and can give back at once."""
    with contextlib.suppress(OSError, ValueError):
        lines = (line.split() for line in (folder / "memory.stat").read_text(encoding="utf-8").splitlines())
        values = {name: int(value) for name, value in lines}
        # The first version counts groups inside of this one apart, and both under another name.
        return values.get("total_inactive_file", values.get("inactive_file", 0))
    return 0


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
