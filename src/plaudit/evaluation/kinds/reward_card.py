"""The report card of a reward model: what its scores of held-out rows say, beside length alone and its own start."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from plaudit.errors import DataError
from plaudit.evaluation.choice import verdict_on_loss
from plaudit.runs.files import HELDOUT, HELDOUT_START, RANKINGS, SUMMARY, SWAPS, Row, merge_json, read_lines
from plaudit.statistics.calibration import ece, margin_groups, pair_nll, reliability
from plaudit.statistics.clustered import Floats, outcomes, paired_difference, share
from plaudit.statistics.ranking import best_hit, kendall_tau, pearson, spearman

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
    """Figures from heldout.jsonl (and rankings.jsonl, swaps.jsonl, if they are there).

    heldout.jsonl has pairs ``{"id", "prompt_id", "chosen_score", "rejected_score", "chosen_length",
    "rejected_length", "margin"}`` with raw scores, or labelled texts ``{"score", "label", "length"}``, or rated
    responses ``{"prompt_id", "score", "rating", "targets", "length"}``, with ``"heads"`` where there are several.
    rankings.jsonl has ``{"prompt_id", "scores": [...], "ranks": [...]}``, rank 1 the best; swaps.jsonl
    ``{"prompt_id", "own_score", "other_score"}``, a response after its own and after another prompt.

    Returns:
        ``accuracy`` and ``accuracy_ci``, ``nll``, ``kendall_tau``, ``ece``, ``length_baseline_accuracy`` and its
        interval, ``score_length_spearman``, ``reliability`` (bins), ``heldout_pairs``; for pairs also accuracy by
        human margin, and where the chosen response is the shorter or the longer one; for rankings how often the best
        response is found; for ratings correlations. A figure that the data cannot give is ``None``.

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
        values |= _swaps(read_lines(Path(run_dir) / SWAPS))
        values |= _against_start(read_lines(Path(run_dir) / HELDOUT_START), rows)
    else:
        values = _labels(rows) if form == "label" else _ratings(rows)
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


def _pairs(rows: Sequence[Row], rankings: Sequence[Row]) -> dict[str, Any]:
    prompts = [row.get("prompt_id", row.get("id")) for row in rows]
    differences = [row["chosen_score"] - row["rejected_score"] for row in rows]
    longer = [row["chosen_length"] - row["rejected_length"] for row in rows]
    right = outcomes(differences)
    accuracy, baseline = share(right, prompts), share(outcomes(longer), prompts)
    # People often prefer the longer response, so a model can be right without having read it. Where they prefer
    # the shorter one, "take the shorter" is the rule to beat.
    rule = longer if baseline.value >= 0.5 else [-gap for gap in longer]
    advantage = paired_difference(outcomes(rule), right, prompts)
    scores = [row[f"{side}_score"] for row in rows for side in ("chosen", "rejected")]
    lengths = [row[f"{side}_length"] for row in rows for side in ("chosen", "rejected")]
    shorter, more = ([v for v, gap in zip(right, longer, strict=True) if sign * gap > 0] for sign in (-1, 1))
    lists = [(row["scores"], row["ranks"]) for row in rankings]
    if not lists:
        lists = [([row["chosen_score"], row["rejected_score"]], [1, 2]) for row in rows]
    bins = reliability(differences)
    return {
        "accuracy": accuracy.value,
        "accuracy_ci": list(accuracy.interval),
        "nll": pair_nll(differences),
        "kendall_tau": kendall_tau([s for s, _ in lists], [r for _, r in lists]),
        "kendall_tau_lists": len(lists),
        "kendall_tau_from": "rankings" if rankings else "pairs",
        "ece": ece(bins),
        "reliability": [{"confidence": b.confidence, "accuracy": b.accuracy, "n": b.n} for b in bins],
        "length_baseline_accuracy": baseline.value,
        "length_baseline_accuracy_ci": list(baseline.interval),
        "over_length_baseline": advantage.value,
        "over_length_baseline_ci": list(advantage.interval),
        "accuracy_where_chosen_is_shorter": sum(shorter) / len(shorter) if shorter else math.nan,
        "accuracy_where_chosen_is_longer": sum(more) / len(more) if more else math.nan,
        "accuracy_by_margin": _by_margin([row.get("margin") for row in rows], right),
        "score_length_spearman": spearman(scores, lengths),
        "margin_mean": sum(differences) / len(differences),
        "heldout_pairs": len(rows),
        "heldout_prompts": accuracy.n,
    } | _best_of(rankings)


def _by_margin(margins: Sequence[float | None], right: Floats) -> list[dict[str, float]]:
    """Accuracy by how much better people found the chosen response: at most four groups of about equal size."""
    known = sorted((m, r) for m, r in zip(margins, right, strict=True) if m is not None)
    if len({m for m, _ in known}) < 2:
        return []
    parts = margin_groups([m for m, _ in known])
    return [
        {
            "low": known[a][0],
            "high": known[b - 1][0],
            "accuracy": sum(r for _, r in known[a:b]) / (b - a),
            "n": b - a,
        }
        for a, b in parts
    ]


def _best_of(rankings: Sequence[Row]) -> dict[str, Any]:
    """How often the response with the highest score is one of the best, and how often a blind choice would be."""
    lists = [(row["scores"], row["ranks"]) for row in rankings if len(set(row["ranks"])) > 1]
    if not lists:
        return {}
    hits = share([best_hit(scores, ranks) for scores, ranks in lists])
    chance = [ranks.count(min(ranks)) / len(ranks) for _, ranks in lists]
    return {
        "best_of_k_hit_rate": hits.value,
        "best_of_k_hit_rate_ci": list(hits.interval),
        "best_of_k_chance": sum(chance) / len(chance),
    }


def _swaps(rows: Sequence[Row]) -> dict[str, Any]:
    """Share of responses that score higher after their own prompt than after another: does the prompt count?"""
    if not rows:
        return {}
    own = share(outcomes([row["own_score"] - row["other_score"] for row in rows]))
    return {"prompt_swap_accuracy": own.value, "prompt_swap_accuracy_ci": list(own.interval)}


def _against_start(before: Sequence[Row], after: Sequence[Row]) -> dict[str, Any]:
    """Loss and margin of the pairs by the model as it started, and what changed, pair by pair; over prompts."""
    if [row["id"] for row in before] != [row["id"] for row in after]:
        return {}  # scored on other data than it was trained beside, or a run of the first release
    old, new = ([row["chosen_score"] - row["rejected_score"] for row in rows] for rows in (before, after))
    prompts = [row.get("prompt_id", row["id"]) for row in after]
    lost, losses = ([pair_nll([gap]) for gap in gaps] for gaps in (old, new))
    loss, margin = paired_difference(lost, losses, prompts), paired_difference(old, new, prompts)
    return {
        "heldout_loss": sum(losses) / len(new),
        "heldout_loss_before": sum(lost) / len(old),
        "heldout_loss_difference": loss.value,
        "heldout_loss_difference_ci": list(loss.interval),
        "accuracy_before": share(outcomes(old), prompts).value,
        "margin_difference": margin.value,
        "margin_difference_ci": list(margin.interval),
        "verdict": verdict_on_loss(loss),
    }


def _labels(rows: Sequence[Row]) -> dict[str, Any]:
    """A classifier with one logit: the score is the log-odds of label 1, so the decision is at 0."""
    signs = [1.0 if row["label"] > 0.5 else -1.0 for row in rows]
    scores = [row["score"] for row in rows]
    differences = [score * sign for score, sign in zip(scores, signs, strict=True)]
    accuracy = share(outcomes(differences))
    bins = reliability(differences)
    ranks = [1 if sign > 0 else 2 for sign in signs]
    lengths = [row.get("length") or 0 for row in rows]
    return {
        "accuracy": accuracy.value,
        "accuracy_ci": list(accuracy.interval),
        "nll": pair_nll(differences),
        "kendall_tau": kendall_tau([scores], [ranks]),
        "kendall_tau_lists": 1,
        "kendall_tau_from": "labels",
        "ece": ece(bins),
        "reliability": [{"confidence": b.confidence, "accuracy": b.accuracy, "n": b.n} for b in bins],
        "length_baseline_accuracy": _best_length_threshold(lengths, signs),
        "score_length_spearman": spearman(scores, lengths),
        "heldout_pairs": len(rows),
        "heldout_prompts": len(rows),
    }


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


def _ratings(rows: Sequence[Row]) -> dict[str, Any]:
    """Figures of rated responses ``{"prompt_id", "score", "rating", "targets", "length"}``, and of each head.

    ``accuracy`` is that of all pairs of responses to one prompt with different ratings, ties in score a half.
    ``targets`` are standardised ratings, so an error (``rmse``) of 1 is that of always saying the mean.
    """
    scores, people = [row["score"] for row in rows], [row["rating"] for row in rows]
    lengths = [row.get("length") or 0 for row in rows]
    pairs = [(a, b) if a["rating"] > b["rating"] else (b, a) for a, b in _same_prompt(rows)]
    prompts = [good["prompt_id"] for good, _ in pairs]
    accuracy = share(outcomes([good["score"] - bad["score"] for good, bad in pairs]), prompts)
    longer = share(outcomes([good["length"] - bad["length"] for good, bad in pairs]), prompts)
    return {
        "accuracy": accuracy.value,
        "accuracy_ci": list(accuracy.interval) if pairs else None,
        "pearson": pearson(scores, people),
        "spearman": spearman(scores, people),
        "length_baseline_accuracy": longer.value,
        "score_length_spearman": spearman(scores, lengths),
        "rating_length_spearman": spearman(people, lengths),
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
    values: dict[str, Any] = {}
    for index, name in enumerate(rows[0].get("attributes", range(len(rows[0]["heads"])))):
        scores, targets = [row["heads"][index] for row in rows], [row["targets"][index] for row in rows]
        values[f"rmse/{name}"] = _rmse(scores, targets)
        values[f"pearson/{name}"] = pearson(scores, targets)
    return values


def _rmse(scores: Sequence[float], targets: Sequence[float]) -> float:
    return math.sqrt(sum((s - t) ** 2 for s, t in zip(scores, targets, strict=True)) / len(scores))
