"""A policy trained on preferences (DPO and its family): does it rank unseen pairs as people do?

It is judged by its implicit reward, beta times log policy over reference, because that is what it was trained to rank
by. That a policy ranks well does not show that it writes well: for that, its responses must be compared.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from plaudit.evaluation.choice import verdict_on_loss
from plaudit.evaluation.page import ENOUGH_PAIRS, INTERVAL, NOT_EVALUATED, Figure, Kind, Tone, Verdict
from plaudit.evaluation.words import number, percent, signed, span
from plaudit.runs.files import PREFERENCES, SUMMARY, Row, merge_json, read_lines
from plaudit.runs.reading import Run
from plaudit.statistics.clustered import mean_over, share
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
        ``heldout_loss``, ``margin_mean``, ``logp_chosen``, ``logp_rejected``, each with what it was ``_before``;
        ``heldout_loss_difference`` and ``margin_difference``, paired row by row, with intervals over prompts; and
        ``verdict`` by the former: "better", "no_change", "worse" or "too_few". ``accuracy`` is None where nothing was
        held out.
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
    change = _change(before, after, lambda row: row.get("loss"))
    values |= _named("heldout_loss_difference", change)
    values |= _named("margin_difference", _change(before, after, _margin_of))
    values["verdict"] = verdict_on_loss(change) if change.n else None
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


def _margin_of(row: Row) -> float | None:
    """Implicit reward of the chosen minus that of the rejected response; None for a response that was rated alone."""
    chosen, rejected = row.get("rewards/chosen"), row.get("rewards/rejected")
    return None if chosen is None or rejected is None else float(chosen - rejected)


def _change(before: Sequence[Row], after: Sequence[Row], value: Callable[[Row], float | None]) -> Estimate:
    """How much a figure changed, row by row; over prompts."""
    if [row.get("id") for row in before] != [row.get("id") for row in after]:
        return mean_over([])  # not the same rows
    both = [
        (row, old, new)
        for was, row in zip(before, after, strict=True)
        if (old := value(was)) is not None and (new := value(row)) is not None
    ]
    return mean_over([new - old for _, old, new in both], [row["prompt_id"] for row, _, _ in both])


def _named(name: str, change: Estimate) -> Row:
    if not change.n:
        return {name: None, f"{name}_ci": None}
    return {name: change.value, f"{name}_ci": None if math.isnan(change.low) else list(change.interval)}


def verdict(run: Run) -> Verdict:
    """Whether the held-out loss fell against that of the model as it started, by its paired interval.

    The accuracy alone would not do: the log-probabilities of a model that has learned nothing rank some share of the
    rows as people did, too.
    """
    card = run.summary
    accuracy, interval, judged = card.get("accuracy"), card.get("accuracy_ci"), card.get("verdict")
    if accuracy is None or interval is None:
        return NOT_EVALUATED
    before, after = card.get("heldout_loss_before"), card.get("heldout_loss")
    loss = f"The held-out loss went from {number(before, 3)} to {number(after, 3)}"
    if card.get("heldout_loss_difference") is not None:
        change = span(card.get("heldout_loss_difference_ci"), "signed", 3)
        loss += f": {signed(card['heldout_loss_difference'], 3)}" + (f", {INTERVAL} {change}" if change else "")
    margin = ""
    if card.get("margin_mean") is not None:
        moved = span(card.get("margin_difference_ci"), "signed", 3)
        margin = (
            f" The margin between chosen and rejected responses went from {number(card.get('margin_mean_before'), 3)} "
            f"to {number(card['margin_mean'], 3)}" + (f" ({moved})." if moved else ".")
        )
    evidence = (
        f"{loss}.{margin} It ranks {percent(accuracy)} of {card.get('heldout_rows')} held-out rows as people did "
        f"({INTERVAL} {span(interval, 'percent')}). "
        "This does not show that its responses are better: for that, let people or a second reward compare them."
    )
    if judged is None:  # a run of the first release, whose card is as it was
        judged = "no_change"
    if interval[1] < 0.5 and judged != "too_few":
        return Verdict("bad", "It ranks unseen rows the wrong way round.", evidence)
    if judged == "better" and interval[0] > 0.5:
        return Verdict("good", f"It ranks {percent(accuracy)} of unseen rows as people did.", evidence)
    headlines: dict[str, tuple[Tone, str]] = {
        "better": ("flat", "It learned something, and may rank no better than chance."),
        "no_change": ("flat", "It learned nothing clear."),
        "worse": ("bad", "It got worse on unseen rows."),
        "too_few": ("flat", "Too few held-out rows to say."),
    }
    return Verdict(*headlines[judged], evidence)


def warnings(run: Run) -> list[str]:
    """Too few rows, and overfitting seen in the loss or in the accuracy."""
    card, messages = run.summary, []
    rows, first, last = card.get("heldout_rows"), card.get("heldout_loss_before"), card.get("heldout_loss")
    if rows and rows < ENOUGH_PAIRS:
        messages.append(f"Only {rows} held-out rows: the interval is wide. Hold out more, or collect more.")
    if card.get("verdict") == "worse":
        messages.append(
            f"The held-out loss rose from {number(first, 3)} to {number(last, 3)}: overfitting, or too large steps. "
            "Fewer epochs, or a lower lr."
        )
    accuracy, trained = card.get("accuracy"), run.late("rewards/accuracies")
    high = (card.get("accuracy_ci") or [None, None])[1]
    # Beyond the interval of the one and 0.2 for the noise of the other: a mean over the last training batches.
    if accuracy is not None and trained is not None and high is not None and trained > max(accuracy + 0.2, high):
        messages.append(
            f"Overfitting: {percent(trained)} of the rows of the last training batches are ranked right, but "
            f"{percent(accuracy)} of unseen ones."
        )
    return messages


def unchecked(run: Run) -> list[str]:
    """Overfitting, where nothing was held out."""
    return [] if run.summary.get("accuracy") is not None else ["everything (no held-out rows were scored)"]


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
    unchecked=unchecked,
    rows=PREFERENCES,
    computed="accuracy",
    curves=("loss", "rewards/accuracies", "rewards/margins", "logps/chosen", "logps/rejected"),
    headline=("accuracy", "accuracy_ci", "heldout_loss_before", "heldout_loss", "heldout_loss_difference_ci"),
)
