"""The results of reading a source: rows, faults, which refuse the source, and notes, which are only shown."""

# Why faults are collected and not raised at the first one: somebody with a file of 50 000 rows wants to mend all of
# them at once. At most ``MOST_SHOWN`` are kept; a file in the wrong encoding has one in every row.

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from numbers import Integral, Real
from typing import Any

from plaudit.errors import DataError

MOST_SHOWN = 100
LARGEST_GB = 16.0
"""The largest file, unpacked, where nobody says otherwise."""
_NUMBER = re.compile(r"([0-9]{1,18})")


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a source, before its fields are interpreted."""

    where: str
    """File and line ("a.jsonl:3"), or file and row where there are no lines."""
    number: int
    """Counts rows of the file from 1."""
    values: dict[str, Any]
    cells: bool = False
    """Whether every value is the text of a CSV cell, from which numbers and lists must still be parsed."""
    nulls: bool = False
    """Whether all rows have the same keys at every depth, so that null only says that another row has one (Parquet)."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where the records of a source stand in it, for errors that come up after reading."""

    source: str
    by_id: Mapping[str, str] = field(default_factory=dict)
    """File and line of each row that gave a record, by the id of the record."""

    def of(self, identity: str) -> str:
        """File and line of a record, or of the one that it was made of: "x/chosen" of "x"; else the source."""
        known = identity
        while known and known not in self.by_id:
            known = known[: max(known.rfind(mark) for mark in "/>#")] if set("/>#") & set(known) else ""
        return self.by_id.get(known, self.source)


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong in one row."""

    where: str
    """File and line, or file and row."""
    field: str
    found: str
    """What is there, shortened."""
    cure: str

    def __str__(self) -> str:
        return f"{self.where} · {self.field} · found {self.found} · {self.cure}"


class BadRows(DataError):
    """All faults of a source at once: ``faults`` holds the first 100, ``total`` counts every one."""

    def __init__(self, source: str, faults: tuple[Fault, ...], total: int) -> None:
        self.faults, self.total = faults, total
        if total == 1:
            only = faults[0]
            super().__init__(f"{only.field}: found {only.found}", where=only.where, cure=only.cure)
            return
        lines = [f"{total} faults in {source}", *(f"    {fault}" for fault in faults)]
        if total > len(faults):
            lines.append(f"    ... and {total - len(faults)} more")
        super().__init__(
            "\n".join(lines),
            where=source,
            cure="mend or remove these rows; `plaudit data check` reads the file again without training",
        )


class ReadLog:
    """Collects faults and notes while one source is read."""

    def __init__(self, source: str, max_gb: float = LARGEST_GB) -> None:
        self.source, self.max_gb = source, max_gb
        self.faults: list[Fault] = []
        self.total = 0
        self.styles: Counter[str] = Counter()
        """How texts are written (plain text, messages, transcripts), and how often."""
        self.unused: list[str] = []
        """Fields that no record holds."""
        self.places: list[str] = []
        """Where the row of each record stands, in the order of the records."""
        self.unnamed: set[str] = set()
        """Ids made from file and row number, of rows that have none."""
        self.dropped = 0
        """Rows that gave no record, and were not faulty."""
        self._notes: dict[str, int] = {}
        self._first: dict[str, str] = {}

    def fault(self, where: str, field: str, found: str, cure: str) -> None:
        """Count a fault, and keep it while fewer than 100 are kept."""
        self.total += 1
        if len(self.faults) < MOST_SHOWN:
            self.faults.append(Fault(where, field, found, cure))

    def note(self, text: str) -> None:
        """Add a note about the whole source, once."""
        self._notes.setdefault(text, 0)

    def count(self, text: str, times: int = 1) -> None:
        """Add to a note about some rows; their number is put in front of the text."""
        if times:
            self._notes[text] = self._notes.get(text, 0) + times

    def odd(self, text: str, where: str, field: str, value: str, advice: str) -> None:
        """As ``count``, for what is read but looks wrong: the note says where the first one stands, and the advice."""
        self._first.setdefault(text, f"first {where} · {field} · found {value} · {advice}")
        self.count(text)

    def unused_key(self, key: str, of: str) -> None:
        """Count a key inside a field that no record holds: of messages, for example."""
        name = f"{shorten_names([key])} of {of}"
        if name not in self.unused and len(self.unused) >= MOST_SHOWN:
            name = f"(and further ones) of {of}"
        if name not in self.unused:
            self.unused.append(name)
        self.count(f"times the key {name} is not used")

    def leave_out(self, text: str, times: int = 1) -> None:
        """As ``count``, for rows, pairs or responses that are left out."""
        self.dropped += times
        self.count(text, times)

    @property
    def notes(self) -> tuple[str, ...]:
        """The notes in the order in which they first came up."""
        counted = ((f"{times} {text}" if times else text, self._first.get(text)) for text, times in self._notes.items())
        return tuple(f"{text}: {first}" if first else text for text, first in counted)

    def raise_if_faulty(self) -> None:
        """Raise ``BadRows`` with every fault, if there is one."""
        if self.total:
            raise BadRows(self.source, tuple(sorted(self.faults, key=_place)), self.total)


def _place(fault: Fault) -> list[tuple[int, str]]:
    """The key by which faults are sorted: by file and line, line 9 before line 10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in _NUMBER.split(fault.where)]


def shorten(value: Any, width: int = 60) -> str:
    """A value for an error message: one short line, whatever the value is.

    >>> shorten("a" * 100, width=10)
    "'aaaaaaaaa...'"
    >>> shorten([1, 2])
    'a list of 2'
    """
    match value:
        case None:
            return "nothing (null)"
        case str():
            return repr(value) if len(value) <= width else repr(value[: width - 1])[:-1] + "...'"
        case list() | tuple():
            return f"a list of {len(value)}"
        case dict():
            return "an object with " + (shorten_names(value) or "no fields")
        case bool():
            return "true" if value else "false"
        case int() if abs(value) >= 10**15:  # Python refuses to print whole numbers of more than 4 300 digits
            return f"a whole number of {value.bit_length()} bits"
        case int() | float():
            return repr(value)
    return f"a value of type {type(value).__name__}"


def shorten_names(names: Any, most: int = 12) -> str:
    """Field names as a comma-separated list that cannot get long."""
    listed = [str(name) for name in names]
    shown = ", ".join(repr(name)[1:-1][:40] for name in listed[:most])
    return shown + (f" and {len(listed) - most} more" if len(listed) > most else "")


def number_of(value: Any) -> int | float | None:
    """A number as Python's own int or float, whatever made it: JSON, a decimal column of Parquet, numpy. Else None.

    >>> number_of(Decimal("7.50")), number_of(Decimal("3.0")), number_of(True), number_of("7")
    (7.5, 3, None, None)
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, Decimal):
        return int(value) if value.is_finite() and value == value.to_integral_value() else float(value)
    if isinstance(value, (int, float)):
        return value
    if isinstance(value, Integral):
        return int(value)
    return float(value) if isinstance(value, Real) else None


def as_json(value: Any) -> int | float | str:
    """What stands in JSON for a value that JSON has no type for: a number for a number, else its text."""
    number = number_of(value)
    return str(value) if number is None else number
