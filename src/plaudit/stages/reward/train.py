"""Stage 2: a reward model from preferences, rankings, ratings, or class labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plaudit.backends.local.learner import LocalLearner
from plaudit.backends.local.models import load_reward_model
from plaudit.config.sections import DataSection
from plaudit.data.chat import ChatFormat, Encoded
from plaudit.data.load import load_records
from plaudit.jobs.reward import RewardJob
from plaudit.models.length import LengthRule
from plaudit.models.reward_model import RewardModel as Model
from plaudit.records import Demonstration, Rating
from plaudit.runs.directory import announce, finished, open_run, set_threads
from plaudit.runs.keeper import Keeper
from plaudit.runs.recorder import Recorder
from plaudit.stages.encode import (
    Rows,
    demonstration_encoder,
    encode_rows,
    pair_encoder,
    readable,
    reward_encoder,
    split,
)
from plaudit.stages.reward.data import Collator, Scale, describe, load_source, without_long_responses
from plaudit.stages.reward.members import run_members
from plaudit.stages.reward.probe import probe_head
from plaudit.stages.reward.scores import (
    fit_normalisation,
    heldout_accuracy,
    heldout_lines,
    prompt_id,
    unit_scores,
    write_heldout,
    write_swaps,
)
from plaudit.training.offline import OfflineLoop

PROBES = 8


@dataclass(frozen=True, slots=True)
class Parts:
    """A reward model with the data it learns from, encoded as it reads them."""

    tokenizer: Any
    model: Model
    train: Rows
    heldout: Rows
    references: list[Encoded]
    data: DataSection
    encode_one: Callable[[Any], tuple[Encoded, ...]]
    facts: dict[str, Any]
    """For the console."""

    @property
    def pad_id(self) -> int:
        """The token of the padding."""
        return int(self.tokenizer.pad_token_id)


def run_reward(job: RewardJob, sources: Mapping[str, str] | None = None) -> Path:
    """Train, fit the normalisation, evaluate on held-out prompts, and save; returns the run directory.

    Raises:
        ConfigError, DataError, ModelError: with the cure.
        Stopped: on SIGTERM or Ctrl-C, after a checkpoint.
    """
    if done := finished(job):
        return done
    if job.members > 1:
        return run_members(job, sources, run_reward)
    set_threads(job.compute)
    parts = prepare(job)
    announce(parts.facts)
    rated = job.algorithm.ratings == "regression"
    scale = Scale.fit(parts.train.records, job.algorithm.attributes) if rated else None
    collate = Collator(parts.train, parts.pad_id, job.algorithm.attributes, scale or Scale())
    steps = math.ceil(len(parts.train) / job.batch_size) * job.epochs
    learner = LocalLearner(parts.model, job.optimizer, job.compute, total_steps=steps, name="reward_model")
    records = parts.train.records + parts.heldout.records
    with (
        open_run(job, sources, records=records) as run,
        Recorder(run, command="reward", log=job.log, total=steps) as recorder,
    ):
        _train(job, parts, collate, learner, recorder)
        finish_model(job, parts, learner)
        write_heldout(run, learner, parts.heldout, parts.pad_id, job.algorithm.attributes, scale)
        write_swaps(run, learner, parts.heldout, parts.pad_id, parts.encode_one, parts.data)
        figures = {
            "train_rows": len(parts.train),
            "reward_mean": parts.model.mean,
            "reward_std": parts.model.std,
        }
        recorder.summary(figures | _rating_figures(job, scale) | _length_figures(parts.model))
        probe = [list(e.ids) for encoded in parts.train.encoded[:PROBES] for e in encoded]
        parts.model.save(run / "model", parts.tokenizer, probe)
        recorder.event("saved", path=str(run / "model"))
    return run


def draw(job: RewardJob) -> int:
    """The seed of the head and of the order of the data; the split has the run's own, the same for all members."""
    return job.seed + 1_000_003 * job.member


def prepare(job: RewardJob) -> Parts:
    """Load and filter the data, split them by prompt, load the model, encode.

    Raises:
        ConfigError, DataError, ModelError: with the cure.
    """
    algorithm = job.algorithm
    source = load_source(
        job.dataset, algorithm, limit=job.data.limit, min_agreement=job.min_agreement, ties=job.ties
    )
    train, heldout = split(source.records, job.data, job.seed, job.dataset)
    tokenizer, model = load_reward_model(
        job.model,
        job.lora,
        job.compute,
        seed=draw(job),
        attributes=algorithm.attributes,
        attribute_weights=algorithm.head_weights,
        keep_lm=algorithm.lm_coef > 0,
    )
    chat = ChatFormat(tokenizer, job.data.chat_template)
    encoder = reward_encoder(model, tokenizer, chat, train[0])
    data = readable(model, tokenizer, job.data)
    (train, lost), (heldout, lost_too) = (
        without_long_responses(part, encoder, data.max_length) for part in (train, heldout)
    )
    filtered = [source.filtered] if source.filtered else []
    if lost + lost_too:
        filtered.append(
            f"{lost + lost_too} responses left out of their lists: longer than {data.max_length} tokens"
        )
    rows = encode_rows(train, encoder, data, job.dataset)
    heldout_rows = encode_rows(heldout, encoder, data, job.dataset)
    counts = f"{len(rows)} {describe(train)} to train, {len(heldout_rows)} held out"
    facts = {"data": source.format, "filters": "; ".join(filtered), "rows": counts, "length": rows.report}
    one = reward_encoder(model, tokenizer, chat, Rating("", "", "", 0.0))
    references = _references(job, model, tokenizer, chat, data) or [e for unit in rows.encoded for e in unit]
    said = {name: fact for name, fact in facts.items() if fact}
    return Parts(tokenizer, model, rows, heldout_rows, references, data, one, said)


def _references(
    job: RewardJob, model: Model, tokenizer: Any, chat: ChatFormat, data: DataSection
) -> list[Encoded]:
    """The reference responses as the model reads them; none if they are the training responses."""
    if not job.references:
        return []
    records: Any = load_records(job.references, "demonstration").records
    encode: Callable[[Demonstration], tuple[Encoded, ...]]
    encode = pair_encoder(tokenizer) if model.is_encoder else demonstration_encoder(chat, all_turns=False)
    return [unit[0] for unit in encode_rows(records, encode, data, job.references).encoded]


def _train(
    job: RewardJob, parts: Parts, collate: Collator, learner: LocalLearner, recorder: Recorder
) -> None:
    """Restore or start, and run through the data, with held-out evaluations and checkpoints."""
    keeper = Keeper(recorder.run_dir, job.checkpoint, {"reward_model": learner}, recorder)
    start, _ = keeper.restore()
    if job.head_init == "probe" and not start:
        found = probe_head(parts.model, collate, [prompt_id(r) for r in parts.train.records], job.compute)
        recorder.event("probe", accuracy=found.accuracy, loss=found.loss, penalty=found.penalty)
        announce(
            {"probe": f"accuracy {found.accuracy:.3f} cross-validated, before any training below the head"}
        )

    def on_step(step: int, metrics: dict[str, float]) -> None:
        if job.evaluate_every and step % job.evaluate_every == 0:
            scored = heldout_lines(parts.heldout, unit_scores(learner, parts.heldout, parts.pad_id))
            metrics["reward_model/heldout_accuracy"] = heldout_accuracy(scored)
        recorder.metrics(step, metrics)
        keeper.after(step, dict, last=step == loop.total_steps)

    loop = OfflineLoop(
        job.algorithm,
        learner,
        collate,
        len(parts.train),
        job.batch_size,
        job.epochs,
        draw(job),
        on_step,
    )
    with keeper.watch():
        loop.run(start)


def finish_model(job: RewardJob, parts: Parts, learner: LocalLearner) -> None:
    """What the trained model must know about itself: how it was trained, and the scores of reference responses."""
    model, records = parts.model, parts.train.records
    labelled = isinstance(records[0], Rating) and job.algorithm.ratings != "regression"
    if all(isinstance(r, Rating) and not r.prompt for r in records):
        model.trained_on = "labels"  # it read whole texts, and will read prompt and response as one
    else:
        model.trained_on = "ratings" if isinstance(records[0], Rating) else "comparisons"
    if labelled:
        # Log-odds have a unit of their own: not normalised, whatever the model was before.
        model.mean, model.std, model.length_rule = 0.0, 1.0, LengthRule()
        return
    fit_normalisation(learner, model, parts.references, parts.pad_id, job.algorithm)


def _rating_figures(job: RewardJob, scale: Scale | None) -> dict[str, Any]:
    """The scale of the ratings, with which scores can be read as ratings again."""
    if scale is None:
        return {}
    names = job.algorithm.attributes or ("reward",)
    return {
        "rating_means": dict(zip(names, scale.means, strict=True)),
        "rating_stds": dict(zip(names, scale.stds, strict=True)),
    }


def _length_figures(model: Model) -> dict[str, Any]:
    """The rule for length, where there is one."""
    rule = model.length_rule
    return {} if rule.kind == "none" else {"length_rule": rule.kind, "length_coef": rule.coef}
