"""The protocol of everything that receives the figures of a run, and the table of those there are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from plaudit.config.sections import LogSection
from plaudit.tracking.console import ConsoleTracker
from plaudit.tracking.tensorboard import tensorboard_tracker


class Tracker(Protocol):
    """Receives what a run records. ``tests/contracts/test_tracker.py`` says what each one must do.

    A tracker may raise: the run goes on without it and says so in an event. It must not keep the run waiting; one
    that sends figures over a network does so in the background.
    """

    def expect(self, total: int, unit: str) -> None:
        """The run will have ``total`` steps in all, the resumed ones included; one is called ``unit``."""

    def metrics(self, step: int, values: Mapping[str, float | None]) -> None:
        """The figures of one step, by name; None where a figure was not finite."""

    def start(self, values: Mapping[str, float]) -> None:
        """What learning is compared with: figures at the start of the run, by name.

        Of held-out figures that is the evaluation before the first step, of others the first value that was recorded.
        A resumed run is told them again, since its own first step is not the start of the run.
        """

    def sample(self, step: int, fields: Mapping[str, Any]) -> None:
        """A prompt with a response to it, as at this step."""

    def event(self, kind: str, fields: Mapping[str, Any]) -> None:
        """Something happened: started, saved, resumed, alarm, rolled back, stopped ..."""

    def rewind(self, step: int) -> int:
        """Forget figures and samples after ``step``: the run goes back there and records them again.

        Events stay: they happened.

        Returns:
            How many rows were dropped; 0 where none are kept.
        """

    def close(self) -> None:
        """The run is over: write what is left. Closing twice is fine."""


Opener = Callable[[Path, str, LogSection], Tracker | None]
"""From run directory, command and [log] settings to a tracker; None where the settings or the machine have none."""


def _console(run_dir: Path, command: str, log: LogSection) -> Tracker | None:
    return ConsoleTracker(command) if "console" in log.trackers else None


def _tensorboard(run_dir: Path, command: str, log: LogSection) -> Tracker | None:
    return tensorboard_tracker(run_dir / "tensorboard") if "tensorboard" in log.trackers else None


TRACKERS: dict[str, Opener] = {"console": _console, "tensorboard": _tensorboard}
"""Name -> how it is opened. The files of the run directory are no choice, and are not among them."""
