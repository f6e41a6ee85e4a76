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
import re
import shutil
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, NonNegativeInt, ValidationError

from plaudit.errors import MachineError, TrainingError
from plaudit.machine import check_space, make_folder, sync, writing

MANIFEST = "MANIFEST.json"
TRAINER = "trainer.json"
FORMAT = 1
NAMED = re.compile(r"step-(\d{6,18})")


class _File(BaseModel):
    """One file of a manifest."""

    model_config = ConfigDict(strict=True, extra="forbid")
    name: str
    bytes: NonNegativeInt
    sha256: str


class _Manifest(BaseModel):
    """What a manifest has to hold. Anything may lie on a disk, so its shape is checked before any of it is used."""

    model_config = ConfigDict(strict=True, extra="forbid")
    format: int
    step: NonNegativeInt
    files: list[_File]
    needs: list[_File] = []
    """None in a checkpoint of the first release."""
    self_sha256: str


class _Trainer(BaseModel):
    """What `Keeper.save` writes for the trainer."""

    model_config = ConfigDict(strict=True)
    steps: dict[str, int] = {}
    state: dict[str, Any] = {}


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
        if not path.resolve().is_relative_to(run.resolve()):
            return f"{self.name}, which it names, lies outside of the run"
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
        MachineError: the disk refused; the temporary directory is removed and older checkpoints are untouched.
    """
    final, temporary = directory / f"step-{step:06d}", directory / f".tmp-{step:06d}"
    needed, what = list(needed), f"the checkpoint of step {step}"
    last = sum(path.stat().st_size for one in steps(directory)[-1:] if one.is_dir() for path in one.iterdir())
    check_space(directory, what, last)
    try:
        with writing(directory, what, needed=last):
            make_folder(directory)
            clean(directory)
            temporary.mkdir()
            for write in writers:
                write(temporary)
            (temporary / TRAINER).write_text(json.dumps(trainer), encoding="utf-8")
            _describe(temporary, step, needed)
            _commit(temporary, final)
    except MachineError:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _rotate(directory, keep)
    return final


def _describe(temporary: Path, step: int, needed: Iterable[NamedFile]) -> None:
    """Write the manifest of what lies in a directory."""
    files = [
        {"name": p.name, "bytes": p.stat().st_size, "sha256": sha256(p)} for p in sorted(temporary.iterdir())
    ]
    manifest = {"format": FORMAT, "step": step, "files": files, "needs": [asdict(n) for n in needed]}
    manifest["self_sha256"] = _self_hash(manifest)
    (temporary / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")


def _commit(temporary: Path, final: Path) -> None:
    # The rename is the commit. Everything is on the disk before it, so after a power cut the directory is either
    # whole under its final name, or has a temporary one that `clean` removes; and the parent is synced after it,
    # since until then the new name may be lost, and with it the only checkpoint once older ones are rotated away.
    for path in temporary.iterdir():
        sync(path)
    sync(temporary)
    if os.path.lexists(final):  # of this step, by a run that went on from an earlier one
        _discard(final)
    temporary.rename(final)
    sync(final.parent)


def load_latest(directory: Path, on_bad: Callable[[Path, str], None], keep: int = 0) -> Checkpoint | None:
    """The newest checkpoint that verifies, or None. ``on_bad`` is told of each one set aside, and why.

    One that lacks only a file elsewhere in the run is taken if no other is whole.

    Args:
        keep: how many stay; 0: all. What a kill kept a rotation from deleting is deleted now.

    Raises:
        TrainingError: a checkpoint of a newer version of Plaudit, which is left as it is.
    """
    clean(directory)
    lacking: list[Checkpoint] = []
    whole = None
    for path in reversed(steps(directory)):
        found = verify(path)
        if isinstance(found, str):
            _set_aside(path, found, on_bad)
            continue
        if not found.lost:
            whole = found
            break
        lacking.append(found)
    # Several checkpoints may name the same file. If it is gone, none of them is whole, but each of them has its own
    # weights: going on from the newest loses much less than starting anew.
    for found in lacking if whole else lacking[1:]:
        _set_aside(found.path, found.lost, on_bad)
    if keep:
        _rotate(directory, keep)
    return whole or next(iter(lacking), None)


def _set_aside(path: Path, reason: str, on_bad: Callable[[Path, str], None]) -> None:
    # The same step may be damaged more than once: each copy is kept, for whoever wants to know why.
    names = itertools.chain([f".bad-{path.name}"], (f".bad-{path.name}-{n}" for n in itertools.count(2)))
    path.rename(next(to for to in map(path.with_name, names) if not os.path.lexists(to)))
    on_bad(path, reason)


def verify(path: Path) -> Checkpoint | str:
    """A checkpoint each of whose own files has the size and hash that its manifest states; or why it is not trusted.

    Raises:
        TrainingError: it is whole, and of a newer version of Plaudit.
    """
    if path.is_symlink() or not path.is_dir():
        return "it is a link" if path.is_symlink() else "it is no directory"
    manifest = _manifest_of(path)
    if isinstance(manifest, str):
        return manifest
    found = sorted(path.iterdir())
    if links := [p.name for p in found if p.is_symlink() or not p.is_file()]:
        return f"{', '.join(links)} is no file of its own"
    differ = {p.name for p in found} ^ {MANIFEST, *(file.name for file in manifest.files)}
    if differ:
        return f"files differ from the manifest: {', '.join(sorted(differ))}"
    for file in manifest.files:
        if (path / file.name).stat().st_size != file.bytes or sha256(path / file.name) != file.sha256:
            return f"{file.name} is damaged"
    try:
        # By json and not by pydantic, which reads numbers of its own: what was written comes back to the last bit.
        trainer = _Trainer.model_validate(json.loads((path / TRAINER).read_bytes()))
    except (OSError, ValueError, RecursionError) as error:
        return f"{TRAINER} is unreadable ({_reason(error)})"
    needs = tuple(NamedFile(file.name, file.bytes, file.sha256) for file in manifest.needs)
    lost = next((reason for needed in needs if (reason := needed.fault(path.parent.parent))), "")
    return Checkpoint(manifest.step, path, {"steps": trainer.steps, "state": trainer.state}, needs, lost)


def _manifest_of(path: Path) -> _Manifest | str:
    """The manifest in a directory; or why it is not trusted."""
    try:
        text = (path / MANIFEST).read_bytes()
        raw = json.loads(text)
        stated = raw.get("format") if isinstance(raw, dict) else None
        if type(stated) is int and stated > FORMAT and raw.pop("self_sha256", "") == _self_hash(raw):
            raise TrainingError(
                f"this checkpoint has format {stated}, and this version of Plaudit reads format {FORMAT}",
                where=str(path),
                cure="go on with the version that wrote it, or a newer one; or start anew with another --out",
            )
        manifest = _Manifest.model_validate(json.loads(text))
    except (OSError, ValueError, RecursionError) as error:
        return f"{MANIFEST} is unreadable ({_reason(error)})"
    if manifest.self_sha256 != _self_hash({k: v for k, v in raw.items() if k != "self_sha256"}):
        return f"{MANIFEST} does not match its own hash"
    if manifest.format != FORMAT:
        return f"{MANIFEST} has format {manifest.format}"
    if manifest.step != step_of(path):
        return f"{MANIFEST} is of step {manifest.step}, and not of the step in the directory's name"
    return manifest


def _reason(error: BaseException) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc'])) or 'the whole'}: {first['msg']}"
    return f"{getattr(error, 'strerror', None) or error}"[:200]


def needed_by_all(directory: Path) -> set[str]:
    """The names of all files elsewhere in the run that some checkpoint needs."""
    names: set[str] = set()
    for path in steps(directory):
        try:
            manifest = _manifest_of(path)
        except TrainingError:
            continue
        if not isinstance(manifest, str):  # a checkpoint that will not verify keeps no file alive
            names |= {needed.name for needed in manifest.needs}
    return names


def clean(directory: Path) -> None:
    """Remove what an interrupted save or rotation left behind."""
    for pattern in (".tmp-*", ".del-*"):
        for path in directory.glob(pattern):
            _discard(path)


def _discard(path: Path) -> None:
    """Remove a directory, or a file or link of its name; what a link leads to stays."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def steps(directory: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    # By number: with seven digits the names do not sort as the steps do.
    return sorted((path for path in directory.glob("step-*") if NAMED.fullmatch(path.name)), key=step_of)


def step_of(path: Path) -> int:
    """The step in the name of a checkpoint.

    >>> step_of(Path("checkpoints/step-000120")), step_of(Path("step-1000000"))
    (120, 1000000)
    """
    found = NAMED.fullmatch(path.name)
    assert found is not None, path
    return int(found[1])


def _rotate(directory: Path, keep: int) -> None:
    for path in steps(directory)[:-keep]:
        doomed = path.with_name(f".del-{path.name}")
        if os.path.lexists(doomed):
            _discard(doomed)
        path.rename(doomed)
        _discard(doomed)


def sha256(path: Path) -> str:
    """Of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _self_hash(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
