"""The examination of a job whose policy learns from its own responses, or only gives the best of them."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from plaudit import backends
from plaudit.algorithms.protocol import ActorCritic, OnlineAlgorithm
from plaudit.data.chat import Encoded
from plaudit.data.load import as_kind, load_records
from plaudit.errors import PlauditError
from plaudit.jobs.best_of_n import BestOfNJob
from plaudit.jobs.online import OnlineJob
from plaudit.records import Preference, Rollout
from plaudit.rollouts.collect import scored
from plaudit.runtime import OnlineRuntime, TokenPrompt
from plaudit.stages.best_of_n.parts import open_sampling
from plaudit.stages.doctor.memory import examine_memory
from plaudit.stages.doctor.part import Part
from plaudit.stages.doctor.rewards import examine_reward, rollouts_of
from plaudit.stages.doctor.steps import Enough, Stopwatch, speed
from plaudit.stages.doctor.template import Example, examine_template, sampled_lines
from plaudit.stages.encode import readable
from plaudit.stages.online.evaluation import JUDGED, WATCHED, interval
from plaudit.stages.online.gate import notes_on_rewards
from plaudit.stages.online.prompts import columns_of, load_prompts
from plaudit.stages.online.rl import (
    cautions_of,
    check_sizes,
    rehearsed_texts,
    tokenise_prompts,
    with_environment,
)
from plaudit.stages.said import Said
from plaudit.training.online import OnlineLoop

PROMPTS, PAIRS = 16, 48
"""Prompts that are answered, and pairs of the data that are scored, to look at a reward."""
TRIED = 8
"""Prompts of an iteration that is tried, at most."""
DRAW = -2
"""The "iteration" of the responses here: their random numbers are used nowhere else in a run."""


@dataclass(frozen=True, slots=True)
class _Opened:
    """A job with its models and its prompts."""

    runtime: OnlineRuntime
    prompts: Sequence[TokenPrompt]
    heldout: int
    notes: Sequence[str]


def examine_online(job: OnlineJob) -> Iterator[Part]:
    """Memory, template, rewards, speed; each as soon as it is known.

    Raises:
        ConfigError, DataError, ModelError, RewardError, MachineError: as the run itself would.
    """
    check_sizes(job)
    said = Said(quiet=True)
    records, places = load_prompts(job.dataset, job.data, None, said)
    yield from examine_memory(job, records)
    opened = backends.open(job, reward=None, gold=None, columns=columns_of(records))
    rows = tokenise_prompts(job, readable(opened.format, job.data, said), records, places, opened.format)
    rows.reader.tell(said)
    machines = with_environment(job, job.data, opened, None)
    said.note([*notes_on_rewards(job), *opened.notes, *cautions_of(job), *job.sampling.cautions])
    said.note(opened.check(rows.train))
    parts = _Opened(replace(opened, machines=machines), rows.train, len(rows.heldout), said.messages)
    yield from _answers(job, parts)
    yield _steps(job, parts)


def examine_best_of_n(job: BestOfNJob) -> Iterator[Part]:
    """As `examine_online`."""
    said = Said(quiet=True)
    records, places = load_prompts(job.dataset, job.data, None, said, least=2 if job.rounds else 1)
    yield from examine_memory(job, records)
    opened, reader = open_sampling(job, records, places, said, reward=None, gold=None)
    prompts = reader.tokenise(records)
    if not prompts:
        raise reader.nothing_left("answer")
    reader.tell(said)
    said.note([*notes_on_rewards(job), *opened.notes, *job.sampling.cautions])
    parts = _Opened(opened, prompts, 0, said.messages)
    yield from _answers(job, parts)
    yield _rounds(job, parts)


def _answers(job: OnlineJob | BestOfNJob, opened: _Opened) -> Iterator[Part]:
    """The template with a real response, and what the rewards make of some."""
    text, machines = opened.runtime.format, opened.runtime.machines
    machines.generator.publish(machines.policy.weights(), 0)
    prompts = opened.prompts[:PROMPTS]
    size = max(2, min(job.algorithm.group_size, 4))
    rollouts = machines.generator.generate(prompts, size, job.sampling, seed=job.seed, iteration=DRAW)
    examples = [_example(prompt) for prompt in opened.prompts[: 4 * PROMPTS]]
    yield _with_responses(examine_template(text, examples, trained=False), opened, rollouts, job)
    pairs = rollouts_of(_pairs(job), text.chat, text.positions or job.data.max_length)
    yield examine_reward(machines.reward, rollouts, pairs, text.chat)
    if machines.gold is not None:
        yield examine_reward(machines.gold, rollouts, pairs, text.chat, "gold")


def _example(prompt: TokenPrompt) -> Example:
    ids = list(prompt.ids)
    return Example(prompt.prompt.content, Encoded(ids, [False] * len(ids), len(ids)))


def _with_responses(
    part: Part, opened: _Opened, rollouts: Sequence[Rollout], job: OnlineJob | BestOfNJob
) -> Part:
    """The template's part with what the policy really wrote, and how it ended."""
    chat, stopped = opened.runtime.format.chat, sum(r.finish_reason == "stop" for r in rollouts)
    first = rollouts[0]
    lines = [*part.lines, *sampled_lines(chat, first.response_ids, first.finish_reason)]
    lines.append(f"{'':<12}{stopped} of {len(rollouts)} responses stopped by themselves")
    warnings = list(part.warnings)
    if not stopped:
        warnings.append(
            f"none of {len(rollouts)} responses ended by itself within max_new_tokens {job.sampling.max_new_tokens}: "
            "raise --max-new-tokens, or start from a model that was fine-tuned to end (`plaudit sft`)"
        )
    figures = part.figures | {"responses": len(rollouts), "stopped": stopped}
    return Part(part.name, figures, lines, warnings, opened.notes)


def _pairs(job: OnlineJob | BestOfNJob) -> list[Preference]:
    """Comparisons, where the file of the prompts holds some."""
    try:
        loaded = load_records(job.dataset, limit=job.data.limit, fields=job.data.fields, max_gb=job.data.max_gb)
        if loaded.kind not in ("preference", "ranking", "judgement"):
            return []
        records = as_kind(loaded, "preference").records
    except PlauditError:  # prompts are all that is needed of it
        return []
    pairs = [record for record in records if isinstance(record, Preference)]
    return pairs[:: max(1, len(pairs) // PAIRS)][:PAIRS]


def _steps(job: OnlineJob, opened: _Opened) -> Part:
    """A few iterations with fewer prompts, and what the whole run will take."""
    tried = min(job.prompts_per_iteration, TRIED)
    algorithm = _at_once(job.algorithm, tried)
    watch = Stopwatch()

    def after(iteration: int, metrics: Mapping[str, float], rollouts: Sequence[Rollout]) -> None:
        tokens = sum(len(r.response_ids) for r in rollouts)
        seconds = sum(value for name, value in metrics.items() if name.startswith("time/"))
        passes = algorithm.epochs * sum(len(r.tokens) for r in rollouts)
        watch.lap(
            {
                "seconds": seconds,
                "sampled": tokens,
                "sampling": metrics["time/generate"],
                "trained": passes,
                "training": metrics.get("time/update", 0.0),
            }
        )

    loop = OnlineLoop(
        algorithm, opened.runtime.machines, opened.prompts, job.sampling, tried, opened.runtime.format.pad_id,
        job.seed, after, texts=rehearsed_texts(job, opened.runtime.format, Said(quiet=True)), mismatch=job.mismatch,
    )  # fmt: skip
    loop.publish(0)
    began = time.perf_counter()
    with contextlib.suppress(Enough):
        loop.run(watch.most)
    assert watch.steps, f"an iteration took {time.perf_counter() - began:.0f} s"
    responses = _evaluated(job, opened.heldout)
    last = watch.steps[-1]
    each = (last["seconds"] - last["training"]) / (tried * algorithm.group_size)
    scale = job.prompts_per_iteration / tried
    notes = [f"tried with {tried} of {job.prompts_per_iteration} prompts an iteration"] if scale > 1 else []
    if not any(step["training"] for step in watch.steps):
        notes.append("no step was taken in them: nothing was left to learn from")
    return speed(
        watch.steps, job.iterations, "iteration", scale=scale, evaluation=responses * each, notes=notes
    )


def _at_once(algorithm: OnlineAlgorithm, prompts: int) -> OnlineAlgorithm:
    """The algorithm for few prompts, with a policy that learns from the first iteration on."""
    changes: dict[str, Any] = {}
    rows = prompts * algorithm.group_size
    if algorithm.minibatches > rows:
        changes["minibatches"] = rows
    if isinstance(algorithm, ActorCritic) and "values" in algorithm.needs and algorithm.critic_warmup:
        changes["critic_warmup"] = 0
    # A cast, because a protocol cannot say that what fulfils it is a dataclass.
    changed: OnlineAlgorithm = replace(cast("Any", algorithm), **changes)
    return changed


def _evaluated(job: OnlineJob, heldout: int) -> int:
    """Responses that the evaluations of a run sample."""
    selection = math.ceil(heldout / 2)
    judged, watched = 2 * JUDGED * (heldout - selection), WATCHED * selection
    learned = job.iterations * job.responses_per_iteration
    auto = interval(job.iterations, learned, max(watched, 1), judged)
    every = auto if job.eval_every == "auto" else job.eval_every
    return judged + watched * (1 + math.ceil(job.iterations / every) if every else 2)


def _rounds(job: BestOfNJob, opened: _Opened) -> Part:
    """Sampling and scoring of a few prompts, and of all."""
    machines, watch = opened.runtime.machines, Stopwatch()
    n = job.algorithm.group_size + 1
    for attempt in range(watch.most):
        some = opened.prompts[attempt * TRIED : (attempt + 1) * TRIED] or opened.prompts[:TRIED]
        began = time.perf_counter()
        rollouts = machines.generator.generate(some, n, job.sampling, seed=job.seed, iteration=DRAW - attempt)
        sampling = time.perf_counter() - began
        scored(machines.reward, rollouts)
        seconds = (time.perf_counter() - began) / len(some)
        tokens = sum(len(r.response_ids) for r in rollouts)
        try:
            watch.lap({"seconds": seconds, "sampled": tokens, "sampling": sampling})
        except Enough:
            break
    total = len(opened.prompts)
    notes = []
    if job.rounds:
        total = job.rounds * min(job.prompts_per_iteration or total, total)
        notes = ["fine-tuning on the best and evaluations come on top"]
    return speed(watch.steps, total, "prompt", notes=notes)
