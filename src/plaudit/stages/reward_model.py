"""Stage 2: a reward model from preferences, rankings, or class labels."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pydantic import Field

from plaudit.algorithms.reward_model import RewardModel
from plaudit.backends.local import load_reward_model
from plaudit.config.sections import Job
from plaudit.data.chat import ChatFormat, Encoded
from plaudit.data.collate import collate_pairs, collate_ratings
from plaudit.data.fit import fit_rows
from plaudit.data.load import Loaded, load_records
from plaudit.data.transcripts import prompt_key
from plaudit.errors import DataError
from plaudit.experience import Batch
from plaudit.records import Rating
from plaudit.stages.artifact import announce, open_run, set_threads, write_manifest
from plaudit.stages.encode import Rows, encode_rows, readable, reward_encoder, split
from plaudit.stages.keeper import Keeper
from plaudit.tracking.files import write_lines
from plaudit.tracking.recorder import Recorder
from plaudit.training.learner import LocalLearner, LocalScorer
from plaudit.training.offline import OfflineLoop

PROBES = 8
REFERENCE_ROWS = 512
EVALUATION_BATCH = 64


class RewardJob(Job):
    """Train a reward model."""

    model: str = ""
    """Model to start from: a causal LM (decoder) or an encoder; hub name, directory, or GGUF file."""
    dataset: str = ""
    """Preferences, rankings, judgements, ratings, or texts with 0/1 labels: a file, a directory, or a hub name."""
    epochs: int = Field(1, ge=1)
    """Passes over the data. Reward models overfit fast; one is often best."""
    batch_size: int = Field(16, ge=1)
    """Pairs (or labelled texts) per optimizer step."""
    evaluate_every: int = Field(0, ge=0)
    """Optimizer steps between held-out evaluations, besides the one at the end; 0: none."""
    algorithm: RewardModel = RewardModel()


def run_reward(job: RewardJob, sources: Mapping[str, str] | None = None) -> Path:
    """Train, fit the normalisation, evaluate on held-out prompts, and save; returns the run directory.

    Raises:
        ConfigError, DataError, ModelError: with the cure.
        Stopped: on SIGTERM or Ctrl-C, after a checkpoint.
    """
    set_threads(job.compute)
    loaded = load_comparisons(job)
    train, heldout = split(loaded.records, job.data, job.seed, job.dataset)
    tokenizer, model = load_reward_model(job.model, job.lora, job.compute, seed=job.seed)
    chat = ChatFormat(tokenizer, job.data.chat_template)
    encoder = reward_encoder(model, tokenizer, chat, train[0])
    data = readable(model, tokenizer, job.data)
    rows = encode_rows(train, encoder, data, job.dataset)
    heldout_rows = encode_rows(heldout, encoder, data, job.dataset)
    run = open_run(job, "reward", sources)
    write_manifest(run, job, {"model": job.model, "dataset": job.dataset})
    counts = f"{len(rows)} to train, {len(heldout_rows)} held out"
    announce({"data": loaded.format, "rows": counts, "length": rows.report})

    pad_id = tokenizer.pad_token_id
    steps = math.ceil(len(rows) / job.batch_size) * job.epochs
    learner = LocalLearner(model, job.optimizer, job.compute, total_steps=steps, signal="scores")
    with Recorder(run, command="reward", log=job.log, total=steps) as recorder:
        keeper = Keeper(run, job.checkpoint, {"reward_model": learner}, recorder)
        start, _ = keeper.restore()

        def on_step(step: int, metrics: dict[str, float]) -> None:
            if job.evaluate_every and step % job.evaluate_every == 0:
                scored = heldout_scores(learner, heldout_rows, pad_id)
                metrics["reward_model/heldout_accuracy"] = heldout_accuracy(scored)
            recorder.metrics(step, metrics)
            keeper.after(step, dict, last=step == steps)

        with keeper.watch():
            OfflineLoop(
                job.algorithm,
                learner,
                partial(collate_rows, rows, pad_id),
                len(rows),
                job.batch_size,
                job.epochs,
                job.seed,
                on_step,
            ).run(start)
        if isinstance(train[0], Rating):
            # Log-odds have a unit of their own: not normalised, whatever the model was before.
            model.trained_on, model.mean, model.std = "labels", 0.0, 1.0
        else:
            model.trained_on = "comparisons"
            fit_normalisation(learner, model, rows, pad_id)
        write_lines(run / "heldout.jsonl", heldout_scores(learner, heldout_rows, pad_id))
        one = reward_encoder(model, tokenizer, chat, Rating("", "", "", 0.0))
        _score_rankings(job.model_copy(update={"data": data}), run, learner, one, pad_id)
        recorder.summary({"train_rows": len(rows), "reward_mean": model.mean, "reward_std": model.std})
        probe = [list(e.ids) for encoded in rows.encoded[:PROBES] for e in encoded]
        model.save(run / "model", tokenizer, probe)
        recorder.event("saved", path=str(run / "model"))
    return run


def load_comparisons(job: RewardJob) -> Loaded:
    """Preferences where they can be had from the data; labelled texts as they are."""
    loaded = load_records(job.dataset, limit=job.data.limit)
    labels = {r.reward for r in loaded.records if isinstance(r, Rating)}
    if labels and labels <= {0.0, 1.0}:
        return loaded
    if loaded.kind in ("demonstration", "prompt"):
        raise DataError(
            f"the data set holds {loaded.kind}s ({loaded.format}); a reward model learns from comparisons",
            where=job.dataset,
            cure="give preferences (prompt, chosen, rejected), rankings, judgements, ratings, or texts with 0/1 labels",
        )
    return load_records(job.dataset, "preference", limit=job.data.limit)


def collate_rows(rows: Rows, pad_id: int, indices: Sequence[int]) -> Batch:
    """The pairs or labelled texts at ``indices`` as one batch."""
    records, encoded = [rows.records[i] for i in indices], [rows.encoded[i] for i in indices]
    if isinstance(records[0], Rating):
        return collate_ratings([e[0] for e in encoded], [r.reward for r in records], pad_id)
    margins, targets = [r.margin or 0.0 for r in records], [r.agreement for r in records]
    return collate_pairs([e[0] for e in encoded], [e[1] for e in encoded], margins, targets, pad_id)


def heldout_scores(learner: LocalScorer, rows: Rows, pad_id: int) -> list[dict[str, Any]]:
    """Raw scores of held-out rows, one JSON-ready dict a pair or labelled text."""
    result: list[dict[str, Any]] = []
    for first in range(0, len(rows), EVALUATION_BATCH):
        indices = range(first, min(first + EVALUATION_BATCH, len(rows)))
        scores = learner.score(collate_rows(rows, pad_id, indices)).view(len(indices), -1).tolist()
        for i, row_scores in zip(indices, scores, strict=True):
            lengths = [int(sum(e.mask)) for e in rows.encoded[i]]
            record = rows.records[i]
            result.append({"id": record.id, "prompt_id": _prompt_id(record)} | _scored(record, row_scores, lengths))
    return result


def _prompt_id(record: Any) -> str:
    """The same for all rows about one prompt, so that intervals count prompts and not pairs."""
    if not record.prompt:
        return str(record.id)
    return hashlib.blake2b(prompt_key(record.prompt).encode(), digest_size=8).hexdigest()


def _scored(record: Any, scores: Sequence[float], lengths: Sequence[int]) -> dict[str, Any]:
    if isinstance(record, Rating):
        return {"score": scores[0], "label": record.reward, "length": lengths[0]}
    return {
        "chosen_score": scores[0],
        "rejected_score": scores[1],
        "chosen_length": lengths[0],
        "rejected_length": lengths[1],
        "margin": record.margin,
    }


def heldout_accuracy(scored: Sequence[dict[str, Any]]) -> float:
    """Share of held-out rows that are ranked (or labelled) right; ties count a half."""
    if not scored:
        return float("nan")
    if "label" in scored[0]:
        return sum((row["score"] > 0) == (row["label"] > 0.5) for row in scored) / len(scored)
    gaps = [row["chosen_score"] - row["rejected_score"] for row in scored]
    return sum((gap > 0) + 0.5 * (gap == 0) for gap in gaps) / len(gaps)


def fit_normalisation(learner: LocalLearner, model: Any, rows: Rows, pad_id: int) -> None:
    """Set mean and std so that the normalised score of the training responses has mean 0 and variance 1."""
    indices = range(min(len(rows), REFERENCE_ROWS))
    scores = torch.cat(
        [
            learner.score(collate_rows(rows, pad_id, indices[first : first + EVALUATION_BATCH]))
            for first in range(0, len(indices), EVALUATION_BATCH)
        ]
    )
    model.mean, model.std = float(scores.mean()), float(scores.std(correction=0)) or 1.0


def _score_rankings(
    job: RewardJob, run: Path, learner: LocalLearner, encode: Callable[[Any], tuple[Encoded, ...]], pad_id: int
) -> None:
    """rankings.jsonl: scores and ranks of whole held-out rankings, where the data has them."""
    loaded = load_records(job.dataset, limit=job.data.limit)
    if loaded.kind != "ranking":
        return
    _, heldout = split(loaded.records, job.data, job.seed, job.dataset)
    result = []
    for ranking in heldout:
        texts = [Rating(ranking.id, ranking.prompt, response, 0.0) for response in ranking.responses]
        unit = tuple(encode(text)[0] for text in texts)
        try:
            (encoded,), _ = fit_rows([unit], job.data.max_length, job.data.on_long)
        except DataError:
            continue  # a response of it is too long
        scores = learner.score(collate_ratings(encoded, [0.0] * len(encoded), pad_id)).tolist()
        result.append({"prompt_id": ranking.id, "scores": scores, "ranks": list(ranking.ranks)})
    write_lines(run / "rankings.jsonl", result)
