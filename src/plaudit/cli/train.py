"""`plaudit sft`, `reward`, `ppo`, `grpo` ...: settings in, run directory and report out."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from plaudit.cli.outcome import finish
from plaudit.cli.parser import parse_flags, split_files, type_flag
from plaudit.config.algorithm import specialise
from plaudit.config.fields import settings
from plaudit.config.load import Layer, algorithm_type, load_job
from plaudit.config.sections import Job
from plaudit.errors import ConfigError


class Stage(NamedTuple):
    """Where a command's job and its code live. Named, not imported: they load torch."""

    module: str
    job: str
    run: str
    algorithm: str
    needs: tuple[str, ...]
    """Settings that the command line must have, although the Python API may give them as values."""
    job_module: str = ""
    """Where the job is, if not in ``module``."""


def _online(job: str, algorithm: str) -> Stage:
    return Stage(
        "plaudit.stages.online.rl",
        job,
        "run_rl",
        algorithm,
        ("policy", "reward", "dataset"),
        "plaudit.jobs.online",
    )


STAGES = {
    "sft": Stage("plaudit.stages.sft", "SFTJob", "run_sft", "sft", ("model", "dataset")),
    "reward": Stage(
        "plaudit.stages.reward.train", "RewardJob", "run_reward", "reward_model", ("model", "dataset")
    ),
    "ppo": _online("RLJob", "ppo"),
    "grpo": _online("GRPOJob", "grpo"),
    "rloo": _online("RLOOJob", "rloo"),
    "reinforce": _online("ReinforceJob", "reinforce"),
    "online-dpo": _online("OnlineDPOJob", "online_dpo"),
    "best-of-n": Stage(
        "plaudit.stages.best_of_n.answer",
        "BestOfNJob",
        "run_best_of_n",
        "best_of_n",
        ("policy", "reward", "dataset"),
        "plaudit.stages.best_of_n.parts",
    ),
    "dpo": Stage("plaudit.stages.preference.dpo", "DPOJob", "run_dpo", "dpo", ("model", "dataset")),
}


def run(command: str, argv: list[str]) -> int:
    """Train, evaluate, and say where the results are."""
    stage = STAGES[command]
    files, flags = split_files(argv)
    job_class = job_of(command)
    layers = [Layer.read(Path(f)) for f in files]
    overrides = parse_flags(command, chosen(job_class, layers, flags), flags)
    job, sources = load_job(job_class, files, overrides)
    require(job, stage.needs)
    run_dir = getattr(importlib.import_module(stage.module), stage.run)(job, sources)
    finish(run_dir, command)
    return 0


def chosen(job_class: type[Job], layers: Sequence[Layer], flags: Sequence[str]) -> type[Job]:
    """The job class with the algorithm that ``--type`` names, or else the files."""
    named = type_flag(flags)
    return specialise(job_class, *((named, "command line, --type") if named else algorithm_type(layers)))


def job_of(command: str) -> type[Job]:
    """The job class of a command; loads torch."""
    stage = STAGES[command]
    job_class: type[Job] = getattr(importlib.import_module(stage.job_module or stage.module), stage.job)
    return job_class


def require(job: Job, names: tuple[str, ...]) -> None:
    """Raise ConfigError for the first of the named settings that is empty."""
    table: dict[str, Any] = {s.key: s for s in settings(type(job))}
    for name in names:
        if not getattr(job, name):
            cure = f'give {table[name].flag} VALUE, or write {name} = "..." in a config file'
            before = Path(job.out) / "config.toml"
            if job.checkpoint.resume and before.is_file():
                cure = f"give the run's settings again, with {before} before the flags"
            raise ConfigError(
                f"{name} is not set: {table[name].help}", where="command line and config files", cure=cure
            )
