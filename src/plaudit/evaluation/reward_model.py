"""The report card of a reward model: does it rank as people do, and is it more than length?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from plaudit.errors import DataError
from plaudit.evaluation.ratings import ratings
from plaudit.runs.files import Row, merge_json, read_lines
from plaudit.statistics import figures as st

PAIR_FIELDS = ("chosen_score", "rejected_score", "chosen_length", "rejected_length")


def card(run_dir: Path) -> dict[str, Any]:
    """Report card from heldout.jsonl (and rankings.jsonl, swaps.jsonl, if they are there); merged into summary.json.

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
    path = Path(run_dir) / "heldout.jsonl"
    rows = read_lines(path)
    if not path.is_file():
        raise DataError(
            "no held-out rows to evaluate the reward model on",
            where=str(path),
            cure="train with --eval-fraction above 0",
        )
    if not rows:  # nothing was held out: there is nothing to say, and no reason to fail after training
        return merge_json(Path(run_dir) / "summary.json", {"accuracy": None, "heldout_pairs": 0})
    kind = next((name for name in ("label", "rating") if name in rows[0]), "pair")
    needed = PAIR_FIELDS if kind == "pair" else ("score", kind)
    for number, row in enumerate(rows, 1):
        missing = [name for name in needed if row.get(name) is None]
        if missing:
            raise DataError(
                f"the row has no finite {' and no '.join(missing)}",
                where=f"{path}:{number}",
                cure="evaluate the reward model again; scores that are not finite point to diverged training",
            )
    if kind == "pair":
        figures = _pairs(rows, read_lines(Path(run_dir) / "rankings.jsonl"))
        figures |= _swaps(read_lines(Path(run_dir) / "swaps.jsonl"))
    else:
        figures = _labels(rows) if kind == "label" else ratings(rows)
    clean = {name: None if _is_nan(value) else value for name, value in figures.items()}
    merge_json(Path(run_dir) / "summary.json", clean)
    return clean


def _pairs(rows: Sequence[Row], rankings: Sequence[Row]) -> dict[str, Any]:
    prompts = [row.get("prompt_id", row.get("id")) for row in rows]
    differences = [row["chosen_score"] - row["rejected_score"] for row in rows]
    longer = [row["chosen_length"] - row["rejected_length"] for row in rows]
    right = st.outcomes(differences)
    accuracy, baseline = st.share(right, prompts), st.share(st.outcomes(longer), prompts)
    # Where shorter responses are preferred, "shorter wins" is the rule to beat.
    rule = longer if baseline.mean >= 0.5 else [-gap for gap in longer]
    advantage = st.paired_bootstrap(st.outcomes(rule), right, prompts)
    scores = [row[f"{side}_score"] for row in rows for side in ("chosen", "rejected")]
    lengths = [row[f"{side}_length"] for row in rows for side in ("chosen", "rejected")]
    shorter, more = ([v for v, gap in zip(right, longer, strict=True) if sign * gap > 0] for sign in (-1, 1))
    lists = [(row["scores"], row["ranks"]) for row in rankings]
    if not lists:
        lists = [([row["chosen_score"], row["rejected_score"]], [1, 2]) for row in rows]
    bins = st.reliability(differences)
    return {
        "accuracy": accuracy.mean,
        "accuracy_ci": list(accuracy.interval),
        "nll": st.pair_nll(differences),
        "kendall_tau": st.kendall_tau([s for s, _ in lists], [r for _, r in lists]),
        "kendall_tau_lists": len(lists),
        "kendall_tau_from": "rankings" if rankings else "pairs",
        "ece": st.ece(bins),
        "reliability": [{"confidence": b.confidence, "accuracy": b.accuracy, "n": b.n} for b in bins],
        "length_baseline_accuracy": baseline.mean,
        "length_baseline_accuracy_ci": list(baseline.interval),
        "over_length_baseline": advantage.mean,
        "over_length_baseline_ci": list(advantage.interval),
        "accuracy_where_chosen_is_shorter": sum(shorter) / len(shorter) if shorter else math.nan,
        "accuracy_where_chosen_is_longer": sum(more) / len(more) if more else math.nan,
        "accuracy_by_margin": _by_margin([row.get("margin") for row in rows], right),
        "score_length_spearman": st.spearman(scores, lengths),
        "margin_mean": sum(differences) / len(differences),
        "heldout_pairs": len(rows),
        "heldout_prompts": accuracy.clusters,
    } | _best_of(rankings)


def _by_margin(margins: Sequence[float | None], right: st.Floats) -> list[dict[str, float]]:
    """Accuracy by how much better people found the chosen response: at most four groups of about equal size."""
    known = sorted((m, r) for m, r in zip(margins, right, strict=True) if m is not None)
    if len({m for m, _ in known}) < 2:
        return []
    parts = st.margin_groups([m for m, _ in known])
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
    hits = st.share([st.best_hit(scores, ranks) for scores, ranks in lists])
    chance = [ranks.count(min(ranks)) / len(ranks) for _, ranks in lists]
    return {
        "best_of_k_hit_rate": hits.mean,
        "best_of_k_hit_rate_ci": list(hits.interval),
        "best_of_k_chance": sum(chance) / len(chance),
    }


def _swaps(rows: Sequence[Row]) -> dict[str, Any]:
    """Share of responses that score higher after their own prompt than after another one: does it read the prompt?"""
    if not rows:
        return {}
    own = st.share(st.outcomes([row["own_score"] - row["other_score"] for row in rows]))
    return {"prompt_swap_accuracy": own.mean, "prompt_swap_accuracy_ci": list(own.interval)}


def _labels(rows: Sequence[Row]) -> dict[str, Any]:
    """A classifier with one logit: the score is the log-odds of label 1, so the decision is at 0."""
    signs = [1.0 if row["label"] > 0.5 else -1.0 for row in rows]
    scores = [row["score"] for row in rows]
    differences = [score * sign for score, sign in zip(scores, signs, strict=True)]
    accuracy = st.share(st.outcomes(differences))
    bins = st.reliability(differences)
    ranks = [1 if sign > 0 else 2 for sign in signs]
    lengths = [row.get("length") or 0 for row in rows]
    return {
        "accuracy": accuracy.mean,
        "accuracy_ci": list(accuracy.interval),
        "nll": st.pair_nll(differences),
        "kendall_tau": st.kendall_tau([scores], [ranks]),
        "kendall_tau_lists": 1,
        "kendall_tau_from": "labels",
        "ece": st.ece(bins),
        "reliability": [{"confidence": b.confidence, "accuracy": b.accuracy, "n": b.n} for b in bins],
        "length_baseline_accuracy": _best_length_threshold(lengths, signs),
        "score_length_spearman": st.spearman(scores, lengths),
        "heldout_pairs": len(rows),
        "heldout_prompts": len(rows),
    }


def _best_length_threshold(lengths: Sequence[float], signs: Sequence[float]) -> float:
    """Accuracy of the best rule "label 1 if longer than x" or its opposite: what length alone can tell."""
    positives = sum(sign > 0 for sign in signs)
    right = best = max(positives, len(signs) - positives)
    right = positives  # threshold below everything: all are called 1
    by_length: dict[float, float] = {}
    for length, sign in zip(lengths, signs, strict=True):
        by_length[length] = by_length.get(length, 0.0) + sign
    for length in sorted(by_length):
        right -= int(by_length[length])
        best = max(best, right, len(signs) - right)
    return best / len(signs)


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)
