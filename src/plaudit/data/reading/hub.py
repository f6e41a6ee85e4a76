"""Rows of a dataset on the Hugging Face hub, through the `datasets` package where it is installed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from plaudit.data.reading.rows import ReadLog, Row
from plaudit.errors import DataError

HUB_NAME = re.compile(r"[\w.-]+(?:/[\w.-]+)?(?::[\w.+-]+){0,2}")
"""`owner/name`, `name:split` or `name:subset:split`."""


def hub_rows(source: str, log: ReadLog, *, limit: int = 0) -> Iterator[Row]:
    """The rows of one split of a hub dataset; "train" if none is named.

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
        cure = "check the name, the split and the network, or give a local file"
        raise DataError(f"cannot load it from the hub: {why[:300]}", where=source, cure=cure) from error
    for number, values in enumerate(table, 1):
        yield Row(f"{source} row {number}", number, dict(values))
