"""Scores of held-out rows as JSON lines that the report card reads; and the moments of reference responses."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from plaudit.algorithms.reward_model import RewardModel as Algorithm
from plaudit.data.chat import Encoded
from plaudit.data.collate import collate_ratings
from plaudit.data.reading.transcripts import plain_text
from plaudit.records import Content, Preference, Ranking, Rating
from plaudit.runs.files import HELDOUT, RANKINGS, Row, write_lines
from plaudit.runtime import Normalisation, RewardRuntime, Scorer, ScoringRuntime
from plaudit.stages.encode import Rows, prompt_id
from plaudit.stages.reward.data import Scale, ratings_of
from plaudit.stages.reward.words import word_score
from plaudit.statistics.bag_of_words import WordModel
from plaudit.statistics.calibration import pair_nll

BATCH = 64
REFERENCE_ROWS = 1024


def raw_scores(scorer: Scorer, rows: Sequence[Encoded], pad_id: int) -> list[float]:
    """Raw scores of encoded rows."""
    scores: list[float] = []
    for first in range(0, len(rows), BATCH):
        part = rows[first : first + BATCH]
        batch = collate_ratings(part, [0.0] * len(part), pad_id)
        # Rows of one prompt are read side by side, so that a packed pass computes their prompt once.
        prompts: dict[tuple[int, ...], int] = {}
        groups = [prompts.setdefault(tuple(row.ids[: row.prompt_length]), len(prompts)) for row in part]
        scores += scorer.read(batch.replace(group_ids=torch.tensor(groups)), "scores")[0].tolist()
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
    rows: Rows,
    scores: Sequence[Sequence[float]],
    attributes: Sequence[str] = (),
    scale: Scale | None = None,
    words: WordModel | None = None,
) -> list[Row]:
    """One JSON-ready dict a pair (a ranking gives all of its own), rated response or labelled text.

    Args:
        scores: of each record, as `unit_scores` gives them.
        words: the bag-of-words baseline, whose scores stand beside those of the model.
    """
    lines: list[Row] = []
    for record, encoded, row in zip(rows.records, rows.encoded, scores, strict=True):
        columns: dict[str, Sequence[Any]] = {"score": row, "length": [int(sum(e.mask)) for e in encoded]}
        is_label = isinstance(record, Rating) and scale is None
        if words is not None:
            columns["words"] = [word_score(words, text, alone=is_label) for text in _responses(record)]
        named: Row = {"id": record.id, "prompt_id": prompt_id(record)}
        named |= {"category": record.category} if record.category else {}
        if isinstance(record, Ranking):
            lines += [named | pair | {"margin": None} for pair in _pairs(record.ranks, columns)]
        elif isinstance(record, Preference):
            if record.agreement == 0.5:
                continue  # a tie: neither order is right
            columns["id"] = [_identity(text) for text in _responses(record)]
            lines.append(
                named | _pair(columns, (0, 1)) | {"margin": record.margin, "agreement": record.agreement}
            )
        elif scale is None:
            lines.append(named | _single(columns) | {"label": record.reward})
        else:
            target = scale.standardised(ratings_of(record, attributes))
            lines.append(named | _single(columns) | {"rating": record.reward, "targets": target})
    return lines


def _responses(record: Any) -> tuple[Content, ...]:
    if isinstance(record, Ranking):
        return record.responses
    return (record.chosen, record.rejected) if isinstance(record, Preference) else (record.response,)


def _identity(response: Content) -> str:
    """The same for the same response: what tells which of several comparisons of a prompt it is part of."""
    return blake2b(plain_text(response).encode(errors="surrogatepass"), digest_size=6).hexdigest()


def _pairs(ranks: Sequence[int], columns: Mapping[str, Sequence[Any]]) -> list[Row]:
    order = [
        (i, j) if ranks[i] < ranks[j] else (j, i)
        for i, j in combinations(range(len(ranks)), 2)
        if ranks[i] != ranks[j]
    ]
    return [_pair(columns, pair) for pair in order]


def _pair(columns: Mapping[str, Sequence[Any]], pair: tuple[int, int]) -> Row:
    sides = zip(("chosen", "rejected"), pair, strict=True)
    return {f"{side}_{name}": column[index] for side, index in sides for name, column in columns.items()}


def _single(columns: Mapping[str, Sequence[Any]]) -> Row:
    return {name: column[0] for name, column in columns.items()}


def write_heldout(
    directory: Path,
    model: ScoringRuntime,
    rows: Rows,
    attributes: Sequence[str],
    scale: Scale | None,
    words: WordModel | None = None,
) -> None:
    """heldout.jsonl, and for ranked lists rankings.jsonl."""
    scores = unit_scores(model.scorer, rows, model.format.pad_id)
    lines = heldout_lines(rows, scores, attributes, scale, words)
    if attributes and lines:
        heads = model.head.heads([e[0].ids for e in rows.encoded])
        lines = [
            line | {"heads": each, "attributes": list(attributes)}
            for line, each in zip(lines, heads, strict=True)
        ]
    write_lines(directory / HELDOUT, lines)
    ranked = [(r, s) for r, s in zip(rows.records, scores, strict=True) if isinstance(r, Ranking)]
    if ranked:
        lists = [{"prompt_id": prompt_id(r), "scores": s, "ranks": list(r.ranks)} for r, s in ranked]
        write_lines(directory / RANKINGS, lists)


def heldout_accuracy(lines: Sequence[dict[str, Any]]) -> float:
    """Share of held-out rows that are ranked (or labelled) right; ties count a half. NaN where nothing is ranked."""
    if not lines or "rating" in lines[0]:
        return math.nan
    if "label" in lines[0]:
        return sum((row["score"] > 0) == (row["label"] > 0.5) for row in lines) / len(lines)
    gaps = [row["chosen_score"] - row["rejected_score"] for row in lines]
    return sum((gap > 0) + 0.5 * (gap == 0) for gap in gaps) / len(gaps)


def heldout_loss(lines: Sequence[Row], head_weights: Sequence[float] = ()) -> float:
    """Mean loss of held-out rows, in nats, or the squared error where ratings are predicted; NaN without rows.

    It chooses among epochs, so it has no margins and no smoothed labels: those of training are no facts.

    Args:
        head_weights: where there are several qualities, the weight of each in the score.

    >>> round(heldout_loss([{"chosen_score": 1.0, "rejected_score": 0.0}]), 4)
    0.3133
    """
    losses = row_losses(lines, head_weights)
    return fmean(losses) if losses else math.nan


def row_losses(lines: Sequence[Row], head_weights: Sequence[float] = ()) -> list[float]:
    """The loss of each held-out row; see `heldout_loss`."""
    if lines and "rating" in lines[0]:
        weights = list(head_weights) or [1.0]
        wanted = [sum(w * t for w, t in zip(weights, row["targets"], strict=True)) for row in lines]
        return [float((row["score"] - target) ** 2) for row, target in zip(lines, wanted, strict=True)]
    if lines and "label" in lines[0]:
        return [pair_nll([row["score"] * (1 if row["label"] > 0.5 else -1)]) for row in lines]
    return [pair_nll([row["chosen_score"] - row["rejected_score"]]) for row in lines]
