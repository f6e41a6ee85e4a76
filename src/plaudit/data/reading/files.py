"""Files to rows: JSONL, JSON, CSV and Parquet, each also gzipped. Bad bytes become listed faults."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from plaudit.data.reading.json_rows import json_rows, jsonl_rows
from plaudit.data.reading.rows import ReadLog, Row
from plaudit.data.reading.streams import BROKEN, is_gzip, open_stream, whole_text
from plaudit.data.reading.tables import csv_rows, parquet_rows
from plaudit.errors import DataError

Encoding = Literal["JSONL", "JSON", "CSV", "Parquet"]

SUFFIXES: dict[str, Encoding] = {
    ".jsonl": "JSONL",
    ".ndjson": "JSONL",
    ".json": "JSON",
    ".csv": "CSV",
    ".tsv": "CSV",
    ".parquet": "Parquet",
}
READABLE = "JSONL, JSON, CSV or Parquet, each also as .gz"


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
    """How the file is encoded, in words, and its rows. Rows that cannot be read become faults of ``log``.

    Raises:
        DataError: the file cannot be opened, or is of no known encoding.
    """
    try:
        zipped = is_gzip(path)
        with open_stream(path) as stream:
            start = stream.read(8)
    except BROKEN as error:
        why = getattr(error, "strerror", None) or str(error)
        cure = "check its path, rights and size"
        raise DataError(f"cannot read the file: {why}", where=str(path), cure=cure) from error
    encoding = _sniff(path, start)
    if path.suffix.lower() == ".gz" and start and not zipped:
        log.note(f"{path.name} is not gzipped, in spite of its name")
    return f"{encoding} gzip" if zipped else encoding, _rows(path, encoding, log)


def _sniff(path: Path, start: bytes) -> Encoding:
    if start.startswith(b"PAR1"):
        return "Parquet"
    known = encoding_of(path)
    if known is None and start.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"{", b"["):
        return "JSON"
    if known is None:
        raise DataError(f"unknown file type {path.suffix!r}", where=str(path), cure=f"give it as {READABLE}")
    return known


def _rows(path: Path, encoding: Encoding, log: ReadLog) -> Iterator[Row]:
    where = str(path)
    with open_stream(path) as stream:
        if encoding == "Parquet":
            yield from parquet_rows(stream, where, log)
        elif encoding == "JSONL":
            yield from jsonl_rows(stream, where, log)
        else:
            text = whole_text(stream, where, log)
            if text is not None:
                yield from (csv_rows if encoding == "CSV" else json_rows)(text, where, log)
