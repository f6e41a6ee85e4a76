"""Alarms of the sampler: it draws from other weights than the trainer has, or computes other log-probs from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from plaudit.evaluation.alarms.alarm import Alarm
from plaudit.tracking.names import METRICS

PATIENCE = 3
"""Iterations in a row after which it is no accident: one odd batch of long responses may look bad by itself."""
Kind = Literal["stale", "mismatch"]
WATCHED: dict[Kind, str] = {"stale": "rollout/effective_share", "mismatch": "rollout/logprob_diff_mean"}
"""The metric of each alarm; it is raised outside the healthy range of the table of metrics."""


@dataclass(slots=True)
class SamplerWatch:
    """Counts bad iterations, and raises each alarm once; again only after an iteration that was well."""

    bad: dict[Kind, int] = field(default_factory=dict)
    """Bad iterations in a row, by alarm."""

    def look(self, metrics: Mapping[str, float]) -> list[Alarm]:
        """The alarms that the metrics of one more iteration raise. A metric that is not there changes nothing."""
        alarms = []
        for kind, name in WATCHED.items():
            if name not in metrics:
                continue
            well = METRICS[name].is_healthy(metrics[name])
            self.bad[kind] = 0 if well else self.bad.get(kind, 0) + 1
            if self.bad[kind] == PATIENCE:
                alarms.append(Alarm(kind, _message(kind, metrics[name])))
        return alarms

    def state(self) -> dict[str, int]:
        """Bad iterations in a row by alarm, for a checkpoint: a resumed run raises what it would have raised."""
        return {str(kind): count for kind, count in self.bad.items()}

    def resume(self, state: Mapping[str, int]) -> None:
        """Inverse of `state`."""
        self.bad = {kind: state[kind] for kind in WATCHED if kind in state}


def _message(kind: Kind, value: float) -> str:
    """What it means, with the figure, its bound, and what to do."""
    if kind == "stale":
        return (
            f"for {PATIENCE} iterations the importance weights have been worth few samples: an effective share of "
            f"{value:.2f}, healthy is {METRICS[WATCHED[kind]].healthy}. The responses come from other weights than "
            "the policy's. See that the generator gets every new version, or take smaller steps"
        )
    return (
        f"for {PATIENCE} iterations sampler and trainer have disagreed about the same tokens: by {value:.3f} nats per "
        f"token on average, healthy is {METRICS[WATCHED[kind]].healthy}. Their weights, precision or kernels differ. "
        "Use the same precision for both, and look at rollout/mismatch_kl"
    )
