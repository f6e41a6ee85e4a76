"""Scores of held-out rows as JSON lines that the report card reads; and the moments of reference responses."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import torch

from plaudit.algorithms.reward_model import RewardModel as Algorithm
from plaudit.config.sections import DataSection
from plaudit.data.chat import Encoded
from plaudit.data.collate import collate_ratings
from plaudit.data.fit import fit_prompt
from plaudit.records import Preference, Ranking, Rating
from plaudit.runs.files import write_lines
from plaudit.runtime import Normalisation, RewardRuntime, Scorer, ScoringRuntime
from plaudit.stages.encode import Rows, prompt_id
from plaudit.stages.reward.data import Scale, ratings_of

BATCH = 64
REFERENCE_ROWS = 1024
SWAPPED_ROWS = 256
EncodeOne = Callable[[Any], tuple[Encoded, ...]]


def raw_scores(scorer: Scorer, rows: Sequence[Encoded], pad_id: int) -> list[float]:
    """Raw scores of encoded rows."""
    scores: list[float] = []
    for first in range(0, len(rows), BATCH):
        part = rows[first : first + BATCH]
        scores += scorer.read(collate_ratings(part, [0.0] * len(part), pad_id), "scores")[0].tolist()
    return scores


def unit_scores(scorer: Scorer, rows: Rows, pad_id: int) -> list[list[float]]:
    """Raw scores row by row: of chosen and rejected, of the responses of a ranking, of a rated response."""
    flat = iter(raw_scores(scorer, [e for unit in rows.encoded for e in unit], pad_id))
    return [[next(flat) for _ in unit] for unit in rows.encoded]


def fit_normalisation(
    runtime: RewardRuntime, references: Sequence[Encoded], algorithm: Algorithm
) -> Normalisation:
    """Fit the rule for length, and mean and std, so that the references' normalised scores have mean 0 and variance 1.

    It reads raw scores only: fitting again changes nothing.
    """
    rows = references[:REFERENCE_ROWS]
    scores = torch.tensor(raw_scores(runtime.learner, rows, runtime.format.pad_id), dtype=torch.float64)
    lengths = torch.tensor([response_length(e) for e in rows])
    return runtime.head.normalise(*algorithm.length_correction, scores, lengths)


def response_length(row: Encoded) -> int:
    """Tokens of the response, its end token included."""
    return len(row) - row.prompt_length


def heldout_lines(
    rows: Rows, scores: Sequence[Sequence[float]], attributes: Sequence[str] = (), scale: Scale | None = None
) -> list[dict[str, Any]]:
    """One JSON-ready dict a pair (a ranking gives all of its own), rated response or labelled text."""
    lines: list[dict[str, Any]] = []
    for record, encoded, row in zip(rows.records, rows.encoded, scores, strict=True):
        lengths = [int(sum(e.mask)) for e in encoded]
        named = {"id": record.id, "prompt_id": prompt_id(record)}
        if isinstance(record, Ranking):
            lines += [named | pair for pair in _pairs(record.ranks, row, lengths)]
        elif isinstance(record, Preference):
            if record.agreement == 0.5:
                continue  # a tie: neither order is right
            lines.append(
                named | _pair(row, lengths, (0, 1)) | {"margin": record.margin, "agreement": record.agreement}
            )
        elif scale is None:
            lines.append(named | {"score": row[0], "label": record.reward, "length": lengths[0]})
        else:
            target = scale.standardised(ratings_of(record, attributes))
            rated = {"score": row[0], "rating": record.reward, "length": lengths[0]}
            lines.append(named | rated | {"targets": target})
    return lines


def _pairs(ranks: Sequence[int], scores: Sequence[float], lengths: Sequence[int]) -> list[dict[str, Any]]:
    order = [
        (i, j) if ranks[i] < ranks[j] else (j, i)
        for i, j in combinations(range(len(ranks)), 2)
        if ranks[i] != ranks[j]
    ]
    return [_pair(scores, lengths, pair) | {"margin": None} for pair in order]


def _pair(scores: Sequence[float], lengths: Sequence[int], pair: tuple[int, int]) -> dict[str, Any]:
    better, worse = pair
    return {
        "chosen_score": scores[better],
        "rejected_score": scores[worse],
        "chosen_length": lengths[better],
        "rejected_length": lengths[worse],
    }


def write_heldout(
    directory: Path,
    model: ScoringRuntime,
    rows: Rows,
    attributes: Sequence[str],
    scale: Scale | None,
) -> None:
    """heldout.jsonl, and for ranked lists rankings.jsonl."""
    scores = unit_scores(model.scorer, rows, model.format.pad_id)
    lines = heldout_lines(rows, scores, attributes, scale)
    if attributes and lines:
        heads = model.head.heads([e[0].ids for e in rows.encoded])
        lines = [
            line | {"heads": each, "attributes": list(attributes)}
            for line, each in zip(lines, heads, strict=True)
        ]
    write_lines(directory / "heldout.jsonl", lines)
    ranked = [(r, s) for r, s in zip(rows.records, scores, strict=True) if isinstance(r, Ranking)]
    if ranked:
        lists = [{"prompt_id": prompt_id(r), "scores": s, "ranks": list(r.ranks)} for r, s in ranked]
        write_lines(directory / "rankings.jsonl", lists)


def write_swaps(
    directory: Path, model: ScoringRuntime, rows: Rows, encode: EncodeOne, data: DataSection
) -> None:
    """swaps.jsonl: the best response to each held-out prompt, after its own prompt and after another one.

    A model that reads the prompt scores it lower after the other. Nothing is written without two prompts.
    """
    best = {
        prompt_id(r): (r.prompt, _best(r)) for r in rows.records if r.prompt and not isinstance(r, Rating)
    }
    pairs = list(best.items())[:SWAPPED_ROWS]
    if len(pairs) < 2:
        return
    limit = data.max_length

    def encoded(asked: Any, said: Any) -> Encoded | None:
        fitted = fit_prompt(asked, lambda prompt: encode(Rating("", prompt, said, 0.0)), limit, "truncate_prompt")
        return fitted.unit[0] if fitted.unit else None

    both = [
        (name, encoded(asked, said), encoded(pairs[i - 1][1][0], said))
        for i, (name, (asked, said)) in enumerate(pairs)
    ]
    kept = [(name, own, other) for name, own, other in both if own is not None and other is not None]
    pairs_of_rows = [row for _, own, other in kept for row in (own, other)]
    scores = raw_scores(model.scorer, pairs_of_rows, model.format.pad_id)
    lines = [
        {"prompt_id": name, "own_score": scores[2 * i], "other_score": scores[2 * i + 1]}
        for i, (name, _, _) in enumerate(kept)
    ]
    write_lines(directory / "swaps.jsonl", lines)


def _best(record: Any) -> Any:
    if isinstance(record, Ranking):
        return record.responses[record.ranks.index(min(record.ranks))]
    return record.chosen


def heldout_accuracy(lines: Sequence[dict[str, Any]]) -> float:
    """Share of held-out rows that are ranked (or labelled) right; ties count a half. NaN where nothing is ranked."""
    if not lines or "rating" in lines[0]:
        return math.nan
    if "label" in lines[0]:
        return sum((row["score"] > 0) == (row["label"] > 0.5) for row in lines) / len(lines)
    gaps = [row["chosen_score"] - row["rejected_score"] for row in lines]
    return sum((gap > 0) + 0.5 * (gap == 0) for gap in gaps) / len(gaps)
