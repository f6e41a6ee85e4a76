"""Reading the fields of one row: every method checks type and text, and lists faults instead of raising."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Literal, cast

from plaudit.data.reading.messages import read_messages, read_tools
from plaudit.data.reading.names import Assigned, field_of
from plaudit.data.reading.oddities import is_blank, oddities
from plaudit.data.reading.rows import ReadLog, Row, number_of, shorten, shorten_names
from plaudit.data.reading.structures import looks_like_turns, structure_in, turns_in
from plaudit.data.reading.transcripts import as_messages, is_transcript, parse_transcript
from plaudit.records import LARGEST, Content, Message

LONGEST_NAME = 60
"""Characters of a category; a longer text is one that is to be read."""
Transcript = Literal["never", "prompt", "whole"]
"""How to read a `Human:/Assistant:` text: as plain text, as a prompt, or as a prompt with its response."""


class Fields:
    """The fields of one row.

    After a fault a method returns a value of the right type (an empty text, 0), so that reading goes on and all faults
    of the row are listed. A row with ``faulty`` set gives no record.

    Args:
        assigned: which columns each field is read from.
        as_chat: whether prompts are chats, because some row of the source has a system text, a history or tools.
    """

    # CSV cells are texts, whatever they mean. They are not converted when the file is read, because only the field
    # says what is wanted: "007" is an id in one column and a number in another, and "[1, 2]" may be a text or a
    # list. So each method looks once more at the text of a cell.

    def __init__(self, row: Row, log: ReadLog, assigned: Assigned, *, as_chat: bool = False) -> None:
        self.row, self.log, self.columns, self.as_chat = row, log, assigned.columns, as_chat
        self.used: set[str] = set()
        """Columns that were read."""
        self.faulty = self.promptless = False
        self.from_transcript = False
        """The prompt was a chat written as one text."""
        for name, columns in assigned.doubts.items():
            self._doubt(name, columns)

    def _doubt(self, name: str, columns: tuple[str, ...]) -> None:
        said = {"verdict": "label", "sentence": "text"}.get(name, name)
        cure = f"say which one it is: --field {said}={shorten_names(columns[:1])}"
        cure += f", or --field {said}={'+'.join(columns[:2])} to join them" if name == "prompt" else ""
        self.faulty = True
        found = f"{len(columns)} columns that may be the {said.replace('_', ' ')}"
        self.log.fault(self.row.where, " and ".join(shorten(c)[1:-1] for c in columns), found, cure)

    def fault(self, field: str, found: str, cure: str) -> None:
        """List a fault of this row, under the name of the column that the field is read from."""
        self.faulty = True
        end = next((i for i, mark in enumerate(field) if mark in "[."), len(field))
        column = self.columns.get(field[:end], (field[:end],))[0]
        self.log.fault(self.row.where, shorten(column, 200)[1:-1] + field[end:], found, cure)

    def has(self, *names: str) -> str:
        """The first of the fields for which the row has a value, or "". An empty CSV cell is no value."""
        for name in names:
            for column in self.columns.get(name, ()):
                value = self.row.values.get(column)
                if value is not None and not (self.row.cells and value == ""):
                    return name
        return ""

    def value(self, *names: str) -> Any:
        """The raw value of the first of the fields that the row has; a fault if it has none of them."""
        name = self.has(*names) or next((n for n in names if n in self.columns), "")
        if not name:
            found = f"only {shorten_names(self.row.values)}" if self.row.values else "no fields"
            self.fault(names[0], found, "expected " + " or ".join(names))
            return None
        column = self.columns[name][0]
        self.used.add(column)
        return self.row.values.get(column)

    # Text

    def text(self, *names: str) -> str:
        """The text of a field, which may be empty."""
        name = self.has(*names) or names[0]
        return self.checked(self.value(*names), name) if self._present(*names) else ""

    def label(self, name: str) -> str | None:
        """A short text that may be missing; numbers count as text (ids, annotators, answers)."""
        if not self.has(name):
            self.used.update(self.columns.get(name, ()))
            return None
        value = self.value(name)
        number = number_of(value)
        if number is not None and abs(number) < 2**128:
            return str(number)
        return self.checked(value, name)

    def category(self, prompt: Content) -> str | None:
        """What the data call the topic or the origin of a row: a short name; None where there is none.

        A row without a prompt has none, because then such a column may hold the prompt.
        """
        names = [self.row.values.get(column) for column in self.columns.get("category", ())] if prompt else []
        if not names or names[0] is None or len(str(names[0])) > LONGEST_NAME or "\n" in str(names[0]):
            return None
        return self.label("category") or None

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
        for what, advice in oddities(value):
            self.log.odd(f"texts {what}", self.row.where, field, ascii(shorten(value)), advice)
        return value

    # Texts and chats

    def content(self, *names: str, transcript: Transcript = "never") -> Content:
        """A text or a chat; ``transcript`` says whether a `Human:/Assistant:` text becomes a chat."""
        name = self.has(*names) or names[0]
        return self.as_content(self.value(*names), name, transcript) if self._present(*names) else ""

    def _present(self, *names: str) -> bool:
        """Whether the row has the field at all; a fault if not."""
        if any(name in self.columns for name in names):
            return True
        self.value(*names)
        return False

    def as_content(self, value: Any, field: str, transcript: Transcript = "never") -> Content:
        """The text or chat in a value."""
        if isinstance(value, str):
            value = self._chat_in(value, field)
        if turns := turns_in(value):
            value = turns
        if isinstance(value, list):
            self.log.styles["messages"] += 1
            return read_messages(value, field, self)
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
        if not self.has("tools"):
            return None
        value, column = self.value("tools"), self.columns["tools"][0]
        return read_tools(value, column, self) if structure_in(str(value)) != [] else None

    def _chat_in(self, text: str, field: str) -> Any:
        """The turns of a chat that is stored as text; any other text unchanged, JSON of another kind included."""
        turns = turns_in(structure_in(text))
        if turns is not None:
            self.log.note("chats that are stored as text (JSON, or as Python prints them) are read as chats")
            return turns
        if looks_like_turns(text):
            found = f"a text that looks like a list of messages, {shorten(text)}"
            self.fault(field, found, "store the messages as JSON: a list of objects with role and content")
        return text

    # Prompts

    def prompt(self) -> Content:
        """The prompt, with what the columns system and history put before it."""
        return self.framed(self.asked())

    def asked(self) -> Content:
        """The prompt alone."""
        columns = self.columns.get("prompt", ())
        if len(columns) > 1:
            content: Content = "\n\n".join(filter(None, (self._part(column) for column in columns)))
        else:
            name = "messages" if "messages" in self.columns and "prompt" not in self.columns else "prompt"
            content = self.content(name, transcript="prompt")
            self.from_transcript = isinstance(content, tuple) and isinstance(self.value(name), str)
        if self.has("prompt") and isinstance(content, str) and is_blank(content):
            advice = "write one, or remove the row"
            self.log.odd("prompts without a word", self.row.where, "prompt", ascii(content), advice)
        if content == "[]":  # an empty list of messages in a cell
            return ()
        return as_messages(content, "user") if self.as_chat and content else content

    def _part(self, column: str) -> str:
        """The text of one of several columns that make up the prompt."""
        self.used.add(column)
        value = self.row.values.get(column)
        return "" if value is None else self.checked(value, column)

    def framed(self, content: Content) -> Content:
        """A prompt, or a whole chat, behind the system text and the history of the row."""
        system = self.text("system") if self.has("system") else ""
        history = self._history() if self.has("history") else ()
        if not system and not history:
            return content
        if isinstance(content, str):
            found = "a system text or a history without a prompt" if not content else "a text without turns"
            self.fault("prompt", found, "give the prompt in a column of its own, or as messages")
            return content
        if content and content[0].role == "system":
            if system and content[0].content.strip() != system.strip():
                self.fault("system", "a second system turn, unlike the one of the chat", "keep one of the two")
            return (content[0], *history, *content[1:])
        return (*((Message("system", system),) if system else ()), *history, *content)

    def _history(self) -> tuple[Message, ...]:
        """Earlier turns: messages, a transcript, or pairs of what a user and the assistant said."""
        value = self.value("history")
        if isinstance(value, str) and is_transcript(value):
            return parse_transcript(value)
        value = structure_in(value) if isinstance(value, str) else value
        if not isinstance(value, list):
            self.fault("history", shorten(self.value("history")), "expected pairs [user, assistant], or messages")
            return ()
        if turns_in(value):
            return read_messages(value, "history", self)
        pairs = [self._pair(pair, f"history[{i}]") for i, pair in enumerate(value)]
        return tuple(message for pair in pairs for message in pair)

    def _pair(self, value: Any, field: str) -> tuple[Message, ...]:
        """Two turns, from a list of two texts or an object with two fields of usual names."""
        if isinstance(value, Mapping):
            named = {field_of(str(name)): text for name, text in value.items()}
            value = [named["prompt"], named["response"]] if {*named} == {"prompt", "response"} else value
        if isinstance(value, (list, tuple)) and len(value) == 2 and all(isinstance(v, str) for v in value):
            asked, said = (self.checked(text, field) for text in value)
            return Message("user", asked), Message("assistant", said)
        self.fault(field, shorten(value), "expected a pair [user, assistant], or messages with role and content")
        return ()

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
        if number is not None and abs(number) <= LARGEST:
            return float(number)
        large = number is not None and LARGEST < abs(number) < math.inf
        expected = f"{LARGEST:,.0f} at most in size" if large else "a finite number"
        self.fault(field, shorten(value), f"expected {expected}")
        return 0.0

    def whole(self, value: Any, field: str) -> int:
        """The whole number in a value."""
        number = self.as_number(value, field)
        if number != int(number):
            self.fault(field, shorten(value), "expected a whole number")
        return int(number)

    def items(self, name: str) -> list[Any]:
        """A list, also one that is stored as text."""
        return cast(list[Any], self._nested(name, list, "a list"))

    def named(self, name: str) -> dict[str, Any]:
        """An object of named values, also one that is stored as text."""
        # Parquet gives all rows the same names, with null where a row has no value.
        values = cast(dict[str, Any], self._nested(name, dict, "an object"))
        return {key: value for key, value in values.items() if value is not None}

    def _nested(self, name: str, kind: type, words: str) -> Any:
        if not self._present(name):
            return kind()
        value = self.value(name)
        found = structure_in(value) if isinstance(value, str) else value
        if isinstance(found, kind):
            return found
        self.fault(name, shorten(value), f"expected {words}")
        return kind()


def _number_in_cell(cell: str) -> Any:
    try:
        return float(cell)
    except ValueError:
        return cell
