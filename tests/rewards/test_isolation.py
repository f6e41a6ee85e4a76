"""What a reward function can do to a run: nothing. Each kind of fault costs its own rollout and no more."""

from __future__ import annotations

import functools
import importlib
import os
import subprocess
import sys
import time
import types
from pathlib import Path

import psutil
import pytest

import plaudit
from plaudit.errors import ConfigError
from plaudit.jobs.reward_tables import FunctionTable
from plaudit.records import Message, Prompt, Rollout
from plaudit.rewards.isolation import IsolatedReward
from plaudit.rollouts.collect import judged

FUNCTIONS = """
import ctypes, os, re, shutil, signal, sys, threading, time

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
    if kind == "huge": return 1e300
    if kind == "complex": return 1j
    if kind == "list": return [1.0]
    if kind == "odd": return Odd()
    if kind == "recursion": return bad(response)
    if kind == "base_exception": raise GeneratorExit("no")
    if kind == "keyboard": raise KeyboardInterrupt
    if kind == "abort": os.abort()
    if kind == "kills_itself": os.kill(os.getpid(), signal.SIGKILL)
    if kind == "kills_its_parent": os.kill(os.getppid(), signal.SIGKILL); time.sleep(3600)
    if kind == "stops_itself": os.kill(os.getpid(), signal.SIGSTOP)
    if kind == "closes_all": os.closerange(0, 256)
    if kind == "large_file":
        with open("large", "wb") as file: file.truncate(1 << 40); file.seek(1 << 40); file.write(b"x")
    if kind == "swallows_all":
        while True:
            try: time.sleep(3600)
            except BaseException: pass
    if kind == "forks" and os.fork() == 0: time.sleep(3600)
    if kind == "forks_away" and os.fork() == 0: os.setsid(); time.sleep(3600)
    if kind == "thread": threading.Thread(target=time.sleep, args=(3600,)).start()
    if kind == "reads": return 1.0 + len(sys.stdin.read())
    if kind == "ignores_signals":
        for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGPIPE"): signal.signal(getattr(signal, name), signal.SIG_IGN)
    if kind == "removes_its_directory": shutil.rmtree(os.getcwd())
    if kind == "replaces_output": sys.stdout = sys.stderr = None
    return 1.0

class Odd:
    def __float__(self): raise RuntimeError("no")
    def __repr__(self): raise RuntimeError("no")
    def item(self): raise RuntimeError("no")

def surroundings(response):
    if response == "path": return float(os.path.basename(os.getcwd()).startswith("plaudit-reward-"))
    if response == "missing": return len(open("words.txt").read())
    return float(response in os.environ)

def forks_and_waits(response):
    for away in (False, True):
        if os.fork() == 0:
            if away: os.setsid()
            with open(response, "a") as file: file.write(f"{os.getpid()} ")
            time.sleep(3600)
    with open(response, "a") as file: file.write(f"{os.getpid()} ")
    time.sleep(3600)

def limits(response):
    import resource
    return float(resource.getrlimit(getattr(resource, response))[0])

def floods(response):
    for _ in range(100): sys.stdout.write("y" * (1 << 20)); sys.stdout.flush()
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
    "huge": "the reward is 1e+300",
    "complex": "returned 1j",
    "list": "returned [1.0]",
    "odd": "returned <Odd>",
    "recursion": "RecursionError",
    "base_exception": "exit code 1",
    "keyboard": "SIGINT",
    "abort": "SIGABRT",
    "kills_itself": "SIGKILL",
    "kills_its_parent": "SIGKILL",
    "stops_itself": "took more than 2 s",
    "closes_all": "exit code 1",
    "large_file": "OSError",
    "swallows_all": "took more than 2 s",
}
HARMLESS = (
    *("prints", "forks", "forks_away", "thread", "reads", "ignores_signals", "removes_its_directory"),
    "replaces_output",
)


@pytest.mark.parametrize(("kind", "reason"), KINDS.items())
def test_each_fault_is_an_error_of_its_rollout_and_the_next_is_scored(
    bad, hasty, kind: str, reason: str
) -> None:
    reward = hasty if reason.startswith("took") else bad
    reward([rollout("fine")])  # a process is there
    began = time.perf_counter()
    failed = judged(reward, [rollout(kind)])[0]
    seconds = time.perf_counter() - began
    assert failed.value is None and reason in failed.error and failed.parts == {}
    assert reward([rollout("fine")])[0].value == 1.0
    if reason.startswith("took"):
        assert LIMIT <= seconds < 1800, (
            "and not the hours that it would take (alone on a machine, 0.2 s more)"
        )


def test_what_gives_a_number_does_no_harm_whatever_else_it_does(bad) -> None:
    assert len(KINDS) + len(HARMLESS) >= 24
    results = bad([*map(rollout, HARMLESS), rollout("fine")])
    assert [(kind, r.value, r.error) for kind, r in zip((*HARMLESS, "fine"), results, strict=True)] == [
        (kind, 1.0, "") for kind in (*HARMLESS, "fine")
    ]


def test_it_gets_no_secrets_and_a_directory_of_its_own(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token of the user is seen only where it is named."""
    for name in ("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "OPENAI_API_KEY", "LC_ALL"):
        monkeypatch.setenv(name, "C")
    names = ("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "OPENAI_API_KEY", "PATH", "LC_ALL", "path", "missing")
    reward = isolated(f"{file}:surroundings", env=("OPENAI_API_KEY",))
    results = reward([*map(rollout, names)])
    assert [r.value for r in results] == [0.0, 0.0, 1.0, 1.0, 1.0, 1.0, None]
    assert "Path(__file__).parent" in results[-1].error
    assert reward._worker is not None
    place = Path(reward._worker.directory)
    assert place.is_dir()
    reward.close()
    assert not place.exists(), "and it is gone with the process"


@pytest.mark.skipif(sys.platform != "linux", reason="these limits are those of Linux")
def test_its_files_its_time_and_its_core_are_limited(file: str) -> None:
    reward = isolated(f"{file}:limits", timeout=10.0)
    size, cpu, core = (r.value for r in reward([*map(rollout, ("RLIMIT_FSIZE", "RLIMIT_CPU", "RLIMIT_CORE"))]))
    assert size == 1 << 30 and core == 0 and 25 * (os.cpu_count() or 1) <= cpu < 10_000
    assert isolated(f"{file}:limits", timeout=0)([rollout("RLIMIT_CPU")])[0].value < 0, "no limit of time: none here"


def test_a_flood_of_output_is_cut_and_said(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    reward = isolated(f"{file}:floods", timeout=600.0)
    assert reward([rollout("x")])[0].value == 1.0
    reward.close()  # what it has printed has been read then
    deadline = time.monotonic() + 600
    said = capsys.readouterr().err
    while "printed more than" not in said and time.monotonic() < deadline:
        time.sleep(0.05)
        said += capsys.readouterr().err
    assert len(said) < (1 << 20) + 1000 and said.count("printed more than 1,048,576 bytes") == 1


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and that nobody has asked for does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def all_gone(pids: list[int]) -> bool:
    deadline = time.monotonic() + 600
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not any(map(alive, pids))


def written(path: Path, count: int) -> list[int]:
    """The process ids in a file, as soon as there are so many."""
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        found = path.read_text().split() if path.exists() else []
        if len(found) == count:
            return [int(pid) for pid in found]
        time.sleep(0.05)
    raise AssertionError("they have not started")


@pytest.mark.skipif(sys.platform != "linux", reason="a child with a session of its own is found on Linux alone")
@pytest.mark.parametrize("how", ["too slow", "killed"])
def test_what_it_has_forked_ends_with_it_and_with_a_killed_run(file: str, tmp_path: Path, how: str) -> None:
    pids = tmp_path / "pids"
    code = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from tests.rewards.test_isolation import isolated, rollout
isolated({file + ":forks_and_waits"!r}, timeout={600 if how == "killed" else 5})([rollout({str(pids)!r})])
print("done", flush=True); sys.stdin.read()
"""
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as run:
        started = written(pids, 3)
        if how == "killed":
            run.kill()
        else:
            assert run.stdout is not None and run.stdout.readline() == b"done\n"
        assert all_gone(started)
        run.kill()


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


def test_a_function_given_in_python_can_be_run_in_a_process_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_module_of_rewards.py").write_text("import os\ndef mine(response): return os.getpid()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    mine = importlib.import_module("my_module_of_rewards").mine
    table = plaudit.isolated(mine, env=["TOKEN"], timeout=600.0)
    assert (table.path, table.env, table.timeout) == ("my_module_of_rewards:mine", ("TOKEN",), 600.0)
    assert IsolatedReward(table)([rollout("x")])[0].value != os.getpid()
    renamed = types.FunctionType(mine.__code__, {}, "mine")
    for value in (lambda response: 1.0, renamed, functools.partial(mine)):
        with pytest.raises(ConfigError, match="cannot be run in a process of its own") as caught:
            plaudit.isolated(value)
        assert "file.py:function" in caught.value.cure
    mine.__module__ = "__main__"
    with pytest.raises(ConfigError, match="the script that is run has it"):
        plaudit.isolated(mine)
