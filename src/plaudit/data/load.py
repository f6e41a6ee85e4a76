"""Records from a file, a directory or the hub. Their kind is recognised and reported; all faults are listed at once."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from plaudit.data.convert import convert, number_repeated_ids
from plaudit.data.reading.exports.table import read_exports
from plaudit.data.reading.files import HUB_NAME, READABLE, encoding_of, hub_rows, read_file
from plaudit.data.reading.layouts import Layout, columns_of, detect, parse_rows
from plaudit.data.reading.names import Columns
from plaudit.data.reading.rows import Places, ReadLog, Row
from plaudit.errors import DataError
from plaudit.records import Kind, Record


@dataclass(frozen=True, slots=True)
class Loaded:
    """Records of one kind, and what was noticed while they were read."""

    records: tuple[Record, ...]
    kind: Kind
    format: str
    """One line, as "preferences with the prompt inside both texts (HH-RLHF transcripts), JSONL gzip"."""
    source: str
    rows: int
    """Rows read; a row can give several records."""
    notes: tuple[str, ...] = ()
    """What was left out, renumbered or read in a particular way, each with its count."""
    unused: tuple[str, ...] = ()
    """Fields of the rows that no record holds."""
    dropped: int = 0
    """Rows, or pairs of a list, that gave no record."""
    places: Places = Places("")
    """File and line of each record."""


def load_records(source: str, kind: Kind | None = None, *, limit: int = 0) -> Loaded:
    """All records of a source.

    Args:
        source: a local file (JSON, JSONL, CSV, Parquet, each also gzipped), a directory of such files, or a
            hub name ("Anthropic/hh-rlhf", "name:split", "name:subset:split").
        kind: the kind that is needed; data of another kind are converted where that makes sense.
        limit: read only so many rows (0 = all).

    Raises:
        DataError: there is no such source, nothing in it, or no known kind of data.
        BadRows: a DataError that lists the faults of all rows.
    """
    log = ReadLog(source)
    encodings, parts = _open(source, log, limit)
    by_part: list[tuple[str, list[Row]]] = []
    left = limit or None
    for stem, part_rows in parts:
        by_part.append((stem, list(islice(part_rows, left))))
        left = None if left is None else left - len(by_part[-1][1])
        if left == 0:
            break
    return records_of(by_part, kind, encodings, log)


def records_of(
    by_part: Sequence[tuple[str, list[Row]]], kind: Kind | None, encodings: Sequence[str], log: ReadLog
) -> Loaded:
    """The rows of the parts of a source as records; ``log`` has what was noticed while they were read."""
    # The layout is recognised from all rows together, before any of them is parsed: by the first row alone, one with an
    # optional field missing would decide for the whole file.
    source, count = log.source, sum(len(part_rows) for _, part_rows in by_part)
    by_part, export = read_exports(list(by_part), log)
    rows = [row for _, part_rows in by_part for row in part_rows]
    columns = columns_of(rows, {})
    layout = _layout(rows, source, columns, kind, log)
    records = [record for stem, part in by_part for record in parse_rows(part, layout, columns, stem, log)]
    log.raise_if_faulty()
    unique = number_repeated_ids(records, log)
    places = dict(zip((record.id for record in unique), log.places, strict=True))
    converted = convert(unique, kind, log) if kind else unique
    return Loaded(
        tuple(converted), kind or layout.kind, _describe(layout, export, encodings, log), source, count, log.notes,
        tuple(log.unused), log.dropped, Places(source, places),
    )  # fmt: skip


def _layout(rows: Sequence[Row], source: str, columns: Columns, kind: Kind | None, log: ReadLog) -> Layout:
    if not rows:
        log.raise_if_faulty()
        left_out = "; ".join(log.notes) if log.dropped else ""
        what = f"no row of it gives a record ({left_out})" if left_out else "there are no rows in it"
        raise DataError(what, where=source, cure="check that it is complete")
    try:
        return detect(rows, source, columns, kind)
    except DataError:
        # Rows that could not be read at all are the likelier reason why no layout fits.
        log.raise_if_faulty()
        raise


def _describe(layout: Layout, export: str, encodings: Sequence[str], log: ReadLog) -> str:
    """One readable line: export of another tool if it is one, layout, how texts are written, encoding."""
    # Plain text is named only where nothing else was found: the responses to chats are plain text too.
    styles = [style for style, _ in log.styles.most_common() if style != "plain text"] or ["plain text"]
    origin = f"{export} as " if export else ""
    return f"{origin}{layout.name} ({' and '.join(styles)}), {' and '.join(dict.fromkeys(encodings))}"


# Where a source is


def _open(source: str, log: ReadLog, limit: int) -> tuple[list[str], Iterator[tuple[str, Iterator[Row]]]]:
    """The encodings of the parts of a source, and the name and rows of each part."""
    path = Path(source).expanduser()
    if path.is_dir():
        files = _files_in(path)
        log.note(f"{len(files)} files of the directory: {', '.join(f.name for f in files[:8])}")
    elif path.exists():
        files = [path]
    elif _is_hub_name(source):
        return ["from the hub"], iter([(source.split("/")[-1], hub_rows(source, log, limit=limit))])
    else:
        raise DataError("no such file", where=source, cure=_nearest_file(path))
    opened = [(file.name.split(".")[0], *read_file(file, log)) for file in files]
    return [encoding for _, encoding, _ in opened], iter((stem, rows) for stem, _, rows in opened)


def _files_in(path: Path) -> list[Path]:
    files = sorted(f for f in path.iterdir() if f.is_file() and encoding_of(f) and not f.name.startswith("."))
    if not files:
        raise DataError("no data files in the directory", where=str(path), cure=f"expected {READABLE}")
    return files


def _is_hub_name(source: str) -> bool:
    # A mistyped file name can look like a hub name ("data/train"). If a file of a similar name exists, that is
    # meant: the person gets a suggestion instead of an error of the network.
    path = Path(source)
    looks_local = encoding_of(path) is not None or source.startswith((".", "~", "/", "\\"))
    return not looks_local and bool(HUB_NAME.fullmatch(source)) and not _similar(path)


def _nearest_file(path: Path) -> str:
    near = _similar(path)
    return (
        f"did you mean {path.parent / near}?" if near else "check the path; a hub name is written owner/name"
    )


def _similar(path: Path) -> str:
    try:
        names = [p.name for p in path.expanduser().parent.iterdir()]
    except OSError:
        return ""
    return next(iter(difflib.get_close_matches(path.name, names, 1, 0.7)), "")
