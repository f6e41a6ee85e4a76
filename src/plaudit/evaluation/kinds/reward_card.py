"""The report card of a reward model: what its scores of held-out rows say, beside length alone and its own start."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from plaudit.errors import DataError
from plaudit.evaluation.reward_model.breakdown import best_of_k, by_category, by_size, ends, members_agree
from plaudit.evaluation.reward_model.certainty import against_start, probabilities
from plaudit.evaluation.reward_model.shortcuts import length_rule, of_swaps, spoiled, words_rule
from plaudit.runs.files import (
    HELDOUT,
    HELDOUT_START,
    RANKINGS,
    SPOILED,
    SUMMARY,
    SWAPS,
    Row,
    merge_json,
    read_lines,
)
from plaudit.statistics.clustered import mean_over, outcomes, share
from plaudit.statistics.ranking import kendall_tau, pearson, spearman

PAIR_FIELDS = ("chosen_score", "rejected_score", "chosen_length", "rejected_length")


def card(run_dir: Path) -> dict[str, Any]:
    """Report card of a reward model, see `figures`; merged into summary.json.

    Raises:
        DataError: see `figures`.
    """
    values = figures(run_dir)
    whole = merge_json(Path(run_dir) / SUMMARY, values)
    return values if values["heldout_pairs"] else whole


def figures(run_dir: Path) -> dict[str, Any]:
    """Figures from heldout.jsonl (and heldout_start.jsonl, rankings.jsonl, spoiled.jsonl, if they are there).

    heldout.jsonl has pairs ``{"id", "prompt_id", "category", "chosen_score", "rejected_score", "chosen_length",
    "rejected_length", "chosen_words", "rejected_words", "margin", "agreement"}`` with raw scores, or labelled texts
    ``{"score", "label", "length"}``, or rated responses ``{"prompt_id", "score", "rating", "targets", "length"}``,
    with ``"heads"`` where there are several; of an ensemble also ``"members"``, the difference that each finds.
    ``words`` is the score of the bag of words. rankings.jsonl has ``{"prompt_id", "scores": [...], "ranks": [...]}``,
    rank 1 the best; for spoiled.jsonl see `spoiled`.

    Returns:
        ``accuracy``, ``nll``, ``kendall_tau``, ``ece``, ``reliability``, ``temperature``, accuracy by category, human
        margin, agreement and score margin, the best of K, the rules on length and words, correlations with length,
        what spoiling does (docs/howto/evaluation.md has them all). Intervals (``_ci``) are 95 %, over prompts. A figure
        that the data cannot give is ``None`` or not there.

    Raises:
        DataError: no heldout.jsonl (an empty one gives no figures), or rows without scores.
    """
    path = Path(run_dir) / HELDOUT
    rows = read_lines(path)
    if not path.is_file():
        raise DataError(
            "no held-out rows to evaluate the reward model on",
            where=str(path),
            cure="train with --eval-fraction above 0",
        )
    if not rows:  # Nothing was held out. Training went well all the same, so this is no error.
        return {"accuracy": None, "heldout_pairs": 0}
    form = next((name for name in ("label", "rating") if name in rows[0]), "pair")
    _check(rows, PAIR_FIELDS if form == "pair" else ("score", form), path)
    if form == "pair":
        values = _pairs(rows, read_lines(Path(run_dir) / RANKINGS))
        values |= against_start(read_lines(Path(run_dir) / HELDOUT_START), rows)
    else:
        values = _labels(rows) if form == "label" else _ratings(rows)
    values |= spoiled(read_lines(Path(run_dir) / SPOILED) or of_swaps(read_lines(Path(run_dir) / SWAPS)))
    return {name: None if isinstance(v, float) and math.isnan(v) else v for name, v in values.items()}


def _check(rows: Sequence[Row], needed: Sequence[str], path: Path) -> None:
    for line, row in enumerate(rows, 1):
        missing = [name for name in needed if row.get(name) is None]
        if missing:
            raise DataError(
                f"the row has no finite {' and no '.join(missing)}",
                where=f"{path}:{line}",
                cure="evaluate the reward model again; scores that are not finite point to diverged training",
            )


def _pairs(rows: Sequence[Row], rankings: Sequence[Row]) -> Row:
    """Figures of pairs whose difference in score is the log-odds of what people chose."""
    prompts = [row.get("prompt_id", row.get("id")) for row in rows]
    differences = [row["chosen_score"] - row["rejected_score"] for row in rows]
    lists = [(row["scores"], row["ranks"], row.get("prompt_id", i)) for i, row in enumerate(rankings)]
    if not lists:
        two = ([row["chosen_score"], row["rejected_score"]] for row in rows)
        lists = [(scores, [1, 2], prompt) for scores, prompt in zip(two, prompts, strict=True)]
    asked = [each for each in lists if len(set(each[1])) > 1]
    taus = [kendall_tau([scores], [ranks]) for scores, ranks, _ in asked]
    mean = mean_over(taus, [prompt for *_, prompt in asked])
    tau = {
        "kendall_tau": mean.value,
        "kendall_tau_ci": ends(mean),
        "kendall_tau_lists": len(asked),
        "kendall_tau_from": "rankings" if rankings else "pairs",
        "margin_mean": sum(differences) / len(differences),
    }
    return ranked(rows, rankings) | tau | probabilities(differences, prompts)


def ranked(rows: Sequence[Row], rankings: Sequence[Row] = ()) -> Row:
    """Figures of pairs that ask for their order alone."""
    prompts = [row.get("prompt_id", row.get("id")) for row in rows]
    differences = [row["chosen_score"] - row["rejected_score"] for row in rows]
    words = [row["chosen_words"] - row["rejected_words"] if "chosen_words" in row else None for row in rows]
    right = outcomes(differences)
    accuracy = share(right, prompts)
    values = {
        "accuracy": accuracy.value,
        "accuracy_ci": list(accuracy.interval),
        "accuracy_by_category": by_category(rows, right, prompts),
        "accuracy_by_margin": by_size([row.get("margin") for row in rows], right, prompts),
        "accuracy_by_agreement": by_size([row.get("agreement") for row in rows], right, prompts),
        "accuracy_by_score_margin": by_size([abs(gap) for gap in differences], right, prompts),
        "heldout_pairs": len(rows),
        "heldout_prompts": accuracy.n,
    }
    values |= length_rule(rows, right, prompts) | words_rule(words, right, prompts)
    return values | best_of_k(rankings, rows) | members_agree(rows, right, prompts)


def _labels(rows: Sequence[Row]) -> dict[str, Any]:
    """A classifier with one logit: the score is the log-odds of label 1, so the decision is at 0."""
    signs = [1.0 if row["label"] > 0.5 else -1.0 for row in rows]
    scores = [row["score"] for row in rows]
    differences = [score * sign for score, sign in zip(scores, signs, strict=True)]
    prompts = [row.get("prompt_id", i) for i, row in enumerate(rows)]
    accuracy = share(outcomes(differences), prompts)
    ranks = [1 if sign > 0 else 2 for sign in signs]
    lengths = [row.get("length") or 0 for row in rows]
    words = [row["words"] * sign if "words" in row else None for row, sign in zip(rows, signs, strict=True)]
    return {
        "accuracy": accuracy.value,
        "accuracy_ci": list(accuracy.interval),
        "kendall_tau": kendall_tau([scores], [ranks]),
        "kendall_tau_lists": 1,
        "kendall_tau_from": "labels",
        "length_baseline_accuracy": _best_length_threshold(lengths, signs),
        "score_length_spearman": spearman(scores, lengths),
        "heldout_pairs": len(rows),
        "heldout_prompts": accuracy.n,
    } | probabilities(differences, prompts) | words_rule(words, outcomes(differences), prompts)


def _best_length_threshold(lengths: Sequence[float], signs: Sequence[float]) -> float:
    """Accuracy of the best rule "label 1 if longer than x" or its opposite: what length alone can tell."""
    positives = sum(sign > 0 for sign in signs)
    best = max(positives, len(signs) - positives)
    right = positives  # with the threshold below every length all rows are called 1
    by_length: dict[float, float] = {}
    for length, sign in zip(lengths, signs, strict=True):
        by_length[length] = by_length.get(length, 0.0) + sign
    # The threshold moves up past one length after the other. Rows of that length are called 0 from then on: right
    # loses the positives among them and gains the negatives, that is, their sum of signs.
    for length in sorted(by_length):
        right -= int(by_length[length])
        best = max(best, right, len(signs) - right)
    return best / len(signs)


def _ratings(rows: Sequence[Row]) -> Row:
    """Figures of rated responses ``{"prompt_id", "score", "rating", "targets", "length"}``, and of each head.

    ``accuracy`` is that of all pairs of responses to one prompt with different ratings, ties in score a half.
    ``targets`` are standardised ratings, so an error (``rmse``) of 1 is that of always saying the mean.
    """
    scores, people = [row["score"] for row in rows], [row["rating"] for row in rows]
    lengths = [row.get("length") or 0 for row in rows]
    pairs = [_as_pair(a, b) if a["rating"] > b["rating"] else _as_pair(b, a) for a, b in _same_prompt(rows)]
    values = ranked(pairs) if pairs else {"accuracy": None, "accuracy_ci": None, "heldout_pairs": 0}
    return values | {
        "pearson": pearson(scores, people),
        "spearman": spearman(scores, people),
        "score_length_spearman": spearman(scores, lengths),
        "rating_length_spearman": spearman(people, lengths),
        "heldout_rows": len(rows),
    } | _heads(rows)


def _as_pair(better: Row, worse: Row) -> Row:
    """Two rated responses to a prompt as one pair, their difference in rating as the margin."""
    sides = (("chosen", better), ("rejected", worse))
    columns = [name for name in ("score", "length", "words") if name in better and name in worse]
    pair = {f"{side}_{name}": row[name] for side, row in sides for name in columns}
    length = {f"{side}_length": row.get("length") or 0 for side, row in sides}
    ids = {f"{side}_id": row["id"] for side, row in sides if "id" in row}
    margin = {"margin": better["rating"] - worse["rating"], "category": better.get("category")}
    return {"prompt_id": better["prompt_id"]} | pair | length | ids | margin


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
    values: dict[str, Any] = {}
    for index, name in enumerate(rows[0].get("attributes", range(len(rows[0]["heads"])))):
        scores, targets = [row["heads"][index] for row in rows], [row["targets"][index] for row in rows]
        values[f"rmse/{name}"] = _rmse(scores, targets)
        values[f"pearson/{name}"] = pearson(scores, targets)
    return values


def _rmse(scores: Sequence[float], targets: Sequence[float]) -> float:
    return math.sqrt(sum((s - t) ** 2 for s, t in zip(scores, targets, strict=True)) / len(scores))
