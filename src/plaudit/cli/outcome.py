"""What follows a run: figures with intervals, the report, and a few lines on the console."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from plaudit.cli.parser import show
from plaudit.evaluation import policy, reward_model
from plaudit.evaluation.report import write_report

CARDS = {"reward": reward_model.card, "ppo": policy.card}
HIDDEN = {"command"}


def finish(run: Path, command: str) -> None:
    """Compute the card of the run's kind, write report.html, print both."""
    card = CARDS[command](run) if command in CARDS else {}
    report = write_report(run)
    show(figures(card))
    show(f"model   {run / 'model'}\nreport  {report}")


def figures(card: dict[str, Any]) -> str:
    """A card as lines of ``name  value``; intervals in brackets."""
    rows = {name: _number(value) for name, value in card.items() if name not in HIDDEN and _number(value)}
    width = max(map(len, rows), default=0)
    return "\n".join(f"{name:<{width}}  {text}" for name, text in rows.items())


def _number(value: Any) -> str:
    if isinstance(value, (list, tuple)) and all(isinstance(v, (int, float)) for v in value):
        return "[" + ", ".join(f"{v:.4g}" for v in value) + "]"
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
