"""The examination of a job that learns from a fixed data set: SFT, reward models, and the DPO family."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, cast

from plaudit import backends
from plaudit.algorithms.protocol import OfflineAlgorithm
from plaudit.data.values import load_data
from plaudit.experience import Batch
from plaudit.jobs.preference import DPOJob
from plaudit.jobs.reward import RewardJob
from plaudit.jobs.sft import SFTJob
from plaudit.runtime import Learner, TextFormat
from plaudit.stages.doctor.memory import examine_memory
from plaudit.stages.doctor.part import Part
from plaudit.stages.doctor.steps import Enough, Stopwatch, speed
from plaudit.stages.doctor.template import Example, examine_template
from plaudit.stages.encode import Rows, demonstration_encoder, encode_rows, readable, split, tell_of
from plaudit.stages.preference.dpo import check_batches, feedback_encoder, read_feedback
from plaudit.stages.preference.feedback import Feedback
from plaudit.stages.reward.data import Collator, Scale, source_of
from plaudit.stages.reward.train import prepare, read_scored
from plaudit.stages.said import Said
from plaudit.stages.sft import collate_rows
from plaudit.training.offline import OfflineLoop

SHOWN = 64
"""Rows that are looked at."""
Job = SFTJob | RewardJob | DPOJob


def examine_sft(job: SFTJob) -> Iterator[Part]:
    """Memory, template, speed; each as soon as it is known.

    Raises:
        ConfigError, DataError, ModelError, MachineError: as the run itself would.
    """
    said = Said(quiet=True)
    loaded = load_data(
        job.dataset, None, "dataset", "demonstration",
        limit=job.data.limit, fields=job.data.fields, max_gb=job.data.max_gb,
    )
    said.loaded(loaded)
    train, _ = split(loaded.records, job.data, job.seed, loaded.source, said)
    yield from examine_memory(job, train)
    runtime = backends.open(job)
    text = runtime.format
    said.note(runtime.notes)
    encoder = demonstration_encoder(text.chat, job.algorithm.all_turns)
    rows = encode_rows(train, encoder, readable(text, job.data, said), loaded.places, text.chat)
    yield _template(text, rows, loaded.source, said)
    yield _steps(job, runtime.learner, partial(collate_rows, rows, text.pad_id), len(rows))


def examine_dpo(job: DPOJob) -> Iterator[Part]:
    """As `examine_sft`."""
    check_batches(job)
    said = Said(quiet=True)
    algorithm, loaded, rated = read_feedback(job, None, said)
    train, _ = split(rated, job.data, job.seed, loaded.source, said)
    yield from examine_memory(job, train)
    runtime = backends.open(job)
    learner, text = runtime.learner, runtime.format
    said.note(runtime.notes)
    data = readable(text, job.data, said)
    rows = encode_rows(train, feedback_encoder(text.chat, train), data, loaded.places, text.chat)
    yield _template(text, rows, loaded.source, said)
    # The reference scores all rows before the first step: here only those that are tried, so that it takes seconds.
    most = Stopwatch().most * job.batch_size
    some = Rows(rows.records[:most], rows.encoded[:most], rows.report)
    feedback = Feedback(some, text.pad_id, learner, data.max_length)
    trial = job.model_copy(update={"epochs": 1})
    yield _steps(
        trial, learner, feedback.collate, len(some), of=len(rows) * job.epochs,
        before=partial(feedback.precompute, algorithm.needs),
        notes=["the reference's pass over all rows, and evaluations, come on top"],
    )  # fmt: skip


def examine_reward_model(job: RewardJob) -> Iterator[Part]:
    """As `examine_sft`."""
    said = Said(quiet=True)
    loaded = read_scored(job, None)
    source = source_of(loaded, job.algorithm, Said(quiet=True), min_agreement=job.min_agreement, ties=job.ties)
    train, _ = split(source.records, job.data, job.seed, loaded.source, Said(quiet=True))
    yield from examine_memory(job, train)
    parts = prepare(job, loaded, said)
    text, attributes = parts.runtime.format, job.algorithm.attributes
    yield _template(text, parts.train, loaded.source, said)
    rated = job.algorithm.ratings == "regression"
    scale = Scale.fit(parts.train.records, attributes) if rated else Scale()
    collate = Collator(parts.train, text.pad_id, attributes, scale)
    notes = [f"for one of {job.members} members"] if job.members > 1 else []
    yield _steps(job, parts.runtime.learner, collate, len(parts.train), notes=notes)


def _template(text: TextFormat, rows: Rows, source: str, said: Said) -> Part:
    """The proof of the template on some rows, with all that was said of the data and the model."""
    tell_of(rows, source, said)
    said.note(text.chat.notes)
    examples = [
        Example(getattr(record, "prompt", ""), row)
        for record, unit in zip(rows.records[:SHOWN], rows.encoded, strict=False)
        for row in unit
    ]
    part = examine_template(text, examples, trained=not text.is_encoder)
    return replace(part, notes=said.messages)


def _steps(
    job: Job, learner: Learner, collate: Callable[[Sequence[int]], Any], rows: int, *, of: int = 0,
    notes: Sequence[str] = (), before: Callable[[Iterable[Sequence[int]]], None] | None = None,
) -> Part:  # fmt: skip
    """A few optimizer steps, and what all of them will take.

    Args:
        rows: that can be collated.
        of: rows of the whole run, all epochs together; 0: ``rows`` times the epochs.
        before: told the rows of every step before the first one.
    """
    watch = Stopwatch()

    def on_step(step: int, metrics: dict[str, float]) -> None:
        seconds = metrics["time/update"]
        tokens = metrics["throughput/tokens_per_second"] * seconds
        watch.lap({"seconds": seconds, "trained": tokens, "training": seconds})

    algorithm = cast("OfflineAlgorithm[Batch]", job.algorithm)
    loop = OfflineLoop(algorithm, learner, collate, rows, job.batch_size, job.epochs, job.seed, on_step)
    learner.plan(loop.total_steps)
    if before is not None:
        before(loop.batches())
    with contextlib.suppress(Enough):
        loop.run()
    total = math.ceil(of / job.batch_size) if of else loop.total_steps
    return speed(watch.steps, total, "step", notes=notes)


