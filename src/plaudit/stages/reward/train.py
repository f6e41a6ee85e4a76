"""Stage 2: a reward model from preferences, rankings, ratings, or class labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plaudit import backends
from plaudit.config.sections import DataSection
from plaudit.data.chat import Encoded
from plaudit.data.load import Loaded, SeveralKinds, load_records
from plaudit.data.values import load_data
from plaudit.jobs.reward import RewardJob
from plaudit.records import Demonstration, Rating
from plaudit.runs.directory import announce, finished
from plaudit.runs.files import HELDOUT_START, SPOILED, Row, write_lines
from plaudit.runs.resume import Inputs
from plaudit.runtime import Normalisation, RewardRuntime, ScoringRuntime, TextFormat, TrainedOn
from plaudit.stages.doctor.memory import check_memory
from plaudit.stages.doctor.template import tell_template
from plaudit.stages.encode import (
    Rows,
    demonstration_encoder,
    encode_rows,
    pair_encoder,
    prompt_id,
    readable,
    reward_encoder,
    split,
    tell_of,
)
from plaudit.stages.reward.data import Collator, Scale, describe, source_of, without_long_responses
from plaudit.stages.reward.epochs import Epochs, choosing_rows
from plaudit.stages.reward.members import run_members
from plaudit.stages.reward.probe import probe_head
from plaudit.stages.reward.scores import (
    fit_normalisation,
    heldout_lines,
    unit_scores,
    write_heldout,
)
from plaudit.stages.reward.spoiled import spoiled_lines
from plaudit.stages.reward.words import fit_baseline
from plaudit.stages.said import Said
from plaudit.stages.session import HowEnded, OnIteration, Session, open_session, ready
from plaudit.training.offline import OfflineLoop

PROBES = 8
"""Training rows whose scores are kept with the model, and checked whenever it is loaded."""


@dataclass(frozen=True, slots=True)
class Parts:
    """A reward model with the data it learns from, encoded as it reads them."""

    runtime: RewardRuntime
    train: Rows
    choosing: Rows
    """Held-out rows by which an epoch is chosen; those of ``heldout`` where none is."""
    heldout: Rows
    """Held-out rows that judge the model."""
    references: list[Encoded]
    data: DataSection
    facts: dict[str, Any]
    """For the console."""
    said: Said


def run_reward(
    job: RewardJob,
    sources: Mapping[str, str] | None = None,
    *,
    records: Iterable[Any] | None = None,
    on_iteration: OnIteration | None = None,
) -> Path:
    """Train, fit the normalisation, evaluate on held-out prompts, and save; returns the run directory.

    Args:
        records: preferences, rankings, ratings or labels given as values instead of by name.

    Raises:
        ConfigError, DataError, ModelError: with the cure.
        Ended: the gradients were not finite; the model is saved.
        Stopped: on SIGTERM or Ctrl-C, after a checkpoint, with the model of that moment.
    """
    if done := finished(job):
        return done
    job = ready(job)
    if job.members > 1:
        # Each member reads them anew, and says what it does not use of them; only an iterator can be read just once.
        rows = list(records) if isinstance(records, Iterator) else records
        return run_members(
            job, sources, lambda member: run_reward(member, sources, records=rows, on_iteration=on_iteration)
        )
    parts = prepare(job, read_scored(job, records), Said())
    announce(parts.facts)
    runtime, attributes = parts.runtime, job.algorithm.attributes
    rated = job.algorithm.ratings == "regression"
    scale = Scale.fit(parts.train.records, attributes) if rated else None
    collate = Collator(parts.train, runtime.format.pad_id, attributes, scale or Scale())
    steps = math.ceil(len(parts.train) / job.batch_size) * job.epochs
    runtime.learner.plan(steps)
    apart = parts.choosing.records if parts.choosing is not parts.heldout else []
    used = parts.train.records + apart + parts.heldout.records
    with open_session(
        job, sources, total=steps, inputs=Inputs(used), said=parts.said, on_iteration=on_iteration
    ) as session:
        _train(job, parts, collate, scale, session)
    return session.run


def _hand_out(
    job: RewardJob, parts: Parts, scale: Scale | None, session: Session, epochs: Epochs, ended: HowEnded
) -> None:
    """Choose the epoch, fit the normalisation, score the held-out rows, and save the model."""
    if ended != "interrupted":
        epochs.finish()
    runtime = parts.runtime
    normalisation = finish_model(job, parts)
    scoring = ScoringRuntime(runtime.learner, runtime.format, runtime.head)
    words = fit_baseline(parts.train.records, session.run)
    write_heldout(session.run, scoring, parts.heldout, job.algorithm.attributes, scale, words)
    if ended != "interrupted":  # then somebody waits for the end
        write_lines(session.run / SPOILED, spoiled_lines(scoring, parts.heldout, parts.data.max_length))
    figures: dict[str, Any] = {
        "train_rows": len(parts.train),
        "judged_apart": parts.choosing is not parts.heldout or not job.chooses_epoch,
        "reward_mean": normalisation.mean,
        "reward_std": normalisation.std,
    }
    session.recorder.summary(figures | _rating_figures(job, scale) | _length_figures(normalisation))
    session.save(runtime.learner, runtime.format.tokenizer)


def read_scored(job: RewardJob, records: Iterable[Any] | None) -> Loaded:
    """What a reward model learns from, of whatever kind it is."""
    how: Any = {"limit": job.data.limit, "fields": job.data.fields, "max_gb": job.data.max_gb}
    try:
        return load_data(job.dataset, records, "preferences", **how)
    except SeveralKinds:  # of files; pairs can be made of most kinds
        return load_data(job.dataset, records, "preferences", "preference", **how)


def prepare(job: RewardJob, loaded: Loaded, said: Said) -> Parts:
    """Filter the data, split them by prompt, load the model, encode.

    Raises:
        ConfigError, DataError, ModelError: with the cure.
    """
    source = source_of(loaded, job.algorithm, said, min_agreement=job.min_agreement, ties=job.ties)
    train, heldout = split(source.records, job.data, job.seed, loaded.source, said)
    check_memory(job, train, said)
    runtime = backends.open(job)
    said.note(runtime.notes)
    text = runtime.format
    tell_template(text, said)
    encoder, data = reward_encoder(text, train[0]), readable(text, job.data, said)
    (train, lost), (heldout, lost_too) = (
        without_long_responses(part, encoder, data.max_length, source.places) for part in (train, heldout)
    )
    if few := lost + lost_too:
        said.left_out(
            job.dataset, f"{few} responses left out of their lists: longer than {data.max_length} tokens", few
        )
    text.chat.count_from({})  # what was encoded to see how long it is, is encoded again
    rows, heldout_rows = (encode_rows(part, encoder, data, source.places, text.chat) for part in (train, heldout))
    choosing, judging = choosing_rows(heldout_rows, job.chooses_epoch, said)
    counts = f"{len(rows)} {describe(train)} to train, {len(heldout_rows)} held out"
    counts += f" ({len(choosing)} choose the epoch, {len(judging)} judge it)" if choosing is not judging else ""
    facts = {"data": source.format, "rows": counts, "length": rows.report}
    references = _references(job, text, data) or [e for unit in rows.encoded for e in unit]
    tell_of(rows, f"{loaded.source}, to train", said)
    tell_of(heldout_rows, f"{loaded.source}, held out", said)
    said.note(text.chat.notes)
    return Parts(runtime, rows, choosing, judging, references, data, facts, said)


def _references(job: RewardJob, text: TextFormat, data: DataSection) -> list[Encoded]:
    """The reference responses as the model reads them; none if they are the training responses."""
    if not job.references:
        return []
    loaded = load_records(job.references, "demonstration")
    records: Any = loaded.records
    encode: Callable[[Demonstration], tuple[Encoded, ...]]
    encode = (
        pair_encoder(text.tokenizer) if text.is_encoder else demonstration_encoder(text.chat, all_turns=False)
    )
    return [unit[0] for unit in encode_rows(records, encode, data, loaded.places, text.chat).encoded]


def _train(job: RewardJob, parts: Parts, collate: Collator, scale: Scale | None, session: Session) -> None:
    """Restore or start, and run through the data, with held-out evaluations and checkpoints."""
    runtime, attributes = parts.runtime, job.algorithm.attributes

    def scored(rows: Rows) -> list[Row]:
        scores = unit_scores(runtime.learner, rows, runtime.format.pad_id)
        return heldout_lines(rows, scores, attributes, scale)

    steps = session.total // job.epochs if job.chooses_epoch else session.total
    weights = job.algorithm.head_weights if attributes else ()
    epochs = Epochs(session, runtime.learner, steps, lambda: scored(parts.choosing), weights)
    session.keep({"reward_model": runtime.learner}, epochs.weights)
    # Before a checkpoint is restored, so that a resumed run has the same: by the model as it was loaded.
    write_lines(session.run / HELDOUT_START, scored(parts.heldout))
    start, state = session.restore()
    epochs.resume(state)
    if job.head_init == "probe" and not start:
        _start_at_probe(parts, collate, job.algorithm.heads, session)
    every = max(1, session.total // 4) if job.eval_every == "auto" else job.eval_every

    def on_step(step: int, metrics: dict[str, float]) -> None:
        session.record(step, metrics | epochs.after(step, every))
        session.after(step, epochs.state)

    loop = OfflineLoop(
        job.algorithm,
        runtime.learner,
        collate,
        len(parts.train),
        job.batch_size,
        job.epochs,
        job.draw,
        on_step,
        session.broken,
    )
    with session.training(lambda ended: _hand_out(job, parts, scale, session, epochs, ended)):
        loop.run(start)


def _start_at_probe(parts: Parts, collate: Collator, heads: Sequence[str], session: Session) -> None:
    """Let the head start where a linear probe ends, and say how far the probe is: it reads all rows before step 1."""
    prompt_ids = [prompt_id(r) for r in parts.train.records]

    def tell(read: int, rows: int) -> None:
        announce({"probe": f"{read} of {rows} rows read"})

    probe = probe_head(parts.runtime, collate, prompt_ids, heads, tell)
    session.recorder.event("probe", accuracy=probe.accuracy, loss=probe.loss, penalty=probe.penalty)
    announce({"probe": f"accuracy {probe.accuracy:.3f} cross-validated, before any training below the head"})


def finish_model(job: RewardJob, parts: Parts) -> Normalisation:
    """What the trained model must know about itself: how it was trained, and the scores of reference responses."""
    runtime, records = parts.runtime, parts.train.records
    rated = isinstance(records[0], Rating)
    trained_on: TrainedOn = "ratings" if rated else "comparisons"
    if all(isinstance(r, Rating) and not r.prompt for r in records):
        trained_on = "labels"  # it read whole texts, and will read prompt and response as one
    probe = [list(e.ids) for encoded in parts.train.encoded[:PROBES] for e in encoded]
    runtime.head.describe(trained_on, probe)
    if rated and job.algorithm.ratings != "regression":
        return runtime.head.leave_raw()
    return fit_normalisation(runtime, parts.references, job.algorithm)


def _rating_figures(job: RewardJob, scale: Scale | None) -> dict[str, Any]:
    """The scale of the ratings, with which scores can be read as ratings again."""
    if scale is None:
        return {}
    names = job.algorithm.attributes or ("reward",)
    return {
        "rating_means": dict(zip(names, scale.means, strict=True)),
        "rating_stds": dict(zip(names, scale.stds, strict=True)),
    }


def _length_figures(normalisation: Normalisation) -> dict[str, Any]:
    """The rule for length, where there is one."""
    if normalisation.length_rule == "none":
        return {}
    return {"length_rule": normalisation.length_rule, "length_coef": normalisation.length_coef}
