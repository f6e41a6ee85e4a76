"""The protocol of everything that receives the figures of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


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
