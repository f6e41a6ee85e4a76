"""The run directory: opened once, never silently overwritten, described by its config and manifest."""

from __future__ import annotations

import contextlib
import importlib.metadata
import itertools
import platform
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from plaudit.config.sections import ComputeSection, Job
from plaudit.config.show import to_toml
from plaudit.errors import ConfigError
from plaudit.jobs.registry import command_of
from plaudit.machine import check_threads, check_writable, make_folder, sync_all, writing
from plaudit.runs.checkpoint import steps
from plaudit.runs.files import CONFIG, EVENTS, PARTIAL, merge_json, write_text
from plaudit.runs.lock import LOCK, MANIFEST, is_leftover, only_writer, read_manifest, sign
from plaudit.runs.resume import Change, Inputs, changes, check, described, is_longer, length_of

LIBRARIES = ("plaudit", "torch", "transformers", "tokenizers", "peft", "numpy")


@contextlib.contextmanager
def open_run(
    job: Job,
    sources: Mapping[str, str] | None = None,
    *,
    inputs: Inputs | None = None,
) -> Iterator[Path]:
    """The run directory with config.toml and manifest.json, locked for this process; marked finished at a normal exit.

    Args:
        sources: where each value came from, by dotted key; what is missing is a default.
        inputs: its rows, by which a resumed run is known to go on with its data, and values given in Python.

    Raises:
        ConfigError: the directory exists and neither --resume nor --overwrite was given; another process writes to
            it; or it is resumed with other data, another model, or settings that must stay.
    """
    path = _path(job)
    # Before the lock as well: a directory that is refused must stay as it is, without even a lock file in it.
    if _is_taken(path):
        _refuse(path, job)
    make_folder(path)
    with only_writer(path):
        # Again: between the look and the lock another process may have made a run of it.
        if _is_taken(path):
            _refuse(path, job)
            _make_way(path, job)
        for left in path.glob(f"*{PARTIAL}"):
            left.unlink()
        now = described(job, inputs)
        # The comparison comes before anything is written, so that a resume that is refused changes no file: the
        # manifest still says what the run was started with.
        changed = check(path, job, now)
        sign(path)
        write_text(path / CONFIG, to_toml(job, dict(sources or {})))
        _write_manifest(path, job, now, changed)
        yield path
        # Before anything says that the run is finished: after a power cut nobody would make again what is missing.
        with writing(path, "the run"):
            sync_all(path)
        # Not in a `finally`: after an error the run is unfinished, and --resume goes on with it.
        merge_json(path / MANIFEST, {"finished": True})


def finished(job: Job) -> Path | None:
    """The run directory, where --resume asks for nothing that the run has not done; says so. None: there is work.

    Raises:
        ConfigError: a setting that must stay differs from the start.
    """
    path = Path(job.out)
    start = read_manifest(path) if job.checkpoint.resume and job.out != "auto" else {}
    if not start.get("finished") or "settings" not in start:
        return None
    # Checked although nothing will run: a user who resumes with other settings and is told "finished" would take the
    # run for one with the new settings.
    changes(path, job, start)
    if is_longer(job, start):
        return None
    announce(
        {
            "finished": f"{path} ended after {length_of(start)}; there is nothing to resume. More of them goes on."
        }
    )
    return path


def _path(job: Job) -> Path:
    if job.out != "auto":
        return Path(job.out)
    if job.checkpoint.resume:
        raise ConfigError(
            "cannot resume without knowing which run", where="--out", cure="give the run directory with --out"
        )
    return fresh(Path("runs") / f"{command_of(type(job)).name}-{time.strftime('%Y%m%d-%H%M%S')}")


def fresh(base: Path) -> Path:
    """``base``, or ``base-2``, ``base-3`` ... if that exists already."""
    numbered = (base.with_name(f"{base.name}-{n}") for n in itertools.count(2))
    return next(path for path in itertools.chain([base], numbered) if not path.exists())


def _is_taken(path: Path) -> bool:
    """Whether there is a file, or a directory with anything in it but what a killed start leaves behind."""
    return path.is_file() or (path.is_dir() and not all(map(is_leftover, path.iterdir())))


def _is_run(path: Path) -> bool:
    """Whether a directory is a run, also where its manifest was deleted."""
    return (path / MANIFEST).is_file() or (path / EVENTS).is_file() or bool(steps(path / "checkpoints"))


def _refuse(path: Path, job: Job) -> None:
    is_run = _is_run(path)
    if is_run and (job.checkpoint.resume or job.overwrite):
        return
    held = "is a run already" if is_run else "holds files that are not a run of Plaudit"
    raise ConfigError(
        f"the run directory {held}",
        where=str(path),
        cure="choose another --out, go on with --resume, or replace a run with --overwrite",
    )


def _make_way(path: Path, job: Job) -> None:
    """Empty the directory of a run that is to be overwritten; the lock on it stays."""
    if job.checkpoint.resume:
        if not (path / MANIFEST).is_file():
            announce({"note": f"{MANIFEST} is not there: settings, models and data cannot be compared with the start"})
        return
    # The manifest last: whoever is killed in between leaves a run, which the same command overwrites.
    for entry in sorted(path.iterdir(), key=lambda entry: entry.name == MANIFEST):
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != LOCK:
            entry.unlink()


def _write_manifest(path: Path, job: Job, now: Mapping[str, Any], changed: Mapping[str, Change]) -> None:
    """manifest.json: settings, versions, hashes of the inputs, topology, git revision, and what was changed since."""
    before = read_manifest(path)
    topology = {
        "world": 1,
        "threads": torch.get_num_threads(),
        "device": job.compute.device,
        "precision": job.compute.precision,
        "tokens_per_microbatch": job.compute.tokens_per_microbatch,
    }
    written = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    # Said and not refused: sums in another order round differently, but it is the same training.
    if before.get("topology", topology) != topology:
        announce(
            {
                "note": "resumed with other threads, device, precision or microbatches: results differ by rounding"
            }
        )
    if changed:
        settings = [f"{key} {old} -> {new}" for key, (old, new) in changed.items()]
        announce({"changed": ", ".join(settings)})
        before["changed"] = [*before.get("changed", []), {"time": written, "settings": settings}]
    merge_json(
        path / MANIFEST,
        {
            "created": before.get("created", written),
            "seed": job.seed,
            "versions": {"python": platform.python_version()} | {name: _version(name) for name in LIBRARIES},
            "platform": platform.platform(),
            "topology": topology,
            **now,
            "changed": before.get("changed", []),
            "git": _git_revision(),
            "finished": False,
        },
    )


def precision_of(job: Job) -> str:
    """The precision that a run which goes on began with; empty for another, or where it is not known."""
    if not job.checkpoint.resume or job.out == "auto":
        return ""
    begun = read_manifest(_path(job)).get("topology", {}).get("precision", "")
    return str(begun) if begun != "auto" else ""


def set_threads(compute: ComputeSection) -> None:
    """Pin the CPU threads if the config asks for a number.

    Raises:
        ConfigError: far more than there are CPUs.
    """
    check_threads(compute.threads)
    if compute.threads != "auto":
        torch.set_num_threads(compute.threads)


def check_out(job: Job) -> None:
    """Make sure that the run directory of a job is free and can be written, before anything is done for the run.

    Raises:
        ConfigError, MachineError: as `open_run`, which looks again.
    """
    path = _path(job)
    check_writable(path)
    if _is_taken(path):
        _refuse(path, job)


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _git_revision() -> str:
    try:
        result = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return result.stdout.strip() if result.returncode == 0 else ""


def announce(lines: Mapping[str, Any]) -> None:
    """Say on the console what is about to be used, one line a fact."""
    width = max(len(name) for name in lines)
    for name, value in lines.items():
        print(f"  {name:<{width}}  {value}", flush=True)
