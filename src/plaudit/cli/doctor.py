"""`plaudit doctor`: what this machine has, and whether Plaudit works on it; and of a job, what will become of it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
from pathlib import Path

from plaudit import __version__
from plaudit.cli.parser import Parser, show, split_files
from plaudit.errors import ConfigError
from plaudit.machine import check_writable, existing

LIBRARIES = ("torch", "transformers", "tokenizers", "safetensors", "peft", "datasets", "numpy", "pydantic")
GIB = 2**30
OPTIONAL = {
    **{name: name for name in ("tensorboard", "wandb", "mlflow", "trackio")},
    "bitsandbytes": "qlora",
    "torchao": "torchao",
}


HELP = """usage: plaudit doctor [--out DIR]
       plaudit doctor [COMMAND] [CONFIG.toml ...] [--flag value ...] [--json]

Alone: what this machine has, and whether Plaudit works on it.

With the settings of a training run, as the command itself takes them: what the run needs of memory, before
anything is loaded; what is trained and where responses stop; whether its reward can be trusted; and how long it
will take, from a few real steps. Nothing is written. COMMAND is a command that trains, such as sft or ppo; it can be
left out where a file has [algorithm] type.

  --out DIR   where runs will be written (default: runs)
  --json      of a run: print the figures as JSON

example:
  plaudit doctor ppo.toml --prompts-per-iteration 64
"""
JSON = "--json"


def run(command: str, argv: list[str]) -> int:
    """Print the findings; 78 or 74 if a run could not work here."""
    as_json = JSON in argv
    words = [word for word in argv if word != JSON]
    files, flags = split_files(words)
    if "--help" in flags or "-h" in flags:
        show(HELP)
        return 0
    if files or as_json:
        # Here and not above: without torch it cannot be imported, and that torch is missing must still be said.
        from plaudit.cli.examination import examine_job

        return examine_job(files, flags, as_json)
    return _machine(flags)


def _machine(argv: list[str]) -> int:
    """What this machine has."""
    parser = Parser("doctor", "What this machine has, and whether Plaudit works on it.")
    parser.add_argument(
        "--out", type=Path, default=Path("runs"), help="where runs will be written (default: runs)"
    )
    given = parser.parse_args(argv)
    show(f"plaudit       {__version__}")
    show(f"python        {platform.python_version()} on {platform.system()} {platform.machine()}")
    show("\n".join(f"{name:<14}{_version(name)}" for name in LIBRARIES))
    for name, extra in OPTIONAL.items():
        found = _version(name)
        show(f"{name:<14}{found or f'not installed (the extra plaudit[{extra}])'}")
    show("\n".join(_devices()))
    missing = [f"{name} is not installed" for name in LIBRARIES if not _version(name)]
    if missing:
        raise ConfigError(
            "; ".join(missing), where=sys.prefix, cure="`make setup` installs everything that is needed"
        )
    check_writable(given.out)
    free = shutil.disk_usage(existing(given.out)).free / GIB
    show(f"writing       works in {given.out}, {free:.1f} GiB free")
    show("Ready. `plaudit quickstart` runs the whole pipeline.")
    return 0


def _devices() -> list[str]:
    """One line on the CPU and memory, one on each GPU."""
    import torch

    lines = [
        f"cpu           {os.cpu_count()} cores, PyTorch uses {torch.get_num_threads()} threads{_memory()}"
    ]
    x = torch.ones(2, 2)
    assert float((x @ x).sum()) == 8.0, "matrix product on the CPU is wrong"
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        bf16 = "bf16" if torch.cuda.is_bf16_supported() else "no bf16"
        name = torch.cuda.get_device_name(index)
        lines.append(f"cuda:{index}        {name}, {free / GIB:.1f} of {total / GIB:.1f} GiB free, {bf16}")
    if torch.backends.mps.is_available():
        lines.append("mps           Apple GPU, fp32")
    return lines if len(lines) > 1 else [*lines, "gpu           none found; everything runs on the CPU"]


def _version(name: str) -> str:
    """Of an installed distribution; empty if there is none."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _memory() -> str:
    try:
        return f", {os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / GIB:.1f} GiB memory"
    except (ValueError, OSError, AttributeError):
        return ""
