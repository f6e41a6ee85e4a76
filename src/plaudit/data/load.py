"""Records from a file, a directory or the hub. Their kind is recognised and reported; all faults are listed at once."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from plaudit.data.convert import KIND_OF, convert, number_repeated_ids
from plaudit.data.reading.exports.table import read_exports, together
from plaudit.data.reading.layouts import Layout, columns_of, detect, parse_rows
from plaudit.data.reading.names import NAMES, Columns, field_of
from plaudit.data.reading.oddities import twins
from plaudit.data.reading.opening.source import open_source
from plaudit.data.reading.rows import LARGEST_GB, Places, ReadLog, Row, shorten_names
from plaudit.data.reading.transcripts import prompt_key
from plaudit.errors import ConfigError, DataError
from plaudit.records import Kind, Preference, Prompt, Ranking, Rating, Record


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
    unnamed: frozenset[str] = frozenset()
    """Ids made from file and row number, for rows without one: another file, or a row inserted, gives others."""


class SeveralKinds(DataError):
    """The files of a source hold data of different kinds, and nobody has said which is needed."""


def load_records(
    source: str | Path,
    kind: Kind | None = None,
    *,
    limit: int = 0,
    fields: Mapping[str, str] | None = None,
    max_gb: float = LARGEST_GB,
) -> Loaded:
    """All records of a source.

    Args:
        source: a local file (JSON, JSONL, CSV, Parquet, Arrow, or .txt with a prompt on each line, each also gzipped),
            several with commas between them or as a pattern ("data/*.jsonl"), a directory of such files, of which the
            split to train on is read ("folder:test" for another), or a hub name ("Anthropic/hh-rlhf", "name:split",
            "name:subset:split").
        kind: the kind that is needed; data of another kind are converted where that makes sense.
        limit: read only so many rows (0 = all).
        fields: field -> the column it is read from, where that has no usual name: {"prompt": "ask"}. "a+b" joins two
            columns, "" says that there is none.
        max_gb: the largest file, unpacked; a row may take a 256th of it.

    Raises:
        DataError: there is no such source, nothing in it, or no known kind of data.
        BadRows: a DataError that lists the faults of all rows.
        ConfigError: ``fields`` names a field that there is not.
    """
    source = str(source)
    log = ReadLog(source, max_gb)
    given = given_fields(fields or {})
    parts = open_source(source, log, limit)
    by_part: list[tuple[str, list[Row]]] = []
    left = limit or None
    for part in parts:
        by_part.append((part.stem, list(islice(part.rows, left))))
        left = None if left is None else left - len(by_part[-1][1])
        if left == 0:
            break
    return records_of(by_part, kind, [part.encoding for part in parts], log, given)


def given_fields(fields: Mapping[str, str]) -> dict[str, str]:
    """Fields by their own names.

    Raises:
        ConfigError: there is no such field.
    """
    result = {}
    for name, column in fields.items():
        meant = field_of(name)
        if not meant:
            near = next(iter(difflib.get_close_matches(name.lower(), NAMES, 1)), "")
            cure = f"did you mean {near}?" if near else f"the fields are {', '.join(NAMES)}"
            raise ConfigError(f"there is no field {name!r} in data", where="[data.fields], --field", cure=cure)
        result[meant] = column.strip()
    return result


def records_of(
    by_part: Sequence[tuple[str, list[Row]]],
    kind: Kind | None,
    encodings: Sequence[str],
    log: ReadLog,
    given: Mapping[str, str],
) -> Loaded:
    """The rows of the parts of a source as records; ``log`` has what was noticed while they were read."""
    count = sum(len(part_rows) for _, part_rows in by_part)
    own, exports = [], []
    for group in together(list(by_part)):
        # Whoever names columns of the rows as they are wants these, and no other reading of them.
        first = [row for _, part_rows in group for row in part_rows[:100]]
        as_named = bool(given) and any(column in row.values for row in first for column in given.values())
        read, export = (group, "") if as_named else read_exports(group, log)
        own += read
        exports += [export] if export else []
    rows = [row for _, part_rows in own for row in part_rows]
    # Of all files together: a column that has no value in one of them is there all the same.
    columns = columns_of(rows, given)
    _check_given(columns, rows, log.source)
    parsed: list[Record] = []
    layouts: list[Layout] = []
    for stem, part_rows in _parts_with_rows(own, log):
        # The layout is recognised from all rows of a file together, before any of them is parsed: by the first row
        # alone, one with an optional field missing would decide for the whole file.
        layouts.append(_layout(part_rows, columns, kind, log))
        parsed += parse_rows(part_rows, layouts[-1], columns, stem, log)
    log.raise_if_faulty()
    empty = {name for row in rows for name in row.values if field_of(name)}
    for row in rows if empty else ():
        empty -= {name for name in empty if row.values.get(name) is not None}
    if empty:
        log.note(f"columns without a value in any row: {shorten_names(sorted(empty))}")
    _look_at_all(parsed, log)
    kinds = list(dict.fromkeys(layout.kind for layout in layouts))
    if len(kinds) > 1 and kind is None:
        found = ", ".join(f"{stem}: {layout.kind}" for (stem, _), layout in zip(own, layouts, strict=False))
        cure = "read files of one kind at a time, or say with --kind what is needed"
        raise SeveralKinds(f"files of different kinds ({found})", where=log.source, cure=cure)
    unique = number_repeated_ids(parsed, log)
    places = dict(zip((record.id for record in unique), log.places, strict=True))
    records = [record for each in kinds for record in _of_kind(unique, each, kind or each, log)]
    return Loaded(
        tuple(records), kind or kinds[0], _describe(layouts, exports, encodings, log), log.source, count, log.notes,
        tuple(log.unused), log.dropped, Places(log.source, places), frozenset(log.unnamed),
    )  # fmt: skip


def _look_at_all(records: Sequence[Record], log: ReadLog) -> None:
    """What only shows when all records are seen together.

    Raises:
        DataError: nothing can be learned from any of them.
    """
    prompts = [record.content if isinstance(record, Prompt) else record.prompt for record in records]
    same_letters = twins(prompt_key(prompt) for prompt in prompts)
    log.count("prompts are written in two ways (letters composed or not, Unicode NFC and NFD)", same_letters)
    pairs = [record for record in records if isinstance(record, Preference)]
    if len(pairs) > 1 and all(pair.chosen == pair.rejected for pair in pairs):
        what = f"in all {len(pairs)} pairs chosen and rejected are the same: nothing can be learned from them"
        raise DataError(what, where=log.source, cure="check which columns they come from: --field rejected=COLUMN")
    rankings = [record for record in records if isinstance(record, Ranking)]
    if len(rankings) > 1 and all(len(set(ranking.ranks)) == 1 for ranking in rankings):
        what = f"in all {len(rankings)} rankings all responses have the same rank: nothing can be learned from them"
        raise DataError(what, where=log.source, cure="give ranks that differ, 1 for the best")
    ratings = [record for record in records if isinstance(record, Rating)]
    if len(ratings) > 1 and len({(rating.reward, *rating.axes.values()) for rating in ratings}) == 1:
        log.note(f"all {len(ratings)} ratings are the same ({ratings[0].reward:g}): they tell no response from another")


def as_kind(loaded: Loaded, kind: Kind) -> Loaded:
    """The same as records of another kind; what is left out is counted in its notes.

    Raises:
        DataError: there is no such conversion, or nothing is left after it.
    """
    log = ReadLog(loaded.source)
    records = tuple(convert(loaded.records, kind, log))
    notes, dropped = (*loaded.notes, *log.notes), loaded.dropped + log.dropped
    return replace(loaded, records=records, kind=kind, notes=notes, dropped=dropped)


def _of_kind(records: Sequence[Record], have: Kind, kind: Kind, log: ReadLog) -> Sequence[Record]:
    """The records of one kind, as another."""
    return convert([record for record in records if KIND_OF[type(record)] == have], kind, log)


def _parts_with_rows(parts: Sequence[tuple[str, list[Row]]], log: ReadLog) -> Iterator[tuple[str, list[Row]]]:
    """The parts in which there are rows.

    Raises:
        DataError: there are none.
    """
    if not any(rows for _, rows in parts):
        log.raise_if_faulty()
        left_out = "; ".join(log.notes) if log.dropped else ""
        what = f"no row of it gives a record ({left_out})" if left_out else "there are no rows in it"
        raise DataError(what, where=log.source, cure="check that it is complete")
    for stem, rows in parts:
        if rows:
            yield stem, rows
        else:
            log.note(f"{stem} has no rows")


def _check_given(columns: Columns, rows: Sequence[Row], source: str) -> None:
    """Refuse a column that the user names and no row has."""
    names = sorted({name for row in rows for name in row.values})
    missing = sorted(columns.named - set(names))
    if missing and rows:
        near = next(iter(difflib.get_close_matches(missing[0], names, 1)), "")
        cure = f"did you mean {near!r}? The" if near else "the"
        raise DataError(
            f"no row has a column {missing[0]!r}, which --field names",
            where=source,
            cure=f"{cure} columns are {shorten_names(names, 20)}",
        )


def _layout(rows: Sequence[Row], columns: Columns, kind: Kind | None, log: ReadLog) -> Layout:
    try:
        return detect(rows, log.source, columns, kind)
    except DataError:
        # Rows that could not be read at all are the likelier reason why no layout fits.
        log.raise_if_faulty()
        raise


def _describe(
    layouts: Sequence[Layout], exports: Sequence[str], encodings: Sequence[str], log: ReadLog
) -> str:
    """One readable line: exports of other tools if there are any, layouts, how texts are written, encodings."""
    # Plain text is named only where nothing else was found: the responses to chats are plain text too.
    styles = [style for style, _ in log.styles.most_common() if style != "plain text"] or ["plain text"]
    names = " and ".join(dict.fromkeys(layout.name for layout in layouts))
    origin = f"{' and '.join(dict.fromkeys(exports))} as " if exports else ""
    return f"{origin}{names} ({' and '.join(styles)}), {' and '.join(dict.fromkeys(encodings))}"
