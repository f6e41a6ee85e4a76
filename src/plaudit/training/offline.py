"""The offline loop: a fixed data set, a fixed number of epochs. SFT, reward models, and the DPO family.

And texts to go on imitating, which the online loop takes from such a data set.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, cast

import torch

from plaudit.algorithms.protocol import B, OfflineAlgorithm
from plaudit.data.chat import Encoded
from plaudit.data.collate import collate_demonstrations
from plaudit.data.split import epoch_order
from plaudit.experience import Experience
from plaudit.runtime import Learner, LossFunction
from plaudit.training.broken import BrokenBatches

OnStep = Callable[[int, dict[str, float]], None]


@dataclass(frozen=True, slots=True)
class OfflineLoop(Generic[B]):
    """``epochs`` passes over ``rows`` rows in batches of ``batch_size``, in an order that (seed, epoch) determines.

    So a resumed run needs the step number and nothing else to see the same batches.
    """

    algorithm: OfflineAlgorithm[B]
    learner: Learner
    collate: Callable[[Sequence[int]], B]
    """Row indices -> one batch for one optimizer step."""
    rows: int
    batch_size: int
    epochs: int
    seed: int
    on_step: OnStep
    """Called after each step with its 1-based number and metrics; may evaluate, save, or raise to stop."""
    broken: BrokenBatches = field(default_factory=BrokenBatches)

    @property
    def steps_per_epoch(self) -> int:
        """The last batch of an epoch may be smaller; no row is left out."""
        return math.ceil(self.rows / self.batch_size)

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.steps_per_epoch * self.epochs

    def batches(self, start: int = 0) -> Iterator[Sequence[int]]:
        """Row indices of each step from the 0-based step ``start`` on."""
        for step in range(start, self.total_steps):
            epoch, position = divmod(step, self.steps_per_epoch)
            order = epoch_order(self.rows, self.seed, epoch)
            yield order[position * self.batch_size : (position + 1) * self.batch_size]

    def _read(self, batch: B) -> B:
        """The batch with the outputs of the heads on the whole step, where the algorithm needs them."""
        if "heads" not in self.algorithm.needs:
            return batch
        changed: Any = batch.replace(heads=self.learner.read(batch, "heads")[0])
        return cast("B", changed)

    def run(self, start: int = 0) -> None:
        """Train from the 0-based step ``start`` to the end.

        Raises:
            Ended: the gradients of three batches in a row were not finite.
        """
        for step, rows in enumerate(self.batches(start), start + 1):
            began = time.perf_counter()
            batch = self.algorithm.weights(self._read(self.collate(rows)))
            # The learner gives the loss microbatches of this batch, so of its type; `LossFunction` takes any.
            metrics = self.learner.update(batch, cast("LossFunction", self.algorithm.loss))
            seconds = time.perf_counter() - began
            self.broken.saw(batch, torch.tensor(list(rows)), metrics)
            self.broken.end(step)
            tokens = int(batch.attention_mask.sum())
            metrics |= {
                "epoch": step / self.steps_per_epoch,
                "time/update": seconds,
                "throughput/tokens_per_second": tokens / seconds,
            }
            self.on_step(step, metrics)
            self.broken.check(step)


@dataclass(frozen=True, slots=True)
class TextStream:
    """Texts that the policy goes on imitating while it learns from rewards, so that it does not forget them (ptx).

    Encoded texts in an endless sequence of shuffled passes, a function of the place: resume is exact.
    """

    rows: Sequence[Encoded]
    pad_id: int
    seed: int

    def at(self, first: int, count: int) -> Experience:
        """The ``count`` texts from place ``first`` of the sequence on."""
        size = len(self.rows)
        places = (divmod(place, size) for place in range(first, first + count))
        chosen = [self.rows[epoch_order(size, self.seed, epoch)[place]] for epoch, place in places]
        return collate_demonstrations(chosen, self.pad_id)
