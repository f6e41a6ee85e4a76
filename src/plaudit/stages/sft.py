"""Stage 1: supervised fine-tuning on demonstrations."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from plaudit import backends
from plaudit.data.collate import collate_demonstrations
from plaudit.data.values import load_data
from plaudit.experience import Experience
from plaudit.jobs.sft import SFTJob
from plaudit.runs.directory import announce, finished
from plaudit.runs.files import HELDOUT, write_lines
from plaudit.runs.resume import Inputs
from plaudit.runtime import Learner, Scorer, TextFormat
from plaudit.stages.doctor.memory import check_memory
from plaudit.stages.doctor.template import tell_template
from plaudit.stages.encode import (
    Rows,
    demonstration_encoder,
    encode_rows,
    prompt_id,
    readable,
    split,
    tell_of,
)
from plaudit.stages.respond.samples import Sampler
from plaudit.stages.said import Said
from plaudit.stages.session import HowEnded, OnIteration, Session, open_session, ready
from plaudit.training.offline import OfflineLoop

EVALUATION_BATCH = 64


def run_sft(
    job: SFTJob,
    sources: Mapping[str, str] | None = None,
    *,
    records: Iterable[Any] | None = None,
    on_iteration: OnIteration | None = None,
) -> Path:
    """Train and save; returns the run directory.

    Args:
        records: demonstrations given as values instead of by name.

    Raises:
        ConfigError, DataError, ModelError: with the cure.
        Ended: the gradients were not finite; the model is saved.
        Stopped: on SIGTERM or Ctrl-C, after a checkpoint, with the model of that moment.
    """
    if done := finished(job):
        return done
    job = ready(job)
    said = Said()
    loaded = load_data(
        job.dataset, records, "dataset", "demonstration",
        limit=job.data.limit, fields=job.data.fields, max_gb=job.data.max_gb,
    )
    said.loaded(loaded)
    train, heldout = split(loaded.records, job.data, job.seed, loaded.source, said)
    check_memory(job, train, said)
    runtime = backends.open(job)
    said.note(runtime.notes)
    learner, text = runtime.learner, runtime.format
    tell_template(text, said)
    data, encoder = readable(text, job.data, said), demonstration_encoder(text.chat, job.algorithm.all_turns)
    rows, heldout_rows = (encode_rows(part, encoder, data, loaded.places, text.chat) for part in (train, heldout))
    counts = f"{len(rows)} to train, {len(heldout_rows)} held out"
    announce({"data": loaded.format, "rows": counts, "length": rows.report})
    tell_of(rows, f"{loaded.source}, to train", said)
    tell_of(heldout_rows, f"{loaded.source}, held out", said)
    said.note(text.chat.notes)

    steps = math.ceil(len(rows) / job.batch_size) * job.epochs
    learner.plan(steps)
    used = rows.records + heldout_rows.records
    with open_session(
        job, sources, total=steps, inputs=Inputs(used), said=said, on_iteration=on_iteration
    ) as session:
        shown = heldout or train
        sampler = Sampler(runtime, shown, job.log.samples, data, job.sampling, job.seed, session.recorder)
        _train(job, learner, (rows, heldout_rows), text, sampler, session)
    return session.run


def _train(
    job: SFTJob, learner: Learner, parts: tuple[Rows, Rows], text: TextFormat, sampler: Sampler, session: Session
) -> None:
    """Restore or start, train, and hand out the model; ``parts`` are the rows to train on and those held out."""
    rows, heldout_rows = parts
    session.keep({"policy": learner})
    # Before a checkpoint is restored, so that a resumed run has the same: by the model as it was loaded.
    before = heldout_losses(learner, heldout_rows, text.pad_id)
    start, _ = session.restore()
    if start == 0:
        sampler.show(0)

    def hand_out(ended: HowEnded) -> None:
        if ended != "interrupted":
            sampler.show(session.trained)
            after = heldout_losses(learner, heldout_rows, text.pad_id)
            steps = ((0, before), (session.trained, after))
            write_lines(session.run / HELDOUT, [{"step": step} | row for step, part in steps for row in part])
        session.recorder.summary({"train_rows": len(rows)})
        session.save(learner, text.tokenizer)

    collate = partial(collate_rows, rows, text.pad_id)
    loop = OfflineLoop(
        job.algorithm, learner, collate, len(rows), job.batch_size, job.epochs, job.seed, session.step, session.broken
    )
    with session.training(hand_out):
        loop.run(start)


def collate_rows(rows: Rows, pad_id: int, indices: Sequence[int]) -> Experience:
    """The demonstrations at ``indices`` as one batch."""
    return collate_demonstrations([rows.encoded[i][0] for i in indices], pad_id)


def heldout_losses(scorer: Scorer, rows: Rows, pad_id: int) -> list[dict[str, Any]]:
    """Of each held-out row the negative log-likelihood of its trained tokens, in nats, and how many they are."""
    found: list[dict[str, Any]] = []
    for first in range(0, len(rows), EVALUATION_BATCH):
        batch = collate_rows(rows, pad_id, range(first, min(first + EVALUATION_BATCH, len(rows))))
        sums = torch.where(batch.response_mask, scorer.read(batch, "logprobs")[0], 0.0).sum(-1).tolist()
        tokens = batch.response_mask.sum(-1).tolist()
        for record, logprob, count in zip(rows.records[first:], sums, tokens, strict=False):
            found.append({"id": record.id, "prompt_id": prompt_id(record), "loss": -logprob, "tokens": count})
    return found
