"""Records to files: JSON, JSONL, CSV or Parquet by the ending of the name, each also gzipped."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from plaudit.data.convert import KIND_OF, convert
from plaudit.data.other_layouts import HOLDS, WRITERS, JsonRow, columns_of
from plaudit.data.reading.opening.csv_parquet import neutralise
from plaudit.data.reading.opening.files import Encoding, encoding_of
from plaudit.data.reading.rows import ReadLog, shorten
from plaudit.data.reading.transcripts import as_messages
from plaudit.errors import ConfigError, DataError
from plaudit.machine import check_writable
from plaudit.records import (
    Preference,
    Record,
    to_json,
)

Layout = Literal["plaudit", "trl", "openai", "hh"]
_CONTENTS = ("response", "completion", "chosen", "rejected", "response_a", "response_b", "responses")
"""Fields of responses, each a text or a chat."""


def write_records(records: Sequence[Record], path: str | Path, layout: Layout = "plaudit") -> tuple[str, ...]:
    """Write records, all of one kind; returns what changed on the way (empty if reading gives the same records).

    Args:
        records: at least one.
        path: ends with .jsonl, .json, .csv or .parquet, and .gz to compress. The file is replaced in one step,
            when everything is written. Text cells of CSV that a spreadsheet would run as a formula get a quote in
            front, which ``load_records`` removes again.
        layout: "plaudit" keeps everything; "trl" writes TRL's dataset types (prompt and completion,
            preference, unpaired preference, prompt only); "openai" writes OpenAI's fine-tuning files (messages of
            demonstrations; input, preferred and non-preferred output of preferences); "hh" writes preferences as
            `Human:/Assistant:` transcripts.

    Raises:
        DataError: nothing to write, an unknown ending, text that is no Unicode, or a layout that cannot hold
            it.
    """
    target, log = check_target(path), ReadLog(str(path))
    if not records:
        raise DataError("there are no records to write", where=str(target), cure="check what was read")
    return _write(_rows(records, layout, log), target, log)


def write_rows(rows: Sequence[Mapping[str, Any]], path: str | Path) -> tuple[str, ...]:
    """Write JSON-ready rows, such as an export of annotations, in the way of ``write_records``.

    Raises:
        DataError: nothing to write, an unknown ending, or text that is no Unicode.
    """
    target, log = check_target(path), ReadLog(str(path))
    if not rows:
        raise DataError("there are no rows to write", where=str(target), cure="check what was read")
    return _write([dict(row) for row in rows], target, log)


def check_target(path: str | Path) -> Path:
    """The path of a file that can be written; to be asked before the work whose outcome goes there.

    Raises:
        ConfigError: a directory, or below a file.
        DataError: an unknown ending.
        MachineError: no permission, a read-only file system.
    """
    target = Path(path)
    if encoding_of(target) is None:
        raise DataError(
            f"unknown file type {target.suffix!r}",
            where=str(target),
            cure="end the name in .jsonl, .json, .csv or .parquet, and .gz to compress",
        )
    if target.is_dir():
        raise ConfigError(
            "this is a directory, and a file is to be written", where=str(target), cure="give another name"
        )
    check_writable(target, str(target))
    return target


def _write(rows: list[JsonRow], target: Path, log: ReadLog) -> tuple[str, ...]:
    encoding = encoding_of(target)
    assert encoding is not None, "checked before"
    # mtime=0: gzip stores a time, and the same rows should give the same bytes.
    data = _encoded(rows, encoding, log)
    _replace(target, gzip.compress(data, mtime=0) if target.suffix.lower() == ".gz" else data)
    return log.notes


def _rows(records: Sequence[Record], layout: Layout, log: ReadLog) -> list[JsonRow]:
    if layout == "plaudit":
        return [row_of(record) for record in records]
    if layout == "openai" and encoding_of(Path(log.source)) != "JSONL":
        raise DataError("OpenAI reads JSONL only", where=log.source, cure="end the name in .jsonl")
    kind = KIND_OF[type(records[0])]
    holds = HOLDS[layout]
    if kind not in holds:
        if kind in ("prompt", "demonstration", "comparison"):
            others = [name for name, kinds in HOLDS.items() if kind in kinds]
            cure = f"write the layout {' or '.join(['plaudit', *others])}"
            raise DataError(f"the layout {layout} has no place for {kind} records", where=log.source, cure=cure)
        log.note(f"{kind} records were made into preferences")
        records = convert(records, "preference", log)
    return WRITERS[layout](records, log)


# Layouts


def row_of(record: Record) -> JsonRow:
    """The fields of a record under the names that are read, without empty ones."""
    row: JsonRow = {"prompt" if name == "content" else name: v for name, v in to_json(record).items()}
    row = columns_of(record) | row
    if isinstance(record, Preference) and record.agreement == 1.0:
        del row["agreement"]
    empty = [
        name
        for name in ("axes", "model_a", "model_b", "annotator", "models", "provenance")
        if row.get(name) in ({}, "", [])
    ]
    return {name: value for name, value in row.items() if name not in empty}


# Encodings


def _encoded(rows: list[JsonRow], encoding: Encoding, log: ReadLog) -> bytes:
    if encoding == "Parquet":
        return _parquet(rows, log)
    if encoding == "CSV":
        text = _csv(rows, log)
    elif encoding == "JSONL":
        text = "".join(_json(row) + "\n" for row in rows)
    else:
        text = "[\n" + ",\n".join(_json(row) for row in rows) + "\n]\n"
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        near = shorten(ascii(text[max(error.start - 20, 0) : error.end]))
        cure = "replace the broken character"
        raise DataError(f"half of a surrogate pair near {near}", where=log.source, cure=cure) from error


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _columns(rows: Iterable[JsonRow]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


def _csv(rows: list[JsonRow], log: ReadLog) -> str:
    out = io.StringIO(newline="")
    columns = _columns(rows)
    writer = csv.writer(out)
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_cell(row.get(name), log) for name in columns])
    return out.getvalue()


def _cell(value: object, log: ReadLog) -> object:
    if isinstance(value, (list, dict)):
        return _json(value)
    if not isinstance(value, str):
        return value
    safe = neutralise(value)
    log.count("cells protected against spreadsheet formulas by a quote in front", safe != value)
    return safe


def _parquet(rows: list[JsonRow], log: ReadLog) -> bytes:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        cure = "pip install pyarrow, or write another format"
        raise DataError("Parquet needs the package pyarrow", where=log.source, cure=cure) from error
    chats = {name for name in _CONTENTS if any(_holds_chats(row.get(name)) for row in rows)}
    rows = [_of_one_type(row, chats) for row in rows]
    columns = _columns(rows)
    out = pyarrow.BufferOutputStream()
    try:
        table = pyarrow.table({name: [row.get(name) for row in rows] for name in columns})
        pyarrow.parquet.write_table(table, out)
    except (pyarrow.ArrowException, ValueError) as error:
        what = f"the records do not fit one table: {shorten(str(error), 120)[1:-1]}"
        cure = "texts and chats cannot share a column: write JSONL"
        raise DataError(what, where=log.source, cure=cure) from error
    return bytes(out.getvalue())


def _of_one_type(row: JsonRow, chats: set[str]) -> JsonRow:
    """The row as a table can hold it: a column of chats has no texts in it, and calls and tools are JSON texts."""
    # A response to a chat is the same as a text and as one turn of the assistant. And a table gives every object of a
    # column the same keys: the arguments of a call would get those of all others.
    is_chat = isinstance(row.get("prompt"), list)
    changed = {k: _as_chat(value) if is_chat and k in chats else value for k, value in row.items()}
    return {name: _texts_of_json(value, name) for name, value in changed.items()}


def _holds_chats(value: object) -> bool:
    """Whether a response is a chat, or one of several responses is."""
    return isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value)


def _as_chat(value: Any) -> Any:
    """A response that is a text, or each such text of several responses, as one turn of the assistant."""
    if isinstance(value, str):
        return to_json(as_messages(value, "assistant"))
    is_turns = not isinstance(value, list) or any(isinstance(item, dict) for item in value)
    return value if is_turns else [_as_chat(item) for item in value]


def _texts_of_json(value: Any, name: str) -> Any:
    if name in ("tool_calls", "tools") and isinstance(value, list):
        return _json(value)
    if isinstance(value, list):
        return [_texts_of_json(item, name) for item in value]
    return {key: _texts_of_json(v, key) for key, v in value.items()} if isinstance(value, dict) else value


def _replace(target: Path, data: bytes) -> None:
    """Replace the target in one step."""
    # Written beside the target and renamed: a reader sees the old file or the new one, also when the disk fills up.
    partial = target.with_name(f".{target.name}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(data)
        os.replace(partial, target)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        cure = "check the path, the rights and the free space"
        raise DataError(f"cannot write: {error.strerror or error}", where=str(target), cure=cure) from error
