"""Checkpoints that are either complete and verified, or not there.

A checkpoint is written to a temporary directory, synced, described by a manifest with the size and SHA-256 of every
file, and only then renamed to ``step-000120``: the commit. Reading goes from the newest to the oldest and sets aside
what does not verify. Tensors are safetensors, the rest is JSON; nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from plaudit.errors import TrainingError

MANIFEST = "MANIFEST.json"
FORMAT = 1


@dataclass(frozen=True, slots=True)
class NamedFile:
    """A file of the run that a checkpoint names instead of holding a copy of it."""

    name: str
    """Relative to the run directory."""
    bytes: int
    sha256: str

    @classmethod
    def of(cls, run: Path, path: Path) -> Self:
        """As it is now."""
        return cls(path.relative_to(run).as_posix(), path.stat().st_size, sha256(path))

    def fault(self, run: Path) -> str:
        """Why it is not to be trusted; empty if it has the size and hash that it had."""
        path = run / self.name
        if not path.is_file():
            return f"{self.name}, which it names, is missing"
        whole = path.stat().st_size == self.bytes and sha256(path) == self.sha256
        return "" if whole else f"{self.name}, which it names, is damaged"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint that has been verified."""

    step: int
    path: Path
    """Where learners find their files."""
    trainer: dict[str, Any]
    """The JSON state of the trainer."""
    needs: tuple[NamedFile, ...] = ()
    """Files elsewhere in the run that belong to it; verified as well."""
    lost: str = ""
    """Why one of those files cannot be used; empty: all are there."""


def save(
    directory: Path,
    step: int,
    writers: Iterable[Callable[[Path], None]],
    trainer: dict[str, Any],
    keep: int,
    needed: Iterable[NamedFile] = (),
) -> Path:
    """Write ``directory/step-NNNNNN`` and delete all but the newest ``keep`` checkpoints.

    Args:
        directory: of all checkpoints of a run.
        step: after which it is taken.
        writers: each puts its files into the directory that it is given.
        trainer: the JSON state of the trainer.
        keep: how many checkpoints stay.
        needed: files elsewhere in the run without which the checkpoint is not whole.

    Raises:
        TrainingError: the disk refused; the temporary directory is removed and older checkpoints are untouched.
    """
    final, temporary = directory / f"step-{step:06d}", directory / f".tmp-{step:06d}"
    try:
        clean(directory)
        temporary.mkdir(parents=True)
        for write in writers:
            write(temporary)
        (temporary / "trainer.json").write_text(json.dumps(trainer), encoding="utf-8")
        files = [
            {"name": p.name, "bytes": p.stat().st_size, "sha256": sha256(p)}
            for p in sorted(temporary.iterdir())
        ]
        manifest = {"format": FORMAT, "step": step, "files": files, "needs": [asdict(n) for n in needed]}
        manifest["self_sha256"] = _self_hash(manifest)
        (temporary / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        # The rename is the commit. Everything is on the disk before it, so after a power cut the directory is either
        # whole under its final name, or has a temporary one that `clean` removes; and the parent is synced after it,
        # since until then the new name may be lost, and with it the only checkpoint once older ones are rotated away.
        for path in temporary.iterdir():
            sync(path)
        sync(temporary)
        if final.exists():
            shutil.rmtree(final)
        temporary.rename(final)
        sync(directory)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        free = shutil.disk_usage(directory.parent).free / 1e9
        raise TrainingError(
            f"could not save the checkpoint of step {step}: {error} ({free:.2f} GB free)",
            where=str(directory),
            cure="free some space and start again with --resume; older checkpoints are intact",
        ) from error
    _rotate(directory, keep)
    return final


def load_latest(directory: Path, on_bad: Callable[[Path, str], None]) -> Checkpoint | None:
    """The newest checkpoint that verifies, or None. ``on_bad`` is told of each one set aside, and why.

    One that lacks only a file elsewhere in the run is taken if no other is whole.
    """
    clean(directory)
    lacking: list[Checkpoint] = []
    whole = None
    for path in reversed(steps(directory)):
        reason = verify(path)
        if reason:
            _set_aside(path, reason, on_bad)
            continue
        found = _read(path)
        if not found.lost:
            whole = found
            break
        lacking.append(found)
    # Several checkpoints may name the same file. If it is gone, none of them is whole, but each of them has its own
    # weights: going on from the newest loses much less than starting anew.
    for found in lacking if whole else lacking[1:]:
        _set_aside(found.path, found.lost, on_bad)
    return whole or next(iter(lacking), None)


def _read(path: Path) -> Checkpoint:
    """A checkpoint whose own files have been verified."""
    manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    trainer = json.loads((path / "trainer.json").read_text(encoding="utf-8"))
    needs = tuple(_needs(manifest))
    lost = next((reason for needed in needs if (reason := needed.fault(path.parent.parent))), "")
    return Checkpoint(manifest["step"], path, trainer, needs, lost)


def _set_aside(path: Path, reason: str, on_bad: Callable[[Path, str], None]) -> None:
    path.rename(path.with_name(f".bad-{path.name}"))
    on_bad(path, reason)


def verify(path: Path) -> str:
    """Why a checkpoint is not to be trusted; empty if each of its own files has the size and hash that it states."""
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        stated = manifest.pop("self_sha256")
        files = {f["name"]: f for f in manifest["files"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{MANIFEST} is unreadable ({error})"
    if stated != _self_hash(manifest):
        return f"{MANIFEST} does not match its own hash"
    found = {p.name for p in path.iterdir()} - {MANIFEST}
    if found != set(files):
        return f"files differ from the manifest: {', '.join(sorted(found ^ set(files)))}"
    for name, entry in files.items():
        if (path / name).stat().st_size != entry["bytes"] or sha256(path / name) != entry["sha256"]:
            return f"{name} is damaged"
    return ""


def needed_by_all(directory: Path) -> set[str]:
    """The names of all files elsewhere in the run that some checkpoint needs."""
    names: set[str] = set()
    for path in steps(directory):
        try:
            manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
            names |= {needed.name for needed in _needs(manifest)}
        except (OSError, ValueError, AttributeError, TypeError):
            continue  # a checkpoint that will not verify keeps no file alive
    return names


def _needs(manifest: Mapping[str, Any]) -> list[NamedFile]:
    """None in a checkpoint of the first release."""
    return [NamedFile(**entry) for entry in manifest.get("needs", ())]


def clean(directory: Path) -> None:
    """Remove what an interrupted save or rotation left behind."""
    for pattern in (".tmp-*", ".del-*"):
        for path in directory.glob(pattern):
            shutil.rmtree(path)


def steps(directory: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    return sorted(directory.glob("step-[0-9]*"))


def step_of(path: Path) -> int:
    """The step in the name of a checkpoint.

    >>> step_of(Path("checkpoints/step-000120"))
    120
    """
    return int("".join(itertools.takewhile(str.isdecimal, path.name.removeprefix("step-"))))


def _rotate(directory: Path, keep: int) -> None:
    for path in steps(directory)[:-keep]:
        doomed = path.with_name(f".del-{path.name}")
        path.rename(doomed)
        shutil.rmtree(doomed)


def sync(path: Path) -> None:
    """Wait until a file, or the names in a directory, are on the disk."""
    windows = sys.platform == "win32"  # which waits for files alone, and for those only that may be written
    if windows and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDWR if windows else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(path: Path) -> str:
    """Of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _self_hash(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
