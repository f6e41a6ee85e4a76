"""Supervised fine-tuning: did the loss fall on demonstrations that were held out?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from plaudit.evaluation.choice import ENOUGH, SMALLEST, verdict_on_loss
from plaudit.evaluation.page import INTERVAL, Figure, Kind, Tone, Verdict
from plaudit.evaluation.words import number, signed, span
from plaudit.runs.files import HELDOUT, SUMMARY, Row, merge_json, read_json, read_lines
from plaudit.runs.reading import Run
from plaudit.statistics.clustered import ratio_over
from plaudit.statistics.intervals import Estimate


def card(run_dir: Path) -> Row:
    """Report card from heldout.jsonl, merged into summary.json.

    Rows are held-out demonstrations, once by the model as it started and once as it ended: ``{"step", "id",
    "prompt_id", "loss" (nats, summed over the trained tokens), "tokens"}``. Runs of the first release have none: their
    summary is all there is to know.

    Returns:
        ``heldout_loss`` (nats per token) with ``_before``, ``_difference`` and ``_difference_ci`` (paired, over
        prompts), ``perplexity``, ``heldout_rows``, and ``verdict``: "better", "no_change", "worse" or "too_few"; no
        verdict where nothing was held out.
    """
    run_dir = Path(run_dir)
    steps: dict[int, list[Row]] = {}
    for row in read_lines(run_dir / HELDOUT):
        steps.setdefault(row["step"], []).append(row)
    if not steps:
        return read_json(run_dir / SUMMARY)
    before, after = steps[min(steps)], steps[max(steps)]
    first, last, change = _loss(before), _loss(after), _change(before, after)
    values = {
        "heldout_loss_before": first.value,
        "heldout_loss": last.value,
        "heldout_loss_difference": change.value,
        "heldout_loss_difference_ci": None if math.isnan(change.low) else list(change.interval),
        "perplexity": math.exp(min(last.value, 700.0)),
        "heldout_rows": len(after),
        "heldout_prompts": change.n,
        "verdict": verdict_on_loss(change),
    }
    return merge_json(run_dir / SUMMARY, values)


def _loss(rows: Sequence[Row]) -> Estimate:
    return ratio_over([row["loss"] for row in rows], [row["tokens"] for row in rows])


def _change(before: Sequence[Row], after: Sequence[Row]) -> Estimate:
    """The change per token, row by row; over prompts."""
    if [row["id"] for row in before] != [row["id"] for row in after]:
        return ratio_over([], [])  # not the same rows
    return ratio_over(
        [row["loss"] - was["loss"] for was, row in zip(before, after, strict=True)],
        [row["tokens"] for row in after],
        [row["prompt_id"] for row in after],
    )


HEADLINES: dict[str, tuple[Tone, str]] = {
    "better": ("good", "It learned to imitate."),
    "no_change": ("flat", "It learned nothing clear."),
    "worse": ("bad", "It imitates worse than before."),
    "too_few": ("flat", "Too few held-out rows to say."),
}


def verdict(run: Run) -> Verdict:
    """Whether the held-out loss fell, by its paired interval; never by the losses of single training batches."""
    card = run.summary
    held, before, judged = card.get("heldout_loss"), card.get("heldout_loss_before"), card.get("verdict")
    first, last = run.first("loss"), run.last("loss")
    if first is None or last is None:
        return Verdict("flat", "Nothing was trained yet.", "The run has recorded no loss.")
    training = f"The loss of the training batches went from {number(first)} to {number(last)} nats per token"
    if held is None or before is None or judged is None:
        on = "" if held is None else f"; on {card.get('heldout_rows')} held-out demonstrations it is {number(held)}"
        why = "What it was on held-out demonstrations before training was not measured, so this decides nothing."
        return Verdict("flat", "Trained, and not judged.", f"{training}{on}. {why}")
    evidence = (
        f"On {card.get('heldout_rows')} held-out demonstrations the loss went from {number(before)} to {number(held)} "
        f"nats per token: {signed(card.get('heldout_loss_difference'), 3)}, {INTERVAL} "
        f"{span(card.get('heldout_loss_difference_ci'), 'signed', 3) or 'unknown'}; a perplexity of "
        f"{number(card.get('perplexity'))}. {training}."
    )
    if judged == "too_few":
        evidence += f" With fewer than {ENOUGH} prompts no change can be told from chance."
    if judged == "no_change":
        evidence += f" A change of less than {SMALLEST:g} nats, or one that chance explains, is none."
    return Verdict(*HEADLINES[judged], evidence)


def warnings(run: Run) -> list[str]:
    """Overfitting."""
    last, held = run.late("loss"), run.summary.get("heldout_loss")
    # The held-out loss is nearly always a little higher. A fifth more is not little; the 0.05 nats keep losses near 0,
    # of which a fifth is nothing, from raising a warning.
    if last is not None and held is not None and held > 1.2 * last + 0.05:
        return [
            f"Overfitting: the held-out loss is {number(held)}, that of the last training batches {number(last)}. "
            "Fewer epochs, or more demonstrations."
        ]
    return []


def unchecked(run: Run) -> list[str]:
    """Whether it learned, and overfitting, where nothing was held out or measured."""
    if run.summary.get("heldout_loss") is None:
        return ["whether it learned, and overfitting (nothing was measured on held-out rows)"]
    return [] if run.summary.get("verdict") else ["whether it learned (no held-out loss before training)"]


def figures(run: Run) -> list[Figure]:
    """Loss held out and in training, perplexity, and how many demonstrations there were."""
    card = run.summary
    before = card.get("heldout_loss_before")
    was = f"was {number(before)}; {card.get('heldout_rows')} rows" if before is not None else ""
    items = [
        Figure("Held-out loss", number(card.get("heldout_loss")), was or f"{card.get('heldout_rows', 'no')} rows"),
        Figure("Perplexity", number(card.get("perplexity")), "held-out, per token"),
        Figure("Training loss", number(run.last("loss")), f"was {number(run.first('loss'))}; single batches"),
    ]
    if card.get("train_rows"):
        items.append(Figure("Demonstrations", str(card["train_rows"]), "trained on"))
    return items


def brief(run: Run) -> str:
    """From what to what the held-out loss went, or that of the training batches where there is no other."""
    card = run.summary
    if card.get("heldout_loss_before") is not None:
        return f"held-out loss {number(card['heldout_loss_before'])} → {number(card.get('heldout_loss'))}"
    return f"loss {number(run.first('loss'))} → {number(run.last('loss'))}"


SFT = Kind(
    name="sft",
    title="Supervised fine-tuning",
    card=card,
    verdict=verdict,
    figures=figures,
    brief=brief,
    warnings=warnings,
    unchecked=unchecked,
    curves=("loss", "eval/loss", "policy/entropy", "lr"),
    rows=HELDOUT,
    computed="heldout_loss_before",
    headline=("heldout_loss_before", "heldout_loss", "heldout_loss_difference_ci"),
    step="Fine-tuning",
)
