"""The settings of `plaudit reward`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from plaudit.algorithms.reward_model import RewardModel
from plaudit.config.sections import EvalEvery, EvaluatedJob, OfflineJob, Sources


class RewardJob(OfflineJob, EvaluatedJob):
    """Train a reward model."""

    model: str = ""
    """Model to start from: a causal LM (decoder) or an encoder; hub name, directory, or GGUF file."""
    dataset: Sources = ""
    """Preferences, rankings, judgements, ratings, or texts with 0/1 labels: files, a directory, or a hub name."""
    min_agreement: float = Field(0.0, ge=0.0, le=1.0)
    """Leave out comparisons that a smaller share of the annotators agreed on; counted and said."""
    ties: Literal["drop", "half"] = "drop"
    """Judgements without a majority. half: train on them with the share of votes, 1/2 for a tie, as target."""
    references: str = ""
    """Demonstrations whose scores are to have mean 0 and standard deviation 1; empty: the training responses."""
    epochs: int = Field(1, ge=1)
    """Passes over the data. Reward models overfit fast, and one is often best: of several, the one with the smallest
    held-out loss is handed out, chosen by one half of the held-out prompts and judged by the other."""
    head_init: Literal["random", "probe"] = "random"
    """probe: start the head where a linear probe of the untrained model ends. Costs one forward pass over the
    data, and pays where data or time are short."""
    eval_every: EvalEvery = 0
    """Optimizer steps between held-out evaluations, besides the one at the end; 0: none; auto: about four."""
    members: int = Field(1, ge=1)
    """Train so many reward models, which differ in head and order of the data, as an ensemble."""
    member: int = Field(0, ge=0)
    """Which member of an ensemble this is, where each is trained by a command of its own."""
    algorithm: RewardModel = RewardModel()

    @property
    def draw(self) -> int:
        """The seed of the head and of the order of the data; the split has that of the run, the same for all."""
        return self.seed + 1_000_003 * self.member

    @property
    def chooses_epoch(self) -> bool:
        """Whether the epoch with the smallest held-out loss is handed out, where there are several.

        Not where heads besides the score share the loss: that of the score alone is smallest where it still holds what
        the others are to take out of it.
        """
        return self.epochs > 1 and "heads" not in self.algorithm.needs

    @property
    def inputs(self) -> dict[str, str]:
        """What a run reads, by role."""
        return super().inputs | ({"references": self.references} if self.references else {})
