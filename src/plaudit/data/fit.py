"""Rows to a length limit: only prompts are cut, from the left, and everything is counted."""

# Responses are never cut. A response without its end teaches a model to stop nowhere, and half a response is not
# the one that people preferred. Prompts are cut from the left, because the last turns say most about the response.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from plaudit.data.chat import Encoded
from plaudit.errors import DataError

OnLong = Literal["truncate_prompt", "drop", "error"]


@dataclass(frozen=True, slots=True)
class FitReport:
    """How many rows were kept, cut and left out (or pairs, which are kept or left out as a whole)."""

    kept: int
    """Rows that are used, those with a cut prompt included."""
    truncated: int
    """Rows whose prompt was cut."""
    dropped: int
    """Rows left out: too long where cutting is off, or with a response that alone is too long."""
    longest: int
    """Tokens of the longest row before cutting."""

    def __str__(self) -> str:
        cut = f"{self.truncated} with a cut prompt, {self.dropped} left out as too long"
        return f"{self.kept} rows kept ({cut}; the longest had {self.longest} tokens)"


def fit_length(encoded: Encoded, max_length: int, on_long: OnLong) -> Encoded | None:
    """The row if it fits; else with its prompt cut from the left, or ``None``. A response is never cut.

    Raises:
        DataError: ``on_long`` is "error" and the row does not fit.
    """
    if len(encoded) > max_length and on_long == "error":
        what = f"a row has {len(encoded)} tokens, and {max_length} are allowed"
        raise DataError(what, cure="raise max_length, or set on_long to truncate_prompt or drop")
    fitted = (_cut if on_long == "truncate_prompt" else _whole)((encoded,), max_length)
    return fitted[0] if fitted else None


Unit = tuple[Encoded, ...]


def fit_each(
    units: Sequence[Unit], max_length: int, on_long: OnLong, *, where: str = ""
) -> tuple[list[Unit | None], FitReport]:
    """Each unit after cutting, ``None`` where it is left out, and the counts.

    Args:
        units: rows that belong together: one row, or chosen and rejected of a pair. All rows of a unit lose
            the same number of prompt tokens, so that they are still responses to the same prompt.
        max_length: most tokens of a row.
        on_long: "truncate_prompt" cuts (and leaves out what cannot be cut enough), "drop" leaves out,
            "error" stops.
        where: the source, for the error.

    Raises:
        DataError: ``on_long`` is "error" and a row does not fit, or no row is left.
    """
    lengths = [max((len(row) for row in unit), default=0) for unit in units]
    too_long = [i for i, length in enumerate(lengths) if length > max_length]
    longest = max(lengths, default=0)
    if too_long and on_long == "error":
        at = lengths.index(longest)
        what = f"{len(too_long)} of {len(units)} rows are over {max_length} tokens"
        what += f"; the longest, row {at + 1}, has {longest}"
        raise DataError(what, where=where, cure="raise max_length, or set on_long to truncate_prompt or drop")
    cut = on_long == "truncate_prompt"
    fitted = [_cut(unit, max_length) if cut else _whole(unit, max_length) for unit in units]
    kept = sum(unit is not None for unit in fitted)
    if units and not kept:
        what = f"all {len(units)} rows are too long for {max_length} tokens; the longest has {longest}"
        raise DataError(what, where=where, cure="raise max_length")
    dropped = len(units) - kept
    return fitted, FitReport(kept, len(too_long) - dropped, dropped, longest)


def _whole(unit: tuple[Encoded, ...], max_length: int) -> tuple[Encoded, ...] | None:
    return unit if all(len(row) <= max_length for row in unit) else None


def _cut(unit: tuple[Encoded, ...], max_length: int) -> tuple[Encoded, ...] | None:
    excess = max((len(row) - max_length for row in unit), default=0)
    if excess <= 0:
        return unit
    rows = tuple(_without(row, excess) for row in unit)
    return None if any(row is None for row in rows) else tuple(row for row in rows if row is not None)


def _without(row: Encoded, excess: int) -> Encoded | None:
    """The row without ``excess`` prompt tokens after its opening; at least one prompt token stays."""
    start = row.opening + excess
    # The cut may fall into an earlier response that is trained on as well. What is left of it would be trained on
    # without its beginning, so the cut is moved to its end.
    while start < row.prompt_length and row.mask[start - 1] and row.mask[start]:
        start += 1
    if start > row.prompt_length or (row.opening == 0 and start == row.prompt_length):
        return None
    ids = row.ids[: row.opening] + row.ids[start:]
    mask = row.mask[: row.opening] + row.mask[start:]
    return Encoded(ids, mask, row.prompt_length - (start - row.opening), row.opening)
