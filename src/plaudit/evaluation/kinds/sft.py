"""Supervised fine-tuning: does the loss fall, and does it fall on demonstrations that were held out?"""

from __future__ import annotations

from pathlib import Path

from plaudit.evaluation.page import Figure, Kind, Verdict
from plaudit.evaluation.words import number
from plaudit.runs.files import SUMMARY, Row, read_json
from plaudit.runs.reading import Run


def card(run_dir: Path) -> Row:
    """The figures of summary.json as they are: training wrote all there is to know."""
    return read_json(Path(run_dir) / SUMMARY)


def verdict(run: Run) -> Verdict:
    """Whether the training loss fell; with the held-out loss as evidence."""
    first, last, held = run.first("loss"), run.last("loss"), run.summary.get("heldout_loss")
    if first is None or last is None:
        return Verdict("flat", "Nothing was trained yet.", "The run has recorded no loss.")
    evidence = f"The training loss went from {number(first)} to {number(last)} nats per token."
    if held is not None:
        rows = run.summary.get("heldout_rows")
        on = f" On {rows} held-out demonstrations" if rows else " On held-out demonstrations"
        evidence += f"{on} it is {number(held)}: a perplexity of {number(run.summary.get('perplexity'))}."
    if last < first:
        return Verdict("good", "It learned to imitate.", evidence)
    return Verdict("bad", "It did not learn to imitate.", evidence)


def warnings(run: Run) -> list[str]:
    """Overfitting."""
    last, held = run.last("loss"), run.summary.get("heldout_loss")
    # The held-out loss is nearly always a little higher. A fifth more is not little; the 0.05 nats keep losses near 0,
    # of which a fifth is nothing, from raising a warning.
    if last is not None and held is not None and held > 1.2 * last + 0.05:
        return [
            f"Overfitting: the held-out loss is {number(held)}, the training loss {number(last)}. "
            "Fewer epochs, or more demonstrations."
        ]
    return []


def figures(run: Run) -> list[Figure]:
    """Loss in training and held out, perplexity, and how many demonstrations there were."""
    card = run.summary
    items = [
        Figure("Training loss", number(run.last("loss")), f"was {number(run.first('loss'))}"),
        Figure("Held-out loss", number(card.get("heldout_loss")), f"{card.get('heldout_rows', 'no')} rows"),
        Figure("Perplexity", number(card.get("perplexity")), "held-out, per token"),
    ]
    if card.get("train_rows"):
        items.append(Figure("Demonstrations", str(card["train_rows"]), "trained on"))
    return items


def brief(run: Run) -> str:
    """From what to what the loss went."""
    return f"loss {number(run.first('loss'))} → {number(run.last('loss'))}"


SFT = Kind(
    name="sft",
    title="Supervised fine-tuning",
    card=card,
    verdict=verdict,
    figures=figures,
    brief=brief,
    warnings=warnings,
    curves=("loss", "eval/loss", "policy/entropy", "lr"),
    step="Fine-tuning",
)
