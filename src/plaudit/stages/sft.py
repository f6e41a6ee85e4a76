"""Stage 1: supervised fine-tuning on demonstrations."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import torch

from plaudit.backends.local.learner import LocalLearner
from plaudit.backends.local.models import load_policy
from plaudit.data.chat import ChatFormat
from plaudit.data.collate import collate_demonstrations
from plaudit.data.load import load_records
from plaudit.experience import Batch
from plaudit.jobs.sft import SFTJob
from plaudit.runs.directory import announce, finished, open_run, set_threads
from plaudit.runs.keeper import Keeper
from plaudit.runs.recorder import Recorder
from plaudit.stages.encode import Rows, demonstration_encoder, encode_rows, split, within_positions
from plaudit.stages.respond.samples import Sampler
from plaudit.training.offline import OfflineLoop

EVALUATION_BATCH = 64


def run_sft(job: SFTJob, sources: Mapping[str, str] | None = None) -> Path:
    """Train and save; returns the run directory.

    Raises:
        ConfigError, DataError, ModelError: with the cure.
        Stopped: on SIGTERM or Ctrl-C, after a checkpoint.
    """
    if done := finished(job):
        return done
    set_threads(job.compute)
    loaded = load_records(job.dataset, "demonstration", limit=job.data.limit)
    train, heldout = split(loaded.records, job.data, job.seed, job.dataset)
    tokenizer, policy = load_policy(job.model, job.lora, job.compute, seed=job.seed)
    chat = ChatFormat(tokenizer, job.data.chat_template)
    encoder = demonstration_encoder(chat, job.algorithm.all_turns)
    data = within_positions(policy.lm, job.data)
    rows = encode_rows(train, encoder, data, job.dataset)
    heldout_rows = encode_rows(heldout, encoder, data, job.dataset)
    announce(
        {
            "data": loaded.format,
            "rows": f"{len(rows)} to train, {len(heldout_rows)} held out",
            "length": rows.report,
        }
    )

    collate = partial(collate_rows, rows, tokenizer.pad_token_id)
    steps = math.ceil(len(rows) / job.batch_size) * job.epochs
    learner = LocalLearner(policy, job.optimizer, job.compute, total_steps=steps)
    records = rows.records + heldout_rows.records
    with (
        open_run(job, sources, records=records) as run,
        Recorder(run, command="sft", log=job.log, total=steps) as recorder,
    ):
        keeper = Keeper(run, job.checkpoint, {"policy": learner}, recorder)
        sampler = Sampler(
            policy, tokenizer, chat, heldout or train, job.model_copy(update={"data": data}), recorder
        )
        start, _ = keeper.restore()
        if start == 0:
            sampler.show(0)

        def on_step(step: int, metrics: dict[str, float]) -> None:
            recorder.metrics(step, metrics)
            keeper.after(step, dict, last=step == steps)

        with keeper.watch():
            OfflineLoop(
                job.algorithm, learner, collate, len(rows), job.batch_size, job.epochs, job.seed, on_step
            ).run(start)
        sampler.show(steps)
        recorder.summary(
            {"train_rows": len(rows)} | heldout_loss(learner, heldout_rows, tokenizer.pad_token_id)
        )
        learner.export(run / "model", tokenizer)
        recorder.event("saved", path=str(run / "model"))
    return run


def collate_rows(rows: Rows, pad_id: int, indices: Sequence[int]) -> Batch:
    """The demonstrations at ``indices`` as one batch."""
    return collate_demonstrations([rows.encoded[i][0] for i in indices], pad_id)


def heldout_loss(learner: LocalLearner, rows: Rows, pad_id: int) -> dict[str, float]:
    """Mean negative log-likelihood per trained token of held-out rows, in nats, and the perplexity."""
    total, count = 0.0, 0
    for first in range(0, len(rows), EVALUATION_BATCH):
        batch = collate_rows(rows, pad_id, range(first, min(first + EVALUATION_BATCH, len(rows))))
        total -= float(torch.where(batch.response_mask, learner.read(batch, "logprobs")[0], 0.0).sum())
        count += int(batch.response_mask.sum())
    if count == 0:
        return {}
    return {"heldout_loss": total / count, "perplexity": math.exp(total / count), "heldout_rows": len(rows)}
