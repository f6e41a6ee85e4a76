"""Cut the power at operations of a run on the disk, take away what was not synced, and go on with the same command.

python scripts/power_loss.py --save docs/why/never-lose-work.json       every third point of SFT, GRPO and a loop
python scripts/power_loss.py --trainers SFT --every 20                  some points, on the console

A disk keeps what it was told to sync: the content of a file as it was at the last fsync of the file, the names in a
directory as they were at the last fsync of the directory. Anything later may be there or not. So at a point the process
ends, and its directory is made anew in one of three ways: with synced names and contents only; with all names, but
contents as synced (empty where they never were); or with a choice by chance for each file and directory, where the end
of an unsynced content may also be cut off or be zeros. From there the same command must reach the end of an undisturbed
run, bit for bit, and no checkpoint that was reported as saved may be missing.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

from small_runs import SmallRuns, attempts, differing, in_child, keep, kept, plaudit, results, row_of, tail

LEFT = ("only what was synced", "all names, contents as synced", "by chance")
EVENTS = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate"}
CUT = 137
"""The exit code of a run whose power was cut."""


class Disk:
    """What a disk would hold after a power cut, of the files below ``root``. For a process of its own.

    Args:
        root: what lies in it already counts as synced.
        at: number of the operation before which the power is cut, from 1; 0: never.
        after: where the directory is made anew then.
        left: of `LEFT`.
    """

    def __init__(self, root: Path, at: int, after: Path, left: str) -> None:
        self.root, self.at, self.after, self.left = str(root.resolve()), at, after, left
        self.rng = random.Random(at)
        self.count, self._next = 0, 0
        self._places: dict[int, str] = {}
        self._known: dict[int, int] = {}
        self.contents: dict[int, bytes] = {}
        self.names: dict[int, dict[str, int]] = {}
        self._sync = os.fsync
        self._busy = False
        self._lock = threading.RLock()  # a checkpoint is written by a thread of its own
        for folder, _, files in os.walk(self.root):
            self._keep(folder)
            for name in files:
                self._keep(os.path.join(folder, name))

    def install(self) -> None:
        """From now on; there is no way back."""
        sys.addaudithook(self._audit)
        os.fsync = self._synced

    def _thing(self, path: str) -> int:
        """The number of the file or directory that a path leads to; of another one later, another number."""
        number = os.lstat(path).st_ino
        if number not in self._known:
            self._next += 1
            self._known[number] = self._next
        return self._known[number]

    def _keep(self, path: str) -> None:
        """A file's content, or a directory's names, are on the disk as they are now."""
        thing = self._thing(path)
        if os.path.isdir(path):
            self.names[thing] = {name: self._thing(os.path.join(path, name)) for name in os.listdir(path)}
        else:
            self.contents[thing] = _bytes(path)

    def _synced(self, descriptor: int) -> None:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        if not self._is_mine(path):
            return
        with self._lock:
            self._operation()
            self._sync(descriptor)
            self._keep(path)

    def _audit(self, event: str, args: tuple[Any, ...]) -> None:
        if event == "open" or event in EVENTS:
            with self._lock:
                if not self._busy:
                    self._about_to(event, args)

    def _about_to(self, event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = args
            if isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR) and self._path(path):
                self._operation()
        else:
            ends = event in ("os.remove", "os.rmdir")
            path = self._path(args[0], args[-1] if ends or event == "os.mkdir" else args[2] if len(args) > 2 else -1)
            if not path:
                return
            self._operation()
            gone = self._path(args[1], args[3]) if event == "os.rename" else path if ends else ""
            if gone and os.path.lexists(gone):  # its number may be given to another file
                self._known.pop(os.lstat(gone).st_ino, None)

    def _path(self, path: Any, folder: Any = -1) -> str:
        """As a whole, where it is below the root; else empty."""
        if path is None or isinstance(path, int):
            return ""
        text = os.fsdecode(path)
        if isinstance(folder, int) and folder >= 0:  # relative to an open directory, as shutil.rmtree works
            text = os.path.join(os.readlink(f"/proc/self/fd/{folder}"), text)
        text = os.path.abspath(text)
        return text if self._is_mine(text) else ""

    def _is_mine(self, path: str) -> bool:
        return path == self.root or path.startswith(f"{self.root}/")

    def _operation(self) -> None:
        self.count += 1
        if self.count == self.at:
            self._busy = True
            self._places = self._walk()
            self._rebuild(self._thing(self.root), self.root, self.after)
            os._exit(CUT)

    def _rebuild(self, thing: int, now: str, target: Path) -> None:
        """Make a directory as a disk may hold it.

        Args:
            thing: its number.
            now: where it is at this moment; empty where it was removed or moved.
            target: where it is made.
        """
        target.mkdir(parents=True)
        there = {name: self._thing(os.path.join(now, name)) for name in os.listdir(now)} if now else {}
        synced = self.names.get(thing, {})
        names = self.rng.choice({LEFT[0]: [synced], LEFT[1]: [there]}.get(self.left, [synced, there]))
        for name, inner in names.items():
            place = self._places.get(inner, "")
            if inner in self.names or os.path.isdir(place):
                self._rebuild(inner, place, target / name)
            else:
                (target / name).write_bytes(self._content(inner, place))

    def _walk(self) -> dict[int, str]:
        found = {}
        for folder, folders, files in os.walk(self.root):
            found |= {self._thing(path): path for name in folders + files if (path := os.path.join(folder, name))}
        return found

    def _content(self, thing: int, now: str) -> bytes:
        synced = self.contents.get(thing, b"")
        if self.left != LEFT[2] or not now:
            return synced
        content = _bytes(now)
        cut = self.rng.randint(min(len(synced), len(content)), len(content))
        return self.rng.choice([synced, content, content[:cut], content[:cut] + bytes(len(content) - cut)])


def _bytes(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


class Subject:
    """One trainer: its undisturbed end, and how many operations it takes."""

    def __init__(self, runs: SmallRuns, name: str) -> None:
        self.runs, self.name = runs, name
        self.place = runs.root / "power" / name
        code = self._carried_out("calm", at=0, left=LEFT[0])
        if code:
            raise SystemExit(f"{name}, undisturbed: exit code {code}: {tail(self.log)}")
        self.count = int((self.place / "count.txt").read_text(encoding="utf-8"))
        self.calm = results(self.place / "calm" / "here" / "run")

    @property
    def log(self) -> Path:
        """The console."""
        return self.place / "console.txt"

    def _carried_out(self, label: str, at: int, left: str) -> int:
        shutil.rmtree(self.place / label, ignore_errors=True)
        config = self.runs.config(self.name, self.place / label / "here" / "run", threads=1)
        self.log.write_text("", encoding="utf-8")

        def work() -> int:
            disk = Disk(config.parent, at, self.place / label / "after", left)
            disk.install()
            code = plaudit(self.runs.words(self.name, config))
            (self.place / "count.txt").write_text(str(disk.count), encoding="utf-8")
            return code

        return in_child(work, self.log)

    def cut(self, at: int, left: str) -> str:
        """Cut the power before an operation and go on; what is wrong then."""
        place = self.place / "cut"
        code = self._carried_out("cut", at, left)
        if code == 0:
            return ""  # it took fewer operations than the undisturbed run
        if code != CUT:
            return f"exit code {code}: {tail(self.log)}"
        lost = missing(place / "here" / "run", place / "after" / "run")
        shutil.rmtree(place / "here")
        (place / "after").rename(place / "here")
        code = in_child(lambda: plaudit(self.runs.words(self.name, place / "here" / "run.toml")), self.log)
        if code:
            return f"exit code {code}: {tail(self.log)}"
        differ = differing(results(place / "here" / "run"), self.calm)
        return lost or (f"other content in {', '.join(differ)}" if differ else "")


def missing(before: Path, after: Path) -> str:
    """The newest checkpoint, or the end, that a run had reported before the cut and that is not there after it."""
    for events in before.rglob("events.jsonl"):
        rows = [json.loads(line) for line in events.read_text(encoding="utf-8").split("\n")[:-1]]
        saved = max((row["step"] for row in rows if row["event"] == "saved" and "step" in row), default=0)
        place = after / events.parent.relative_to(before)
        there = [int(path.name[5:]) for path in (place / "checkpoints").glob("step-*")]
        if saved > max(there, default=0):
            return f"{place.name}: the checkpoint of step {saved} was saved, and there are {sorted(there)}"
    return ""


def study(runs: SmallRuns, given: argparse.Namespace) -> list[dict[str, Any]]:
    """Cut the power at each n-th operation of every trainer that is not in the file of the figures."""
    rows: list[dict[str, Any]] = kept(given.save).get("power", [])
    until = time.monotonic() + 60 * given.minutes
    for name in given.trainers.split(";"):
        if time.monotonic() > until:
            break
        subject = Subject(runs, name)
        row = row_of(rows, {"trainer": name})
        row["points"] = subject.count
        points = [
            (at, f"operation {at}, {left}", partial(subject.cut, at, left))
            for number, at in enumerate(range(1, subject.count + 1, given.every))
            for left in [LEFT[number % len(LEFT)]]
        ]
        attempts(row, points, until, lambda: keep(given.save, "power", rows))
    return rows


def main() -> int:
    """The exit code: 1 where something was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trainers", default="SFT;GRPO;loop", help="separated by semicolons")
    parser.add_argument("--every", type=int, default=3, help="each n-th point only")
    parser.add_argument("--minutes", type=float, default=1e9, help="end after so many, whatever was reached")
    parser.add_argument("--save", type=Path, help="file of the figures")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        rows = study(SmallRuns(Path(root)), given)
    return int(any(row["wrong"] for row in rows))


if __name__ == "__main__":
    raise SystemExit(main())
