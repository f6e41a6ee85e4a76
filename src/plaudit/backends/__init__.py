"""Who runs the models of a job. Stages know these functions and the protocols of `plaudit.runtime`, and no backend."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from plaudit.jobs.registry import names_of

if TYPE_CHECKING:
    from plaudit.config.sections import Job
    from plaudit.data.chat import ChatFormat
    from plaudit.jobs.preference import DPOJob
    from plaudit.jobs.reward import RewardJob
    from plaudit.jobs.sft import SFTJob
    from plaudit.rewards.model import Scorer as TextScorer
    from plaudit.runtime import Generator, OfflineRuntime, RewardRuntime, ScoringRuntime

# Named and not imported: the builders lie in this package, so they import this module before themselves; and what a
# backend needs is loaded only when it is used.
_BUILDERS = {
    "sft:SFTJob": "offline:build_policy",
    "preference:DPOJob": "offline:build_policy",
    "reward:RewardJob": "offline:build_reward_model",
}
"""Job class below ``plaudit.jobs`` -> what builds its runtime, below a backend."""


@overload
def open(job: SFTJob | DPOJob) -> OfflineRuntime: ...
@overload
def open(job: RewardJob) -> RewardRuntime: ...
def open(job: Job) -> OfflineRuntime | RewardRuntime:
    """Load the models of a job and put them together.

    Raises:
        ConfigError, ModelError: with the cure.
    """
    builder = next(_BUILDERS[name] for name in names_of(type(job)) if name in _BUILDERS)
    runtime: OfflineRuntime | RewardRuntime = _local(builder)(job)
    return runtime


def open_policy(source: str) -> tuple[Generator, ChatFormat]:
    """A trained language model to sample from, and how it reads prompts.

    Args:
        source: model directory, hub name, or GGUF file.

    Raises:
        ModelError: nothing there that can be loaded.
    """
    policy: tuple[Generator, ChatFormat] = _local("offline:load_generator")(source)
    return policy


def open_reward_model(directory: Path, job: RewardJob) -> ScoringRuntime:
    """A trained reward model, on the device and in the precision that its job says.

    Raises:
        ModelError: it is none, or its files are damaged.
    """
    runtime: ScoringRuntime = _local("offline:load_scoring")(directory, job)
    return runtime


def open_text_scorer(source: str) -> tuple[TextScorer, float]:
    """A trained reward model that scores texts, and by what its raw scores were divided.

    Raises:
        ModelError: as `open_reward_model`.
    """
    scorer: tuple[TextScorer, float] = _local("offline:load_text_scorer")(source)
    return scorer


def _local(name: str) -> Any:
    """A function of the backend in this process."""
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(f"plaudit.backends.local.{module}"), function)
