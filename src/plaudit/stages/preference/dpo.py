"""Learning from preferences, or thumbs, without a reward model: DPO and its family."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, Literal, cast

import torch

from plaudit import backends
from plaudit.algorithms.protocol import OfflineAlgorithm, PreferenceAlgorithm, RatingAlgorithm
from plaudit.config.algorithm import name_of
from plaudit.data.chat import ChatFormat, Encoded
from plaudit.data.load import Loaded
from plaudit.data.reading.transcripts import prompt_key
from plaudit.data.values import load_data
from plaudit.errors import ConfigError, DataError
from plaudit.experience import Batch, Outputs
from plaudit.jobs.preference import DPOJob
from plaudit.records import Rating
from plaudit.runs.directory import announce, finished
from plaudit.runs.files import Row, write_lines
from plaudit.runs.recorder import Recorder
from plaudit.runs.resume import Inputs
from plaudit.runtime import Learner, Scorer
from plaudit.stages.doctor.memory import check_memory
from plaudit.stages.doctor.template import tell_template
from plaudit.stages.encode import (
    encode_rows,
    preference_encoder,
    prompt_id,
    rating_encoder,
    readable,
    split,
    tell_of,
)
from plaudit.stages.preference.feedback import Feedback, chunks
from plaudit.stages.respond.samples import Sampler
from plaudit.stages.said import Said
from plaudit.stages.session import HowEnded, OnIteration, Session, open_session, ready
from plaudit.training.offline import OfflineLoop

AUTO_EVALUATIONS = 4
FALLEN = 0.3
"""Nats per token by which chosen responses may become less likely before the run says so."""


Algorithm = OfflineAlgorithm[Batch]


def run_dpo(
    job: DPOJob,
    sources: Mapping[str, str] | None = None,
    *,
    records: Iterable[Any] | None = None,
    on_iteration: OnIteration | None = None,
) -> Path:
    """Train, evaluate on held-out prompts, and save; returns the run directory.

    Args:
        records: preferences (or ratings) given as values instead of by name.

    Raises:
        ConfigError, DataError, ModelError: with the cure.
        Ended: the gradients were not finite; the model is saved.
        Stopped: on SIGTERM or Ctrl-C, after a checkpoint, with the model of that moment.
    """
    if done := finished(job):
        return done
    job = ready(job)
    check_batches(job)
    said = Said()
    algorithm, loaded, rated = read_feedback(job, records, said)
    train, heldout = split(rated, job.data, job.seed, loaded.source, said)
    check_memory(job, train, said)
    runtime = backends.open(job)
    said.note(runtime.notes)
    learner, text = runtime.learner, runtime.format
    tell_template(text, said)
    data = readable(text, job.data, said)
    encoder = feedback_encoder(text.chat, train)
    rows, heldout_rows = (encode_rows(part, encoder, data, loaded.places, text.chat) for part in (train, heldout))
    counts = f"{len(rows)} to train, {len(heldout_rows)} held out"
    announce({"data": loaded.format, "rows": counts, "length": rows.report} | _advice(algorithm, rows.records))
    tell_of(rows, f"{loaded.source}, to train", said)
    tell_of(heldout_rows, f"{loaded.source}, held out", said)
    said.note(text.chat.notes)

    steps = math.ceil(len(rows) / job.batch_size) * job.epochs
    learner.plan(steps)
    feedback, held = (
        Feedback(part, text.pad_id, learner, data.max_length, others=rows) for part in (rows, heldout_rows)
    )
    seen = rows.records + heldout_rows.records
    with open_session(
        job, sources, total=steps, inputs=Inputs(seen, {"records": records}), said=said, on_iteration=on_iteration
    ) as session:
        shown = heldout or train
        sampler = Sampler(runtime, shown, job.log.samples, job.data, job.sampling, job.seed, session.recorder)
        session.keep({"policy": learner})
        session.recorder.summary({"train_rows": len(rows), "algorithm": name_of(algorithm)})
        _train(job, algorithm, learner, (feedback, held), sampler, session, text.tokenizer)
    return session.run


def read_feedback(
    job: DPOJob, records: Iterable[Any] | None, said: Said
) -> tuple[Algorithm, Loaded, list[Any]]:
    """The algorithm, the data as they were read, and the records to learn from.

    Raises:
        DataError: the data hold nothing that it can learn from.
    """
    # DPO learns from pairs and KTO from single responses; what `collate` gives is what the algorithm asked for with
    # `learns_from`, which a type checker cannot follow.
    algorithm = cast("Algorithm", job.algorithm)
    wanted: Literal["rating", "preference"] = "rating" if _kind(algorithm) == "rating" else "preference"
    loaded = load_data(
        job.dataset, records, "preferences", wanted,
        limit=job.data.limit, fields=job.data.fields, max_gb=job.data.max_gb,
    )
    said.loaded(loaded)
    rated = _decided(algorithm, loaded, said)
    _check_prompts(job, rated)
    return algorithm, loaded, rated


def feedback_encoder(chat: ChatFormat, records: Sequence[Any]) -> Callable[[Any], tuple[Encoded, ...]]:
    """How a policy reads records like these: rated responses, or preferences."""
    return rating_encoder(chat) if isinstance(records[0], Rating) else preference_encoder(chat)


def _train(
    job: DPOJob,
    algorithm: Algorithm,
    learner: Learner,
    parts: tuple[Feedback, Feedback],
    sampler: Sampler,
    session: Session,
    tokenizer: Any,
) -> None:
    """What the reference says of all rows; then restore or start, train, and hand out the model.

    ``parts`` are the rows to train on and those held out.
    """
    feedback, held = parts
    recorder, steps = session.recorder, session.total
    every = max(1, steps // AUTO_EVALUATIONS) if job.eval_every == "auto" else job.eval_every

    def on_step(step: int, metrics: dict[str, float]) -> None:
        last = step == steps
        figures = heldout_figures(algorithm, learner, held) if last or (every and step % every == 0) else []
        session.record(step, metrics | _curves(figures))
        if last:
            finish(recorder, before, figures, steps)
        session.after(step)

    def hand_out(ended: HowEnded) -> None:
        if ended != "interrupted":
            sampler.show(session.trained)
        session.save(learner, tokenizer)

    loop = OfflineLoop(
        algorithm, learner, feedback.collate, len(feedback), job.batch_size, job.epochs, job.seed, on_step,
        session.broken,
    )  # fmt: skip
    # The reference is the model as it was loaded. So what it says is computed before a checkpoint is restored, and
    # comes out the same when the run is resumed.
    feedback.precompute(algorithm.needs, loop.batches())
    held.precompute(algorithm.needs, chunks(len(held)))
    before = heldout_figures(algorithm, learner, held)
    start, _ = session.restore()
    if start == 0:
        recorder.metrics(0, _curves(before))
        sampler.show(0)
    with session.training(hand_out):
        loop.run(start)


def heldout_figures(algorithm: Algorithm, scorer: Scorer, held: Feedback) -> list[Row]:
    """What the algorithm says of each held-out pair (or rated response): its loss, implicit rewards, log-probs."""
    rows: list[Row] = []
    for indices in chunks(len(held)):
        batch = held.collate(indices)
        [logprobs] = scorer.read(batch, "logprobs")
        a_unit = len(batch.tokens) // len(batch)
        for position, index in enumerate(indices):
            one = algorithm.weights(batch.select(torch.tensor([position])))
            seen = logprobs[position * a_unit : (position + 1) * a_unit, : one.tokens.shape[1]]
            loss = algorithm.loss(one, Outputs(logprobs=seen, entropy=torch.zeros_like(seen)))
            record = held.rows.records[index]
            figures = {name: float(value) for name, value in loss.metrics.items()}
            figures.pop("policy/entropy", None)
            lengths = {"length": int(one.response_mask[0].sum())}
            rows.append({"id": record.id, "prompt_id": prompt_id(record)} | figures | lengths)
    return rows


def finish(recorder: Recorder, before: Sequence[Row], after: Sequence[Row], steps: int) -> None:
    """Write the held-out figures of start and end; say so where chosen responses became much less likely."""
    rows = [{"step": step} | row for step, some in ((0, before), (steps, after)) for row in some]
    write_lines(recorder.run_dir / "preferences.jsonl", rows)
    fallen = _fallen(before, after)
    if fallen > FALLEN:
        recorder.alarm(
            steps,
            "chosen_falls",
            f"held-out chosen responses became less likely, by {fallen:.2f} nats per token: the policy "
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


def _kind(algorithm: Algorithm) -> str:
    """The kind of record an algorithm learns from; preferences for a user's own that does not say."""
    return algorithm.learns_from if isinstance(algorithm, PreferenceAlgorithm) else "preference"


def _decided(algorithm: Algorithm, loaded: Loaded, said: Said) -> list[Any]:
    """The records to learn from: ratings that say nothing are left out."""
    records = list(loaded.records)
    if not isinstance(algorithm, RatingAlgorithm):
        return records
    kept = [r for r in records if isinstance(r, Rating) and not algorithm.is_tie(r.reward)]
    ratings = [r.reward for r in kept]
    if len({algorithm.is_good(rating) for rating in ratings}) < 2:
        lowest, highest = min(ratings, default=0.0), max(ratings, default=0.0)
        raise DataError(
            f"all {len(kept)} responses are on one side of the rating that divides them: "
            f"they go from {lowest:g} to {highest:g}",
            where=loaded.source,
            cure=f"set --good-above between them, e.g. {(lowest + highest) / 2:g}, or give responses of both sides",
        )
    if left_out := len(records) - len(kept):
        said.left_out(loaded.source, f"{left_out} responses rated in the middle are left out", left_out)
    return kept


def _advice(algorithm: Algorithm, records: Sequence[Any]) -> dict[str, str]:
    """What the algorithm has to say of the data before it learns from them."""
    if not isinstance(algorithm, RatingAlgorithm):
        return {}
    return {"thumbs": algorithm.advice([record.reward for record in records])}


def check_batches(job: DPOJob) -> None:
    """Raise ConfigError for a batch that is too small for what the algorithm measures on it."""
    if "mismatched_kl" in job.algorithm.needs and job.batch_size < 2:
        raise ConfigError(
            "with one response per step the KL would be measured on a single response of another prompt",
            where="batch_size",
            cure="set --batch-size to 2 or more; 32 is usual",
        )


def _check_prompts(job: DPOJob, records: Sequence[Any]) -> None:
    """The KL is measured on responses of other prompts, so there must be another one."""
    if "mismatched_kl" in job.algorithm.needs and len({prompt_key(r.prompt) for r in records}) < 2:
        raise DataError(
            f"all {len(records)} responses are to the same prompt; the KL is measured on those of other prompts",
            where=job.dataset or "the rows given",
            cure="give rows with two prompts or more, or train with another algorithm, such as --type dpo on pairs",
        )
