"""The other process of `IsolatedReward`: imports one function and answers line by line. Run with ``python -m``.

The first line says which function; every further line holds the rollouts of one question.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import sys
from collections.abc import Mapping
from typing import IO, Any

from plaudit.errors import ConfigError
from plaudit.records import Content, Message, Prompt, Rollout, Turn, to_json
from plaudit.rewards.function import FunctionReward, is_async, load_function, with_options

PR_SET_PDEATHSIG = 1


def main() -> int:
    """Answer until the other side closes the line."""
    _die_with_parent()
    questions, answers = _own_lines()
    with questions, answers:
        task = json.loads(questions.readline())
        _limit_memory(task["memory"])
        try:
            reward = _reward(task)
        except ConfigError as error:
            _say(answers, {"what": error.what, "where": error.where, "cure": error.cure})
            return 1
        shape = reward.signature.shape
        whole = bool(reward.signature.wanted & {"rollout", "rollouts", "group"})
        _say(answers, {"name": reward.name, "shape": shape, "async": reward.is_async, "whole": whole})
        for question in questions:
            results = reward([from_fields(row) for row in json.loads(question)])
            _say(answers, [to_json(result) for result in results])
    return 0


def _own_lines() -> tuple[IO[bytes], IO[bytes]]:
    """The two pipes to the other side, on descriptors that the function does not know.

    What it reads from stdin is nothing, and what it prints goes to stderr, so neither gets in between.
    """
    questions, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return questions, answers


def _reward(task: Mapping[str, Any]) -> FunctionReward:
    """The function that a task names, as a reward."""
    where, columns = task["where"], task["columns"]
    fn = with_options(load_function(task["path"], where=where, meant=task["meant"]), task["options"], where)
    # Only an await is given its time here. A call that does not come back is ended from outside, with this process: it
    # may be in C, where no signal of Python reaches it.
    timeout = task["timeout"] if is_async(fn) else 0.0
    return FunctionReward(
        fn, task["name"], timeout=timeout, concurrency=task["concurrency"], columns=columns, where=where
    )


def to_fields(rollout: Rollout, whole: bool) -> dict[str, Any]:
    """What a function may be given of a rollout, as JSON. Inverse: `from_fields`.

    Args:
        whole: with the log-probs, which are most of the bytes and which only a function of rollouts can read.
    """
    prompt = rollout.prompt
    return {
        "id": prompt.id,
        "content": to_json(prompt.content),
        "answer": prompt.answer,
        "columns": dict(prompt.columns),
        "group_id": rollout.group_id,
        "tokens": rollout.tokens,
        "turns": [[t.author, t.start, t.end, to_json(t.content), t.finish_reason] for t in rollout.turns],
        "logprobs": rollout.logprobs if whole else (),
        "finish_reason": rollout.finish_reason,
        "policy_version": rollout.policy_version,
    }


def from_fields(fields: Mapping[str, Any]) -> Rollout:
    """The rollout that was sent."""
    prompt = Prompt(fields["id"], _content(fields["content"]), fields["answer"], fields["columns"])
    turns = tuple(
        Turn(author, start, end, _content(text), finish)
        for author, start, end, text, finish in fields["turns"]
    )
    return Rollout(
        prompt,
        fields["group_id"],
        tuple(fields["tokens"]),
        turns,
        tuple(fields["logprobs"]),
        fields["finish_reason"],
        fields["policy_version"],
    )


def _content(value: Any) -> Content:
    return value if isinstance(value, str) else tuple(Message.of(m) for m in value)


def _say(stream: Any, message: Any) -> None:
    stream.write(json.dumps(message).encode() + b"\n")
    stream.flush()


def _die_with_parent() -> None:
    """Linux: a function in an endless loop does not outlive a run that was killed."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _limit_memory(limit: int) -> None:
    """Linux: a function that eats all memory gets a MemoryError, before the system ends the run for it."""
    if sys.platform == "linux":
        import resource

        limit = limit or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


if __name__ == "__main__":
    sys.exit(main())
