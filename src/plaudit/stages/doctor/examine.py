"""The examination of a job before it is run. Nothing is written, and what is trained in a trial is thrown away."""

from __future__ import annotations

from collections.abc import Iterator

from plaudit import backends
from plaudit.config.sections import Job
from plaudit.jobs.best_of_n import BestOfNJob
from plaudit.jobs.online import OnlineJob
from plaudit.jobs.preference import DPOJob
from plaudit.jobs.reward import RewardJob
from plaudit.jobs.sft import SFTJob
from plaudit.runs.directory import set_threads
from plaudit.stages.doctor.offline import examine_dpo, examine_reward_model, examine_sft
from plaudit.stages.doctor.online import examine_best_of_n, examine_online
from plaudit.stages.doctor.part import Part


def examine(job: Job) -> Iterator[Part]:
    """Memory, template, rewards and speed of a job, each as soon as it is known.

    Raises:
        ConfigError, DataError, ModelError, RewardError, MachineError: as the run itself would.
    """
    set_threads(job.compute)
    backends.check(job.compute)
    if isinstance(job, OnlineJob):
        yield from examine_online(job)
    elif isinstance(job, BestOfNJob):
        yield from examine_best_of_n(job)
    elif isinstance(job, RewardJob):
        yield from examine_reward_model(job)
    elif isinstance(job, DPOJob):
        yield from examine_dpo(job)
    else:
        assert isinstance(job, SFTJob), f"no examination for {type(job).__qualname__}"
        yield from examine_sft(job)
