"""Reading the fields of one row: every method checks type and text, and lists faults instead of raising."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Literal, cast

from plaudit.data.reading.messages import read_messages, read_tools
from plaudit.data.reading.rows import ReadLog, Row, number_of, shorten, shorten_names
from plaudit.data.reading.transcripts import is_transcript, parse_transcript
from plaudit.records import Content

Transcript = Literal["never", "prompt", "whole"]
"""How to read a `Human:/Assistant:` text: as plain text, as a prompt, or as a prompt with its response."""

TOOLS = ("tools", "functions")
"""Columns with the tools that the assistant may call."""


class Fields:
    """The fields of one row.

    After a fault a method returns a value of the right type (an empty text, 0), so that reading goes on and all faults
    of the row are listed. A row with ``faulty`` set gives no record.
    """

    # CSV cells are texts, whatever they mean. They are not converted when the file is read, because only the field
    # says what is wanted: "007" is an id in one column and a number in another, and "[1, 2]" may be a text or a
    # list. So each method looks once more at the text of a cell.

    def __init__(self, row: Row, log: ReadLog) -> None:
        self.row, self.log = row, log
        self.used: set[str] = set()
        self.faulty = False

    def fault(self, field: str, found: str, cure: str) -> None:
        """List a fault of this row."""
        self.faulty = True
        self.log.fault(self.row.where, field, found, cure)

    def has(self, *names: str) -> str:
        """The first of the names for which the row has a value, or "". An empty CSV cell is no value."""
        for name in names:
            value = self.row.values.get(name)
            if value is not None and not (self.row.cells and value == ""):
                return name
        return ""

    def value(self, *names: str) -> Any:
        """The raw value of the first of the names that the row has; a fault if it has none of them."""
        name = self.has(*names) or next((n for n in names if n in self.row.values), "")
        if not name:
            found = f"only {shorten_names(self.row.values)}" if self.row.values else "no fields"
            self.fault(names[0], found, "expected " + " or ".join(names))
            return None
        self.used.add(name)
        return self.row.values[name]

    # Text

    def text(self, *names: str) -> str:
        """The text of a field, which may be empty."""
        name = self.has(*names) or names[0]
        return self.checked(self.value(*names), name) if self._present(*names) else ""

    def label(self, name: str) -> str | None:
        """A short text that may be missing; numbers count as text (ids, annotators, answers)."""
        if not self.has(name):
            self.used.add(name)
            return None
        value = self.value(name)
        number = number_of(value)
        if number is not None and abs(number) < 2**128:
            return str(number)
        return self.checked(value, name)

    def checked(self, value: Any, field: str) -> str:
        """The text in a value; a fault if it is none, or one that tokenizers and databases cannot hold."""
        # NUL and halves of surrogate pairs are legal in JSON, but tokenizers, CSV and databases fail on them, much
        # later and without naming the row.
        if not isinstance(value, str):
            self.fault(field, shorten(value), "expected text")
            return ""
        if "\0" in value:
            self.fault(field, f"a NUL character in {shorten(value)}", "remove it")
        elif not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value):
            self.fault(field, f"half of a surrogate pair in {shorten(value)}", "replace the broken character")
        return value

    # Texts and chats

    def content(self, *names: str, transcript: Transcript = "never") -> Content:
        """A text or a chat; ``transcript`` says whether a `Human:/Assistant:` text becomes a chat."""
        name = self.has(*names) or names[0]
        return self.as_content(self.value(*names), name, transcript) if self._present(*names) else ""

    def _present(self, *names: str) -> bool:
        """Whether the row has the field at all; a fault if not."""
        if any(name in self.row.values for name in names):
            return True
        self.value(*names)
        return False

    def as_content(self, value: Any, field: str, transcript: Transcript = "never") -> Content:
        """The text or chat in a value."""
        if self.row.cells and isinstance(value, str):
            value = _chat_in_cell(value)
        if isinstance(value, list):
            self.log.styles["messages"] += 1
            return read_messages(value, field, self)
        if isinstance(value, dict) and ("role" in value or "from" in value):
            self.log.styles["messages"] += 1
            return read_messages([value], field, self)
        if isinstance(value, dict):
            self.fault(field, shorten(value), "expected text, or a list of messages")
            return ""
        text = self.checked(value, field)
        if transcript != "never" and is_transcript(text):
            self.log.styles["HH-RLHF transcripts"] += 1
            return parse_transcript(text, whole=transcript == "whole")
        self.log.styles["plain text"] += 1
        return text

    @cached_property
    def tools(self) -> tuple[Mapping[str, Any], ...] | None:
        """The tools that the row lists in a column of its own."""
        name = self.has(*TOOLS)
        return read_tools(self.value(name), name, self) if name else None

    # Numbers, lists, objects

    def number(self, *names: str) -> float:
        """A finite number."""
        name = self.has(*names) or names[0]
        return self.as_number(self.value(*names), name) if self._present(*names) else 0.0

    def as_number(self, value: Any, field: str) -> float:
        """The finite number in a value; text of a CSV cell counts."""
        if self.row.cells and isinstance(value, str):
            value = _number_in_cell(value)
        number = number_of(value)
        if number is not None and abs(number) < 1e300:
            return float(number)
        self.fault(field, shorten(value), "expected a finite number")
        return 0.0

    def whole(self, value: Any, field: str) -> int:
        """The whole number in a value."""
        number = self.as_number(value, field)
        if number != int(number):
            self.fault(field, shorten(value), "expected a whole number")
        return int(number)

    def items(self, name: str) -> list[Any]:
        """A list; in CSV, a cell that holds a JSON list."""
        return cast(list[Any], self._nested(name, list, "a list"))

    def named(self, name: str) -> dict[str, Any]:
        """An object of named values; in CSV, a cell that holds a JSON object."""
        # Parquet gives all rows the same names, with null where a row has no value.
        values = cast(dict[str, Any], self._nested(name, dict, "an object"))
        return {key: value for key, value in values.items() if value is not None}

    def _nested(self, name: str, kind: type, words: str) -> Any:
        if not self._present(name):
            return kind()
        value = self.value(name)
        if self.row.cells and isinstance(value, str):
            value = _json_in_cell(value)
        if isinstance(value, kind):
            return value
        self.fault(name, shorten(value), f"expected {words}")
        return kind()


def _json_in_cell(cell: str) -> Any:
    try:
        return json.loads(cell)
    except (ValueError, RecursionError):
        return cell


def _chat_in_cell(cell: str) -> Any:
    """The messages in a cell, if it holds a JSON list of messages; else the text of the cell."""
    # A response may itself be JSON; only a list whose items all look like turns is a chat.
    value = _json_in_cell(cell) if cell.startswith("[{") else cell
    turns = value if isinstance(value, list) else [None]
    is_chat = all(isinstance(turn, dict) and ("role" in turn or "from" in turn) for turn in turns)
    return value if is_chat else cell


def _number_in_cell(cell: str) -> Any:
    try:
        return float(cell)
    except ValueError:
        return cell
