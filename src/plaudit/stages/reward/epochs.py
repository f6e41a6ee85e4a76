"""Which epoch of a reward model is handed out: the one with the smallest held-out loss."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from plaudit.evaluation.choice import divide
from plaudit.runs.best import BestWeights
from plaudit.runs.files import Row
from plaudit.runtime import Learner
from plaudit.stages.encode import Rows, prompt_id
from plaudit.stages.reward.scores import heldout_accuracy, heldout_loss, row_losses
from plaudit.stages.said import Said
from plaudit.stages.session import Session
from plaudit.statistics.clustered import mean_over
from plaudit.statistics.intervals import Estimate

CONFIDENCE = 0.95
LEAST = 50
"""Held-out prompts from which on they are divided: half of fewer would tell next to nothing."""


def choosing_rows(heldout: Rows, chooses: bool, said: Said) -> tuple[Rows, Rows]:
    """The held-out rows by which an epoch is chosen, and those that judge it.

    Where nothing is chosen, all rows do both. Else they are divided by prompt, about in halves; with fewer than 50
    prompts the same rows do both, and ``said`` is told.
    """
    if not chooses or not len(heldout):
        return heldout, heldout
    if len(set(map(prompt_id, heldout.records))) < LEAST:
        flattered = f"the same {len(heldout)} held-out rows choose the epoch and judge it: they flatter it a little"
        said.note([flattered])
        return heldout, heldout
    chosen = set(map(prompt_id, divide(heldout.records, prompt_id)[0]))
    return _part(heldout, chosen, True), _part(heldout, chosen, False)


def _part(rows: Rows, prompts: set[str], wanted: bool) -> Rows:
    kept = [i for i, record in enumerate(rows.records) if (prompt_id(record) in prompts) is wanted]
    return replace(rows, records=[rows.records[i] for i in kept], encoded=[rows.encoded[i] for i in kept])


class Epochs:
    """Keeps the weights of the best epoch so far, by the held-out loss, and hands them out at the end.

    Args:
        session: of the run. A checkpoint keeps the best weights and `state`.
        learner: what is trained.
        steps: optimizer steps of an epoch; those of the whole run where no epoch is chosen.
        score: the held-out rows by which an epoch is chosen, with their scores by the learner as it is.
        head_weights: see `heldout_loss`.
    """

    def __init__(
        self,
        session: Session,
        learner: Learner,
        steps: int,
        score: Callable[[], list[Row]],
        head_weights: Sequence[float],
    ) -> None:
        self.session, self.learner, self.steps = session, learner, steps
        self.score, self.head_weights = score, head_weights
        self.weights = BestWeights(session.run) if session.total > steps else None
        self.losses: dict[int, float] = {}
        """Epoch -> held-out loss."""
        self.best_rows: list[float] = []
        """The loss of each held-out row after the best epoch so far."""
        self.rise: Estimate | None = None
        """By how much the loss of the newest epoch is above that of the best, row by row; None: it is the best."""

    def after(self, step: int, every: int) -> dict[str, float]:
        """Figures of the held-out rows, at the end of an epoch and every so many steps (0: not between)."""
        ends = self.weights is not None and step % self.steps == 0
        if not ends and not (every and step % every == 0):
            return {}
        lines = self.score()
        if not lines:
            return {}
        loss = heldout_loss(lines, self.head_weights)
        if ends:
            self._see(step, loss, lines)
        return {"eval/loss": loss, "reward_model/heldout_accuracy": heldout_accuracy(lines)}

    def _see(self, step: int, loss: float, lines: Sequence[Row]) -> None:
        best = min(self.losses.values(), default=math.inf)
        self.losses[step // self.steps] = loss
        losses = row_losses(lines, self.head_weights)
        if loss < best:
            self.best_rows, self.rise = losses, None
            if self.weights is not None and step < self.session.total:
                self.weights.keep(step, self.learner.weights().tensors())
        elif len(self.best_rows) == len(losses):
            # The best was chosen by these rows, which flatters it: the interval is one for all that might have been.
            confidence = 1 - (1 - CONFIDENCE) / (len(self.losses) - 1)
            rises = [after - before for before, after in zip(self.best_rows, losses, strict=True)]
            rise = mean_over(rises, [row["prompt_id"] for row in lines], confidence=confidence)
            self.rise = None if math.isnan(rise.low) else rise

    def state(self) -> dict[str, Any]:
        """The losses, for a checkpoint."""
        return {
            "epoch_losses": {str(epoch): loss for epoch, loss in self.losses.items()},
            "epoch_best_rows": self.best_rows,
            "epoch_rise": None if self.rise is None else dataclasses.astuple(self.rise),
        }

    def resume(self, state: dict[str, Any]) -> None:
        """Inverse of `state`."""
        self.losses = {int(epoch): loss for epoch, loss in state.get("epoch_losses", {}).items()}
        self.best_rows = list(state.get("epoch_best_rows", ()))
        rise = state.get("epoch_rise")
        self.rise = None if rise is None else Estimate(*rise)

    def finish(self) -> None:
        """Put the best epoch back if another one came after it, and say what was chosen."""
        if self.weights is None or not self.losses:
            return
        best, last = min(self.losses, key=lambda epoch: self.losses[epoch]), max(self.losses)
        self.session.recorder.summary({"epoch_losses": list(self.losses.values()), "epoch_kept": best})
        if self.rise is not None:
            self.session.recorder.summary({"epoch_rise": self.rise.value, "epoch_rise_ci": list(self.rise.interval)})
        # Nothing is put back where the file is lost (a checkpoint said so), or where no epoch came after.
        if best == last or self.weights.file is None or self.weights.step != best * self.steps:
            return
        self.learner.put_back(self.weights.tensors())
        rise = self.rise
        after = "later epochs overfitted" if rise is not None and rise.low > 0 else "no later one was better"
        change = f" ({rise.value:+.3f}, interval {rise.low:+.3f} to {rise.high:+.3f})" if rise else ""
        why = (
            f"{after}, and the epoch with the lowest held-out loss is kept: it was {self.losses[best]:.3f} after epoch "
            f"{best} and {self.losses[last]:.3f} after epoch {last}{change}"
        )
        self.session.recorder.event("rolled back", step=self.weights.step, to=self.weights.step, why=why)
        self.session.recorder.summary({"model_step": self.weights.step})
