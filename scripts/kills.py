"""Kill runs of every trainer with SIGKILL, go on with the same command, and compare the end with an undisturbed run.

python scripts/kills.py --save docs/why/never-lose-work.json             500 kills (`make kills`: an hour or more)
python scripts/kills.py --kills 6 --trainers "SFT;GRPO" --threads 1      some, on the console

A run is killed again and again, each time after another amount of work that is drawn at random; so it is killed while
it starts, trains, saves, resumes, evaluates and writes its page. After at most six kills it may go to its end. Then
weights, optimizer states, counters, figures, samples and summary must be those of the undisturbed run, bit for bit, and
the newest checkpoint must never be older than one that was reported as saved. Kills in the file of the figures count.

Other disturbances: a clock that jumps back and forth by years; and two processes that are given the same command at
once, one of which is killed while the other tries again.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from small_runs import (
    TRAINERS,
    SmallRuns,
    differing,
    ended,
    in_child,
    keep,
    kept,
    plaudit,
    results,
    start,
    tail,
)

CHAIN = 6
"""Kills of one run before it is left alone."""
SHARES = (0.15, 0.5, 0.9)
"""A kill comes after up to one of these shares of what the whole run takes; the small ones hit start and resume."""
BUSY, DONE = 78, 0
YEAR = 365 * 86400.0


class Subject:
    """One trainer with a number of threads: its undisturbed end, and how much processor time that takes."""

    def __init__(self, runs: SmallRuns, name: str, threads: int) -> None:
        self.runs, self.name, self.threads = runs, name, threads
        self.place = runs.root / "subjects" / f"{name}, {threads}"
        config = self._config("calm")
        before = os.times()
        code = in_child(self.work(config), self.log)
        after = os.times()
        if code:
            raise SystemExit(f"{name}, {threads} threads, undisturbed: exit code {code}: {tail(self.log)}")
        self.moments = Counter[str]()
        self.cost = after.children_user - before.children_user + after.children_system - before.children_system
        self.calm = results(self.out("calm"))

    @property
    def log(self) -> Path:
        """The console of its processes."""
        return self.place / "console.txt"

    def out(self, label: str) -> Path:
        """A run directory; comparable runs have paths that end alike."""
        return self.place / label / "run"

    def _config(self, label: str) -> Path:
        shutil.rmtree(self.place / label, ignore_errors=True)
        config = self.runs.config(self.name, self.out(label), self.threads)
        self.log.write_text("", encoding="utf-8")
        return config

    def work(self, config: Path, before: Callable[[], None] = lambda: None) -> Callable[[], int]:
        """The command that starts the run and goes on with it."""
        words = self.runs.words(self.name, config)

        def carry_out() -> int:
            before()
            return plaudit(words)

        return carry_out

    def compared(self, label: str) -> str:
        """What differs from the undisturbed end; empty: nothing."""
        differ = differing(results(self.out(label)), self.calm)
        return f"other content in {', '.join(differ)}" if differ else ""

    def chain(self, rng: random.Random, wanted: int) -> tuple[int, str]:
        """Kill one run up to ``wanted`` times and let it end; how often it was killed, and what is wrong then."""
        config = self._config("killed")
        kills = 0
        while kills < wanted:
            before = recorded(self.out("killed"))
            child = start(self.work(config), self.log)
            code = killed_after(child, rng.uniform(0, rng.choice(SHARES)) * self.cost)
            if code == DONE:
                break
            if code != -signal.SIGKILL:
                return kills, f"exit code {code} after {kills} kills: {tail(self.log)}"
            kills += 1
            self.moments[moment(before, self.out("killed"))] += 1
            if lost := acknowledged_and_lost(self.out("killed")):
                return kills, lost
        code = in_child(self.work(config), self.log)
        if code:
            return kills, f"exit code {code} after {kills} kills: {tail(self.log)}"
        return kills, self.compared("killed")

    def jumps(self, rng: random.Random) -> str:
        """Kill a run whose clock jumps with every look at it, and go on with another clock; what is wrong then."""
        config = self._config("clock")

        def jumping() -> None:
            own, real = random.Random(rng.random()), time.time
            time.time = lambda: real() + own.uniform(-40, 40) * YEAR

        child = start(self.work(config, jumping), self.log)
        killed_after(child, rng.uniform(0.2, 0.8) * self.cost)
        for path in self.out("clock").rglob("*"):
            moment = time.time() + rng.uniform(-30, 30) * YEAR
            os.utime(path, (moment, moment))
        code = in_child(self.work(config, jumping), self.log)
        return f"exit code {code}: {tail(self.log)}" if code else self.compared("clock")

    def two_writers(self, rng: random.Random) -> str:
        """Give the same command to two processes, again and again, and kill one of them; what is wrong at the end."""
        config = self._config("both")
        first, second = (start(self.work(config), self.log) for _ in range(2))
        codes = [killed_after(first, rng.uniform(0, 0.9) * self.cost), ended(second)]
        if not set(codes) <= {DONE, BUSY, -signal.SIGKILL}:
            return f"exit codes {codes}: {tail(self.log)}"
        refused = "another process writes to" in self.log.read_text(encoding="utf-8")
        if BUSY in codes and not refused:
            return f"refused for another reason: {tail(self.log)}"
        code = in_child(self.work(config), self.log)
        return f"exit code {code}: {tail(self.log)}" if code else self.compared("both")


def killed_after(child: int, seconds: float) -> int:
    """Kill a process when it has used so much processor time, if it lives so long; its exit code, -9 where it was."""
    # Its processor time and not the time of day: so the moments do not depend on what else the machine does.
    clock = (~child << 3) | 2
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.clock_gettime(clock) >= seconds:
            os.kill(child, signal.SIGKILL)
            return ended(child)
        time.sleep(0.002)


def moment(before: dict[Path, int], out: Path) -> str:
    """What a process did when it was killed, by the events that it has recorded since there were so many."""
    new = [row for path in out.rglob("events.jsonl") for row in rows_of(path)[before.get(path, 0) :]]
    kinds = {(row["event"], "step" in row) for row in new}
    if not {event for event, _ in kinds} - {"started", "resumed"}:
        return "starting or resuming"
    return "evaluating and writing the page" if ("saved", False) in kinds else "training and saving"


def recorded(out: Path) -> dict[Path, int]:
    """How many events there are, by file."""
    return {path: len(rows_of(path)) for path in out.rglob("events.jsonl")}


def rows_of(path: Path) -> list[dict[str, Any]]:
    """The rows of a file whose last line a kill may have torn."""
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    return [json.loads(line) for line in lines]


def acknowledged_and_lost(out: Path) -> str:
    """Whether a checkpoint was reported as saved, and neither it nor a newer one is there."""
    for events in out.rglob("events.jsonl"):
        saved = max((row["step"] for row in rows_of(events) if row["event"] == "saved" and "step" in row), default=0)
        there = [int(path.name[5:]) for path in (events.parent / "checkpoints").glob("step-*")]
        if saved > max(there, default=0):
            return f"{events.parent.name}: the checkpoint of step {saved} was saved, and there are {sorted(there)}"
    return ""


def study(runs: SmallRuns, given: argparse.Namespace) -> dict[str, Any]:
    """Kill every trainer in turn until there were enough kills, those of earlier calls with the same file included."""
    found = kept(given.save).get("kills") or {"rows": [], "instants": {}, "others": {}}
    subjects: dict[tuple[str, int], Subject] = {}
    names, threads = given.trainers.split(";"), [int(count) for count in given.threads.split(",")]
    began, turn = time.monotonic(), 0
    while True:
        for key in [(name, count) for count in threads for name in names]:
            total = sum(row["kills"] for row in found["rows"])
            if total >= given.kills or time.monotonic() - began > given.minutes * 60:
                return found
            rng = random.Random(f"{given.seed}, {total}, {key}")
            subject = subjects.get(key) or subjects.setdefault(key, Subject(runs, *key))
            if turn == 0:
                _others(found["others"], subject, rng)
            _chain(found, subject, rng)
            keep(given.save, "kills", found)
        turn += 1


def _others(others: dict[str, Any], subject: Subject, rng: random.Random) -> None:
    for kind, try_it in (("clock jumps", subject.jumps), ("two writers", subject.two_writers)):
        entry = others.setdefault(kind, {"tried": 0, "equal": 0, "wrong": []})
        said = try_it(rng)
        entry["tried"] += 1
        entry["equal"] += not said
        _say(entry, kind, said, subject)


def _chain(found: dict[str, Any], subject: Subject, rng: random.Random) -> None:
    nothing = {"trainer": subject.name, "threads": subject.threads, "kills": 0, "equal": 0, "runs": 0, "wrong": []}
    same = [row for row in found["rows"] if (row["trainer"], row["threads"]) == (subject.name, subject.threads)]
    row = same[0] if same else nothing
    found["rows"] += [] if same else [row]
    before = Counter(subject.moments)
    killed, wrong = subject.chain(rng, CHAIN)
    row["runs"] += 1
    row["kills"] += killed
    row["equal"] += 0 if wrong else killed
    found["instants"] = dict(Counter(found["instants"]) + (subject.moments - before))
    _say(row, f"{killed} kills", wrong, subject)


def _say(entry: dict[str, Any], what: str, wrong: str, subject: Subject) -> None:
    if wrong:
        entry["wrong"].append(f"{subject.name}, {subject.threads} threads: {wrong[:1500]}")
    print(f"{subject.name}, {subject.threads} threads, {what}: {wrong or 'equal'}", flush=True)


def main() -> int:
    """The exit code: 1 where an end was another one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--minutes", type=float, default=1e9, help="end after so many, whatever was reached")
    parser.add_argument("--trainers", default=";".join(TRAINERS), help="separated by semicolons")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", type=Path, help="file of the figures")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        found = study(SmallRuns(Path(root)), given)
    kills, equal = (sum(row[name] for row in found["rows"]) for name in ("kills", "equal"))
    others = [f"{kind}: {o['equal']} of {o['tried']}" for kind, o in found["others"].items()]
    print("; ".join([f"{equal} of {kills} kills bitwise equal", *others]))
    return int(any(entry["wrong"] for entry in [*found["rows"], *found["others"].values()]))


if __name__ == "__main__":
    raise SystemExit(main())
