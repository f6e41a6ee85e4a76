"""The table of trackers: what receives the figures of a run besides its files, and how each is opened."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from plaudit.tracking.background import InBackground
from plaudit.tracking.console import ConsoleTracker
from plaudit.tracking.protocol import Tracker
from plaudit.tracking.services import SERVICES, ServiceTracker
from plaudit.tracking.tensorboard import tensorboard_tracker


@dataclass(frozen=True)
class Opening:
    """What a tracker is opened with."""

    run_dir: Path
    command: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The settings of the run, by dotted name."""


def _console(opening: Opening) -> Tracker:
    return ConsoleTracker(opening.command)


def _tensorboard(opening: Opening) -> Tracker | None:
    return tensorboard_tracker(opening.run_dir / "tensorboard")


def _service(name: str, opening: Opening) -> Tracker:
    if find_spec(name) is None:
        # Unlike TensorBoard these are never on by themselves: somebody asked for it, and must hear that it is missing.
        raise ModuleNotFoundError(f"the package {name} is not installed; pip install 'plaudit[{name}]'")
    return InBackground(partial(ServiceTracker, name, SERVICES[name], opening.run_dir, opening.settings))


TRACKERS: dict[str, Callable[[Opening], Tracker | None]] = {
    "console": _console,
    "tensorboard": _tensorboard,
    **{name: partial(_service, name) for name in SERVICES},
}
"""Name -> how it is opened; None where the machine has none. The files of the run are no choice, and not among them."""

