"""The mutation check: one small fault at a time in the formulas, and the tests must turn red.

python scripts/mutants.py                                  every mutant of functional/ and algorithms/
python scripts/mutants.py functional.losses --list         those of some modules; only show them
python scripts/mutants.py --function gae,PPO.loss --jobs 2

Nothing is written to the source. The tests of the formulas are collected once, and watched once for what they call.
Each mutant is a forked process, in which one function gets the changed code before the tests that call it run, until
the first one fails. A mutant that no test notices survives; survivors are listed, and the exit code is 1. Mutants that
cannot be noticed, because they mean the same, stand in `mutants_equal.txt` with the reason.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import pytest
from mutations import Mutant, mutants

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "plaudit"
PARTS = ("functional", "algorithms")
LEFT_OUT = ("__init__", "protocol", "metrics", "probe", "logprob_cache")
TESTS = ("functional", "algorithms", "numerics")
EQUAL = Path(__file__).with_name("mutants_equal.txt")
SECONDS = 180
"""A mutant that runs longer than this is stopped, and counts as noticed: so would its test."""


def path_of(module: str) -> Path:
    """``functional.losses`` -> the file."""
    return PACKAGE / Path(*module.split(".")).with_suffix(".py")


def modules(wanted: Sequence[str]) -> list[str]:
    """All modules with formulas, or those wanted."""
    found = [f"{part}.{path.stem}" for part in PARTS for path in sorted((PACKAGE / part).glob("*.py"))]
    found = [name for name in found if name.partition(".")[2] not in LEFT_OUT]
    unknown = set(wanted) - set(found)
    if unknown:
        sys.exit(f"no such module with formulas: {', '.join(sorted(unknown))}; there are {', '.join(found)}")
    return [name for name in found if not wanted or name in wanted]


def known_equal() -> dict[tuple[str, ...], str]:
    """Mutants that mean the same as the original, by key, with the reason."""
    rows = [
        line.split(" | ")
        for line in EQUAL.read_text(encoding="utf-8").splitlines()
        if line and line[0] != "#"
    ]
    return {tuple(row[:4]): row[4] for row in rows}


def put_in(mutant: Mutant) -> None:
    """Give the living function the changed code, so that everybody who has imported it sees the fault."""
    found: Any = importlib.import_module(f"plaudit.{mutant.module}")
    for name in mutant.function.split("."):
        found = vars(found)[name]
    # Behind a property, a class method, or a decorator such as contextmanager.
    found = inspect.unwrap(getattr(found, "fget", None) or getattr(found, "__func__", found))
    assert isinstance(found, FunctionType), mutant
    found.__code__ = _code(compile(mutant.source, str(path_of(mutant.module)), "exec"), mutant.function)


def _code(code: CodeType, name: str) -> CodeType:
    """The code of a function or method of a module."""
    for part in name.split("."):
        code = next(c for c in code.co_consts if isinstance(c, CodeType) and c.co_name == part)
    return code


@dataclass
class Check:
    """Run by pytest in place of its own loop, when all tests are collected."""

    todo: Sequence[Mutant]
    jobs: int
    alive: list[Mutant] = field(default_factory=list)
    healthy: bool = True

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """All mutants, after a pass without one that says which test calls what."""
        assert not session.testsfailed, "some tests could not be collected"
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "calls.json"
            child = fork(
                lambda: report.write_text(json.dumps([observe(*pair) for pair in pairs(session.items)])) * 0,
                seconds=10 * SECONDS,
            )
            os.waitpid(child, 0)
            calls = json.loads(report.read_text()) if report.exists() else []
        self.healthy = bool(calls) and all(green for green, _, _ in calls)
        waiting = list(self.todo) if self.healthy else []
        running: dict[int, Mutant] = {}
        while waiting or running:
            while waiting and len(running) < self.jobs:
                mutant = waiting.pop(0)
                running[fork(partial(notice, mutant, concerned(mutant, session.items, calls)))] = mutant
            done, status = os.wait()
            mutant = running.pop(done)
            # Noticed is a test that failed or never ended, and nothing else: a fault of this script is no test.
            if not os.WIFSIGNALED(status) and os.WEXITSTATUS(status) != 1:
                self.alive.append(mutant)
                print(f"survived  {mutant}", flush=True)
        return True


def fork(work: Callable[[], int], seconds: int = SECONDS) -> int:
    """A child that does this, silently, and ends with the code it gives: its process id."""
    sys.stdout.flush()
    if child := os.fork():
        return child
    signal.alarm(seconds)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    try:
        os._exit(work())
    finally:
        os._exit(70)


def pairs(items: Sequence[pytest.Item]) -> Iterator[tuple[pytest.Item, pytest.Item | None]]:
    """Each test with the next one, whose fixtures it may leave standing."""
    return zip(items, [*items[1:], *([None] if items else [])], strict=True)


def observe(item: pytest.Item, following: pytest.Item | None) -> tuple[bool, float, list[str]]:
    """Run a test: whether it was green, its seconds, and the functions of the formulas that it called."""
    called: set[CodeType] = set()
    began = time.monotonic()
    sys.setprofile(lambda frame, event, _: called.add(frame.f_code) if event == "call" else None)
    item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
    sys.setprofile(None)
    ours = [code for code in called if code.co_filename.startswith(str(PACKAGE))]
    names = [f"{Path(code.co_filename).relative_to(PACKAGE)}:{code.co_qualname}" for code in ours]
    return not item.session.testsfailed, time.monotonic() - began, names


def concerned(mutant: Mutant, items: Sequence[pytest.Item], calls: list[Any]) -> list[pytest.Item]:
    """The tests that call the function of a mutant, those named like its module first, then the quick ones."""
    name = f"{Path(*mutant.module.split('.')).with_suffix('.py')}:{mutant.function}"
    part, _, module = mutant.module.partition(".")

    def order(index: int) -> tuple[bool, float]:
        path = items[index].path
        return path.parent.name != part or module not in path.stem, calls[index][1]

    return [items[i] for i in sorted(range(len(items)), key=order) if name in calls[i][2]]


def notice(mutant: Mutant, items: Sequence[pytest.Item]) -> int:
    """1 if a test fails on a mutant."""
    put_in(mutant)
    for item, following in pairs(items):
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if item.session.testsfailed:
            return 1
    return 0


def check(names: Sequence[str], functions: Sequence[str], tests: Sequence[str], jobs: int) -> int:
    """Run them all, print a table and the survivors: an exit code."""
    equal = known_equal()
    every = [m for name in names for m in mutants(name, path_of(name).read_text(encoding="utf-8"))]
    found = [m for m in every if not functions or m.function in functions]
    work = Check([m for m in found if m.key not in equal], jobs)
    stale = [key for key in equal if key[0] in names and key not in {m.key for m in every}]
    began = time.monotonic()
    # Not the settings of the project's own runs: no doctests, no cache, nothing captured; warnings may be errors still.
    options = ["-qq", "-s", "-p", "no:cacheprovider", "-o", "addopts=--import-mode=importlib"]
    options += ["-m", "not slow and not gpu", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
    code = pytest.main([*options, *(str(ROOT / "tests" / part) for part in tests)], plugins=[work])
    if code not in (0, 5) or not work.healthy:
        print("the tests of the formulas are red without any fault; repair them first", file=sys.stderr)
        return 2
    print(f"\n{'module':<34}{'mutants':>8}{'killed':>8}{'alive':>8}{'equal':>8}")
    for name in names:
        count, lost = (sum(m.module == name for m in some) for some in (work.todo, work.alive))
        same = sum(m.key in equal and m.module == name for m in found)
        print(f"{name:<34}{count:>8}{count - lost:>8}{lost:>8}{same:>8}")
    print(f"{len(work.todo)} mutants, {len(work.alive)} survived, {time.monotonic() - began:.0f} s")
    for key in stale:
        print(f"no longer a mutant, take it out of {EQUAL.name}: {' | '.join(key)}")
    return 1 if work.alive or stale else 0


def main() -> int:
    """Read the arguments, run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("modules", nargs="*", help="such as functional.losses; all without")
    parser.add_argument("--function", default="", help="only these functions, separated by commas")
    parser.add_argument(
        "--tests", default=",".join(TESTS), help="folders and files in tests/, separated by commas"
    )
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    parser.add_argument("--list", action="store_true", help="print the mutants, run nothing")
    given = parser.parse_args()
    names = modules(given.modules)
    functions = [name for name in given.function.split(",") if name]
    if given.list:
        every = (m for name in names for m in mutants(name, path_of(name).read_text(encoding="utf-8")))
        print("\n".join(str(m) for m in every if not functions or m.function in functions))
        return 0
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT / "src"))
    return check(names, functions, given.tests.split(","), given.jobs)


if __name__ == "__main__":
    sys.exit(main())
