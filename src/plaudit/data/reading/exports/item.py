"""One object of an export, at any depth. What is read of it is noted, so that everything else can be said."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from plaudit.data.reading.rows import ReadLog, Row, shorten

OwnRow = dict[str, Any]
"""The fields of a row in one of our own layouts."""
_Path = tuple[str | int, ...]


class Item:
    """An object of an export: the row itself, or an object inside it.

    ``asked`` holds the names that the caller gave: our name of a field, and the export's.
    """

    # Exports are nested, and a flat list of unused columns would hide what is lost inside: the feedback of each
    # annotator, the scores of each completion. So every item of a row shares one set of the paths that were read.

    def __init__(self, row: Row, log: ReadLog, identity: str, asked: Mapping[str, str] | None = None) -> None:
        self.row, self.log, self.identity = row, log, identity
        self.asked = asked or {}
        self.values: Mapping[str, Any] = row.values
        self._path: _Path = ()
        self._used: set[_Path] = set()
        """Paths of what was read, with all that is below."""
        self._opened: set[_Path] = set()
        """Paths of the objects and lists that hold something of it."""
        self._faults = [0]

    @property
    def faulty(self) -> bool:
        """Whether the row has a fault, so that it gives no record."""
        return bool(self._faults[0])

    def fault(self, name: str, found: str, cure: str) -> None:
        """List a fault of this row."""
        self._faults[0] += 1
        self.log.fault(self.row.where, _dotted((*self._path, name)), found, cure)

    # Reading

    def has(self, *names: str) -> str:
        """The first of the names for which there is a value, or ""; an empty CSV cell is none."""
        for name in names:
            value = self.values.get(name)
            if value is not None and not (self._in_cells and value == ""):
                return name
        return ""

    @property
    def _in_cells(self) -> bool:
        return self.row.cells and not self._path

    def peek(self, *names: str) -> Any:
        """As ``take``, but the value does not count as read."""
        name = self.has(*names)
        if not name:
            return None
        value = self.values[name]
        # Lists and objects in a cell of a CSV file are written as JSON.
        return unpacked(value) if self._in_cells else value

    def take(self, *names: str) -> Any:
        """The value of the first of the names that has one, else None. All that is below it counts as read."""
        name = self.has(*names)
        if name:
            self._mark((*self._path, name))
        return self.peek(*names)

    def dismiss(self) -> None:
        """This object is left out and counted: it counts as read."""
        self._mark(self._path)

    def _mark(self, path: _Path) -> None:
        self._used.add(path)
        self._opened.update(path[:end] for end in range(len(path)))

    def content(self, *names: str) -> Any:
        """A text, or a list of turns, that must be there; "" after a fault."""
        value = self.take(*names)
        if isinstance(value, (str, list)) or (isinstance(value, dict) and ("role" in value or "from" in value)):
            return value
        self.fault(names[0], shorten(value), "expected text, or a list of messages")
        return ""

    def chat(self, *names: str) -> list[Any]:
        """A list of turns, or its JSON text, that must be there."""
        value = unpacked(self.take(*names))
        if isinstance(value, list):
            return value
        self.fault(names[0], shorten(value), "expected a list of messages")
        return []

    def label(self, *names: str) -> str:
        """A short text or number as text; "" if there is none."""
        value = self.take(*names)
        if isinstance(value, (str, int, float)) and not isinstance(value, bool):
            return str(value).strip()
        if value is not None:
            self.fault(self.has(*names), shorten(value), "expected text or a number")
        return ""

    def number(self, *names: str) -> float | None:
        """A finite number, or None if there is none."""
        value = self.take(*names)
        if value is None:
            return None
        number = as_number(value)
        if number is None:
            self.fault(self.has(*names), shorten(value), "expected a finite number")
        return number

    def flag(self, *names: str) -> bool | None:
        """A truth value, also as 0 and 1 and as text; None if there is none."""
        value = self.take(*names)
        word = str(value).strip().lower()
        if value is None or word in ("true", "false", "1", "0", "1.0", "0.0"):
            return None if value is None else word in ("true", "1", "1.0")
        self.fault(self.has(*names), shorten(value), "expected true or false")
        return None

    def item(self, name: str) -> Item:
        """The object in a field; an object without fields if there is none."""
        value = self.peek(name)
        if not isinstance(value, dict):
            if value is not None:
                self.fault(name, shorten(value), "expected an object")
            value = {}
        return self._below((name,), value)

    def items(self, name: str) -> list[Item]:
        """The objects of a list; none if there is no list."""
        value = self.peek(name)
        if value is None:
            return []
        if isinstance(value, dict) and value and _equally_long(value):
            return self._columns(name, value)
        if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
            self.fault(name, shorten(value), "expected a list of objects")
            return []
        return [self._below((name, index), each) for index, each in enumerate(value)]

    def _columns(self, name: str, value: Mapping[str, list[Any]]) -> list[Item]:
        """The objects of a list that a table stores as one object of lists."""
        rows = zip(*value.values(), strict=True)
        return [self._below((name,), dict(zip(value, row, strict=True))) for row in rows]

    def _below(self, path: _Path, values: Mapping[str, Any]) -> Item:
        below = Item.__new__(Item)
        below.__dict__.update(self.__dict__)
        below.values, below._path = values, (*self._path, *path)
        return below

    # What was not read

    def unused(self) -> set[str]:
        """Dotted names of all fields of the row that have a value and were not read; list positions are left out."""
        return {_dotted(path) for path in self._left(self.row.values, ())}

    def _left(self, value: Any, path: _Path) -> Iterator[_Path]:
        if path in self._used or not _holds_something(value):
            return
        if path and path not in self._opened:
            yield path
        elif isinstance(value, dict):
            for name, below in value.items():
                yield from self._left(below, (*path, str(name)))
        elif isinstance(value, list):
            for index, below in enumerate(value):
                yield from self._left(below, (*path, index))


def _dotted(path: _Path) -> str:
    """The names of a path without positions in lists."""
    return ".".join(step for step in path if isinstance(step, str))


def unpacked(value: Any) -> Any:
    """The list or object that a text holds as JSON; every other value as it is.

    >>> unpacked('["a"]'), unpacked("[sic]")
    (['a'], '[sic]')
    """
    if isinstance(value, str) and value[:1] in ("[", "{"):
        with contextlib.suppress(ValueError, RecursionError):
            return json.loads(value)
    return value


def as_number(value: Any) -> float | None:
    """The finite number in a value or in its text, else None.

    >>> as_number("4.5"), as_number(True), as_number("N/A")
    (4.5, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if abs(number) < 1e300 else None


def _holds_something(value: Any) -> bool:
    """Whether there is a value at any depth: tables have every field that any row has."""
    if isinstance(value, dict):
        return any(map(_holds_something, value.values()))
    return any(map(_holds_something, value)) if isinstance(value, list) else value not in (None, "")


def _equally_long(value: Mapping[str, Any]) -> bool:
    lists = [each for each in value.values() if isinstance(each, list)]
    return len(lists) == len(value) and len({len(each) for each in lists}) == 1
