"""Runs a loop in child processes that end by SIGKILL at given moments, each going on where the one before was killed.

    python tests/loop/killing.py CONFIG MOMENT...

A moment is ``name:n``: the n-th call, counted from the start of that child, of what `MOMENTS` names. The last child is
not killed. The parent imports everything and runs nothing, so children start at once by a fork.
"""

import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "src"))

from plaudit.backends.local.learner import LocalLearner
from plaudit.generation.native import NativeGenerator
from plaudit.loop import rounds
from plaudit.loop.plan import read_plan
from plaudit.loop.state import State
from plaudit.runs import checkpoint, files

MOMENTS = {
    "update": (LocalLearner, "update", "before"),
    "updated": (LocalLearner, "update", "after"),
    "generate": (NativeGenerator, "generate", "before"),
    "checkpoint": (checkpoint, "save", "after"),
    "export": (LocalLearner, "export", "after"),
    "finish": (State, "finish", "before"),
    "finished": (State, "finish", "after"),
    "write": (files, "write_text", "half"),
    "wrote": (files, "write_text", "after"),
    "page": (rounds, "write_loop_page", "before"),
}


def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)


def arm(moment):
    """Make the n-th call of a function the last thing that this process does."""
    name, _, number = moment.partition(":")
    owner, function, when = MOMENTS[name]
    original, calls = getattr(owner, function), []

    def wrapped(*args, **kwargs):
        calls.append(1)
        last = len(calls) == int(number)
        if last and when == "before":
            die()
        if last and when == "half":  # the text beside the file is there, in part, and has not taken its place
            path, text = args
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_name(path.name + ".partial").write_text(text[: len(text) // 2], encoding="utf-8")
            die()
        result = original(*args, **kwargs)
        if last:
            die()
        return result

    setattr(owner, function, wrapped)


def main():
    config, *moments = sys.argv[1:]
    for moment in [*moments, ""]:
        child = os.fork()
        if child == 0:
            if moment:
                arm(moment)
            rounds.run_loop(read_plan([config]), anyway=True)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        print(moment or "to the end", "killed" if killed else f"ended {os.waitstatus_to_exitcode(status)}", flush=True)
        if not killed and os.waitstatus_to_exitcode(status):
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
