"""What learns from its own responses, with all of its models in this process: policy, critic, reference, rewards."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from plaudit.algorithms.protocol import ActorCritic, EntropyBonus, OnlineAlgorithm, SharingTrunk
from plaudit.backends.local.agreement import SamplerCheck, in_fp32
from plaudit.backends.local.backbone import Backbone
from plaudit.backends.local.learner import LocalLearner, LocalScorer
from plaudit.backends.local.models import (
    at_temperature_one,
    build_critic,
    load_backbone,
    load_policy,
    load_reference,
    policy_format,
)
from plaudit.backends.local.precision import product_dtype
from plaudit.backends.local.rates import rated
from plaudit.backends.local.rewards import build_reward
from plaudit.config.sections import ComputeSection, LoraSection, OptimizerSection
from plaudit.data.chat import ChatFormat
from plaudit.errors import ConfigError
from plaudit.generation.native import NativeGenerator
from plaudit.jobs.best_of_n import BestOfNJob
from plaudit.jobs.online import OnlineJob
from plaudit.jobs.reward_tables import ModelTable
from plaudit.models.exact_kl import ExactKL
from plaudit.models.forward.trunk import bare
from plaudit.models.policy import Policy, ReferencePolicy
from plaudit.models.shared_trunk import SharedTrunk, TrunkCritic
from plaudit.records import RewardResult, Rollout
from plaudit.rewards.build import Given, RewardSource, notes_of
from plaudit.runtime import MeasuringRuntime, OnlineRuntime, Reward, Runtime, TextFormat

GIGABYTE = 1e9
TRAINED = 4
"""fp32 copies of a trained tensor: itself, its gradient, and the two moments of AdamW."""
UNPLANNED = 1
"""Optimizer steps of a learner until its stage says how many there are: `Learner.plan`."""


def build_online(job: OnlineJob, reward: Given, gold: Given, columns: Collection[str]) -> OnlineRuntime:
    """A policy that is trained against a reward, its frozen start, and a critic where the algorithm needs one.

    Raises:
        ConfigError, ModelError, RewardError: with the cure.
    """
    algorithm: OnlineAlgorithm = job.algorithm
    compute = job.compute
    tokenizer, policy = load_policy(
        job.policy, job.lora, compute, seed=job.seed, temperature=job.sampling.temperature,
        entropy_grad=isinstance(algorithm, EntropyBonus) and algorithm.entropy_coef > 0,
    )  # fmt: skip
    text = policy_format(tokenizer, policy.lm, job.data.chat_template)
    # One each, so that the memory of the reward and that of gold are told apart.
    backbone, gold_backbone = load_backbone(policy, compute), load_backbone(policy, compute)
    opened = partial(_reward, tokenizer=tokenizer, compute=compute, columns=columns)
    judge = opened(reward or job.reward, "reward", backbone=backbone)
    second = opened(gold or job.gold, "gold", backbone=gold_backbone) if gold or job.gold else None
    # Frozen now: later the policy has learned. Under LoRA it is the policy without adapters and costs nothing, which
    # only works where both are in one process.
    frozen = load_reference(policy)
    learner, critic, of_rates = build_learners(job, policy, backbone, tokenizer)
    generator = _generator(policy, learner, text.chat, tokenizer, compute)
    runtime = Runtime(
        generator,
        learner,
        LocalScorer(frozen, compute),
        judge,
        critic,
        second,
        LocalScorer(ExactKL(policy, frozen), compute) if "full_kl" in algorithm.needs else None,
        shares_trunk(algorithm) and critic is not None,
    )
    roles: dict[str, Iterable[nn.Module]] = {"policy": [policy], "reference": [frozen]}
    roles |= {
        "critic": [critic.module] if critic else [],
        "reward": backbone.loaded,
        "gold": gold_backbone.loaded,
    }
    notes = (*policy.notes, *generator.notes, *backbone.notes, *gold_backbone.notes, *_critic_notes(job))
    notes += (*of_rates, *_reward_notes(job, reward, gold))
    check = _sampler_check(job, policy, learner, generator, text)
    return OnlineRuntime(runtime, text, notes, role_memory(roles), _peak(learner), check)


def build_best_of_n(job: BestOfNJob, reward: Given, gold: Given, columns: Collection[str]) -> OnlineRuntime:
    """A policy that is sampled from, and with ``job.rounds`` trained as well.

    Raises:
        ConfigError, ModelError, RewardError: with the cure.
    """
    compute = job.compute
    tokenizer, policy = load_policy(
        job.policy, job.lora, compute, seed=job.seed, temperature=job.sampling.temperature
    )
    text = policy_format(tokenizer, policy.lm, job.data.chat_template)
    optimizer, of_rate = rated(job.optimizer, "sft", policy, adapters=job.lora.rank > 0)
    learner = LocalLearner(policy, optimizer, compute, total_steps=UNPLANNED)
    backbone = load_backbone(policy, compute)
    opened = partial(_reward, tokenizer=tokenizer, compute=compute, columns=columns, backbone=backbone)
    judge = opened(reward or job.reward, "reward")
    second = opened(gold or job.gold, "gold") if gold or job.gold else None
    # Without rounds nothing is trained, so the policy is its own start, and no memory goes into a copy.
    reference = LocalScorer(load_reference(policy), compute) if job.rounds else learner
    generator = _generator(policy, learner, text.chat, tokenizer, compute)
    runtime = Runtime(generator, learner, reference, judge, gold=second)
    check = _sampler_check(job, policy, learner, generator, text)
    notes = (*policy.notes, *generator.notes, *backbone.notes, *_reward_notes(job, reward, gold))
    notes += of_rate if job.rounds else ()
    return OnlineRuntime(runtime, text, notes, peak_memory=_peak(learner), check=check)


def build_rewards(
    job: BestOfNJob, reward: Given, gold: Given, columns: Collection[str]
) -> tuple[Reward, Reward | None, tuple[str, ...]]:
    """The rewards of a job whose policy is not loaded here, and what to know of them.

    Raises:
        ConfigError, ModelError, RewardError: with the cure.
    """
    opened = partial(_reward, tokenizer=None, compute=job.compute, columns=columns)
    second = opened(gold or job.gold, "gold") if gold or job.gold else None
    return opened(reward or job.reward, "reward"), second, _reward_notes(job, reward, gold)


def build_measuring(
    job: OnlineJob | BestOfNJob, model: str, columns: Collection[str], judge: Given, harm: Given
) -> MeasuringRuntime:
    """The start of a job and what it trained, to be measured.

    Raises:
        ConfigError, ModelError, RewardError: with the cure.
    """
    compute = job.compute
    # What was trained is a model of its own, adapters merged: none are added, except that 4 bits come with them.
    lora = job.lora if job.lora.quantize == "4bit" else LoraSection()
    loaded = [
        load_policy(name, lora, compute, seed=job.seed, temperature=job.sampling.temperature)
        for name in (job.policy, model)
    ]
    (tokenizer, start), (_, trained) = loaded
    texts = [policy_format(words, policy.lm, job.data.chat_template) for words, policy in loaded]
    backbone = load_backbone(start, compute)
    opened = partial(_reward, tokenizer=tokenizer, compute=compute, columns=columns, backbone=backbone)
    reward = opened(job.reward, "reward") if job.reward else NotAsked()
    gold, compares, harmful = (
        opened(given, where) if given else None
        for given, where in ((job.gold, "gold"), (judge, "judge"), (harm, "harm"))
    )
    # Nothing is trained, but a learner wants a rate that is a number, and that of the run may be "auto".
    optimizer, _ = rated(job.optimizer, "online", trained, adapters=False)
    learners = [LocalLearner(policy, optimizer, compute, total_steps=UNPLANNED) for _, policy in loaded]
    generators = [
        _generator(policy, learner, text.chat, words, compute)
        for (words, policy), learner, text in zip(loaded, learners, texts, strict=True)
    ]
    full_kl = LocalScorer(ExactKL(trained, ReferencePolicy(start, copied=False)), compute)
    plain = [LocalScorer(at_temperature_one(policy, words, compute), compute) for words, policy in loaded]
    sides = [
        Runtime(generator, learner, learners[0], reward, gold=gold, full_kl=full_kl if learner is learners[1] else None)
        for generator, learner in zip(generators, learners, strict=True)
    ]
    notes = (*start.notes, *generators[0].notes, *backbone.notes, *_reward_notes(job, None, None))
    scored = bool(job.reward)
    return MeasuringRuntime(sides[0], sides[1], (plain[0], plain[1]), texts[0], compares, harmful, scored, notes)


class NotAsked:
    """In the place of a reward where none is named: responses are measured without one."""

    name = "none"

    def __call__(self, rollouts: Sequence[Rollout]) -> list[RewardResult]:
        """Never called."""
        raise AssertionError("there is no reward to ask")


def _generator(
    policy: Policy, learner: LocalLearner, chat: ChatFormat, tokenizer: Any, compute: ComputeSection
) -> NativeGenerator:
    # On the same tensors and in the same precision as training, so that log-probs of the sampler are those of the
    # trainer and need no correction.
    precision = product_dtype(compute, learner.device)
    return NativeGenerator(
        policy.lm, tokenizer, chat.ends, precision=precision, cuda_graphs=compute.packing
    )


def _sampler_check(
    job: OnlineJob | BestOfNJob, policy: Policy, learner: LocalLearner, generator: NativeGenerator, text: TextFormat
) -> SamplerCheck:  # fmt: skip
    exact = product_dtype(job.compute, learner.device) == torch.float32 and in_fp32(policy)
    name = str(bare(policy.lm).config.model_type)
    return SamplerCheck(generator, learner, name, text.pad_id, job.sampling, exact)


def _peak(learner: LocalLearner) -> Callable[[], float]:
    return partial(peak_gb, learner.device)


def _reward(
    sources: Reward | Sequence[RewardSource], where: str, *, tokenizer: Any, compute: ComputeSection,
    columns: Collection[str], backbone: Backbone | None = None,
) -> Reward:  # fmt: skip
    """A reward from what a job names or the Python API was given; a reward itself as it is."""
    if callable(sources):
        return sources
    return build_reward(sources, tokenizer, compute, where=where, columns=columns, backbone=backbone)


def _reward_notes(job: OnlineJob | BestOfNJob, reward: Given, gold: Given) -> tuple[str, ...]:
    return (*notes_of(reward or job.reward), *notes_of(gold or job.gold))


def build_learners(
    job: OnlineJob, policy: Policy, backbone: Backbone, tokenizer: Any
) -> tuple[LocalLearner, LocalLearner | None, tuple[str, ...]]:
    """Optimizers around the policy and its critic, if it has one; and what to know of their rates.

    Raises:
        ConfigError: the algorithm needs a critic and is no `ActorCritic`, or see `build_critic`.
    """
    algorithm: OnlineAlgorithm = job.algorithm
    compute = job.compute
    steps = job.iterations * algorithm.epochs * algorithm.minibatches
    adapters = job.lora.rank > 0
    optimizer, notes = rated(job.optimizer, "online", policy, adapters=adapters)
    if "values" not in algorithm.needs:
        return LocalLearner(policy, optimizer, compute, total_steps=steps), None, notes
    if not isinstance(algorithm, ActorCritic):
        raise ConfigError(
            f"{type(algorithm).__name__} needs values, but does not say how a critic learns them",
            where="[algorithm] type",
            cure="give it what plaudit.algorithms.protocol.ActorCritic lists: value_loss, phase, after, critic_lr ...",
        )
    of_critic = job.optimizer.model_copy(update={"lr": algorithm.critic_lr})
    if shares_trunk(algorithm):
        rate, more = rated(of_critic, "critic", policy, adapters=False, flag="critic_lr")
        return *_on_one_trunk(job.compute, policy, (optimizer, rate), steps), notes + more
    learner = LocalLearner(policy, optimizer, compute, total_steps=steps)
    longest = job.data.max_length
    critic = build_critic(algorithm.critic_init, job.reward, backbone, tokenizer, job.lora, compute, longest)
    rate, more = rated(of_critic, "critic", critic, adapters=adapters, flag="critic_lr")
    return learner, LocalLearner(critic, rate, compute, total_steps=steps, name="critic"), notes + more


def shares_trunk(algorithm: OnlineAlgorithm) -> bool:
    """Is the critic a head on the policy's trunk?"""
    return isinstance(algorithm, SharingTrunk) and algorithm.critic == "trunk"


def _on_one_trunk(
    compute: ComputeSection, policy: Policy, optimizers: tuple[OptimizerSection, OptimizerSection], steps: int
) -> tuple[LocalLearner, LocalLearner]:
    """Two learners whose parameters do not overlap: the head is the critic's, the trunk the policy's.

    A step of the policy is one pass whose loss reaches both, so the critic steps along as its partner, at its own rate.
    A step of the critic alone reads the trunk without a gradient: while the policy rests it must not move, and a value
    loss that reached the trunk would move it.
    """
    head = TrunkCritic(policy)
    of_policy, of_head = optimizers
    critic = LocalLearner(head, of_head, compute, total_steps=steps, name="critic")
    learner = LocalLearner(
        SharedTrunk(policy, head), of_policy, compute, total_steps=steps, partners={"critic": critic}
    )
    return learner, critic


def _critic_notes(job: OnlineJob) -> list[str]:
    """What a reader of the settings would not expect of the critic."""
    algorithm: OnlineAlgorithm = job.algorithm
    if "values" not in algorithm.needs or shares_trunk(algorithm) or not isinstance(algorithm, ActorCritic):
        return []
    if algorithm.critic_init != "reward" or any(isinstance(table, ModelTable) for table in job.reward):
        return []
    return [
        "no reward is a reward model, so the critic starts from the policy with a zero head, not from the reward"
    ]


def role_memory(roles: Mapping[str, Iterable[nn.Module]]) -> dict[str, float]:
    """``memory/<role>`` in GB: the tensors of each role, and for what is trained its gradient and moments.

    A tensor that several roles stand on counts once, for the first of them. Activations are not in it.

    Args:
        roles: the models of each role, the policy first.
    """
    seen: set[int] = set()
    return {
        f"memory/{role}": sum(_bytes(m, seen) for m in modules) / GIGABYTE for role, modules in roles.items()
    }


def _bytes(module: nn.Module, seen: set[int]) -> int:
    """Bytes of the tensors whose storage is not in ``seen``, to which they are added."""
    total = 0
    for tensor in (*module.parameters(), *module.buffers()):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in seen:
            seen.add(storage.data_ptr())
            total += storage.nbytes() * (TRAINED if tensor.requires_grad else 1)
    return total


def peak_gb(device: torch.device) -> float:
    """The most memory that was ever allocated on a GPU; on a CPU the most that the process had resident. GB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / GIGABYTE
    return _peak_resident() / GIGABYTE


def _peak_resident() -> int:
    """Bytes. What systems call it and count it in differs."""
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
