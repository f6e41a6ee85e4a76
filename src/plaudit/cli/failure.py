"""Any exception as an error with what, where and cure."""

from __future__ import annotations

import traceback
from pathlib import Path

from plaudit.errors import PlauditError, Stopped

RESUME = "the same command with --out DIR --resume goes on from the last checkpoint"


class Bug(PlauditError):
    """Something that should not have happened: our fault until shown otherwise."""

    code, exit_code = "BUG", 70


class System(PlauditError):
    """The machine refused: memory, disk, permissions."""

    code, exit_code = "SYSTEM", 70


def explain(error: BaseException, stopped: str = RESUME) -> PlauditError:
    """Any exception as an error with where and cure; ``stopped`` is the cure of an interruption that has none."""
    if isinstance(error, KeyboardInterrupt):
        return Stopped("interrupted", cure=stopped)
    if isinstance(error, Stopped) and not error.cure:
        return Stopped(error.what, where=error.where, cure=stopped)
    if isinstance(error, PlauditError):
        return error
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno} in {frames[-1].name}" if frames else ""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        cure = (
            "lower --tokens-per-microbatch, or use --gradient-checkpointing, or train adapters with --rank 8"
        )
        return System(f"out of memory: {_first_line(error)}", where=where, cure=cure)
    if isinstance(error, OSError) and error.filename:
        cure = "check free space and permissions, or choose another --out; --debug shows the traceback"
        return System(f"{error.strerror or error}", where=str(error.filename), cure=cure)
    cure = "run again with --debug and report the traceback in the project's issues (see CONTRIBUTING.md)"
    return Bug(f"unexpected {type(error).__name__}: {_first_line(error)}", where=where, cure=cure)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0][:200]
