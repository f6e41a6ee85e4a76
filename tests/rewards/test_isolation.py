"""What a reward function can do to a run: nothing. Each kind of fault costs its own rollout and no more."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from plaudit.errors import ConfigError
from plaudit.jobs.reward_tables import FunctionTable
from plaudit.records import Message, Prompt, Rollout
from plaudit.rewards.isolation import IsolatedReward

FUNCTIONS = """
import ctypes, os, re, sys, time

def plain(prompt, response, answer):
    return len(prompt) + len(response) + len(answer or "")

def batch(responses):
    return [float(len(r)) for r in responses]

def roles(messages):
    return len("".join(m["role"] for m in messages))

def bad(response):
    kind = response
    if kind == "raises": raise ValueError("no")
    if kind == "exits": sys.exit(3)
    if kind == "none": return None
    if kind == "nan": return float("nan")
    if kind == "inf": return float("inf")
    if kind == "text": return "good"
    if kind == "sleeps": time.sleep(3600)
    if kind == "gil": re.match(r"(a+)+b", "a" * 64)
    if kind == "segfault": ctypes.string_at(0)
    if kind == "os_exit": os._exit(7)
    if kind == "memory": return float(len(bytearray(1 << 33)))
    if kind == "prints": sys.stdout.write("x" * (1 << 24))
    if kind == "forks" and os.fork() == 0: time.sleep(60)
    return 1.0

def slow_batch(responses):
    time.sleep(60)

def short(responses):
    return [1.0]
"""


def isolated(path: str, **options: object) -> IsolatedReward:
    """A reward in its own process; ``columns``, ``memory`` and ``where`` are its own, other options the table's."""
    own = {name: options.pop(name) for name in ("columns", "memory", "where") if name in options}
    return IsolatedReward(FunctionTable(path=path, **options), **own)  # type: ignore[arg-type]


LIMIT = 2.0
"""Seconds: a busy machine may take some of them for a call that does nothing."""


def rollout(response: str, content: object = "say", answer: str | None = None) -> Rollout:
    return Rollout.single(Prompt("p", content, answer), 0, (1,), (2,), (0.0,), response, "stop")  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("rewards") / "mine.py"
    path.write_text(FUNCTIONS)
    return str(path)


@pytest.fixture(scope="module")
def bad(file: str):
    """As patient as a busy machine needs: what ends in a crash ends at once, but a crash may be slow to be noticed."""
    reward = isolated(f"{file}:bad", timeout=600.0, memory=1 << 31)
    yield reward
    reward.close()


@pytest.fixture(scope="module")
def hasty(file: str):
    reward = isolated(f"{file}:bad", timeout=LIMIT)
    yield reward
    reward.close()


def test_a_function_gets_what_it_asks_for(file: str) -> None:
    reward = isolated(f"{file}:plain")
    assert reward.name == "plain"
    results = reward([rollout("abc", "hello", "4"), rollout("x\udc80é", "")])
    assert [r.value for r in results] == [9.0, 3.0]
    assert results[0].parts == {"plain": 9.0}
    chat = (Message("user", "a"), Message("assistant", "b"))
    assert isolated(f"{file}:roles")([rollout("r", chat)])[0].value == 13.0
    assert [r.value for r in isolated(f"{file}:batch")([rollout("ab"), rollout("")])] == [2.0, 0.0]
    assert reward([]) == []


KINDS = {
    "raises": "ValueError: no",
    "exits": "SystemExit: 3",
    "none": "returned None",
    "nan": "returned nan",
    "inf": "returned inf",
    "text": "returned 'good'",
    "sleeps": "took more than 2 s",
    "gil": "took more than 2 s",
    "segfault": "SIGSEGV",
    "os_exit": "exit code 7",
    "memory": "MemoryError",
}


@pytest.mark.parametrize(("kind", "reason"), KINDS.items())
def test_each_fault_is_an_error_of_its_rollout_and_the_next_is_scored(
    bad, hasty, kind: str, reason: str
) -> None:
    reward = hasty if reason.startswith("took") else bad
    reward([rollout("fine")])  # a process is there
    began = time.perf_counter()
    failed = reward([rollout(kind)])[0]
    seconds = time.perf_counter() - began
    assert failed.value is None and reason in failed.error and failed.parts == {}
    assert reward([rollout("fine")])[0].value == 1.0
    if reason.startswith("took"):
        assert LIMIT <= seconds < 1800, (
            "and not the hours that it would take (alone on a machine, 0.2 s more)"
        )


def test_prints_and_forks_do_no_harm(bad) -> None:
    assert [r.value for r in bad([rollout("prints"), rollout("forks"), rollout("fine")])] == [1.0] * 3


def test_a_batch_function_fails_as_a_whole(file: str) -> None:
    slow = isolated(f"{file}:slow_batch", timeout=0.1)
    results = slow([rollout("a"), rollout("b")])
    assert [r.value for r in results] == [None] * 2 and "took more than 0.2 s" in results[0].error
    assert "1 values for 2" in isolated(f"{file}:short")([rollout("a"), rollout("b")])[1].error


def test_after_too_many_lost_calls_the_rest_is_not_tried(file: str) -> None:
    reward = isolated(f"{file}:bad", timeout=600.0)
    results = reward([rollout("os_exit")] * 10)
    assert [("exit code 7" in r.error) for r in results] == [True] * 3 + [False] * 7
    assert "not tried" in results[-1].error


def test_what_cannot_be_imported_is_a_config_error(tmp_path: Path, file: str) -> None:
    with pytest.raises(ConfigError, match="no 'nothing'") as caught:
        isolated(f"{file}:nothing", where="gold")
    assert caught.value.where == "gold"
    crash = tmp_path / "crash.py"
    crash.write_text("import os\nos._exit(5)\n")
    with pytest.raises(ConfigError, match="exit code 5"):
        isolated(f"{crash}:f")


def test_closing_ends_the_process(file: str) -> None:
    reward = isolated(f"{file}:plain")
    assert reward._worker is not None
    process = reward._worker._process
    reward.close()
    assert process.returncode is not None
    assert reward([rollout("abc", "")])[0].value == 3.0, "and a later call starts another"


def test_a_module_that_is_not_there_may_be_a_misspelt_rule() -> None:
    with pytest.raises(ConfigError, match="no module 'rul'") as caught:
        IsolatedReward(FunctionTable(path="rul:json"))
    assert caught.value.cure.startswith("did you mean rule:json? Else install it")
    with pytest.raises(ConfigError, match="no module 'no_such_module'") as caught:
        IsolatedReward(FunctionTable(path="no_such_module:json"))
    assert caught.value.cure.startswith("install it")
