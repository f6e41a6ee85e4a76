"""Damage each file of a run and of its model in each way, and read it with each command that does: what is said?

python scripts/corruption.py --save docs/why/never-lose-work.json             every cell, those in the file left out
python scripts/corruption.py --trainers SFT --readers report,chat --every 5   some cells, on the console

A run of a tiny model is made once. For each cell of (file, damage, reader) one file of a copy is damaged, and one
command reads the copy: the same training command with --resume and more to do, `report`, `chat`, `evaluate`, and a
command that starts from what the run made. Well is what ends with the result of the undamaged run, or says which file
is damaged and how to go on: an exit code for that, no traceback, no BUG. Whatever else was computed must have been
announced with the name of the file. Files of checkpoints have a study of their own, tests/runs/test_checkpoint.py.

A file that a command never opens is damaged for it only by what a look at its name can see: deleted, or replaced by a
directory or a link. Rows of figures have no checksum: where a flipped bit makes one digit another, nobody can know.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import io
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from small_runs import SmallRuns, attempts, differing, in_child, keep, kept, plaudit, results, row_of, tail

BEGUN = {"SFT": ("--epochs", "1", "2"), "GRPO": ("--iterations", "2", "4"), "reward model": ("--epochs", "1", "2")}
"""The trainers that are studied: how long their run is, and how long the resumed one."""
ODD = (b"[]", b"null", b"7", b'"x"', b"{}", b'{"a": [[]]}', b'[{"step": {}}]', b'{"step": "x", "settings": 1}')
ENDS = (0, 4, 65, 74, 78)
"""Exit codes of a command that has done its work, or said why it did not."""
READING = ("evaluation.report", "stages.online.again", "stages.respond.policy", "stages.reward.evaluate", "cli.outcome")
SEEN_BY_NAME = ("deleted", "a directory", "a link to nowhere", "a link to itself")


def flipped(path: Path, rng: random.Random) -> None:
    """One bit of it is another."""
    content = bytearray(path.read_bytes())
    if content:
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def odd(path: Path, rng: random.Random) -> None:
    """Well-formed, and of another shape than any program writes."""
    content = rng.choice(ODD)
    if path.suffix == ".toml":
        content = b"seed = []\n[[data]]\nx = 1979-05-27\n"
    if path.suffix == ".safetensors":
        content = len(content).to_bytes(8, "little") + content
    path.write_bytes(content + b"\n" * (path.suffix == ".jsonl"))


def not_text(path: Path, rng: random.Random) -> None:
    """Bytes that are no UTF-8 in the middle of it."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] + b"\xff\xfe" + content[len(content) // 2 :])


def replaced(make: Callable[[Path], None]) -> Callable[[Path, random.Random], None]:
    """Something else under its name."""

    def damage(path: Path, rng: random.Random) -> None:
        path.unlink()
        make(path)

    return damage


def refused(path: Path) -> None:
    """From now on this process may not open it, as a file of somebody else; also where root may open everything."""
    whole = str(path.resolve())

    def audit(event: str, args: tuple[Any, ...]) -> None:
        named = event == "open" and isinstance(args[0], (str, bytes, os.PathLike))
        if named and os.path.realpath(os.fsdecode(args[0])) == whole:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), whole)

    sys.addaudithook(audit)


DAMAGES: dict[str, Callable[[Path, random.Random], None]] = {
    "a flipped bit": flipped,
    "cut in half": lambda path, rng: os.truncate(path, path.stat().st_size // 2),
    "empty": lambda path, rng: os.truncate(path, 0),
    "deleted": replaced(lambda path: None),
    "garbage": lambda path, rng: path.write_bytes(rng.randbytes(max(path.stat().st_size, 64))) and None,
    "odd JSON": odd,
    "not UTF-8": not_text,
    "a directory": replaced(lambda path: path.mkdir()),
    "a link to nowhere": replaced(lambda path: path.symlink_to("nowhere")),
    "a link to itself": replaced(lambda path: path.symlink_to(path.name)),
    "no permission": lambda path, rng: None,  # of the process that reads: see `refused`
}


class Subject:
    """A run, and what each reader makes of it when nothing is damaged."""

    def __init__(self, runs: SmallRuns, name: str) -> None:
        self.runs, self.name = runs, name
        self.place = runs.root / "corruption" / name.replace(" ", "-")
        self.out, self.whole = self.place / "now" / "run", self.place / "whole"
        self.config = runs.config(name, self.out, threads=1)
        flag, short, longer = BEGUN[name]
        if in_child(lambda: plaudit([*runs.words(name, self.config), flag, short]), self.log):
            raise SystemExit(f"{name}, undamaged: {tail(self.log)}")
        shutil.copytree(self.out, self.whole)
        self.readers = self._readers([*runs.words(name, self.config), flag, longer])
        self.calm, self.opened = {}, {}
        for reader in self.readers:
            self._afresh()
            if code := self._read(reader, None, watch=True):
                raise SystemExit(f"{name}, undamaged, {reader}: exit code {code}: {tail(self.log)}")
            self.calm[reader] = self._result(reader)
            self.opened[reader] = set((self.place / "opened.txt").read_text(encoding="utf-8").split("\n"))

    @property
    def log(self) -> Path:
        """The console."""
        return self.place / "console.txt"

    @property
    def files(self) -> list[Path]:
        """What is damaged, relative to the run."""
        inside = sorted(path.relative_to(self.whole) for path in self.whole.rglob("*") if path.is_file())
        return [path for path in inside if path.parts[0] != "checkpoints"]

    def cells(self, readers: list[str]) -> list[tuple[Path, str, str]]:
        """All that can differ: a file that a reader never opens only where it can see the damage by the name."""
        return [
            (path, damage, reader)
            for path in self.files
            for damage in DAMAGES
            for reader in self.readers
            if reader in readers and (path.as_posix() in self.opened[reader] or damage in SEEN_BY_NAME)
        ]

    def damaged(self, path: Path, damage: str, reader: str) -> str:
        """Damage a file and read the run; what is wrong, or nothing."""
        self._afresh()
        DAMAGES[damage](self.out / path, random.Random(f"{self.name} {path} {damage}"))
        code = self._read(reader, self.out / path if damage == "no permission" else None)
        said = self.log.read_text(encoding="utf-8", errors="replace")
        if code not in ENDS or "BUG" in said or "Traceback" in said:
            return f"exit code {code}: {tail(self.log)}"
        events = self.out / "events.jsonl"
        told = path.name in said or (events.is_file() and path.name in events.read_text(errors="replace"))
        if code:
            named = told or str(self.out / path.parent) in said
            return "" if named and "fix:" in said else f"no file or no cure is named: {tail(self.log)}"
        differ = differing(self._result(reader), self.calm[reader])
        differ = [name for name in differ if name != path.as_posix()]
        return f"another result, without a word: {', '.join(differ)}" if differ and not told else ""

    def _readers(self, resume: list[str]) -> dict[str, list[str]]:
        run, config = str(self.out), self.runs.config("GRPO", self.place / "user" / "run", threads=1)
        more = ["best-of-n", "--reward", str(self.runs.root / "rm" / "model"), "--policy", str(self.runs.root / "lm")]
        more += ["--dataset", str(self.runs.root / "prompts.jsonl"), "--data.limit", "2", "--group-size", "2", "--out"]
        more += [str(config.with_suffix("")), "--max-new-tokens", "4", "--overwrite", "--anyway", "--trackers"]
        if self.name == "reward model":
            return {"resume": resume, "report": ["report", run], "evaluate": ["evaluate", "reward", run],
                    "start from it": [*more, "--reward", run]}  # fmt: skip
        anew = ["evaluate", "policy", run, "--samples", "1", "--red-team", "none", "--gold", "rule:length:4"]
        return {"resume": resume, "report": ["report", run], "chat": ["chat", run, "--max-new-tokens", "8"],
                "evaluate": anew, "start from it": [*more, "--policy", run]}  # fmt: skip

    def _afresh(self) -> None:
        shutil.rmtree(self.out)
        shutil.rmtree(self.place / "user", ignore_errors=True)
        shutil.copytree(self.whole, self.out)
        self.log.write_text("", encoding="utf-8")

    def _read(self, reader: str, forbidden: Path | None, watch: bool = False) -> int:
        def work() -> int:
            if forbidden is not None:
                refused(forbidden)
            opened: set[str] = set()
            if watch:
                sys.addaudithook(lambda event, args: opened.add(str(args[0])) if event == "open" else None)
            sys.stdin = io.StringIO("hello\n/quit\n")
            code = plaudit(self.readers[reader])
            if watch:
                names = {os.path.relpath(name, self.out) for name in opened if name.startswith(str(self.out))}
                (self.place / "opened.txt").write_text("\n".join(names), encoding="utf-8")
            return code

        return in_child(work, self.log)

    def _result(self, reader: str) -> dict[str, str]:
        """What must be the same: of a command that trains the weights, of the others what they made or said."""
        if reader == "resume":
            made = results(self.out)
            return {name: value for name, value in made.items() if name.endswith(".safetensors")}
        if reader == "report":
            return {"page": str((self.out / "report.html").is_file())}
        if reader == "start from it":
            best = (self.place / "user" / "run" / "best.jsonl").read_text(encoding="utf-8")
            return {"best.jsonl": best}
        return {"console": self.log.read_text(encoding="utf-8", errors="replace")}


def study(runs: SmallRuns, given: argparse.Namespace) -> list[dict[str, Any]]:
    """Read each n-th damaged run that is not in the file of the figures."""
    rows: list[dict[str, Any]] = kept(given.save).get("corruption", [])
    until = time.monotonic() + 60 * given.minutes
    for name in given.trainers.split(";"):
        if time.monotonic() > until:
            break
        subject = Subject(runs, name)
        for reader in given.readers.split(","):
            cells = subject.cells([reader])
            if not cells:
                continue
            row = row_of(rows, {"trainer": name, "reader": reader})
            row["points"] = len(cells)
            # Cells lie file by file: every n-th one of each reader is of other files and damages.
            points = [
                ([path.as_posix(), damage], f"{path}, {damage}", partial(subject.damaged, path, damage, reader))
                for path, damage, _ in cells[given.first % given.every :: given.every]
            ]
            attempts(row, points, until, lambda: keep(given.save, "corruption", rows))
    return rows


def main() -> int:
    """The exit code: 1 where a damage was not found, or ended in a traceback."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trainers", default=";".join(BEGUN), help="separated by semicolons")
    parser.add_argument("--readers", default="resume,report,chat,evaluate,start from it")
    parser.add_argument("--every", type=int, default=1, help="each n-th cell only")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--minutes", type=float, default=1e9, help="end after so many, whatever was reached")
    parser.add_argument("--save", type=Path, help="file of the figures")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        for module in READING:  # in this process, so that its children need not
            importlib.import_module(f"plaudit.{module}")
        rows = study(SmallRuns(Path(root)), given)
    return int(any(row["wrong"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
