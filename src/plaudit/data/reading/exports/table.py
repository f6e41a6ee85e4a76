"""The exports that are recognised, by which fields, and what each becomes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from plaudit.data.reading.exports import pairs
from plaudit.data.reading.exports.item import Item, OwnRow
from plaudit.data.reading.rows import ReadLog, Row, shorten_names

Parts = list[tuple[str, list[Row]]]
"""The rows of each file of a source, with the stem of its name."""


@dataclass(frozen=True, slots=True)
class Export:
    """One export or public layout: the fields that tell it, and its rows as rows of our own."""

    name: str
    becomes: str
    """The kind of record, and what is kept of the verdict."""
    needs: tuple[str, ...]
    """Fields that must have a value; "a|b" where either will do."""
    convert: Callable[[Item], list[OwnRow]]
    check: Callable[[Mapping[str, Any]], bool] = lambda values: True
    """What else must hold, where the names alone are too common."""

    def fits(self, row: Row) -> bool:
        """Whether a row has this shape."""
        values = row.values
        named = all(any(values.get(name) is not None for name in names.split("|")) for names in self.needs)
        return named and self.check(values)


EXPORTS: tuple[Export, ...] = (
    Export(
        "OpenAI preferences",
        "preference",
        ("input", "preferred_output", "non_preferred_output"),
        pairs.openai_preference,
    ),
    Export(
        "arena battles",
        "judgement: winner, models, who judged",
        ("conversation_a", "conversation_b", "winner"),
        pairs.conversations,
    ),
)


def read_exports(parts: Parts, log: ReadLog) -> tuple[Parts, str]:
    """The rows in our own layouts and the name of the export; unchanged, with "", if they are none.

    What no record holds, and what is left out, goes to ``log``.
    """
    rows = [row for _, part in parts for row in part]
    export = _recognised(rows)
    if export is None:
        return parts, ""
    unused: set[str] = set()
    own: Parts = []
    for stem, part in parts:
        items = [Item(row, log, f"{stem}-{row.number}") for row in part]
        own.append((stem, [row for item in items for row in _own_rows(item, export)]))
        unused.update(name for item in items for name in item.unused())
    log.unused += sorted(unused - set(log.unused))
    if unused:
        log.note(f"fields not used: {shorten_names(sorted(unused))}")
    return own, export.name


def _recognised(rows: Sequence[Row]) -> Export | None:
    """The first export that at least half of the rows fit: rows that do not are faults of these rows."""
    for export in EXPORTS:
        if rows and 2 * sum(map(export.fits, rows)) >= len(rows):
            return export
    return None


def _own_rows(item: Item, export: Export) -> list[Row]:
    converted = export.convert(item)
    if item.faulty:
        return []
    return [Row(item.row.where, item.row.number, {"id": item.identity, **values}) for values in converted]
