"""Rows that are given in Python instead of as a file: lists, generators, a table of `datasets` or pandas.

They become rows as those of a file do, and are read by the same code: the same names, refusals and notes. An error says
`prompts[3]` where it would say file and line.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

import numpy as np

from plaudit.data.convert import KIND_OF, convert, number_repeated_ids
from plaudit.data.load import Loaded, given_fields, load_records, records_of
from plaudit.data.reading.messages import ROLES
from plaudit.data.reading.row_parsers import fault_of_prompt
from plaudit.data.reading.rows import LARGEST_GB, Places, ReadLog, Row, shorten
from plaudit.data.write import row_of
from plaudit.errors import DataError
from plaudit.records import Content, Kind, Message, Prompt, Record, to_json

_ONE_ROW = "give a list, with one text, chat or row each"


def load_data(
    source: str,
    given: Iterable[Any] | None,
    name: str,
    kind: Kind | None = None,
    *,
    limit: int = 0,
    fields: Mapping[str, str] | None = None,
    max_gb: float = LARGEST_GB,
) -> Loaded:
    """What was given in Python under this name; else a data source. See `load_values` and `load_records`."""
    if given is None:
        return load_records(source, kind, limit=limit, fields=fields, max_gb=max_gb)
    return load_values(given, name, kind, limit=limit, fields=fields)


def load_values(
    values: Iterable[Any],
    name: str,
    kind: Kind | None = None,
    *,
    limit: int = 0,
    fields: Mapping[str, str] | None = None,
) -> Loaded:
    """Values as records of one kind.

    Args:
        values: any iterable of texts, chats (lists of messages: dicts, `Message` or (role, text)), rows (dicts) or
            records; a `datasets.Dataset` or a table of pandas. It is read once.
        name: what they are, for errors: "prompts".
        kind: the kind that is needed; other kinds are converted where that makes sense.
        limit: read only so many (0 = all).
        fields: as in `load_records`, for rows whose names are not usual.

    Raises:
        DataError: it is not such a thing, empty, or of no known kind.
        BadRows: a DataError that lists the faults of all rows.
    """
    log = ReadLog(name)
    rows_of, nulls = _rows_of(values, name)
    given = list(islice(rows_of, limit or None))
    if not given:
        raise DataError(f"there are no {name}", where=name, cure=f"give at least two different {name}")
    if all(type(value) in KIND_OF for value in given):
        return _records(given, name, kind, log)
    if all(_is_message(value) for value in given):
        raise DataError("a chat where a list of rows is expected", where=name, cure=f"write {name}=[chat]")
    places = [f"{name}[{index}]" for index in range(len(given))]
    read = (_row(value, place) for value, place in zip(given, places, strict=True))
    rows = [Row(places[index], index, values, nulls=nulls) for index, values in enumerate(read)]
    return records_of([(name.removesuffix("s"), rows)], kind, ["from Python"], log, given_fields(fields or {}))


def prompt_of(value: Any, where: str) -> Content:
    """The content of one prompt: a text as it is, a chat, a row or a `Prompt`.

    Raises:
        DataError: it is none of these, or a chat that ends with the assistant's turn.
    """
    if isinstance(value, str):
        return value
    log = ReadLog(where)
    if isinstance(value, Prompt):
        [record] = _records([value], where, "prompt", log).records
    else:
        rows = [Row(where, 0, _row(value, where))]
        [record] = records_of([("prompt", rows)], "prompt", ["from Python"], log, {}).records
    assert isinstance(record, Prompt), "read as a prompt"
    return record.content


def _records(given: list[Any], name: str, kind: Kind | None, log: ReadLog) -> Loaded:
    """Records as they are; a prompt that nothing can follow is refused as it is in a file."""
    kinds = {KIND_OF[type(record)] for record in given}
    if len(kinds) > 1:
        raise DataError(f"records of several kinds: {', '.join(sorted(kinds))}", where=name, cure="give one kind")
    for index, record in enumerate(given):
        if isinstance(record, Prompt) and (fault := fault_of_prompt(record.content)):
            log.fault(f"{name}[{index}]", "prompt", *fault)
    log.raise_if_faulty()
    records = number_repeated_ids(given, log)
    places = {record.id: f"{name}[{index}]" for index, record in enumerate(records)}
    converted: list[Record] = convert(records, kind, log) if kind else records
    return Loaded(
        tuple(converted), kind or kinds.pop(), f"{len(given)} records", name, len(given), log.notes, (), log.dropped,
        Places(name, places),
    )  # fmt: skip


def _rows_of(values: Any, name: str) -> tuple[Iterable[Any], bool]:
    """One value for each row, and whether all of them have the same keys at every depth."""
    # A table gives its columns when it is iterated over; both libraries are there only if somebody imported them.
    pandas, datasets = sys.modules.get("pandas"), sys.modules.get("datasets")
    if pandas is not None and isinstance(values, pandas.DataFrame):
        return values.to_dict("records"), False
    if datasets is not None and isinstance(values, (datasets.DatasetDict, datasets.IterableDatasetDict)):
        parts = ", ".join(values)
        raise DataError(f"several splits: {parts}", where=name, cure=f"choose one: {name}=data[{next(iter(values))!r}]")
    if isinstance(values, (str, bytes, Mapping, Message, *KIND_OF)) or not isinstance(values, Iterable):
        raise DataError(f"found {_shown(values)}", where=name, cure=_ONE_ROW)
    is_table = datasets is not None and isinstance(values, (datasets.Dataset, datasets.IterableDataset))
    return values, is_table


def _row(value: Any, where: str) -> dict[str, Any]:
    """A row of JSON-ready values."""
    if isinstance(value, Mapping):
        if _is_message(value):
            cure = "write a chat as a list of messages: [message]"
            raise DataError("a message where a chat or a row is expected", where=where, cure=cure)
        return {str(key): plain(column) for key, column in value.items()}
    if type(value) in KIND_OF:
        return row_of(value)
    read = plain(value)
    if isinstance(read, (str, list)):
        return {"prompt": read}
    raise DataError(
        f"found {_shown(value)}",
        where=where,
        cure="give a text, a chat (a list of messages), or a row (a dict with prompt)",
    )


def plain(value: Any) -> Any:
    """A value as a file would hold it: lists for tuples and arrays, messages as objects, None for what is missing.

    >>> plain((Message("user", "Hi"), ("assistant", "Hello")))
    [{'role': 'user', 'content': 'Hi'}, {'role': 'assistant', 'content': 'Hello'}]
    """
    if isinstance(value, Message):
        return to_json(value)
    if isinstance(value, (np.ndarray, np.generic)):
        return plain(value.tolist())
    if isinstance(value, float) and value != value:
        return None  # how tables say that a row has no value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if not isinstance(value, (list, tuple)):
        return value
    is_chat = all(_is_message(item) or _is_pair(item) for item in value)
    pairs = ({"role": item[0], "content": item[1]} if is_chat and _is_pair(item) else item for item in value)
    return [plain(item) for item in pairs]


def _is_message(value: Any) -> bool:
    keys = value if isinstance(value, Mapping) else ()
    return isinstance(value, Message) or ("role" in keys and ("content" in keys or "tool_calls" in keys))


def _is_pair(value: Any) -> bool:
    """Whether it is a message as some libraries write it: (role, text)."""
    two = value if isinstance(value, tuple) and len(value) == 2 else (None, None)
    return isinstance(two[0], str) and two[0] in ROLES and isinstance(two[1], (str, list))


def _shown(value: Any) -> str:
    return shorten(value) if isinstance(value, (str, list, tuple, dict, int, float)) else f"a {type(value).__name__}"
