"""The bag-of-words baseline of a reward model: fitted on its training rows, judged on its held-out rows."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from plaudit.data.reading.transcripts import plain_text
from plaudit.records import Content, Preference, Ranking, Rating
from plaudit.runs.files import WORDS, merge_json, read_json
from plaudit.stages.encode import prompt_id
from plaudit.statistics.bag_of_words import (
    MOST_ROWS,
    Counts,
    WordModel,
    fit_words,
    word_counts,
    word_difference,
)

Compared = tuple[Content, Content, float, str]
"""The better and the worse response, the share of people who say so, and the prompt."""
ALWAYS = ""
"""Stands in every labelled text: its weight is what speaks for label 1 before any word is read."""


def fit_baseline(records: Sequence[Any], run: Path) -> WordModel | None:
    """Weights of words from the training records, kept in the run for later evaluations; None where nothing fits.

    Args:
        records: preferences, rankings, rated responses (compared within prompts) or labelled texts.
    """
    rows = _rows(records)[:MOST_ROWS]
    if not rows:
        return None
    counts, targets, groups = zip(*rows, strict=True)
    model = fit_words(counts, targets, groups)
    if model is not None:
        merge_json(run / WORDS, {"penalty": model.penalty, "weights": dict(model.weights)})
    return model


def read_baseline(run: Path) -> WordModel | None:
    """What `fit_baseline` kept; None for a run that has none."""
    found = read_json(run / WORDS)
    return WordModel(found["weights"], found["penalty"]) if found else None


def word_score(model: WordModel, response: Content, *, alone: bool = False) -> float:
    """What the words of a response say.

    Args:
        alone: of a labelled text, and not of one of several responses.
    """
    counts: dict[str, float] = dict(word_counts(plain_text(response)))
    return model.score(counts | {ALWAYS: 1.0} if alone else counts)


def _rows(records: Sequence[Any]) -> list[tuple[Counts, float, str]]:
    """Counts, target and prompt of each comparison, or of each labelled text."""
    ratings = [r for r in records if isinstance(r, Rating)]
    if ratings and {r.reward for r in ratings} <= {0.0, 1.0}:
        texts = ((dict(word_counts(plain_text(r.response))) | {ALWAYS: 1}, r) for r in ratings)
        return [(counts, r.reward, prompt_id(r)) for counts, r in texts]
    return [
        (word_difference(plain_text(better), plain_text(worse)), target, prompt)
        for better, worse, target, prompt in _compared(records, ratings)
    ]


def _compared(records: Sequence[Any], ratings: Sequence[Rating]) -> list[Compared]:
    pairs: list[Compared] = []
    for record in records:
        if isinstance(record, Preference):
            pairs.append((record.chosen, record.rejected, record.agreement, prompt_id(record)))
        elif isinstance(record, Ranking):
            ranked = list(zip(record.ranks, record.responses, strict=True))
            pairs += _decided(ranked, prompt_id(record))
    by_prompt: dict[str, list[tuple[float, Content]]] = {}
    for rating in ratings:
        by_prompt.setdefault(prompt_id(rating), []).append((-rating.reward, rating.response))
    for prompt, rated in by_prompt.items():
        pairs += _decided(rated, prompt)
    return pairs


def _decided(ranked: Sequence[tuple[float, Content]], prompt: str) -> list[Compared]:
    """All pairs of responses to a prompt, each with a rank (smaller is better), that have different ranks."""
    ordered = [sorted(two, key=lambda each: each[0]) for two in combinations(ranked, 2)]
    return [(better[1], worse[1], 1.0, prompt) for better, worse in ordered if better[0] < worse[0]]
