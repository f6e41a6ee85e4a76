"""The chapters of a page: a whole run, or its training and its outcome apart; and the data that was learned from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from plaudit.evaluation.curves import curves
from plaudit.evaluation.kinds import kind_of, verdict, warnings
from plaudit.evaluation.page import Chapter, Pair, Side, Verdict
from plaudit.evaluation.words import signed
from plaudit.runs.files import Row, read_lines
from plaudit.runs.reading import Run

SHOWN = 8
"""Prompts whose responses are shown. They are the first ones, so that nobody picks those that look good."""
LONGEST = 4000
"""Characters of a response, so that one that never ended does not fill the page."""


def chapter(run: Run) -> Chapter:
    """A run as one chapter: everything there is to say of it."""
    kind = kind_of(run)
    first, more = curves(run, kind)
    return Chapter(
        anchor=_anchor(run),
        step=kind.step or run.command.upper(),
        verdict=kind.verdict(run),
        figures=kind.figures(run),
        warnings=warnings(run),
        unchecked=kind.unchecked(run),
        charts=kind.panels(run) + first,
        tables=kind.tables(run),
        more=more,
        samples=_pairs(run),
        brief=kind.brief(run),
    )


def training_chapter(run: Run, trained: Verdict) -> Chapter:
    """The training of the last run of a story: its curves. What came of it is the outcome's chapter."""
    kind = kind_of(run)
    first, more = curves(run, kind)
    step = kind.step or run.command.upper()
    return Chapter(_anchor(run), step, trained, charts=first, more=more, brief=kind.brief(run))


def outcome_chapter(run: Run) -> Chapter:
    """The last chapter of a story that ends in a policy: whether it got better."""
    kind, judged = kind_of(run), verdict(run)
    return Chapter(
        anchor="outcome",
        step="Did it work?",
        verdict=judged,
        figures=kind.figures(run),
        warnings=warnings(run),
        unchecked=kind.unchecked(run),
        tables=kind.tables(run),
        charts=kind.panels(run),
        samples=_pairs(run),
        brief=judged.headline,
    )


def _anchor(run: Run) -> str:
    # The name of the directory keeps two runs of one kind apart; not every name can be an id in HTML.
    return run.path.name if run.path.name.isidentifier() else kind_of(run).name


def data_chapter(folder: Path) -> Chapter | None:
    """What everything was learned from: sizes and two examples of each ``*.jsonl`` in ``folder``."""
    files = sorted(folder.glob("*.jsonl")) if folder.is_dir() else []
    contents = [(path.stem, read_lines(path)) for path in files]
    contents = [(name, rows) for name, rows in contents if rows]
    if not contents:
        return None
    sizes = ", ".join(f"{len(rows)} {name}" for name, rows in contents)
    contained = Verdict("flat", "This is what it learned from.", f"{sizes[0].upper()}{sizes[1:]}.")
    examples = [(name, [_example(row) for row in rows[:2]]) for name, rows in contents]
    brief = max(((len(rows), name) for name, rows in contents), default=(0, ""))
    return Chapter("data", "Data", contained, examples=examples, brief=f"{brief[0]} {brief[1]}")


def _example(row: Row) -> Row:
    names = ("prompt", "response", "completion", "chosen", "rejected", "messages")
    return {name: _readable(row[name]) for name in names if row.get(name)}


def _pairs(run: Run) -> list[Pair]:
    """Up to eight prompts of samples.jsonl, in the order in which they were recorded."""
    rows = run.samples
    if not rows:
        return []
    steps = [row["step"] for row in rows]
    first, last = min(steps), run.summary.get("model_step", max(steps))
    before = {_key(row): row for row in rows if row["step"] == first}
    after = {_key(row): row for row in rows if row["step"] == last}
    shown = []
    for key, row in list(after.items())[:SHOWN]:
        old = before.get(key) if first != last else None
        shown.append(Pair(_readable(row.get("prompt")), _side(old) if old else None, _side(row)))
    return shown


def _key(row: Row) -> tuple[Any, ...]:
    return (str(row.get("prompt_id", row.get("prompt"))), row.get("k", 0))


def _side(row: Row) -> Side:
    notes = []
    for name in ("gold", "reward"):
        if isinstance(row.get(name), (int, float)):
            notes.append(f"{name} {signed(row[name])}")
    if row.get("finish_reason") == "length":
        notes.append("cut off")
    return Side(_readable(row.get("response")), " · ".join(notes))


def _readable(value: Any) -> str:
    """A prompt or response as text of bounded length; chats become one line per turn."""
    if isinstance(value, list):
        turns = [turn for turn in value if isinstance(turn, dict)]
        value = "\n".join(f"{turn.get('role', '')}: {turn.get('content', '')}" for turn in turns)
    text = "" if value is None else str(value).strip()
    return text if len(text) <= LONGEST else text[:LONGEST] + " […]"
