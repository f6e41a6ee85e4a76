"""What trains on a fixed data set, on workers."""

from __future__ import annotations

from plaudit.backends.ray.group import open_group, samplers
from plaudit.backends.ray.remote import RemoteGenerators, RemoteLearner, RemoteRewardHead
from plaudit.jobs.preference import DPOJob
from plaudit.jobs.reward import RewardJob
from plaudit.jobs.sft import SFTJob
from plaudit.runtime import OfflineRuntime, RewardRuntime


def build_policy(job: SFTJob | DPOJob) -> OfflineRuntime:
    """The language model that is trained, sharded over workers, and generators for samples of it.

    Raises:
        ConfigError, MachineError, ModelError: with the cure.
    """
    group, text, notes = open_group(job)
    load = (job.model, job.lora, job.compute, job.seed, 1.0, text.chat.ends)
    generators = RemoteGenerators(group.cluster, samplers(group, job), load)
    return OfflineRuntime(RemoteLearner(group, "policy"), text, generators, (*notes, *generators.notes))


def build_reward_model(job: RewardJob) -> RewardRuntime:
    """The reward model that is trained, sharded over workers.

    Raises:
        ConfigError, MachineError, ModelError: with the cure.
    """
    group, text, notes = open_group(job)
    learner = RemoteLearner(group, "policy")
    return RewardRuntime(learner, text, RemoteRewardHead(group, learner), notes)
