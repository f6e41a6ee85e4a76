"""The report card of a policy trained on preferences: does it rank unseen pairs as people do, and at what price?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from plaudit.runs.files import Row, merge_json, read_lines
from plaudit.statistics import figures as st

LEVELS = {
    "heldout_loss": "loss",
    "logp_chosen": "logps/chosen",
    "logp_rejected": "logps/rejected",
}


def card(run_dir: Path) -> dict[str, Any]:
    """Report card from preferences.jsonl, merged into summary.json.

    Rows are held-out pairs (or rated responses), once by the model as it started and once as it ended: ``{"step", "id",
    "prompt_id", "length"}`` and what the algorithm says of them, ``loss``, ``rewards/accuracies``, ``rewards/chosen``,
    ``rewards/rejected``, ``logps/chosen``, ``logps/rejected`` (nats per response).

    Returns:
        ``accuracy`` (share of pairs whose chosen response has the higher implicit reward, ties 1/2; share of rated
        responses on their side of the zero point) with Wilson's interval, prompts counted and not rows;
        ``heldout_loss``, ``margin_mean``, ``logp_chosen``, ``logp_rejected``, each with what it was ``_before``.
        ``accuracy`` is None where nothing was held out.
    """
    run_dir = Path(run_dir)
    steps: dict[int, list[Row]] = {}
    for row in read_lines(run_dir / "preferences.jsonl"):
        steps.setdefault(row["step"], []).append(row)
    if not steps:
        return merge_json(run_dir / "summary.json", {"accuracy": None, "heldout_rows": 0})
    before, after = steps[min(steps)], steps[max(steps)]
    accuracy = _accuracy(after)
    figures: dict[str, Any] = {
        "accuracy": accuracy.mean,
        "accuracy_ci": list(accuracy.interval),
        "heldout_rows": accuracy.n,
        "heldout_prompts": accuracy.clusters,
    }
    for name, field in LEVELS.items():
        figures |= {name: _mean(after, field), f"{name}_before": _mean(before, field)}
    figures |= {"margin_mean": _margin(after), "margin_mean_before": _margin(before)}
    merge_json(run_dir / "summary.json", figures)
    return figures


def _accuracy(rows: Sequence[Row]) -> st.Estimate:
    return st.share([row["rewards/accuracies"] for row in rows], [row["prompt_id"] for row in rows])


def _margin(rows: Sequence[Row]) -> float | None:
    """Mean implicit reward of chosen (or liked) minus that of rejected (or disliked) responses."""
    chosen, rejected = _mean(rows, "rewards/chosen"), _mean(rows, "rewards/rejected")
    return None if chosen is None or rejected is None else chosen - rejected


def _mean(rows: Sequence[Row], name: str) -> float | None:
    values = [row[name] for row in rows if row.get(name) is not None]
    return fmean(values) if values else None
