"""Batches whose gradient was not finite: kept for people to look at, and three different ones in a row end the run."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from plaudit.errors import Ended
from plaudit.experience import Batch

MOST = 3
"""Different batches in a row without one finite gradient: the weights or the settings are at fault, and no row is."""


@dataclass(frozen=True, slots=True)
class Broken:
    """The batch of an optimizer step that was not taken, since its gradient was not finite."""

    batch: Batch
    units: tuple[int, ...]
    """Which units of the data, or of the iteration, it was made of."""
    metrics: Mapping[str, float]


Keep = Callable[[int, Broken], None]
"""Called with the number of the step or iteration, and the first such batch in it."""


def _nowhere(step: int, broken: Broken) -> None:
    pass


class BrokenBatches:
    """Looks at every optimizer step of a loop, and counts what it was trained on.

    The rollouts of an iteration are one batch, however many epochs and minibatches are made of them: one bad row in
    them spoils each of these steps, and that says nothing of the next rollouts.

    Args:
        keep: is given a batch of each step or iteration with a gradient that was not finite.

    Attributes:
        in_a_row: batches on which not one step was taken, up to now; part of a checkpoint.
    """

    def __init__(self, keep: Keep = _nowhere) -> None:
        self.in_a_row = 0
        self._keep = keep
        self._first: Broken | None = None
        self._taken = 0

    def saw(self, batch: Batch, units: Tensor, metrics: Mapping[str, float]) -> None:
        """Look at the metrics of one optimizer step; ``units`` are the numbers of what it was made of."""
        if is_finite(metrics):
            self._taken += 1
        else:
            self._first = self._first or Broken(batch, tuple(units.tolist()), dict(metrics))

    @property
    def spoiled(self) -> bool:
        """Whether the batch so far has given gradients that were not finite, and no others."""
        return self._first is not None and not self._taken

    def end(self, step: int) -> None:
        """The batch of this step or iteration is done with."""
        first, spoiled = self._first, self.spoiled
        self._first, self._taken = None, 0
        self.in_a_row = self.in_a_row + 1 if spoiled else 0
        if first is not None:
            self._keep(step, first)

    def check(self, step: int) -> None:
        """End the run if too many batches in a row were of no use.

        Raises:
            Ended: they were.
        """
        if self.in_a_row < MOST:
            return
        raise Ended(
            f"the gradient was not finite in {self.in_a_row} different batches in a row, the last one in step {step}",
            how="alarm",
            kind="non_finite",
            where="optimizer step",
            cure="look at bad_batches/ in the run directory; then lower --lr or use --precision fp32, and go on from "
            "the last checkpoint with --resume",
        )


def is_finite(metrics: Mapping[str, float]) -> bool:
    """Whether all gradients of an optimizer step were finite: the learner's, and those of its partners."""
    return all(math.isfinite(value) for name, value in metrics.items() if name.endswith("grad_norm"))
