"""Checkpoints that are either complete and verified, or not there.

A checkpoint is written to a temporary directory, synced, described by a manifest with the size and SHA-256 of every
file, and only then renamed to ``step-000120``: the commit. Reading goes from the newest to the oldest and sets aside
what does not verify. Tensors are safetensors, the rest is JSON; nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from plaudit.errors import TrainingError

MANIFEST = "MANIFEST.json"
FORMAT = 1


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What was saved: tensors per role, and the JSON state of the trainer."""

    step: int
    tensors: dict[str, dict[str, Tensor]]
    trainer: dict[str, Any]


def save(
    directory: Path, step: int, tensors: Mapping[str, dict[str, Tensor]], trainer: dict[str, Any], keep: int
) -> Path:
    """Write ``directory/step-NNNNNN`` and delete all but the newest ``keep`` checkpoints.

    Raises:
        TrainingError: the disk refused; the temporary directory is removed and older checkpoints are untouched.
    """
    final, temporary = directory / f"step-{step:06d}", directory / f".tmp-{step:06d}"
    try:
        clean(directory)
        temporary.mkdir(parents=True)
        for role, values in tensors.items():
            save_file(values, temporary / f"{role}.safetensors")
        (temporary / "trainer.json").write_text(json.dumps(trainer), encoding="utf-8")
        files = [
            {"name": p.name, "bytes": p.stat().st_size, "sha256": _sha256(p)}
            for p in sorted(temporary.iterdir())
        ]
        manifest = {"format": FORMAT, "step": step, "files": files}
        manifest["self_sha256"] = _self_hash(manifest)
        (temporary / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        for path in temporary.iterdir():
            _sync(path)
        _sync(temporary)
        if final.exists():
            shutil.rmtree(final)
        temporary.rename(final)
        _sync(directory)
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
    """The newest checkpoint that verifies, or None. ``on_bad`` is told of each one set aside, and why."""
    clean(directory)
    for path in reversed(_steps(directory)):
        reason = verify(path)
        if not reason:
            manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
            tensors = {p.stem: load_file(p) for p in path.glob("*.safetensors")}
            trainer = json.loads((path / "trainer.json").read_text(encoding="utf-8"))
            return Checkpoint(manifest["step"], tensors, trainer)
        path.rename(path.with_name(f".bad-{path.name}"))
        on_bad(path, reason)
    return None


def verify(path: Path) -> str:
    """Why a checkpoint is not to be trusted; empty if every file has the size and hash that the manifest states."""
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
        if (path / name).stat().st_size != entry["bytes"] or _sha256(path / name) != entry["sha256"]:
            return f"{name} is damaged"
    return ""


def clean(directory: Path) -> None:
    """Remove what an interrupted save or rotation left behind."""
    for pattern in (".tmp-*", ".del-*"):
        for path in directory.glob(pattern):
            shutil.rmtree(path)


def _steps(directory: Path) -> list[Path]:
    return sorted(directory.glob("step-[0-9]*"))


def _rotate(directory: Path, keep: int) -> None:
    for path in _steps(directory)[:-keep]:
        doomed = path.with_name(f".del-{path.name}")
        path.rename(doomed)
        shutil.rmtree(doomed)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _self_hash(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
