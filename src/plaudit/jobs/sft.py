"""The settings of `plaudit sft`."""

from __future__ import annotations

from plaudit.algorithms.sft import SFT
from plaudit.config.sections import OfflineJob, SamplingSection, Sources


class SFTJob(OfflineJob):
    """Fine-tune a language model on demonstrations."""

    dataset: Sources = ""
    """Demonstrations: a file, several, a directory, or a hub name."""
    algorithm: SFT = SFT()
    sampling: SamplingSection = SamplingSection(max_new_tokens=64)
