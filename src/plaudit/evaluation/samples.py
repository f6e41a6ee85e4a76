"""Responses before and after, side by side: those to the first prompts, whatever they look like."""

from __future__ import annotations

from typing import Any

from plaudit.evaluation.page import Pair, Side
from plaudit.evaluation.words import signed
from plaudit.runs.files import Row
from plaudit.runs.reading import Run

SHOWN = 8
LONGEST = 4000


def pairs(run: Run) -> list[Pair]:
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
        shown.append(Pair(readable(row.get("prompt")), _side(old) if old else None, _side(row)))
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
    return Side(readable(row.get("response")), " · ".join(notes))


def readable(value: Any) -> str:
    """A prompt or response as text of bounded length; chats become one line per turn."""
    if isinstance(value, list):
        turns = [turn for turn in value if isinstance(turn, dict)]
        value = "\n".join(f"{turn.get('role', '')}: {turn.get('content', '')}" for turn in turns)
    text = "" if value is None else str(value).strip()
    return text if len(text) <= LONGEST else text[:LONGEST] + " […]"
