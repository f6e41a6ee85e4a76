"""Every instant at which a run touches the disk: kill it there, or let the disk refuse, and go on with --resume.

python scripts/io_points.py --save docs/why/never-lose-work.json --every 7     all trainers, each seventh point (hours)
python scripts/io_points.py --trainers SFT --faults kill --every 10            some points, on the console

A run of a tiny model is made once undisturbed, and its operations on the disk are counted: files opened for writing,
writes, syncs, renames, folders made and removed. Then it is made again for each of them. At that operation it is killed
(a write is done by half before), or the system says that the disk is full, from then on, or that there was an input or
output error, once. Where the system refuses, the error must be one of the machine (exit code 74) that names a file.
Then the same command must come to its end with the same weights, figures, checkpoints and evaluations, bit for bit.

Each run is a process of its own, forked from one that has only imported. What is in the file of the figures is not
tried again.
"""

from __future__ import annotations

import argparse
import builtins
import errno
import io
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import safetensors.torch
from small_runs import (
    TRAINERS,
    SmallRuns,
    attempts,
    differing,
    in_child,
    keep,
    kept,
    plaudit,
    results,
    row_of,
    tail,
)

FAULTS = ("kill", "full", "error")
NUMBERS = {"full": errno.ENOSPC, "error": errno.EIO}
KILLED, REFUSED = 137, 74
"""Exit codes of a run that is disturbed."""
OPERATIONS = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.link", "os.symlink"}
GIVES_SPACE = {"os.remove", "os.rmdir", "os.rename"}


class Disk:
    """Counts the operations of this process on files under ``root``, and spoils one of them.

    Args:
        at: number of the operation, from 1; 0: none.
        fault: of `FAULTS`.
    """

    def __init__(self, root: Path, at: int = 0, fault: str = "kill") -> None:
        self.root, self.at, self.fault = str(root.resolve()), at, fault
        self.seen: list[str] = []
        self._lock = threading.Lock()  # a checkpoint is written by a thread of its own
        self._open, self._sync = io.open, os.fsync
        self._save = safetensors.torch.save_file

    def install(self) -> None:
        """From now on; there is no way back, so it is for a process of its own."""
        sys.addaudithook(self._audit)
        builtins.open = io.open = self._opened  # type: ignore[assignment]
        os.fsync = self._synced
        for module in list(sys.modules.values()):
            for name, value in list(getattr(module, "__dict__", {}).items()):
                if value is self._save:
                    setattr(module, name, self._saved)

    def operation(self, kind: str, path: str, half: Callable[[], None] | None = None) -> None:
        """Something is about to be done with a file."""
        with self._lock:
            self.seen.append(f"{kind} {path.removeprefix(self.root)}")
            now = len(self.seen)
        if not self.at or now < self.at:
            return
        if self.fault == "kill":
            if half is not None:
                half()
            os._exit(KILLED)
        # A full disk stays full, and can be freed; an error comes once.
        if now == self.at or (self.fault == "full" and kind not in GIVES_SPACE):
            number = NUMBERS[self.fault]
            if kind == "save_file":
                raise safetensors.SafetensorError(f"I/O error: {os.strerror(number)} (os error {number})")
            raise OSError(number, os.strerror(number), *([path] if kind.startswith("os.") or kind == "open" else []))

    def _is_mine(self, path: Any, folder: Any = -1) -> str:
        if isinstance(path, int) or path is None:
            return ""
        text = os.fsdecode(path)
        if isinstance(folder, int) and folder >= 0:  # relative to an open folder, as shutil.rmtree works
            text = os.path.join(os.readlink(f"/proc/self/fd/{folder}"), text)
        text = os.path.abspath(text)
        return text if text.startswith(self.root) else ""

    def _audit(self, event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = args
            writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR)
            if writes and (mine := self._is_mine(path)):
                self.operation("open", mine)
        elif event in OPERATIONS:
            folder = args[-1] if event in ("os.remove", "os.rmdir", "os.mkdir") else -1
            if mine := self._is_mine(args[0], folder):
                self.operation(event, mine)

    def _opened(self, file: Any, mode: str = "r", buffering: int = -1, encoding: str | None = None,
                errors: str | None = None, newline: str | None = None, *rest: Any, **more: Any) -> Any:  # fmt: skip
        mine = self._is_mine(file) if set(mode) & set("wax+") else ""
        if not mine or rest or more:
            return self._open(file, mode, buffering, encoding, errors, newline, *rest, **more)
        raw = _Raw(file, mode.replace("b", "").replace("t", ""))
        raw.disk, raw.path = self, mine
        binary = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return binary if "b" in mode else io.TextIOWrapper(binary, encoding, errors, newline)

    def _synced(self, descriptor: int) -> None:
        if mine := self._is_mine(os.readlink(f"/proc/self/fd/{descriptor}")):
            self.operation("fsync", mine)
        self._sync(descriptor)

    def _saved(self, tensors: Any, filename: Any, metadata: Any = None) -> None:
        def half() -> None:
            self._save(tensors, filename, metadata)
            os.truncate(filename, os.path.getsize(filename) // 2)

        if mine := self._is_mine(filename):
            self.operation("save_file", mine, half)
        self._save(tensors, filename, metadata)


class _Raw(io.FileIO):
    disk: Disk
    path: str

    def write(self, data: Any) -> int:  # type: ignore[override]
        content = bytes(data)

        def half() -> None:
            super(_Raw, self).write(content[: len(content) // 2])

        self.disk.operation("write", self.path, half)
        return super().write(content) or 0


class Subject:
    """One trainer: its undisturbed end, and the operations on the way there."""

    def __init__(self, runs: SmallRuns, name: str) -> None:
        self.runs, self.name = runs, name
        self.place = runs.root / "points" / name
        disk = Disk(self.place / "calm")
        code = self._carried_out(self._config("calm"), disk)
        if code:
            raise SystemExit(f"{name}, undisturbed: exit code {code}: {tail(self.log)}")
        self.seen = (self.place / "seen.txt").read_text(encoding="utf-8").splitlines()
        self.calm = results(self.place / "calm" / "run")

    @property
    def log(self) -> Path:
        """The console."""
        return self.place / "console.txt"

    def _config(self, label: str) -> Path:
        shutil.rmtree(self.place / label, ignore_errors=True)
        config = self.runs.config(self.name, self.place / label / "run", threads=1)
        self.log.write_text("", encoding="utf-8")
        return config

    def _carried_out(self, config: Path, disk: Disk | None) -> int:
        def work() -> int:
            if disk is None:
                return plaudit(self.runs.words(self.name, config))
            disk.install()
            code = plaudit(self.runs.words(self.name, config))
            if not disk.at:
                (self.place / "seen.txt").write_text("\n".join(disk.seen), encoding="utf-8")
            return code

        return in_child(work, self.log)

    def spoiled(self, at: int, fault: str) -> str:
        """Spoil one operation and go on; what is wrong, or nothing."""
        config = self._config("spoiled")
        out = config.with_suffix("")
        code = self._carried_out(config, Disk(config.parent, at, fault))
        said = self.log.read_text(encoding="utf-8", errors="replace")
        if code != 0 and code != (KILLED if fault == "kill" else REFUSED):
            return f"exit code {code}: {tail(self.log)}"
        if code == REFUSED and ("BUG" in said or str(config.parent) not in said):
            return f"no file is named: {tail(self.log)}"
        went_on = code == 0
        if not went_on and (again := self._carried_out(config, None)):
            return f"the same command again: exit code {again}: {tail(self.log)}"
        differ = differing(results(out), self.calm)
        how = "it went on" if went_on else "after the same command"
        return f"{how}, other content in {', '.join(differ)}" if differ else ""


def study(runs: SmallRuns, given: argparse.Namespace) -> list[dict[str, Any]]:
    """Spoil each n-th operation of every trainer, those that the file of the figures already holds left out."""
    rows: list[dict[str, Any]] = kept(given.save).get("points", [])
    until = time.monotonic() + 60 * given.minutes
    for name in given.trainers.split(";"):
        if time.monotonic() > until:
            break
        subject = Subject(runs, name)
        for fault in given.faults.split(","):
            row = row_of(rows, {"trainer": name, "fault": fault})
            row["points"] = len(subject.seen)
            points = [
                (at, f"operation {at}, {subject.seen[at - 1]}", partial(subject.spoiled, at, fault))
                for at in range(1 + given.every // 2, len(subject.seen) + 1, given.every)
            ]
            attempts(row, points, until, lambda: keep(given.save, "points", rows))
    return rows


def main() -> int:
    """The exit code: 1 where something was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trainers", default=";".join(TRAINERS), help="separated by semicolons")
    parser.add_argument("--faults", default=",".join(FAULTS))
    parser.add_argument("--every", type=int, default=1, help="each n-th point only")
    parser.add_argument("--minutes", type=float, default=1e9, help="end after so many, whatever was reached")
    parser.add_argument("--save", type=Path, help="file of the figures")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        rows = study(SmallRuns(Path(root)), given)
    return int(any(row["wrong"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
