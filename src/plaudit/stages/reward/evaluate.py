"""A trained reward model on preferences that it was not made with."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from plaudit import backends
from plaudit.algorithms.reward_model import RewardModel
from plaudit.config.load import load_job
from plaudit.data.benchmarks.load import load_benchmark
from plaudit.data.load import load_records
from plaudit.errors import ConfigError, DataError, MachineError
from plaudit.jobs.reward import RewardJob
from plaudit.jobs.reward_tables import members_of
from plaudit.machine import check_threads
from plaudit.runs.directory import set_threads
from plaudit.runs.files import BENCHMARK, HELDOUT, SPOILED, merge_json, read_json, write_lines
from plaudit.stages.encode import encode_rows, readable, reward_encoder, split, tell_of
from plaudit.stages.reward.benchmark import combine_benchmark, folder_of, score_benchmark
from plaudit.stages.reward.data import Scale, source_of
from plaudit.stages.reward.members import combine_heldout, moments_of
from plaudit.stages.reward.scores import write_heldout
from plaudit.stages.reward.spoiled import spoiled_lines
from plaudit.stages.reward.words import read_baseline
from plaudit.stages.said import Said


def score_dataset(run: Path, dataset: str, fields: Mapping[str, str] | None = None) -> Path:
    """Score every row of ``dataset`` with the run's model, or all models of an ensemble, under the run's settings.

    Args:
        fields: which column each field is read from, where a name does not say it; None: as in training.

    Returns:
        A directory below the run, with a heldout.jsonl that `plaudit.evaluation.kinds.reward` reads; of a benchmark's
        file (RewardBench 1 and 2, RM-Bench, PPE) a benchmark.jsonl for `plaudit.evaluation.kinds.benchmark`.

    Raises:
        DataError: the directory is not a reward model's run, or the data cannot be used.
    """
    members = members_of(run)
    if members:
        return _score_members(run, members, dataset, fields)
    if not (run / "config.toml").is_file() or not (run / "model").is_dir():
        raise DataError(
            "the directory is not a finished reward model run: it needs config.toml and model/",
            where=str(run),
            cure="give the directory that `plaudit reward` printed",
        )
    named = {} if fields is None else {"data.fields": dict(fields)}
    job = load_job(RewardJob, [run / "config.toml"], {"dataset": dataset, **named}).job
    job, notes = _on_this_machine(job)
    set_threads(job.compute)
    model = backends.open_reward_model(run / "model", job)
    text, algorithm = model.format, job.algorithm
    said = Said()
    said.note(notes)
    # Whoever names columns wants these read, as pairs.
    if not fields and (benchmark := load_benchmark(dataset)):
        target = _place(run, folder_of(benchmark, dataset))
        score_benchmark(run, target, model, benchmark, job.data, said)
        return target
    loaded = load_records(dataset, limit=job.data.limit, fields=job.data.fields, max_gb=job.data.max_gb)
    source = source_of(loaded, algorithm, said, min_agreement=job.min_agreement)
    records: Any = source.records
    encoder, data = reward_encoder(text, records[0]), readable(text, job.data, said)
    rows = encode_rows(records, encoder, data, source.places, text.chat)
    tell_of(rows, dataset, said)
    said.note(text.chat.notes)
    target = _place(run, dataset)
    write_heldout(target, model, rows, algorithm.attributes, _scale(run, algorithm), read_baseline(run))
    write_lines(target / SPOILED, spoiled_lines(model, rows, data.max_length))
    merge_json(target / "summary.json", {"notes": list(said.messages), "rows_left_out": rows.report.dropped})
    return target


def score_heldout(run: Path, model: Path, target: Path) -> Path:
    """Score the rows that a run held out with a model in place of its own, such as one that was exported of it.

    Args:
        run: of one reward model.
        model: its directory.
        target: where heldout.jsonl is written.

    Raises:
        ConfigError, DataError, ModelError: the model or the run's data cannot be opened.
    """
    job, _ = _on_this_machine(load_job(RewardJob, [run / "config.toml"], {}).job)
    set_threads(job.compute)
    said = Said()
    loaded = load_records(job.dataset, limit=job.data.limit, fields=job.data.fields, max_gb=job.data.max_gb)
    source = source_of(loaded, job.algorithm, said, min_agreement=job.min_agreement, ties=job.ties)
    records: Any = split(source.records, job.data, job.seed, loaded.source, said)[1]
    opened = backends.open_reward_model(model, job)
    encoder, data = reward_encoder(opened.format, records[0]), readable(opened.format, job.data, said)
    rows = encode_rows(records, encoder, data, source.places, opened.format.chat)
    write_heldout(target, opened, rows, job.algorithm.attributes, _scale(run, job.algorithm))
    return target / HELDOUT


def _on_this_machine(job: RewardJob) -> tuple[RewardJob, list[str]]:
    """The settings with a device and threads that are here: a run may have been trained elsewhere. What was changed."""
    changes: dict[str, Any] = {}
    try:
        backends.check(job.compute)
    except MachineError:
        changes["device"] = "auto"
    try:
        check_threads(job.compute.threads)
    except ConfigError:
        changes["threads"] = "auto"
    compute = job.compute.model_copy(update=changes)
    notes = [f"{name} auto: {getattr(job.compute, name)}, as in training, is not here" for name in changes]
    return job.model_copy(update={"compute": compute}), notes


def _score_members(
    run: Path, members: list[Path], dataset: str, fields: Mapping[str, str] | None
) -> Path:
    """The mean of the members' normalised scores; each member's own are below its run."""
    scored = [score_dataset(member, dataset, fields) for member in members]
    is_benchmark = (scored[0] / BENCHMARK).is_file()
    target = run / "evaluations" / scored[0].name
    target.mkdir(parents=True, exist_ok=True)
    combine = combine_benchmark if is_benchmark else combine_heldout
    figures = combine(target, scored, [moments_of(member) for member in members])
    merge_json(target / "summary.json", figures)
    return target


def _place(run: Path, dataset: str) -> Path:
    """A directory below the run, with a name made of that of the data."""
    name = re.sub(r"[^A-Za-z0-9]+", "-", Path(dataset).stem).strip("-").lower() or "data"
    (run / "evaluations" / name).mkdir(parents=True, exist_ok=True)
    return run / "evaluations" / name


def _scale(run: Path, algorithm: RewardModel) -> Scale | None:
    """The scale of the ratings that the run was trained on; None for one that learned from comparisons or labels."""
    if algorithm.ratings != "regression":
        return None
    figures = read_json(run / "summary.json")
    return Scale(tuple(figures["rating_means"].values()), tuple(figures["rating_stds"].values()))
