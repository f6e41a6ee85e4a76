"""JSON to rows: one object on each line, a list of objects, or one object that holds such a list."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

from plaudit.data.reading.opening.decoding import numbered_lines, whole_text
from plaudit.data.reading.opening.splits import HELD_OUT, TRAINING, is_of
from plaudit.data.reading.rows import ReadLog, Row, shorten, shorten_names

_BESIDE = ("meta", "pagination", "total", "count", "next", "next_page", "page", "cursors", "has_more")
"""What a page of an API says of itself, beside its list of rows."""
_VALUE = re.compile(r"\s*(?:-?\d[\d.eE+-]*|true|false|null|-?Infinity|NaN)\s*$")
_SPACE = re.compile(r"[ \t\r\n]*")


class _JsonReader:
    """A JSON decoder that also reports what Python's accepts: NaN, Infinity, and a field that occurs twice."""

    # NaN as a reward spoils every mean silently. Of a field that occurs twice Python keeps the last value, other
    # readers the first: two programs would train on different data.

    def __init__(self) -> None:
        self._odd: list[tuple[str, str, str]] = []
        self._decoder = json.JSONDecoder(object_pairs_hook=self._object)

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            self._odd.append((shorten(twice)[1:-1], "the field twice in one object", "keep one of them"))
        for name, value in pairs:
            for number in _not_finite(value):
                self._odd.append((shorten(name)[1:-1], str(number), "expected a finite number, or null"))
        return result

    def read(self, text: str, start: int, where: str, log: ReadLog) -> tuple[Any, int] | None:
        """The value at ``start`` and where it ends; ``None`` if it is no JSON (then ``log`` has a fault)."""
        self._odd.clear()
        # A file may be hostile as well as broken: deep nesting and huge numbers have exceptions of their own.
        try:
            value, end = self._decoder.raw_decode(text, start)
        except RecursionError:
            log.fault(where, "row", "lists or objects nested too deep", "expected flat rows, or messages")
        except json.JSONDecodeError as error:
            near = shorten(text[max(error.pos - 15, start) : error.pos + 15])
            log.fault(where, "row", f"broken JSON near {near} ({error.msg.lower()})", "expected a JSON object")
        except ValueError:
            log.fault(where, "row", "a whole number with thousands of digits", "write it as text")
        else:
            for field, found, cure in self._odd:
                log.fault(where, field, found, cure)
            return value, end
        return None


def _not_finite(value: Any) -> Iterator[float]:
    """The numbers in a value, or in lists in it, that are not finite; objects in it have been looked at before."""
    left = [value]
    while left:
        each = left.pop()
        if isinstance(each, list):
            left += each
        elif isinstance(each, float) and not math.isfinite(each):
            yield each


def is_spread(stream: BinaryIO, where: str, log: ReadLog) -> bool:
    """Whether a file that is named JSON Lines is other JSON: one list, or objects that go over several lines."""
    quiet = ReadLog(log.source, log.max_gb)
    line = next((line for _, line in numbered_lines(stream, where, quiet)), "").strip()
    stream.seek(0)
    if line.startswith("["):
        return True
    # An object that does not end where it began: either the line is broken, or the object goes on below.
    if not line.startswith("{") or quiet.total or _JsonReader().read(line, 0, where, quiet) is not None:
        return False
    text = whole_text(stream, where, quiet) or ""
    stream.seek(0)
    return _JsonReader().read(text, _skip(text, 0), where, ReadLog(log.source)) is not None


def jsonl_rows(stream: BinaryIO, where: str, log: ReadLog) -> Iterator[Row]:
    """Rows of a stream with one JSON object on each line. Blank lines are skipped."""
    yield from _jsonl_rows(numbered_lines(stream, where, log), where, log)


def _numbered(text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(re.split(r"\r\n|\n|\r", text), 1):
        if line.strip():
            yield number, line


def _jsonl_rows(lines: Iterable[tuple[int, str]], where: str, log: ReadLog) -> Iterator[Row]:
    reader = _JsonReader()
    count = 0
    for number, line in lines:
        if count == 0 and _is_other(line, f"{where}:{number}", log):
            return
        place = f"{where}:{number}"
        read = reader.read(line, _skip(line, 0), place, log)
        if read is None:
            continue
        value, end = read
        if _skip(line, end) < len(line):
            cure = "expected one JSON object per line"
            log.fault(place, "row", f"{shorten(line[end : end + 20])} after the end of the object", cure)
            continue
        count += 1
        yield from _as_row(value, place, count, log)


def json_rows(text: str, where: str, log: ReadLog) -> Iterator[Row]:
    """Rows of a JSON text; JSON Lines under the ending .json is recognised and read as such."""
    start = _skip(text, 0)
    if start == len(text):
        return
    if _is_other(text[start : start + 400], f"{where}:{1 + text.count(chr(10), 0, start)}", log):
        return
    if text[start] == "[":
        yield from _array_rows(text, start + 1, where, log)
        return
    read = _JsonReader().read(text, start, f"{where}:1", log)
    if read is None:
        return
    value, end = read
    if _skip(text, end) < len(text):
        if "\n" in text[start:end]:
            log.note("the file holds JSON objects one after another")
            yield from _objects_in_a_row(text, start, where, log)
            return
        log.note("the file holds one JSON object per line (JSONL)")
        yield from _jsonl_rows(_numbered(text), where, log)
        return
    yield from _object_rows(value, where, log)


def _array_rows(text: str, position: int, where: str, log: ReadLog) -> Iterator[Row]:
    """The items of an array, decoded one by one."""
    # One by one and not the whole array at once: a fault can then name its line, and the rows before it are still read.
    reader = _JsonReader()
    line, seen, count = 1, 0, 0
    position = _skip(text, position)
    while text[position : position + 1] != "]":
        line, seen = line + text.count("\n", seen, position), position
        place = f"{where}:{line}"
        read = reader.read(text, position, place, log)
        if read is None:
            return
        value, end = read
        count += 1
        yield from _as_row(value, place, count, log)
        position = _skip(text, end)
        if text[position : position + 1] == ",":
            position = _skip(text, position + 1)
        elif text[position : position + 1] != "]":
            found = shorten(text[position : position + 20]) if position < len(text) else "the end of the file"
            log.fault(place, "row", f"{found} after this object", "expected a comma or the end of the list")
            return
    if _skip(text, position + 1) < len(text):
        log.fault(where, "file", "more text after the end of the list", "expected one JSON list")


def _is_other(text: str, where: str, log: ReadLog) -> bool:
    """Whether a file named JSON does not even begin like it; one fault says so, and not one for each line."""
    if text.lstrip()[:1] in ("{", "[", '"') or _VALUE.match(text):
        return False
    first = text.strip().split("\n", 1)[0]
    cure = "expected JSON objects; a table needs the ending .csv, prompts on lines need .txt"
    log.fault(where, "file", f"{shorten(first)}, which is no JSON (CSV or plain text?)", cure)
    return True


def _objects_in_a_row(text: str, position: int, where: str, log: ReadLog) -> Iterator[Row]:
    """Objects one after another, each over as many lines as it takes."""
    reader = _JsonReader()
    line, seen, count = 1, 0, 0
    while position < len(text):
        line, seen = line + text.count("\n", seen, position), position
        read = reader.read(text, position, f"{where}:{line}", log)
        if read is None:
            return
        value, end = read
        count += 1
        yield from _as_row(value, f"{where}:{line}", count, log)
        position = _skip(text, end)
        if text[position : position + 1] == ",":
            position = _skip(text, position + 1)


def _object_rows(value: Any, where: str, log: ReadLog) -> Iterator[Row]:
    """The rows of a file that is one object: a list under its only field, or the object itself as a single row."""
    # Fields that hold the turns of a chat are lists too, but such an object is a row.
    lists = [name for name, items in value.items() if isinstance(items, list)] if isinstance(value, dict) else []
    if len(lists) == 1 and all(name in _BESIDE for name in value if name not in lists):
        name, items = lists[0], value[lists[0]]
        if name not in ("messages", "conversations", "prompt"):
            log.note(f"rows are under the field {shorten(name)}")
            log.unused += [other for other in value if other != name]
            for number, item in enumerate(items, 1):
                yield from _as_row(item, f"{where} item {number}", number, log)
            return
    if isinstance(value, dict) and _are_splits(value):
        yield from _rows_of_splits(value, where, log)
        return
    if isinstance(value, dict) and _is_by_columns(value):
        found = f"a table by columns ({shorten_names(value)})"
        cure = "write it by rows; in pandas: to_json(path, orient='records', lines=True)"
        log.fault(where, "file", found, cure)
        return
    yield from _as_row(value, f"{where}:1", 1, log)


def _are_splits(value: dict[str, Any]) -> bool:
    """Whether an object holds the splits of a data set: each field with rows is named as one."""
    names = _with_rows(value)
    return len(names) > 1 and all(is_of(name, (*TRAINING, *HELD_OUT)) and _holds_rows(value[name]) for name in names)


def _with_rows(value: dict[str, Any]) -> list[str]:
    """The fields that may hold rows; the others say something of the whole, such as a version."""
    return [name for name, inner in value.items() if name not in _BESIDE and isinstance(inner, (list, dict))]


def _holds_rows(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and all(isinstance(item, dict) for item in value))


def _rows_of_splits(value: dict[str, Any], where: str, log: ReadLog) -> Iterator[Row]:
    """The rows of the split to train on; what is not read is said."""
    names = _with_rows(value)
    training = [name for name in names if is_of(name, TRAINING)]
    if len(training) != 1:
        found = f"several splits and not one to train on: {shorten_names(value)}"
        log.fault(where, "file", found, "write the rows of one of them to a file of their own, and name it")
        return
    others = ", ".join(f"{shorten(name)} ({len(value[name])})" for name in names if name not in training)
    log.note(f"not read: the splits {others}; to read one, write its rows to a file of its own")
    log.unused += [name for name in value if name not in names]
    rows = value[training[0]]
    yield from _object_rows({training[0]: rows} if isinstance(rows, list) else rows, where, log)


def _is_by_columns(value: dict[str, Any]) -> bool:
    """Whether an object holds columns: for each name a list of as many texts, or an object of numbered values."""
    columns = list(value.values())
    if len(columns) < 2:
        return False
    if all(isinstance(column, dict) and column and all(key.isdecimal() for key in column) for column in columns):
        return True
    listed = [column for column in columns if isinstance(column, list) and not any(isinstance(c, dict) for c in column)]
    return len(listed) == len(columns) and len({len(column) for column in listed}) == 1


def _as_row(value: Any, where: str, number: int, log: ReadLog) -> Iterator[Row]:
    if isinstance(value, dict):
        yield Row(where, number, value)
    else:
        log.fault(where, "row", shorten(value), "expected a JSON object with named fields")


def _skip(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position
