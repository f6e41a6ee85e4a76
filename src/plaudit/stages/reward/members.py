"""An ensemble of reward models: members trained one after the other, which differ in head and order of the data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

from plaudit.config.sections import CheckpointSection
from plaudit.jobs.registry import command_of
from plaudit.jobs.reward import RewardJob
from plaudit.runs.directory import announce, open_run
from plaudit.runs.files import HELDOUT, RANKINGS, SPOILED, Row, read_json, read_lines, write_lines
from plaudit.runs.recorder import Recorder

Moments = tuple[float, float]
"""Mean and standard deviation."""
SCORES = ("chosen_score", "rejected_score", "score", "own_score", "other_score")


def run_members(
    job: RewardJob,
    sources: Mapping[str, str] | None,
    train: Callable[[RewardJob], Path],
) -> Path:
    """Train ``job.members`` reward models into ``member-0``, ``member-1`` ... of one run directory.

    They share the held-out prompts. The run's own figures are means over the members, and its held-out scores
    the mean of their normalised scores. With ``--resume`` finished members are kept.

    Args:
        train: trains one member.
    """
    with open_run(job, sources) as run:
        paths = [run / f"member-{index}" for index in range(job.members)]
        for index, path in enumerate(paths):
            announce({"member": f"{index + 1} of {job.members}"})
            checkpoint = job.checkpoint.model_copy(update={"resume": path.exists()})
            train(_member(job, index, path, checkpoint))
        with Recorder(run, command=command_of(type(job)).name, log=job.log) as recorder:
            recorder.rewind(-1)
            for step, metrics in _mean_metrics([read_lines(path / "metrics.jsonl") for path in paths]):
                recorder.metrics(step, metrics)
            recorder.summary(combine_heldout(run, paths, [moments_of(path) for path in paths]))
    return run


def _member(job: RewardJob, index: int, path: Path, checkpoint: CheckpointSection) -> RewardJob:
    changes = {"members": 1, "member": index, "out": str(path), "checkpoint": checkpoint}
    return job.model_copy(update=changes)


def _mean_metrics(runs: Sequence[Sequence[Row]]) -> list[tuple[int, dict[str, float]]]:
    """Step by step, the mean over the members of the figures that all of them have."""
    result = []
    for rows in zip(*runs, strict=True):
        names = [
            name for name, value in rows[0].items() if name not in ("step", "time") and value is not None
        ]
        shared = [name for name in names if all(row.get(name) is not None for row in rows)]
        result.append((rows[0]["step"], {name: fmean(row[name] for row in rows) for name in shared}))
    return result


def combine_heldout(target: Path, paths: Sequence[Path], moments: Sequence[Moments]) -> dict[str, Any]:
    """Write the mean scores of rows, rankings and spoiled responses into ``target``; how far the members disagree.

    Args:
        paths: where each member's heldout.jsonl is (and rankings.jsonl and spoiled.jsonl, where it has them), all of
            the same rows.
        moments: of each member's scores of reference responses.
    """
    spreads: list[float] = []

    def normalised(values: Sequence[float]) -> list[float]:
        return [(value - mean) / std for value, (mean, std) in zip(values, moments, strict=True)]

    def combined(values: Sequence[float]) -> float:
        spreads.append(pstdev(normalised(values)))
        return fmean(normalised(values))

    def mean_rows(name: str) -> list[Row]:
        return [
            rows[0] | {field: combined([row[field] for row in rows]) for field in _scores_of(rows[0])}
            for rows in zip(*(read_lines(path / name) for path in paths), strict=True)
        ]

    def differences(rows: Sequence[Row]) -> Row:
        """What each member says of a pair."""
        if "chosen_score" not in rows[0]:
            return {}
        sides = (normalised([row[f"{side}_score"] for row in rows]) for side in ("chosen", "rejected"))
        return {"members": [chosen - rejected for chosen, rejected in zip(*sides, strict=True)]}

    lines = mean_rows(HELDOUT)
    figures = {"members": len(paths), "ensemble_std": fmean(spreads) if spreads else None}
    each = zip(*(read_lines(path / HELDOUT) for path in paths), strict=True)
    write_lines(target / HELDOUT, [line | differences(rows) for line, rows in zip(lines, each, strict=True)])
    if all((path / SPOILED).is_file() for path in paths):  # a member of an earlier version has none
        write_lines(target / SPOILED, mean_rows(SPOILED))
    lists = list(zip(*(read_lines(path / RANKINGS) for path in paths), strict=True))
    if lists:
        scores = [
            [combined(each) for each in zip(*(row["scores"] for row in rows), strict=True)] for rows in lists
        ]
        write_lines(target / RANKINGS, [r[0] | {"scores": s} for r, s in zip(lists, scores, strict=True)])
    return figures


def _scores_of(row: Row) -> list[str]:
    return [field for field in SCORES if row.get(field) is not None]


def moments_of(path: Path) -> Moments:
    """Of the scores of reference responses, from the summary of a member's run."""
    figures = read_json(path / "summary.json")
    return figures["reward_mean"], figures["reward_std"]
