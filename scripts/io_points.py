"""Every instant at which a run touches the disk: kill it there, or let the disk refuse, and go on with --resume.

python scripts/io_points.py                                    all trainers, all points, three faults (an hour or two)
python scripts/io_points.py --trainers sft --faults kill --every 10      each tenth point

A run of a tiny model is made once undisturbed, and its operations on the disk are counted: files opened for writing,
writes, syncs, renames, folders made and removed. Then it is made again for each of them. At that operation it is killed
(a write is done by half before), or the system says that the disk is full, from then on, or that there was an input or
output error, once. Where the system refuses, the error must be one of the machine (exit code 74) that names a file.
Then the same command with --resume must come to its end with the same weights, figures and evaluations, bit for bit.

Each run is a process of its own, forked from one that has only imported.
"""

from __future__ import annotations

import argparse
import builtins
import contextlib
import errno
import hashlib
import io
import json
import os
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))
import safetensors.torch
from tests.stages.conftest import World

from plaudit.algorithms.grpo import GRPO
from plaudit.cli.main import explain
from plaudit.cli.outcome import finish
from plaudit.config.sections import CheckpointSection
from plaudit.errors import Ended
from plaudit.jobs.online import GRPOJob
from plaudit.jobs.preference import DPOJob
from plaudit.stages.online.rl import run_rl
from plaudit.stages.preference.dpo import run_dpo
from plaudit.stages.reward.train import run_reward
from plaudit.stages.sft import run_sft

FAULTS = ("kill", "full", "error")
NUMBERS = {"full": errno.ENOSPC, "error": errno.EIO}
REFUSED, OTHERS = 74, 99
"""Exit codes of a trial: the machine's, and an error that it must not be."""
OPERATIONS = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.link", "os.symlink"}
GIVES_SPACE = {"os.remove", "os.rmdir", "os.rename"}
TIMES = ("time", "throughput", "memory")
"""Metrics of these roles differ from run to run."""


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
            os._exit(137)
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


def likes_good(rollouts: Any) -> list[Any]:
    """A reward: how often the response says "good"."""
    from plaudit.records import RewardResult

    return [RewardResult(float(rollout.response.count("good"))) for rollout in rollouts]


def trainers(world: World) -> dict[str, Callable[[Path, bool], Path]]:
    """By name: a run into a directory, resumed or not."""

    def checkpoint(resume: bool) -> CheckpointSection:
        return CheckpointSection(every=1, keep=2, resume=resume)

    def dpo(out: Path, resume: bool) -> Path:
        like = world.reward(out)
        given = {name: getattr(like, name) for name in like.model_fields_set if name != "model"}
        return run_dpo(DPOJob(**{**given, "policy": world.lm, "checkpoint": checkpoint(resume)}))

    def grpo(out: Path, resume: bool) -> Path:
        like = world.rl(out)
        given = {name: getattr(like, name) for name in like.model_fields_set if name != "algorithm"}
        changes = {"algorithm": GRPO(group_size=3), "iterations": 2, "eval_every": 1, "checkpoint": checkpoint(resume)}
        return run_rl(GRPOJob(**{**given, **changes}), reward=likes_good)

    def ppo(out: Path, resume: bool) -> Path:
        changes = {"iterations": 3, "eval_every": 1, "checkpoint": checkpoint(resume)}
        return run_rl(world.rl(out, **changes), reward=likes_good)

    return {
        "sft": lambda out, resume: run_sft(world.sft(out, checkpoint=checkpoint(resume))),
        "reward": lambda out, resume: run_reward(world.reward(out, epochs=2, checkpoint=checkpoint(resume))),
        "dpo": dpo,
        "ppo": ppo,
        "grpo": grpo,
    }


def carried_out(make: Callable[[Path, bool], Path], out: Path, resume: bool, disk: Disk | None, log: Path) -> int:
    """A run with its report in a process of its own; its exit code. What it touched, or said, is in ``log``."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 0
    with log.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        sys.stdout = sys.stderr = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), write_through=True)
        if disk is not None:
            disk.install()
        try:
            finish(make(out, resume))
        except Ended as end:
            code = end.exit_code
        except BaseException as error:
            failure = explain(error)
            is_fine = failure.code == "SYSTEM" and failure.where
            code = REFUSED if is_fine else OTHERS
            print(failure)
            if not is_fine:
                traceback.print_exc()
        if disk is not None and not disk.at:
            log.with_suffix(".seen").write_text("\n".join(disk.seen), encoding="utf-8")
        sys.stdout.flush()
    os._exit(code)


def digest(run: Path) -> dict[str, str]:
    """SHA-256 of what must not depend on how often a run was interrupted."""

    def rows(name: str) -> list[Any]:
        found = [json.loads(line) for line in (run / name).read_text(encoding="utf-8").splitlines()]
        return [{k: v for k, v in row.items() if k.split("/")[0] not in TIMES} for row in found]

    found = {
        path.relative_to(run).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((run / "model").glob("*.safetensors"))
    }
    for name in ("metrics.jsonl", "evaluation.jsonl", "samples.jsonl"):
        if (run / name).exists():
            found[name] = hashlib.sha256(json.dumps(rows(name)).encode()).hexdigest()
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    return found | {"ended": str(summary.get("ended")), "page": str((run / "report.html").is_file())}


def trial(make: Callable[[Path, bool], Path], place: Path, at: int, fault: str, whole: dict[str, str]) -> str:
    """Spoil one operation and resume; what is wrong, or nothing."""
    out, log = place / "run", place / "log.txt"
    code = carried_out(make, out, False, Disk(place / "run", at, fault), log)
    if fault == "kill" and code != 137:
        return f"it was not killed: exit code {code}: {_end(log)}"
    if fault != "kill" and code not in (0, REFUSED):
        return f"exit code {code}: {_end(log)}"
    if code == 0:
        return "" if digest(out) == whole else "it went on, with other results"
    if code == REFUSED and "BUG" in log.read_text(encoding="utf-8"):
        return _end(log)
    again = carried_out(make, out, True, None, log)
    if again != 0:
        return f"resumed: exit code {again}: {_end(log)}"
    differ = [name for name in whole if digest(out).get(name) != whole[name]]
    return f"resumed, it differs in {', '.join(differ)}" if differ else ""


def _end(log: Path) -> str:
    return " | ".join(log.read_text(encoding="utf-8").splitlines()[-12:])


def points(make: Callable[[Path, bool], Path]) -> tuple[list[str], dict[str, str]]:
    """The operations of an undisturbed run, and its results."""
    with places() as place:
        code = carried_out(make, place / "run", False, Disk(place / "run"), place / "log.txt")
        assert code == 0, _end(place / "log.txt")
        return (place / "log.seen").read_text(encoding="utf-8").splitlines(), digest(place / "run")


@contextlib.contextmanager
def places() -> Iterator[Path]:
    """A directory for one trial."""
    with tempfile.TemporaryDirectory() as place:
        yield Path(place)


def main() -> int:
    """All points of all trainers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trainers", default="sft,reward,dpo,ppo,grpo")
    parser.add_argument("--faults", default=",".join(FAULTS))
    parser.add_argument("--every", type=int, default=1, help="each n-th point only")
    parser.add_argument("--save", type=Path, help="file of the figures")
    given = parser.parse_args()
    figures, bad = [], 0
    with places() as root:
        world = World(root)
        for name in given.trainers.split(","):
            make = trainers(world)[name]
            seen, whole = points(make)
            for fault in given.faults.split(","):
                tried, wrong = 0, []
                for at in range(1, len(seen) + 1, given.every):
                    with places() as place:
                        said = trial(make, place, at, fault, whole)
                    tried += 1
                    if said:
                        wrong.append({"at": at, "operation": seen[at - 1], "said": said[:2000]})
                        print(f"{name} {fault} {at} {seen[at - 1]}: {said}", flush=True)
                bad += len(wrong)
                print(f"{name} {fault}: {tried - len(wrong)} of {tried} points ({len(seen)} in all)", flush=True)
                figures.append({"trainer": name, "fault": fault, "points": len(seen), "tried": tried, "wrong": wrong})
                if given.save:
                    given.save.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
