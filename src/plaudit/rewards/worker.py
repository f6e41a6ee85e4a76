"""The other process of `IsolatedReward`: imports one function and answers line by line. Run with ``python -m``."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import socket
import sys
from typing import Any

from plaudit.errors import ConfigError
from plaudit.records import Message, Prompt, Rollout
from plaudit.rewards.function import FunctionReward, load_function

PR_SET_PDEATHSIG = 1


def main(descriptor: str, spec: str, where: str, memory: str) -> int:
    """Answer until the other side closes the line.

    Args:
        descriptor: file descriptor of the socket.
        spec, where: as of `load_function`.
        memory: most bytes of data; "0": half of the machine's.
    """
    _die_with_parent()
    _limit_memory(int(memory))
    # The descriptor stays unknown to the function: what it prints or forks cannot get in between.
    with socket.socket(fileno=int(descriptor)) as line, line.makefile("rwb") as stream:
        os.set_inheritable(line.fileno(), False)
        try:
            reward = FunctionReward(load_function(spec, where=where))
        except ConfigError as error:
            _say(stream, {"what": error.what, "where": error.where, "cure": error.cure})
            return 1
        _say(stream, {"name": reward.name, "batch": reward.takes_batches})
        for asked in stream:
            results = reward([_rollout(fields) for fields in json.loads(asked)])
            _say(stream, [[r.value, r.error] for r in results])
    return 0


def _say(stream: Any, message: Any) -> None:
    stream.write(json.dumps(message).encode() + b"\n")
    stream.flush()


def _rollout(fields: dict[str, Any]) -> Rollout:
    content = fields["content"]
    turns = content if isinstance(content, str) else tuple(Message(role, text) for role, text in content)
    return Rollout.single(Prompt("", turns, fields["answer"]), 0, (), (), (), fields["response"], "stop")


def _die_with_parent() -> None:
    """Linux: a function in an endless loop does not outlive a run that was killed."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _limit_memory(limit: int) -> None:
    """A function that eats all memory gets a MemoryError, before the system ends the run for it."""
    if sys.platform == "linux":
        import resource

        limit = limit or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
