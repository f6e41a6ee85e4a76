"""Where config, backend and algorithm meet: a job in, a run directory out."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

from plaudit.config.sections import Job
from plaudit.jobs.registry import names_of

Stage = Callable[..., Path]
"""``stage(job, sources, **values)`` trains and returns the run directory.

``sources`` says where each setting came from, by dotted key. ``values`` are what a caller from Python gives as values
instead of by name in the job: prompts, records, a reward.
"""

# Named and not imported: each stage lies in this package, so it imports this module before itself, and what it needs
# (torch, models) is loaded only for the one that runs.
_STAGES = {
    "sft:SFTJob": "sft:run_sft",
    "reward:RewardJob": "reward.train:run_reward",
    "preference:DPOJob": "preference.dpo:run_dpo",
    "online:OnlineJob": "online.rl:run_rl",
    "best_of_n:BestOfNJob": "best_of_n.answer:run_best_of_n",
}
"""Job class below ``plaudit.jobs`` -> stage below ``plaudit.stages``. A stage takes derived classes as well."""


def stage_of(job_class: type[Job]) -> Stage:
    """The function that runs jobs of a class.

    Raises:
        KeyError: there is none for it, nor for what it is derived from.
    """
    stage_name = next((_STAGES[name] for name in names_of(job_class) if name in _STAGES), None)
    if stage_name is None:
        raise KeyError(f"no stage runs {job_class.__qualname__}; add one to stages/__init__.py")
    module, _, function = stage_name.partition(":")
    stage: Stage = getattr(importlib.import_module(f"plaudit.stages.{module}"), function)
    return stage
