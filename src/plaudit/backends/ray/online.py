"""What learns from its own responses, on workers, with generators and rewards beside them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from plaudit.backends.local.agreement import SamplerCheck
from plaudit.backends.ray.group import Group, open_group, samplers
from plaudit.backends.ray.remote import RemoteGenerators, RemoteLearner, RemoteReward, RemoteScorer
from plaudit.backends.ray.worker import Judge
from plaudit.config.sections import LoraSection
from plaudit.errors import ConfigError
from plaudit.jobs.best_of_n import BestOfNJob
from plaudit.jobs.online import OnlineJob
from plaudit.jobs.reward_tables import RewardTable
from plaudit.rewards.build import Given, notes_of
from plaudit.runtime import OnlineRuntime, Reward, Runtime


def build_online(job: OnlineJob, reward: Given, gold: Given, columns: Collection[str]) -> OnlineRuntime:
    """A policy, its critic and its frozen start on workers; generators and rewards as processes.

    Raises:
        ConfigError, MachineError, ModelError, RewardError: with the cure.
    """
    return _build(job, reward, gold, columns, critic="values" in job.algorithm.needs)


def build_best_of_n(job: BestOfNJob, reward: Given, gold: Given, columns: Collection[str]) -> OnlineRuntime:
    """A policy that is sampled from, and with ``job.rounds`` trained as well.

    Raises:
        ConfigError, MachineError, ModelError, RewardError: with the cure.
    """
    return _build(job, reward, gold, columns, critic=False)


def _build(
    job: OnlineJob | BestOfNJob, reward: Given, gold: Given, columns: Collection[str], *, critic: bool
) -> OnlineRuntime:
    group, text, notes = open_group(job)
    load = (job.policy, job.lora, job.compute, job.seed, job.sampling.temperature, text.chat.ends)
    generators = RemoteGenerators(group.cluster, samplers(group, job), load)
    policy = RemoteLearner(group, "policy")
    judge = _reward(group, job, reward or job.reward, "reward", columns)
    second = _reward(group, job, gold or job.gold, "gold", columns) if gold or job.gold else None
    runtime = Runtime(
        generators,
        policy,
        RemoteScorer(group, "reference"),
        judge,
        RemoteLearner(group, "critic") if critic else None,
        second,
    )
    exact = job.compute.precision == "fp32" and job.lora.quantize == LoraSection().quantize
    check = SamplerCheck(generators, policy, job.policy, text.pad_id, job.sampling, exact)
    said = (*notes, *generators.notes, *notes_of(reward or job.reward), *notes_of(gold or job.gold))
    return OnlineRuntime(runtime, text, said, check=check)


def _reward(
    group: Group, job: OnlineJob | BestOfNJob, sources: Reward | Sequence[object], where: str, columns: Collection[str]
) -> Reward:
    """A reward that a job names, in a process; one that was given as a value stays where it is, in this process."""
    if callable(sources):
        return sources
    tables = list(sources)
    if not all(isinstance(table, RewardTable) for table in tables):
        raise ConfigError(
            "a function that was given as a value cannot be sent to a cluster with others beside it",
            where=where,
            cure="name it by its file in the config, or give one reward object that holds them all",
        )
    load = (tables, job.policy, job.compute, where, sorted(columns))
    return RemoteReward(group.cluster, group.cluster.helpers(Judge, 1)[0], load)
