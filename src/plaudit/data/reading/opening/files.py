"""Files (JSONL, JSON, CSV, Parquet, Arrow and lines of text, each also gzipped) and hub datasets to rows.

Unreadable parts become faults.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from plaudit.data.reading.opening.csv_parquet import arrow_rows, csv_rows, parquet_rows
from plaudit.data.reading.opening.decoding import BROKEN, is_gzip, open_stream, whole_text
from plaudit.data.reading.opening.guards import check_is_file, check_start
from plaudit.data.reading.opening.json_rows import is_spread, json_rows, jsonl_rows
from plaudit.data.reading.rows import ReadLog, Row
from plaudit.errors import DataError
from plaudit.machine import reach_cure

Encoding = Literal["JSONL", "JSON", "CSV", "Parquet", "Arrow", "lines of text"]

SUFFIXES: dict[str, Encoding] = {
    ".jsonl": "JSONL",
    ".ndjson": "JSONL",
    ".json": "JSON",
    ".csv": "CSV",
    ".tsv": "CSV",
    ".parquet": "Parquet",
    ".arrow": "Arrow",
    ".txt": "lines of text",
}
READABLE = "JSONL, JSON, CSV or Parquet, or .txt with a prompt on each line, each also as .gz"
HUB_NAME = re.compile(r"[\w.-]+(?:/[\w.-]+)?(?::[\w.+-]+){0,2}")
"""`owner/name`, `name:split` or `name:subset:split`."""


def encoding_of(path: Path) -> Encoding | None:
    """How a file is encoded, by its name; ``None`` if the name does not tell.

    >>> encoding_of(Path("pairs.jsonl.gz")), encoding_of(Path("notes.md"))
    ('JSONL', None)
    """
    suffixes = [s.lower() for s in path.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    return SUFFIXES.get(suffixes[-1]) if suffixes else None


def read_file(path: Path, log: ReadLog) -> tuple[str, Iterator[Row]]:
    """The encoding of the file, in words, and its rows. Rows that cannot be read become faults of ``log``.

    Raises:
        DataError: the file cannot be opened, or is of no known encoding.
    """
    check_is_file(path)
    try:
        zipped = is_gzip(path)
        with open_stream(path) as stream:
            start = stream.read(512)
    except BROKEN as error:
        refused = isinstance(error, OSError) and error.strerror
        damage = "gzip data that end too early" if isinstance(error, EOFError) else error
        what = f"cannot read the file: {refused}" if refused else f"the file is damaged: {damage}"
        cure = "check its path, rights and size" if refused else "fetch or compress it again"
        raise DataError(what, where=str(path), cure=cure) from error
    check_start(start, path, packed=zipped)
    # The content counts, not the name: ".gz" files that a browser has unpacked on the way are common.
    encoding = _sniff(path, start)
    if path.suffix.lower() == ".gz" and start and not zipped:
        log.note(f"{path.name} is not gzipped, in spite of its name")
    return f"{encoding} gzip" if zipped else encoding, _rows(path, encoding, log)


def _sniff(path: Path, start: bytes) -> Encoding:
    """The encoding by the first bytes, else by the name; JSON for a file without a known ending that looks like it."""
    # JSON and JSON Lines begin alike; ``json_rows`` finds out which it is.
    if start.startswith(b"PAR1"):
        return "Parquet"
    known = encoding_of(path)
    if start.startswith(b"ARROW1"):
        return "Arrow"
    if known in (None, "Parquet", "Arrow") and start.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"{", b"["):
        return "JSON"
    if known is None:
        raise DataError(f"unknown file type {path.suffix!r}", where=str(path), cure=f"give it as {READABLE}")
    return known


def _rows(path: Path, encoding: Encoding, log: ReadLog) -> Iterator[Row]:
    where = str(path)
    with open_stream(path) as stream:
        if encoding == "Parquet":
            yield from parquet_rows(stream, where, log)
        elif encoding == "Arrow":
            yield from arrow_rows(stream, where, log)
        elif encoding == "JSONL" and not is_spread(stream, where, log):
            yield from jsonl_rows(stream, where, log)
        else:
            # CSV and JSON are read as a whole: a record can go over any number of lines, and their faults are reported
            # with line numbers, which needs the text before the fault.
            text = whole_text(stream, where, log)
            if text is not None:
                yield from _of_text(encoding, text, where, log)


def _of_text(encoding: Encoding, text: str, where: str, log: ReadLog) -> Iterator[Row]:
    if encoding == "JSON":
        yield from json_rows(text, where, log)
        return
    # The content counts, not the name, here too.
    first = next((line for line in text.splitlines() if line.strip()), "")
    if encoding == "JSONL" or _is_json(first) or _is_json(text):
        log.note(f"{Path(where).name} holds JSON, in spite of its name")
        yield from json_rows(text, where, log)
    else:
        yield from csv_rows(text, where, log) if encoding == "CSV" else _lines(text, where, log)


def _lines(text: str, where: str, log: ReadLog) -> Iterator[Row]:
    """A prompt on each line that is not blank."""
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    log.note(f"each line of {Path(where).name} is a prompt")
    for count, (number, line) in enumerate(lines, 1):
        yield Row(f"{where}:{number}", count, {"prompt": line})


def _is_json(text: str) -> bool:
    """Whether a text is an object, or a list of them."""
    if text.lstrip()[:1] not in ("{", "["):
        return False
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) or (isinstance(value, list) and any(isinstance(item, dict) for item in value))


def hub_rows(source: str, log: ReadLog, *, limit: int = 0) -> Iterator[Row]:
    """The rows of one split of a hub dataset, read with the package `datasets`; "train" if no split is named.

    Raises:
        DataError: `datasets` is not installed, or cannot load the dataset.
    """
    try:
        import datasets  # type: ignore[import-untyped, unused-ignore]
    except ImportError as error:
        cure = "pip install datasets, or give a local file"
        raise DataError(
            f"{source} is a hub name, for which `datasets` is needed", where=source, cure=cure
        ) from error
    name, *rest = source.split(":")
    split, subset = (rest[-1] if rest else "train"), (rest[0] if len(rest) == 2 else None)
    if not rest:
        log.note("the split train is read; name another one as NAME:SPLIT")
    try:
        table: Any = datasets.load_dataset(name, subset, split=f"{split}[:{limit}]" if limit else split)
    except Exception as error:  # the package raises whatever its network, disk and parsers raise
        why = (str(error).splitlines() or [type(error).__name__])[0]
        cure = f"check the name and the split; {reach_cure()}, or give a local file"
        raise DataError(f"cannot load it from the hub: {why[:300]}", where=source, cure=cure) from error
    for number, values in enumerate(table, 1):
        yield Row(f"{source} row {number}", number, dict(values), nulls=True)
