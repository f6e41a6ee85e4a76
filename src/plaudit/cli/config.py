"""`plaudit config`: the resolved settings as TOML, each with its source; and how other commands read them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from plaudit.cli.parser import ANYWAY, SEEDS, chosen, parse_flags, show, split_files, type_flag
from plaudit.config.algorithm import types
from plaudit.config.fields import settings
from plaudit.config.load import Layer, algorithm_type, load_job
from plaudit.config.sections import Job
from plaudit.config.show import to_toml
from plaudit.errors import ConfigError
from plaudit.jobs.loop import LoopJob
from plaudit.jobs.registry import COMMANDS

HELP = """usage: plaudit config [COMMAND] CONFIG.toml ... [--flag value ...]

Print all settings of a training job as TOML that can be fed back, each value with where it came from.
COMMAND is a command that trains, such as sft or ppo; it can be left out where a file has [algorithm] type. Of a loop
(plaudit config loop CONFIG.toml) the settings of every step are printed."""


def run(command: str, argv: list[str]) -> int:
    """Print the resolved settings."""
    files, flags = split_files(argv)
    if not argv or "--help" in flags or "-h" in flags:
        show(HELP)
        return 0
    if files[:1] == ["loop"]:
        from plaudit.loop.plan import read_plan

        show(read_plan(files[1:], parse_flags("loop", LoopJob, flags)).as_toml())
        return 0
    target, job, sources = read_job("config", files, flags)
    show(f"# plaudit {target}\n{to_toml(job, sources)}")
    return 0


def read_job(command: str, files: list[str], flags: list[str]) -> tuple[str, Job, dict[str, str]]:
    """The command that settings are for, its job, and where each value came from.

    Args:
        command: that asks, for errors.
        files: TOML files; the first may be the name of a command that trains instead.
        flags: as that command takes them.

    Raises:
        ConfigError: nothing says which command is meant, or a value does not fit.
    """
    named = files[0] if files and files[0] in COMMANDS else ""
    files = files[1:] if named else files
    layers = [Layer.read(Path(f)) for f in files]
    from_file, where = algorithm_type(layers)
    type_name = (type_flag(flags) or from_file).replace("-", "_")
    target = named or next(
        (name for name, row in COMMANDS.items() if type_name and type_name in types(row.job)), ""
    )
    if not target:
        raise ConfigError(
            f"cannot tell which command the settings are for: [algorithm] type is {type_name or 'not set'}",
            where=where or ", ".join(files),
            cure=f"name it: plaudit {command} {'|'.join(COMMANDS)} CONFIG.toml",
        )
    job_class = COMMANDS[target].job
    overrides = parse_flags(target, chosen(job_class, layers, flags), flags)
    for no_setting in (ANYWAY, SEEDS):
        overrides.pop(no_setting, None)
    job, sources = load_job(job_class, files, overrides)
    return target, job, sources


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
