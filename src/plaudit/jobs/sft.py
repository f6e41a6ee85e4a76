"""The settings of `plaudit sft`."""

from __future__ import annotations

from pydantic import Field

from plaudit.algorithms.sft import SFT
from plaudit.config.sections import Job, OptimizerSection, SamplingSection


class SFTJob(Job):
    """Fine-tune a language model on demonstrations."""

    model: str = ""
    """Model to start from: hub name, directory, or GGUF file."""
    dataset: str = ""
    """Demonstrations: a file, a directory, or a hub name."""
    epochs: int = Field(1, ge=1)
    """Passes over the data."""
    batch_size: int = Field(16, ge=1)
    """Demonstrations per optimizer step."""
    algorithm: SFT = SFT()
    optimizer: OptimizerSection = OptimizerSection(lr=2e-5)
    sampling: SamplingSection = SamplingSection(max_new_tokens=64)

    @property
    def inputs(self) -> dict[str, str]:
        """What a run reads, by role."""
        return {"model": self.model, "dataset": self.dataset}
