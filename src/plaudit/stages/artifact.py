"""The run directory: opened once, never silently overwritten, described by its config and manifest."""

from __future__ import annotations

import hashlib
import importlib.metadata
import itertools
import platform
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from plaudit.config.sections import ComputeSection, Job
from plaudit.config.show import to_toml
from plaudit.errors import ConfigError
from plaudit.tracking.files import merge_json

LIBRARIES = ("plaudit", "torch", "transformers", "tokenizers", "peft", "numpy")


def open_run(job: Job, command: str, sources: Mapping[str, str] | None = None) -> Path:
    """Make the run directory and write config.toml.

    Args:
        sources: where each value came from, by dotted key; what is missing is a default.

    Raises:
        ConfigError: the directory exists and neither --resume nor --overwrite was given.
    """
    if job.out == "auto" and job.checkpoint.resume:
        raise ConfigError(
            "cannot resume without knowing which run", where="--out", cure="give the run directory with --out"
        )
    path = Path(job.out) if job.out != "auto" else fresh(Path("runs") / f"{command}-{time.strftime('%Y%m%d-%H%M%S')}")
    if path.exists() and any(path.iterdir() if path.is_dir() else [path]):
        _make_way(path, job)
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.toml").write_text(to_toml(job, dict(sources or {})), encoding="utf-8")
    return path


def fresh(base: Path) -> Path:
    """``base``, or ``base-2``, ``base-3`` ... if that exists already."""
    numbered = (base.with_name(f"{base.name}-{n}") for n in itertools.count(2))
    return next(path for path in itertools.chain([base], numbered) if not path.exists())


def _make_way(path: Path, job: Job) -> None:
    if job.checkpoint.resume:
        return
    if job.overwrite and (path / "manifest.json").is_file():
        shutil.rmtree(path)
        return
    held = "is a run already" if (path / "manifest.json").is_file() else "holds files that are not a run of Plaudit"
    raise ConfigError(
        f"the run directory {held}",
        where=str(path),
        cure="choose another --out, go on with --resume, or replace a run with --overwrite",
    )


def write_manifest(path: Path, job: Job, inputs: Mapping[str, str]) -> None:
    """manifest.json: versions, seed, hashes of the inputs, topology, git revision.

    Args:
        inputs: what was read, by role ("dataset", "policy", "reward"); local files are hashed.
    """
    merge_json(
        path / "manifest.json",
        {
            "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "seed": job.seed,
            "versions": {"python": platform.python_version()} | {name: _version(name) for name in LIBRARIES},
            "platform": platform.platform(),
            "topology": {
                "world": 1,
                "threads": torch.get_num_threads(),
                "device": job.compute.device,
                "precision": job.compute.precision,
                "tokens_per_microbatch": job.compute.tokens_per_microbatch,
            },
            "inputs": {role: {"source": source, "sha256": _hash(source)} for role, source in inputs.items()},
            "git": _git_revision(),
        },
    )


def set_threads(compute: ComputeSection) -> None:
    """Pin the CPU threads if the config asks for a number."""
    if compute.threads != "auto":
        torch.set_num_threads(compute.threads)


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _hash(source: str) -> str:
    """SHA-256 of a local file, or of the weights and config of a model directory; empty for hub names."""
    path = Path(source)
    if path.is_file():
        files = [path]
    elif path.is_dir():
        files = sorted(p for p in path.iterdir() if p.suffix in {".safetensors", ".json", ".gguf", ".jsonl"})
    else:
        return ""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


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
