"""The report card of a reward model that predicts ratings: does it order and hit them, and is it more than length?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any

from plaudit.runs.files import Row
from plaudit.statistics import figures as st


def ratings(rows: Sequence[Row]) -> dict[str, Any]:
    """Figures of rated responses ``{"prompt_id", "score", "rating", "targets", "length"}``, and of each head.

    ``accuracy`` is that of all pairs of responses to one prompt with different ratings, ties in score a half.
    ``targets`` are standardised ratings, so an error (``rmse``) of 1 is that of always saying the mean.
    """
    scores, given = [row["score"] for row in rows], [row["rating"] for row in rows]
    lengths = [row.get("length") or 0 for row in rows]
    pairs = [(a, b) if a["rating"] > b["rating"] else (b, a) for a, b in _same_prompt(rows)]
    prompts = [good["prompt_id"] for good, _ in pairs]
    accuracy = st.share(st.outcomes([good["score"] - bad["score"] for good, bad in pairs]), prompts)
    longer = st.share(st.outcomes([good["length"] - bad["length"] for good, bad in pairs]), prompts)
    return {
        "accuracy": accuracy.mean,
        "accuracy_ci": list(accuracy.interval) if pairs else None,
        "pearson": st.pearson(scores, given),
        "spearman": st.spearman(scores, given),
        "length_baseline_accuracy": longer.mean,
        "score_length_spearman": st.spearman(scores, lengths),
        "rating_length_spearman": st.spearman(given, lengths),
        "heldout_pairs": len(pairs),
        "heldout_rows": len(rows),
    } | _heads(rows)


def _same_prompt(rows: Sequence[Row]) -> list[tuple[Row, Row]]:
    """Pairs of rows about one prompt whose ratings differ."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row["prompt_id"], []).append(row)
    return [
        (a, b) for group in groups.values() for a, b in combinations(group, 2) if a["rating"] != b["rating"]
    ]


def _heads(rows: Sequence[Row]) -> dict[str, Any]:
    """Error of the score, or correlation and error of each head."""
    if "heads" not in rows[0]:
        return {"rmse": _rmse([row["score"] for row in rows], [row["targets"][0] for row in rows])}
    figures: dict[str, Any] = {}
    for index, name in enumerate(rows[0].get("attributes", range(len(rows[0]["heads"])))):
        scores, targets = [row["heads"][index] for row in rows], [row["targets"][index] for row in rows]
        figures[f"rmse/{name}"], figures[f"pearson/{name}"] = (
            _rmse(scores, targets),
            st.pearson(scores, targets),
        )
    return figures


def _rmse(scores: Sequence[float], targets: Sequence[float]) -> float:
    return math.sqrt(sum((s - t) ** 2 for s, t in zip(scores, targets, strict=True)) / len(scores))
