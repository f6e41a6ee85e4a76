"""The other process of `IsolatedReward`: imports one function and answers line by line. Run with ``python -m``.

The first line says which function; every further line holds the rollouts of one question.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import IO, Any

import psutil

from plaudit.errors import ConfigError
from plaudit.records import Content, Message, Prompt, RewardResult, Rollout, Turn, to_json
from plaudit.rewards.function import FunctionReward, is_async, load_function, with_options

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
MOST_WRITTEN = 1 << 30
"""Bytes that a call may write into one file. What is loaded before the first call may be larger."""
MORE_PROCESSES = 512
"""So many processes and threads more than the user has at the start may be there; the superuser has no such limit."""
LEFT_BEHIND = 100
"""Rounds of ending what the function has started, each with all that is found then: some may start others meanwhile."""


def main(words: Sequence[str] = ()) -> int:
    """Answer until the other side closes the line.

    Args:
        words: the descriptor of a pipe that the other side holds open as long as it lives; none on Windows.
    """
    if words and sys.platform != "win32":
        child = os.fork()
        if child:
            return _guard(child, int(words[0]))
        os.close(int(words[0]))
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
        # Only now: the file of a function, and the options of a class, may name files beside the user.
        os.chdir(task["directory"])
        _limit_calls()
        _say(answers, {"name": reward.name, "shape": shape, "async": reward.is_async, "whole": whole})
        for question in questions:
            rollouts = [from_fields(row) for row in json.loads(question)]
            _limit_cpu(task["timeout"], len(rollouts))
            _say(answers, [to_json(_with_hint(result)) for result in reward(rollouts)])
    return 0


def _with_hint(result: RewardResult) -> RewardResult:
    if "FileNotFoundError" not in result.error:
        return result
    hint = "calls are made in an empty directory: name files by Path(__file__).parent"
    return replace(result, error=f"{result.error} ({hint})")


def _guard(child: int, line: int) -> int:
    """Wait for the function's process, or for the end of the run, and end all that the function has started.

    This process does nothing else, so it is there whatever the function does. Its own end is that of ``child``.
    """
    if sys.platform == "win32":
        return 0
    # The run may be killed, and then nobody but this process knows what the function has forked: a child that has
    # a session of its own is not reached by its group, and what outlives its parent becomes ours (Linux).
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    status = None
    while status is None:
        # With a limit of time: a child that ended before the handler was there wakes nobody.
        ready, _, _ = select.select([line, woken], [], [], 1.0)
        if line in ready:  # nobody writes into it: this is its end, and that of the run
            break
        if woken in ready:
            os.read(woken, 4096)
        status = _reaped(child)
    _end_all()
    return _end_as(status or 0)


def _reaped(child: int) -> int | None:
    """The status of ``child`` if it has ended; whatever else has ended is done with."""
    if sys.platform == "win32":
        return None
    found = None
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                break
            found = status if pid == child else found
    return found


def _end_all() -> None:
    """Kill everything that descends from this process."""
    for _ in range(LEFT_BEHIND):
        others = psutil.Process().children(recursive=True)
        if not others:
            return
        for other in others:
            with contextlib.suppress(psutil.Error):
                other.kill()
        psutil.wait_procs(others, timeout=0.2)
        _reaped(0)


def _end_as(status: int) -> int:
    """End as the function's process has ended, so that the other side can say how."""
    if sys.platform == "win32":
        return 0
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    # At once: the other side waits for this end, and there is nothing here to be tidied up.
    os._exit(os.waitstatus_to_exitcode(status))


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


def _limit_calls() -> None:
    """No file of a call fills the disk, no fork bomb takes all processes, and a crash leaves no image of the memory."""
    if sys.platform != "win32":
        import resource

        _lower(resource.RLIMIT_FSIZE, MOST_WRITTEN)
        _lower(resource.RLIMIT_CORE, 0)
        if os.geteuid():  # of the superuser the system does not count
            own = os.getuid()
            with contextlib.suppress(psutil.Error):
                known = psutil.process_iter(["uids", "num_threads"])
                mine = [p.info for p in known if p.info["uids"] and p.info["uids"].real == own]
                _lower(resource.RLIMIT_NPROC, MORE_PROCESSES + sum(p["num_threads"] or 1 for p in mine))


def _limit_cpu(timeout: float, count: int) -> None:
    """The seconds that a question may take, on all processors, for this process and for each that it forks."""
    if sys.platform != "win32" and timeout:
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF)
        more = (timeout * (count + 1) + 5) * (os.cpu_count() or 1)
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        soft = int(used.ru_utime + used.ru_stime + more) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def _lower(kind: int, most: int) -> None:
    """Set a limit of the system, unless there is a lower one."""
    if sys.platform != "win32":
        import resource

        _, hard = resource.getrlimit(kind)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (most, most))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
