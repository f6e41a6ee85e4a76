"""The scores of benchmarks as tables: for the page of one, for that of its reward model, and for the console."""

from __future__ import annotations

from typing import Any

from plaudit.evaluation.page import Table, TableLine
from plaudit.evaluation.words import percent, span
from plaudit.runs.files import SUMMARY, Row, read_json
from plaudit.runs.reading import Run

HEAD = ("", "Rows", "Score", "95 % interval", "Length alone", "Left out")


def own_table(run: Run) -> list[Table]:
    """The table of a scored benchmark, and where there are such, that of the styles or of the best of k."""
    return tables_of(run.summary)


def tables_below(run: Run) -> list[Table]:
    """The tables of all benchmarks that a reward model was scored on: they lie below its run."""
    found = sorted((run.path / "evaluations").glob(f"*/{SUMMARY}"))
    return [table for path in found for table in tables_of(read_json(path))[:1]]


def tables_of(card: Row) -> list[Table]:
    """The tables of a benchmark's figures; none where they are no such figures."""
    rows: list[dict[str, Any]] = card.get("benchmark_table") or []
    if not rows:
        return []
    title = str(card["benchmark_title"])
    return [Table(title, HEAD, [_line(row) for row in rows]), *_styles(card), *_best_of_k(card)]


def _line(row: Row) -> TableLine:
    name = row["name"] if row["counts"] else f"{row['name']} (not part of the score)"
    prompts = f" ({row['prompts']} prompt{'s' * (row['prompts'] > 1)})" if row["prompts"] != row["n"] else ""
    cells = (
        f"{row['n']}{prompts}",
        percent(row["score"], 1),
        span(row["score_ci"], "percent"),
        percent(row["length_score"], 1),
        f"{row['left_out'] or ''}",
    )
    return TableLine(name, cells, quiet=row["level"] == "subset")


def _styles(card: Row) -> list[Table]:
    styles = card.get("benchmark_styles")
    if not styles:
        return []
    names = ("Concise", "Detailed", "Markdown")
    cells = [tuple(percent(value, 1) for value in row) for row in styles]
    lines = [TableLine(f"{name} chosen", row) for name, row in zip(names, cells, strict=True)]
    return [Table("Chosen against rejected style", ("", *(f"{name} rejected" for name in names)), lines)]


def _best_of_k(card: Row) -> list[Table]:
    curve = card.get("benchmark_best_of_k")
    if not curve:
        return []
    lines = [TableLine(f"Best of {row['k']}", (percent(row["score"], 1), percent(row["most"], 1))) for row in curve]
    return [Table("Right answers among the best of k", ("", "By the model", "The most there can be"), lines)]


def as_text(card: Row) -> str:
    """The tables for the console."""
    return "\n\n".join(table.as_text() for table in tables_of(card))
