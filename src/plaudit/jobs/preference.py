"""The settings of `plaudit dpo`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from plaudit.algorithms.dpo import DPO, IPO, ORPO, Hinge, SimPO
from plaudit.algorithms.kto import KTO
from plaudit.config.sections import (
    EvalEvery,
    EvaluatedJob,
    OfflineJob,
    OptimizerSection,
    SamplingSection,
    Sources,
)


class DPOJob(OfflineJob, EvaluatedJob):
    """Optimise a policy on preferences (or on thumbs up and down) directly, without a reward model."""

    relatives: ClassVar[Mapping[str, Any]] = {
        "ipo": IPO(), "hinge": Hinge(), "kto": KTO(), "orpo": ORPO(), "simpo": SimPO(),
    }  # fmt: skip

    model: str = ""
    """The model to train, usually an SFT run's model: hub name, directory, or GGUF file. It is also the reference."""
    dataset: Sources = ""
    """Preferences, rankings or judgements; for kto ratings as well: a file, several, a directory, or a hub name."""
    epochs: int = Field(1, ge=1)
    """Passes over the data. More than one or two overfits: watch the held-out accuracy."""
    batch_size: int = Field(32, ge=1)
    """Pairs (or rated responses) per optimizer step."""
    eval_every: EvalEvery = "auto"
    """Optimizer steps between held-out evaluations, besides those at start and end; 0: none; auto: about four."""
    algorithm: DPO = DPO()
    optimizer: OptimizerSection = OptimizerSection(warmup_fraction=0.1)
    sampling: SamplingSection = SamplingSection(max_new_tokens=64)
