"""Learning from preferences, or thumbs, without a reward model: DPO and its family."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from plaudit.backends.local.learner import LocalLearner
from plaudit.backends.local.models import load_policy
from plaudit.config.algorithm import type_name
from plaudit.data.chat import ChatFormat, Encoded
from plaudit.data.load import load_records
from plaudit.errors import ConfigError, DataError
from plaudit.experience import Outputs
from plaudit.jobs.preference import DPOJob
from plaudit.records import Preference, Rating
from plaudit.runs.directory import announce, finished, open_run, set_threads
from plaudit.runs.files import Row, write_lines
from plaudit.runs.keeper import Keeper
from plaudit.runs.recorder import Recorder
from plaudit.stages.encode import encode_rows, preference_encoder, rating_encoder, split, within_positions
from plaudit.stages.preference.feedback import Feedback, chunks, prompt_id
from plaudit.stages.respond.samples import Sampler
from plaudit.training.offline import OfflineLoop

AUTO_EVALUATIONS = 4
FALLEN = 0.3
"""Nats per token by which chosen responses may become less likely before the run says so."""


Records = Sequence[Preference] | Sequence[Rating]


def run_dpo(job: DPOJob, sources: Mapping[str, str] | None = None, *, records: Records | None = None) -> Path:
    """Train, evaluate on held-out prompts, and save; returns the run directory.

    Args:
        records: preferences (or ratings) given as values instead of by name.

    Raises:
        ConfigError, DataError, ModelError: with the cure.
        Stopped: on SIGTERM or Ctrl-C, after a checkpoint.
    """
    if done := finished(job):
        return done
    set_threads(job.compute)
    algorithm: Any = job.algorithm
    _check(job)
    found, what = _records(job, records)
    train, heldout = split(found, job.data, job.seed, job.dataset)
    tokenizer, policy = load_policy(job.model, job.lora, job.compute, seed=job.seed)
    data = within_positions(policy.lm, job.data)
    chat = ChatFormat(tokenizer, job.data.chat_template)
    encoder: Callable[[Any], tuple[Encoded, ...]] = (
        rating_encoder(chat) if _kind(algorithm) == "rating" else preference_encoder(chat)
    )
    rows = encode_rows(train, encoder, data, job.dataset)
    heldout_rows = encode_rows(heldout, encoder, data, job.dataset)
    counts = f"{len(rows)} to train, {len(heldout_rows)} held out"
    announce({"data": what, "rows": counts, "length": rows.report} | _advice(algorithm, rows.records))

    steps = math.ceil(len(rows) / job.batch_size) * job.epochs
    learner = LocalLearner(policy, job.optimizer, job.compute, total_steps=steps)
    feedback, held = (
        Feedback(r, tokenizer.pad_token_id, learner, data.max_length) for r in (rows, heldout_rows)
    )
    seen = rows.records + heldout_rows.records
    with (
        open_run(job, sources, records=seen) as run,
        Recorder(run, command="dpo", log=job.log, total=steps) as recorder,
    ):
        sampler = Sampler(policy, tokenizer, chat, heldout or train, job, recorder)
        _train(job, learner, feedback, held, sampler, recorder)
        recorder.summary({"train_rows": len(rows), "algorithm": type_name(type(algorithm))})
        learner.export(run / "model", tokenizer)
        recorder.event("saved", path=str(run / "model"))
    return run


def _train(
    job: DPOJob,
    learner: LocalLearner,
    feedback: Feedback,
    held: Feedback,
    sampler: Sampler,
    recorder: Recorder,
) -> None:
    """Let the reference speak first, then restore or start, and train with evaluations and checkpoints."""
    algorithm: Any = job.algorithm
    keeper = Keeper(recorder.run_dir, job.checkpoint, {"policy": learner}, recorder)
    steps = math.ceil(len(feedback) / job.batch_size) * job.epochs
    every = max(1, steps // AUTO_EVALUATIONS) if job.evaluate_every == "auto" else job.evaluate_every

    def on_step(step: int, metrics: dict[str, float]) -> None:
        last = step == steps
        figures = heldout_figures(algorithm, learner, held) if last or (every and step % every == 0) else []
        recorder.metrics(step, metrics | _curves(figures))
        if last:
            finish(recorder, before, figures, steps)
        keeper.after(step, dict, last=last)

    loop = OfflineLoop(
        algorithm, learner, feedback.collate, len(feedback), job.batch_size, job.epochs, job.seed, on_step
    )
    feedback.precompute(algorithm.needs, loop.batches())
    held.precompute(algorithm.needs, chunks(len(held)))
    before = heldout_figures(algorithm, learner, held)  # by the reference: the same again when resumed
    start, _ = keeper.restore()
    if start == 0:
        recorder.metrics(0, _curves(before))
        sampler.show(0)
    with keeper.watch():
        loop.run(start)
    sampler.show(steps)


def heldout_figures(algorithm: Any, learner: LocalLearner, held: Feedback) -> list[Row]:
    """What the algorithm says of each held-out pair (or rated response): its loss, implicit rewards, log-probs."""
    found: list[Row] = []
    for indices in chunks(len(held)):
        batch = held.collate(indices)
        [logprobs] = learner.read(batch, "logprobs")
        a_unit = len(batch.tokens) // len(batch)
        for position, index in enumerate(indices):
            one = algorithm.weights(batch.select(torch.tensor([position])))
            seen = logprobs[position * a_unit : (position + 1) * a_unit, : one.tokens.shape[1]]
            loss = algorithm.loss(one, Outputs(logprobs=seen, entropy=torch.zeros_like(seen)))
            record = held.rows.records[index]
            figures = {name: float(value) for name, value in loss.metrics.items()}
            figures.pop("policy/entropy", None)
            lengths = {"length": int(one.response_mask[0].sum())}
            found.append({"id": record.id, "prompt_id": prompt_id(record)} | figures | lengths)
    return found


def finish(recorder: Recorder, before: Sequence[Row], after: Sequence[Row], steps: int) -> None:
    """Write the held-out figures of start and end; say so where chosen responses became much less likely."""
    rows = [{"step": step} | row for step, some in ((0, before), (steps, after)) for row in some]
    write_lines(recorder.run_dir / "preferences.jsonl", rows)
    fallen = _fallen(before, after)
    if fallen > FALLEN:
        recorder.event(
            "alarm",
            message=f"held-out chosen responses became less likely, by {fallen:.2f} nats per token: the policy "
            "moves away from both responses. Lower the learning rate, raise beta, or stop earlier",
        )


def _fallen(before: Sequence[Row], after: Sequence[Row]) -> float:
    """Nats per token by which the chosen (or liked) responses became less likely."""
    twos = [(old, new) for old, new in zip(before, after, strict=True) if "logps/chosen" in new]
    tokens = sum(new["length"] for _, new in twos)
    return sum(old["logps/chosen"] - new["logps/chosen"] for old, new in twos) / max(tokens, 1)


def _mean(rows: Sequence[Row], name: str) -> float | None:
    values = [row[name] for row in rows if name in row]
    return fmean(values) if values else None


def _curves(rows: Sequence[Row]) -> dict[str, float]:
    """Held-out means as metrics."""
    names = {
        "eval/loss": "loss", "eval/accuracy": "rewards/accuracies", "eval/margin": "rewards/margins",
        "eval/logp_chosen": "logps/chosen", "eval/logp_rejected": "logps/rejected",
    }  # fmt: skip
    means = {metric: _mean(rows, name) for metric, name in names.items()}
    return {metric: value for metric, value in means.items() if value is not None}


def _kind(algorithm: Any) -> str:
    """The kind of record an algorithm learns from; preferences for a user's own that does not say."""
    return str(getattr(algorithm, "learns_from", "preference"))


def _records(job: DPOJob, given: Records | None) -> tuple[list[Any], str]:
    """The records to learn from, and what they are. Ratings that say nothing are left out."""
    algorithm: Any = job.algorithm
    kind = _kind(algorithm)
    if given is not None:
        found, what = list(given), f"{len(given)} records"
    else:
        loaded = load_records(
            job.dataset, "rating" if kind == "rating" else "preference", limit=job.data.limit
        )
        found, what = list(loaded.records), loaded.format
    if kind != "rating":
        return found, what
    kept = [r for r in found if isinstance(r, Rating) and not algorithm.is_tie(r.reward)]
    ratings = [r.reward for r in kept]
    if len({algorithm.is_good(rating) for rating in ratings}) < 2:
        lowest, highest = min(ratings, default=0.0), max(ratings, default=0.0)
        raise DataError(
            f"all {len(kept)} responses are on one side of the rating that divides them: "
            f"they go from {lowest:g} to {highest:g}",
            where=job.dataset,
            cure=f"set --good-above between them, e.g. {(lowest + highest) / 2:g}, or give responses of both sides",
        )
    left_out = (
        f", {len(found) - len(kept)} rated in the middle and left out" if len(kept) < len(found) else ""
    )
    return kept, what + left_out


def _advice(algorithm: Any, records: Sequence[Any]) -> dict[str, str]:
    """What the algorithm has to say of the data before it learns from them."""
    if _kind(algorithm) != "rating":
        return {}
    return {"thumbs": algorithm.advice([record.reward for record in records])}


def _check(job: DPOJob) -> None:
    if "mismatched_kl" in job.algorithm.needs and job.batch_size < 2:
        raise ConfigError(
            "with one response per step there is no other prompt's response to measure the KL on",
            where="batch_size",
            cure="set --batch-size to 2 or more; 32 is usual",
        )
