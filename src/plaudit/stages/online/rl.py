"""Stage 3: reinforcement learning of the policy against a reward."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from plaudit.algorithms.protocol import ActorCritic, Cautious, EntropyBonus, OnlineAlgorithm, Rehearsing
from plaudit.backends.local.backbone import Backbone
from plaudit.backends.local.learner import LocalScorer
from plaudit.backends.local.learners import Learners, build_learners, critic_notes
from plaudit.backends.local.memory import peak_gb, role_memory
from plaudit.backends.local.models import load_backbone, load_policy, load_reference
from plaudit.backends.local.precision import product_dtype, resolve_device
from plaudit.backends.local.rewards import build_reward
from plaudit.config.sections import ComputeSection
from plaudit.data.chat import ChatFormat
from plaudit.data.split import split_by_prompt
from plaudit.errors import ConfigError, TrainingError
from plaudit.evaluation.alarms.sampler import SamplerWatch
from plaudit.generation.native import NativeGenerator
from plaudit.jobs.online import OnlineJob
from plaudit.jobs.registry import command_of
from plaudit.models.exact_kl import ExactKL
from plaudit.models.forward.trunk import position_limit
from plaudit.models.policy import Policy
from plaudit.records import Prompt, Rollout
from plaudit.rewards.build import RewardSource
from plaudit.rollouts.environment import Environment
from plaudit.rollouts.turns import TurnGenerator, load_environment
from plaudit.runs.directory import announce, finished, open_run, set_threads
from plaudit.runs.keeper import Keeper
from plaudit.runs.recorder import Recorder
from plaudit.runtime import Generator, Reward, Runtime, TokenPrompt
from plaudit.stages.encode import within_positions
from plaudit.stages.online.evaluation import Evaluator
from plaudit.stages.online.prompts import PromptReader, load_prompts
from plaudit.stages.texts import load_texts
from plaudit.training.offline import TextStream
from plaudit.training.online import OnlineLoop

Given = Reward | Sequence[RewardSource] | None


def run_rl(
    job: OnlineJob,
    sources: Mapping[str, str] | None = None,
    *,
    reward: Given = None,
    prompts: Sequence[Prompt] | None = None,
    gold: Given = None,
    environment: Environment | None = None,
) -> Path:
    """Train and save; returns the run directory.

    Args:
        reward, prompts, gold, environment: given as values instead of by name (the Python API and the quickstart do);
            a reward or gold may be several tables and functions.

    Raises:
        ConfigError, DataError, ModelError, RewardError: with the cure.
        TrainingError: the KL limit was exceeded, or the gradients were not finite.
        Stopped: on SIGTERM or Ctrl-C, after a checkpoint.
    """
    if done := finished(job):
        return done
    set_threads(job.compute)
    _check_sizes(job)  # all that can fail does so before a file is written
    job, notes = _with_time_to_learn(job)
    parts = _build(job, load_prompts(job.dataset, job.data.limit, prompts), reward, gold, environment)
    announce(
        {"prompts": f"{len(parts.train)} to train, {len(parts.heldout)} held out", "length": parts.report}
    )
    notes += [*parts.notes, *cautions_of(job.algorithm), *job.sampling.cautions]
    if notes:
        announce({f"note {number}": note for number, note in enumerate(notes, 1)})
    command = command_of(type(job)).name
    records = [prompt.prompt for prompt in (*parts.train, *parts.heldout)]
    with (
        open_run(job, sources, records=records) as run,
        Recorder(run, command=command, log=job.log, total=job.iterations, unit="iteration") as recorder,
    ):
        for note in notes:
            recorder.event("note", what=note)
        recorder.event("memory", **parts.memory)
        recorder.summary(parts.memory)
        evaluator = Evaluator(run, parts.runtime, parts.heldout, job, parts.chat, recorder)
        keeper = Keeper(run, job.checkpoint, parts.learners.named, recorder, evaluator.weights)
        _train(job, parts, recorder, evaluator, keeper)
        runtime = parts.runtime
        runtime.policy.export(run / "model", parts.tokenizer)
        if runtime.critic and runtime.shared_trunk:  # its head is of use only beside this policy
            runtime.critic.export(run / "critic", parts.tokenizer)
        recorder.event("saved", path=str(run / "model"))
    return run


@dataclass(frozen=True, slots=True)
class Parts:
    """What a run is made of."""

    tokenizer: Any
    chat: ChatFormat
    policy: Policy
    runtime: Runtime
    learners: Learners
    train: list[TokenPrompt]
    heldout: list[TokenPrompt]
    report: str
    """What became of prompts that were too long."""
    notes: list[str] = field(default_factory=list)
    """What is done otherwise than a reader of the settings would think, in words."""
    texts: TextStream | None = None
    memory: dict[str, float] = field(default_factory=dict)
    """GB that each role has to itself."""


def _build(
    job: OnlineJob, records: Sequence[Prompt], reward: Given, gold: Given, environment: Environment | None
) -> Parts:
    """Load models and rewards and put them together."""
    algorithm, compute = job.algorithm, job.compute
    tokenizer, policy = load_policy(
        job.policy, job.lora, compute, seed=job.seed, temperature=job.sampling.temperature,
        entropy_grad=isinstance(algorithm, EntropyBonus) and algorithm.entropy_coef > 0,
    )  # fmt: skip
    chat = ChatFormat(tokenizer, job.data.chat_template)
    fitting = job.model_copy(update={"data": within_positions(position_limit(policy.lm), job.data)})
    train, heldout, report = _tokenise(fitting, records, chat)
    backbone, golden = load_backbone(policy, compute), load_backbone(policy, compute)
    columns = columns_of(records)
    judge = open_reward(reward or job.reward, tokenizer, compute, "reward", columns, backbone)
    named_gold = gold or job.gold
    second = open_reward(named_gold, tokenizer, compute, "gold", columns, golden) if named_gold else None
    frozen = load_reference(policy)
    reference = LocalScorer(frozen, compute)
    learners = build_learners(job, policy, backbone, tokenizer)
    # What samples is what is trained, in the same precision.
    precision = product_dtype(compute, learners.policy.device)
    generator: Generator = NativeGenerator(
        policy.lm, tokenizer, chat.end_ids, precision=precision, cuda_graphs=compute.cuda_graphs
    )
    replying = environment or (load_environment(job.environment) if job.environment else None)
    if replying:  # in training and in evaluation alike, since both sample with this generator
        generator = TurnGenerator(generator, replying, chat, fitting.data.max_length)
    exact = LocalScorer(ExactKL(policy, frozen), compute) if "full_kl" in algorithm.needs else None
    critic = learners.critic
    runtime = Runtime(
        generator, learners.policy, reference, judge, critic, second, exact, learners.shared_trunk
    )
    notes = [*backbone.notes, *golden.notes, *critic_notes(job)]
    roles: dict[str, Iterable[nn.Module]] = {"policy": [policy], "reference": [frozen]}
    roles |= {"critic": [critic.module] if critic else [], "reward": backbone.loaded, "gold": golden.loaded}
    memory = role_memory(roles)
    source = algorithm.ptx_dataset if isinstance(algorithm, Rehearsing) else ""
    texts = load_texts(source, job, tokenizer, chat)
    return Parts(tokenizer, chat, policy, runtime, learners, train, heldout, report, notes, texts, memory)


def open_reward(
    sources: Reward | Sequence[RewardSource], tokenizer: Any, compute: ComputeSection, where: str,
    columns: Collection[str], backbone: Backbone | None = None,
) -> Reward:  # fmt: skip
    """A reward from what a job names or the Python API was given; a reward itself as it is."""
    if callable(sources):
        return sources
    return build_reward(sources, tokenizer, compute, where=where, columns=columns, backbone=backbone)


def columns_of(records: Sequence[Prompt]) -> set[str]:
    """The names of the further columns that any row of the data has."""
    return {name for prompt in records for name in prompt.columns}


def _train(job: OnlineJob, parts: Parts, recorder: Recorder, evaluator: Evaluator, keeper: Keeper) -> None:
    """Restore or start, run the loop with evaluations and checkpoints, and end with the weights that are kept."""
    watch = SamplerWatch()

    def on_iteration(iteration: int, metrics: dict[str, float], rollouts: Sequence[Rollout]) -> None:
        metrics |= evaluator.after(iteration)
        metrics["memory/peak"] = peak_gb(resolve_device(job.compute.device))
        recorder.metrics(iteration, metrics)
        for alarm in watch.look(metrics):
            recorder.event("alarm", step=iteration, kind=alarm.kind, message=alarm.message)
        try:
            _check_kl(job, metrics, iteration)
        except TrainingError:
            keeper.save(iteration, state())
            raise
        keeper.after(iteration, state, last=iteration == job.iterations)

    def state() -> dict[str, Any]:
        return {"loop": loop.state(), "evaluation": evaluator.state()}

    loop = OnlineLoop(
        job.algorithm, parts.runtime, parts.train, job.sampling, job.prompts_per_iteration,
        parts.tokenizer.pad_token_id, job.seed, on_iteration, texts=parts.texts, mismatch=job.mismatch,
    )  # fmt: skip
    start, found = keeper.restore()
    # Now and not in the loop alone: the policy may have other weights than it was built with, and the evaluation of the
    # start draws responses before the loop does.
    loop.publish(start)
    if start:
        loop.resume(found["loop"])
        evaluator.resume(found["evaluation"])
    else:
        evaluator.before()
    with keeper.watch():
        loop.run(job.iterations, start)
    evaluator.finish()


def _tokenise(
    job: OnlineJob, records: Sequence[Prompt], chat: ChatFormat
) -> tuple[list[TokenPrompt], list[TokenPrompt], str]:
    """Training and held-out prompts as tokens; a prompt too long for a response after it is handled as configured."""
    reader = PromptReader(job, job.sampling, chat, job.dataset)
    train, heldout = split_by_prompt(records, max(job.data.eval_fraction, 1e-9), job.seed)
    tokenised = reader.tokenise(train), reader.tokenise(heldout[: job.eval_prompts])
    if not tokenised[0] or not tokenised[1]:
        raise reader.nothing_left()
    return *tokenised, reader.report


def _check_sizes(job: OnlineJob) -> None:
    """No minibatch is empty, and the filter of mismatched responses is one."""
    rollouts = job.prompts_per_iteration * job.algorithm.group_size
    if job.algorithm.minibatches > rollouts:
        raise ConfigError(
            f"{job.algorithm.minibatches} minibatches of {rollouts} responses: some would be empty",
            where="[algorithm] minibatches",
            cure="lower --minibatches, or raise --prompts-per-iteration",
        )
    if 0 < job.mismatch.drop_beyond <= 1:
        raise ConfigError(
            f"drop_beyond is a ratio above 1, found {job.mismatch.drop_beyond:g}",
            where="[mismatch] drop_beyond",
            cure="1.01 is strict, 2 is loose, 0 switches it off",
        )


def _with_time_to_learn(job: OnlineJob) -> tuple[OnlineJob, list[str]]:
    """The job with a warm-up of the critic that leaves iterations for the policy; what was changed, in words."""
    algorithm: OnlineAlgorithm = job.algorithm
    if "values" not in algorithm.needs or not isinstance(algorithm, ActorCritic):
        return job, []
    warmup = algorithm.critic_warmup
    if not warmup or job.iterations > warmup:
        return job, []
    shorter = job.iterations // 3
    said = f"critic_warmup {warmup} would take all {job.iterations} iterations: shortened to {shorter}"
    return job.model_copy(update={"algorithm": replace(job.algorithm, critic_warmup=shorter)}), [said]


def cautions_of(algorithm: OnlineAlgorithm) -> tuple[str, ...]:
    """What an algorithm says of its settings, where it says something."""
    return algorithm.cautions if isinstance(algorithm, Cautious) else ()


def _check_kl(job: OnlineJob, metrics: Mapping[str, float], iteration: int) -> None:
    kl = metrics.get("objective/kl", 0.0)
    if job.kl_limit and kl > job.kl_limit:
        raise TrainingError(
            f"the KL to the reference is {kl:.1f} nats per response, over the limit of {job.kl_limit:g}",
            where=f"iteration {iteration}",
            cure="start again with a higher --kl-coef or a lower --lr; "
            "or go on from the checkpoint that was saved now: --kl-limit N --resume",
        )
