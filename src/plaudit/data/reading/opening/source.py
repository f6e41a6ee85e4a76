"""What a source names: one file or several, a folder, or a data set of the hub; and the rows of each part of it."""

from __future__ import annotations

import difflib
import glob
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from plaudit.data.reading.opening.files import HUB_NAME, encoding_of, hub_rows, read_file
from plaudit.data.reading.opening.folders import describes, files_of, split_of
from plaudit.data.reading.opening.guards import check_is_file
from plaudit.data.reading.rows import ReadLog, Row
from plaudit.errors import DataError


@dataclass(frozen=True, slots=True)
class Part:
    """A file of a source, or a split of the hub."""

    name: str
    """As people call it, for errors."""
    stem: str
    """The beginning of the ids of rows without one."""
    encoding: str
    rows: Iterator[Row]


def sources_in(source: str) -> list[str]:
    """The files that a text names: one, several with commas between them, or a pattern with * ? [ ].

    >>> sources_in("a.jsonl,b.jsonl"), sources_in("owner/name:split")
    (['a.jsonl', 'b.jsonl'], ['owner/name:split'])
    """
    if Path(os.path.expanduser(source)).exists():
        return [source]
    if "," in source:
        return [one for part in source.split(",") if part.strip() for one in sources_in(part.strip())]
    if glob.has_magic(source):
        return sorted(glob.glob(os.path.expanduser(source), recursive=True)) or [source]
    return [source]


def open_source(source: str, log: ReadLog, limit: int) -> list[Part]:
    """The parts of a source, in their order.

    Raises:
        DataError: a part is not there, or cannot be read.
    """
    named = sources_in(source) if source.strip() else []
    if not named:
        raise DataError("no data are named", where="dataset", cure="give a file, a folder, or a hub name")
    twice = next((one for one in named if named.count(one) > 1), None)
    if twice is not None:
        raise DataError(f"{twice} is named twice", where=source, cure="name each file once")
    parts = [part for one in named for part in _parts(one, log, limit)]
    if len(named) > 1:
        log.note(f"{len(parts)} files: {', '.join(part.name for part in parts[:8])}{' ...' * (len(parts) > 8)}")
    return parts


def _parts(source: str, log: ReadLog, limit: int) -> list[Part]:
    path = Path(os.path.expanduser(source))
    check_is_file(path)
    folder, split = split_of(path)
    if folder is not None:
        return [_file(file, log) for file in files_of(folder, split, log)]
    if path.exists():
        if what := describes(path):
            cure = f"name a data file, or the folder {path.parent}"
            raise DataError(f"the file is {what}, and holds no rows", where=source, cure=cure)
        return [_file(path, log)]
    if _is_hub_name(source):
        return [Part(source, source.split("/")[-1], "from the hub", hub_rows(source, log, limit=limit))]
    raise DataError("no such file", where=source, cure=_nearest_file(path))


def _file(path: Path, log: ReadLog) -> Part:
    encoding, rows = read_file(path, log)
    return Part(path.name, path.name.split(".")[0], encoding, rows)


def _is_hub_name(source: str) -> bool:
    # A mistyped file name can look like a hub name ("data/train"). If a file of a similar name exists, that is
    # meant: the person gets a suggestion instead of an error of the network.
    path = Path(source)
    looks_local = encoding_of(path) is not None or source.startswith((".", "~", "/", "\\"))
    return not looks_local and bool(HUB_NAME.fullmatch(source)) and not _similar(path)


def _nearest_file(path: Path) -> str:
    near = _similar(path)
    if near:
        return f"did you mean {path.parent / near}?"
    return "check the path; a hub name is written owner/name, several files with commas between them"


def _similar(path: Path) -> str:
    try:
        names = [p.name for p in Path(os.path.expanduser(path)).parent.iterdir()]
    except OSError:
        return ""
    return next(iter(difflib.get_close_matches(path.name, names, 1, 0.7)), "")
