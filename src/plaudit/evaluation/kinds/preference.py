"""A policy trained on preferences (DPO and its family): does it rank unseen pairs as people do?

It is judged by its implicit reward, beta times log policy over reference, because that is what it was trained to rank
by. That a policy ranks well does not show that it writes well: for that, its responses must be compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from plaudit.evaluation.page import ENOUGH_PAIRS, INTERVAL, NOT_EVALUATED, Figure, Kind, Verdict
from plaudit.evaluation.words import number, percent, span
from plaudit.runs.files import PREFERENCES, SUMMARY, Row, merge_json, read_lines
from plaudit.runs.reading import Run
from plaudit.statistics.clustered import share
from plaudit.statistics.intervals import Estimate

LEVELS = {
    "heldout_loss": "loss",
    "logp_chosen": "logps/chosen",
    "logp_rejected": "logps/rejected",
}


def card(run_dir: Path) -> Row:
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
    for row in read_lines(run_dir / PREFERENCES):
        steps.setdefault(row["step"], []).append(row)
    if not steps:
        return merge_json(run_dir / SUMMARY, {"accuracy": None, "heldout_rows": 0})
    before, after = steps[min(steps)], steps[max(steps)]
    accuracy = _accuracy(after)
    values: dict[str, Any] = {
        "accuracy": accuracy.value,
        "accuracy_ci": list(accuracy.interval),
        "heldout_rows": accuracy.rows,
        "heldout_prompts": accuracy.n,
    }
    for name, field in LEVELS.items():
        values |= {name: _mean(after, field), f"{name}_before": _mean(before, field)}
    values |= {"margin_mean": _margin(after), "margin_mean_before": _margin(before)}
    merge_json(run_dir / SUMMARY, values)
    return values


def _accuracy(rows: Sequence[Row]) -> Estimate:
    return share([row["rewards/accuracies"] for row in rows], [row["prompt_id"] for row in rows])


def _margin(rows: Sequence[Row]) -> float | None:
    """Mean implicit reward of chosen (or liked) minus that of rejected (or disliked) responses."""
    chosen, rejected = _mean(rows, "rewards/chosen"), _mean(rows, "rewards/rejected")
    return None if chosen is None or rejected is None else chosen - rejected


def _mean(rows: Sequence[Row], name: str) -> float | None:
    values = [row[name] for row in rows if row.get(name) is not None]
    return fmean(values) if values else None


def verdict(run: Run) -> Verdict:
    """Whether the interval of the held-out accuracy lies above one half."""
    card = run.summary
    accuracy, interval = card.get("accuracy"), card.get("accuracy_ci")
    if accuracy is None or interval is None:
        return NOT_EVALUATED
    evidence = (
        f"Its log-probabilities rank {percent(accuracy)} of {card.get('heldout_rows')} held-out rows as people did; "
        f"the {INTERVAL} is {span(interval, 'percent')}. The held-out loss went from "
        f"{number(card.get('heldout_loss_before'))} to {number(card.get('heldout_loss'))}. "
        "This does not show that its responses are better: for that, let people or a second reward compare them."
    )
    if interval[0] > 0.5:
        return Verdict("good", f"It ranks {percent(accuracy)} of unseen rows as people did.", evidence)
    if interval[1] < 0.5:
        return Verdict("bad", "It ranks unseen rows the wrong way round.", evidence)
    return Verdict("flat", "It may rank no better than chance.", evidence)


def warnings(run: Run) -> list[str]:
    """Too few rows, and overfitting seen in the loss or in the accuracy."""
    card, messages = run.summary, []
    rows, first, last = card.get("heldout_rows"), card.get("heldout_loss_before"), card.get("heldout_loss")
    if rows and rows < ENOUGH_PAIRS:
        messages.append(f"Only {rows} held-out rows: the interval is wide. Hold out more, or collect more.")
    if first is not None and last is not None and last > first:
        messages.append(
            f"The held-out loss rose from {number(first)} to {number(last)}: overfitting, or too large steps. "
            "Fewer epochs, or a lower lr."
        )
    accuracy, trained = card.get("accuracy"), run.late("rewards/accuracies")
    # 0.2: with ENOUGH_PAIRS rows a difference of that size is past the noise of both accuracies.
    if accuracy is not None and trained is not None and trained > accuracy + 0.2:
        messages.append(
            f"Overfitting: {percent(trained)} of the training rows are ranked right, but {percent(accuracy)} of "
            "unseen ones."
        )
    return messages


def figures(run: Run) -> list[Figure]:
    """Accuracy and loss on held-out rows, margin, and the log-probabilities of both sides."""
    card = run.summary
    if card.get("accuracy") is None:
        return []
    was = {name: f"was {number(card.get(f'{name}_before'))}" for name in ("heldout_loss", "margin_mean")}
    items = [
        Figure("Held-out accuracy", percent(card["accuracy"]), span(card.get("accuracy_ci"), "percent")),
        Figure("Held-out loss", number(card.get("heldout_loss")), was["heldout_loss"]),
    ]
    if card.get("margin_mean") is not None:
        items.append(Figure("Margin", number(card["margin_mean"]), was["margin_mean"]))
    # Both sides, because a margin can grow while the log-probability of chosen responses falls.
    for side in ("chosen", "rejected"):
        note = f"was {number(card.get(f'logp_{side}_before'), 1)}, nats per response"
        items.append(Figure(f"Log-probability of {side}", number(card.get(f"logp_{side}"), 1), note))
    return items


def brief(run: Run) -> str:
    """How many pairs it ranks as people did."""
    return f"{percent(run.summary.get('accuracy'))} of pairs ranked right"


PREFERENCE = Kind(
    name="preference",
    title="Preferences",
    card=card,
    verdict=verdict,
    figures=figures,
    brief=brief,
    warnings=warnings,
    rows=PREFERENCES,
    computed="accuracy",
    curves=("loss", "rewards/accuracies", "rewards/margins", "logps/chosen", "logps/rejected"),
)
