"""What one worker of a job holds: its shard of each model that is trained or read. The same code on every rank."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from plaudit.algorithms.protocol import ActorCritic, EntropyBonus, OnlineAlgorithm
from plaudit.backends.local.backbone import Backbone
from plaudit.backends.local.models import (
    build_critic,
    load_backbone,
    load_policy,
    load_reference,
    load_reward_model,
    policy_format,
    reward_format,
)
from plaudit.backends.local.online import shares_trunk
from plaudit.backends.local.precision import resolve_device
from plaudit.backends.local.rates import Trained, rated
from plaudit.backends.ray.sharding import ShardedLearner, ShardedScorer, shard
from plaudit.config.sections import Job, LoraSection, OptimizerSection
from plaudit.errors import ConfigError
from plaudit.jobs.best_of_n import BestOfNJob
from plaudit.jobs.online import OnlineJob
from plaudit.jobs.preference import DPOJob
from plaudit.jobs.reward import RewardJob
from plaudit.jobs.sft import SFTJob
from plaudit.models.critic import Critic
from plaudit.models.forward.reading import ANY
from plaudit.models.policy import Policy
from plaudit.models.reward_model import RewardModel
from plaudit.runtime import TextFormat

UNPLANNED = 1
"""Optimizer steps of a learner until its stage says how many there are: `Learner.plan`."""


@dataclass(frozen=True, slots=True)
class Parts:
    """The sharded models of a job on one rank, by role."""

    format: TextFormat
    """How the main model reads texts."""
    twin: Callable[[], nn.Module]
    """Loads the main model once more, whole: what is trained is put into it to be exported."""
    learners: dict[str, ShardedLearner]
    scorers: dict[str, ShardedScorer] = field(default_factory=dict)
    """What is read and not trained."""
    notes: tuple[str, ...] = ()


def build_parts(job: Job) -> Parts:
    """Of any job that workers can run.

    Raises:
        ConfigError, ModelError: with the cure.
    """
    refuse_job(job)
    if isinstance(job, SFTJob | DPOJob):
        return _policy_parts(job)
    if isinstance(job, RewardJob):
        return _reward_parts(job)
    assert isinstance(job, OnlineJob | BestOfNJob), type(job)
    return _online_parts(job)


def refuse_job(job: Job) -> None:
    """Raise ConfigError for settings that workers cannot run, as far as settings alone say it."""
    if isinstance(job, SFTJob | DPOJob | RewardJob | OnlineJob | BestOfNJob) and job.lora.quantize == "4bit":
        raise _refusal("a base in 4 bit", "[lora] quantize")
    if isinstance(job, RewardJob) and (job.algorithm.lm_coef > 0 or "heads" in job.algorithm.needs):
        raise _refusal("training with lm_coef or length = 'odin'", "[algorithm]")
    if isinstance(job, OnlineJob | BestOfNJob):
        _refuse_shared(job)


def _policy_parts(job: SFTJob | DPOJob) -> Parts:
    def load() -> tuple[Any, Policy]:
        return load_policy(job.model, job.lora, job.compute, seed=job.seed)

    tokenizer, policy = load()
    text = policy_format(tokenizer, policy.lm, job.data.chat_template)
    trained: Trained = "sft" if isinstance(job, SFTJob) else "preference"
    optimizer, notes = rated(job.optimizer, trained, policy, adapters=job.lora.rank > 0)
    _shard(job, policy, policy.lm)
    learner = ShardedLearner(policy, optimizer, job.compute, total_steps=UNPLANNED)
    return Parts(text, lambda: load()[1], {"policy": learner}, notes=(*policy.notes, *notes))


def _reward_parts(job: RewardJob) -> Parts:
    algorithm = job.algorithm

    def load() -> tuple[Any, RewardModel]:
        return load_reward_model(
            job.model, job.lora, job.compute, seed=job.draw,
            attributes=algorithm.heads, attribute_weights=algorithm.head_weights,
        )  # fmt: skip

    tokenizer, model = load()
    text = reward_format(tokenizer, model.model, job.data.chat_template, encoder=model.is_encoder)
    optimizer, notes = rated(job.optimizer, "reward", model, adapters=job.lora.rank > 0)
    _shard(job, model, model.model)
    learner = ShardedLearner(model, optimizer, job.compute, total_steps=UNPLANNED, name="reward_model")
    return Parts(text, lambda: load()[1], {"policy": learner}, notes=(*model.notes, *notes))


def _online_parts(job: OnlineJob | BestOfNJob) -> Parts:
    def load() -> tuple[Any, Policy]:
        return load_policy(
            job.policy, job.lora, job.compute, seed=job.seed, temperature=job.sampling.temperature,
            entropy_grad=_rewards_entropy(job),
        )  # fmt: skip

    tokenizer, policy = load()
    text = policy_format(tokenizer, policy.lm, job.data.chat_template)
    trained: Trained = "online" if isinstance(job, OnlineJob) else "sft"
    optimizer, notes = rated(job.optimizer, trained, policy, adapters=job.lora.rank > 0)
    backbone = load_backbone(policy, job.compute)
    # From the policy as it is loaded, before it is sharded: the critic and the frozen start are copies of it. One copy
    # at a time is whole, since the memory of the host holds those of all workers on it.
    learners = {}
    critic = _critic(job, backbone, tokenizer)
    if critic is not None:
        module, rate, more = critic
        notes += more
        _shard(job, module, module.trunk)
        learners["critic"] = ShardedLearner(module, rate, job.compute, total_steps=UNPLANNED, name="critic")
    frozen = load_reference(policy)
    if not frozen.shared:
        _shard(job, frozen.frozen, frozen.frozen.lm)
    _shard(job, policy, policy.lm)
    learners["policy"] = ShardedLearner(policy, optimizer, job.compute, total_steps=UNPLANNED)
    scorers = {"reference": ShardedScorer(frozen, job.compute)}
    return Parts(text, lambda: load()[1], learners, scorers, (*policy.notes, *backbone.notes, *notes))


def _critic(
    job: OnlineJob | BestOfNJob, backbone: Backbone, tokenizer: Any
) -> tuple[Critic, OptimizerSection, tuple[str, ...]] | None:
    """The critic of an algorithm that needs one, its optimizer's settings, and what to know of its rate."""
    if not isinstance(job, OnlineJob) or "values" not in job.algorithm.needs:
        return None
    algorithm: OnlineAlgorithm = job.algorithm
    assert isinstance(algorithm, ActorCritic), "only these have values"
    longest = job.data.max_length
    critic = build_critic(algorithm.critic_init, job.reward, backbone, tokenizer, LoraSection(), job.compute, longest)
    section = job.optimizer.model_copy(update={"lr": algorithm.critic_lr})
    return critic, *rated(section, "critic", critic, adapters=False, flag="critic_lr")


def _rewards_entropy(job: OnlineJob | BestOfNJob) -> bool:
    if not isinstance(job, OnlineJob):
        return False
    algorithm: OnlineAlgorithm = job.algorithm
    return isinstance(algorithm, EntropyBonus) and algorithm.entropy_coef > 0


def _refuse_shared(job: OnlineJob | BestOfNJob) -> None:
    """What relies on one process, or reads a model otherwise than by calling it."""
    if not isinstance(job, OnlineJob):
        return
    algorithm: OnlineAlgorithm = job.algorithm
    if "full_kl" in algorithm.needs:
        raise _refusal("the KL over the whole vocabulary (full_kl)", "[algorithm]")
    if shares_trunk(algorithm):
        raise _refusal("critic = 'trunk'", "[algorithm] critic")
    if "values" in algorithm.needs and job.lora.rank > 0:
        raise _refusal("a critic on the adapters' base ([lora] with a critic)", "[lora] rank")


def _refusal(what: str, where: str) -> ConfigError:
    return ConfigError(
        f"{what} is not there on Ray workers yet",
        where=where,
        cure="run it with --backend local, or without that setting",
    )


def _shard(job: Job, module: Policy | Critic | RewardModel, model: nn.Module) -> None:
    """Shard a model, after what would call its layers more often on one rank than on another is off or refused."""
    if module.together < ANY:
        raise _refusal("an architecture that reads rows one by one", "[compute] backend")
    # A rank that has the states of a row does not call the lower layers, and another one that has not would wait for it
    # to gather them.
    module.lower = None
    device = resolve_device(job.compute.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    shard(module, model, device.type)
