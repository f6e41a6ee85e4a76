"""`plaudit doctor`: what this machine has, and whether Plaudit works on it."""

from __future__ import annotations

import platform
import shutil
import sys
from pathlib import Path

from plaudit import __version__
from plaudit.cli.machine import GIB, devices, existing, version, writable
from plaudit.cli.parser import Parser, show
from plaudit.errors import ConfigError

LIBRARIES = ("torch", "transformers", "tokenizers", "safetensors", "peft", "datasets", "numpy", "pydantic")
OPTIONAL = {"tensorboard": "tensorboard", "bitsandbytes": "qlora"}


def run(command: str, argv: list[str]) -> int:
    """Print the findings; 78 if a run could not work here."""
    parser = Parser("doctor", "What this machine has, and whether Plaudit works on it.")
    parser.add_argument(
        "--out", type=Path, default=Path("runs"), help="where runs will be written (default: runs)"
    )
    given = parser.parse_args(argv)
    show(f"plaudit       {__version__}")
    show(f"python        {platform.python_version()} on {platform.system()} {platform.machine()}")
    show("\n".join(f"{name:<14}{version(name)}" for name in LIBRARIES))
    for name, extra in OPTIONAL.items():
        found = version(name)
        show(f"{name:<14}{found or f'not installed (the extra plaudit[{extra}])'}")
    show("\n".join(devices()))
    missing = [f"{name} is not installed" for name in LIBRARIES if not version(name)]
    problems = missing + writable(given.out)
    if problems:
        raise ConfigError(
            "; ".join(problems), where=sys.prefix, cure="`make setup` installs everything that is needed"
        )
    free = shutil.disk_usage(existing(given.out)).free / GIB
    show(f"writing       works in {given.out}, {free:.1f} GiB free")
    show("Ready. `plaudit quickstart` runs the whole pipeline.")
    return 0
