"""`plaudit sft`, `reward`, `ppo`, `grpo` ...: settings in, run directory and report out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from plaudit.cli.outcome import finish
from plaudit.cli.parser import ANYWAY, SEEDS, chosen, parse_flags, split_files
from plaudit.cli.seeds import train_with_seeds
from plaudit.config.fields import settings
from plaudit.config.load import Layer, load_job
from plaudit.config.sections import Job
from plaudit.errors import ConfigError, Ended, Stopped
from plaudit.jobs.registry import COMMANDS
from plaudit.stages import stage_of
from plaudit.stages.online.gate import refuse_coins


def run(command: str, argv: list[str]) -> int:
    """Train, evaluate, and say where the results are."""
    row = COMMANDS[command]
    files, flags = split_files(argv)
    job_class = row.job
    layers = [Layer.read(Path(f)) for f in files]
    overrides = parse_flags(command, chosen(job_class, layers, flags), flags)
    # No setting: it would be copied from one config to the next, and is meant for this one run.
    anyway, seeds = bool(overrides.pop(ANYWAY, False)), overrides.pop(SEEDS, None)
    job, sources = load_job(job_class, files, overrides)
    require(job, row.required)
    refuse_coins(job, anyway)
    if seeds is not None:
        return train_with_seeds(command, job, sources, seeds)
    try:
        finish(stage_of(job_class)(job, sources))
    except (Ended, Stopped) as end:
        if end.run is not None:
            finish(end.run)
        raise
    return 0


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
