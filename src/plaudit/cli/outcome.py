"""What follows a run: figures with intervals, the report, and a few lines on the console."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from plaudit.cli.parser import answer, show
from plaudit.evaluation import kinds
from plaudit.evaluation.report import write_report
from plaudit.jobs.reward_tables import members_of

MADE = {"model": "model", "best": "best.jsonl"}
"""What a run may have made, besides its report."""


def finish(run: Path) -> None:
    """Compute the card of the run's kind, write report.html, print both."""
    card = kinds.card(run)
    report = write_report(run)
    answer({"run": str(run), "report": str(report), **card})
    show(f"\n{kinds.in_words(run)}\n\n{figures(card)}")
    made = [f"{name:<6}  {run / file}" for name, file in MADE.items() if (run / file).exists()]
    members = members_of(run)
    if members:  # the directory itself is what --reward takes
        made.append(f"model   {run} (an ensemble of {len(members)})")
    show("\n".join([*made, f"report  {report}"]))


def finish_pipeline(out: Path) -> None:
    """The same for a directory of runs (sft/, reward/, ppo/), with one report over all of them."""
    runs = kinds.load_runs(out)
    for run in runs:
        names = [name for name in kinds.kind_of(run).headline if name in run.summary]
        if names:  # the rest is in the report
            show(f"{run.command}\n{figures({name: run.summary[name] for name in names}, indent='  ')}")
    last = runs[-1].path
    answer({"run": str(out), **{run.path.name: run.summary for run in runs}})
    show("\n" + kinds.in_words(last))
    show(f"\nmodel   {last / 'model'}\nreport  {write_report(out)}")


def figures(card: dict[str, Any], indent: str = "") -> str:
    """A card as lines of ``name  value``; intervals in brackets, and a line for each row of a table."""
    rows = {name: number(value) for name, value in card.items() if name != "command" and number(value)}
    rows |= {name: text for table in card.items() for name, text in _lines_of(*table)}
    width = max(map(len, rows), default=0)
    return "\n".join(f"{indent}{name:<{width}}  {text}" for name, text in rows.items())


def _lines_of(name: str, table: Any) -> list[tuple[str, str]]:
    """The rows of a table whose first column is their name: ``accuracy_by_category/code  accuracy 0.71 n 40``."""
    if not isinstance(table, list) or not all(isinstance(row, dict) for row in table):
        return []
    named = [(row, next(iter(row))) for row in table if row and isinstance(next(iter(row.values())), str)]
    return [
        (f"{name}/{row[key]}", "  ".join(f"{k} {number(v)}" for k, v in row.items() if k != key and number(v)))
        for row, key in named
    ]


def number(value: Any) -> str:
    """A figure or an interval in a few characters; empty for what is neither."""
    if isinstance(value, (list, tuple)) and value and all(isinstance(v, (int, float)) for v in value):
        return "[" + ", ".join(f"{v:.4g}" for v in value) + "]"
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
