"""A source as the cases of a benchmark, if its columns say that it is one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from plaudit.data.benchmarks.layouts import LAYOUTS, Case, Layout, fields_of, has, prior_set
from plaudit.data.benchmarks.names import TIES, TITLES, BenchmarkName
from plaudit.data.reading.opening.source import open_source
from plaudit.data.reading.rows import Places, ReadLog, Row
from plaudit.errors import DataError

LOOKED_AT = 100
"""Rows of each file from which its layout is told."""


@dataclass(frozen=True, slots=True)
class Benchmark:
    """The cases of a source, and what was noticed while they were read."""

    name: BenchmarkName
    cases: dict[str, Case]
    """By a key that no other case has."""
    places: Places
    """File and line of each case, by its key."""
    notes: tuple[str, ...] = ()


def load_benchmark(source: str) -> Benchmark | None:
    """The cases of a benchmark file, or of several files of one; None: the columns are those of no benchmark.

    Args:
        source: as in `plaudit.data.load.load_records`.

    Raises:
        DataError: there is no such source, files of several benchmarks, or of one and of something else.
        BadRows: a DataError that lists the faults of all rows.
    """
    # A look at the first rows decides, so that other data are not read twice.
    parts = open_source(source, ReadLog(source), LOOKED_AT)
    first = [(part.stem, list(islice(part.rows, LOOKED_AT))) for part in parts]
    layout = _layout([(stem, rows) for stem, rows in first if rows], source)
    if layout is None:
        return None
    log = ReadLog(source)
    cases: dict[str, Case] = {}
    places: dict[str, str] = {}
    for part in open_source(source, log, 0):
        for row in part.rows:
            fields = fields_of(row, log)
            case = layout.parse(fields, part.stem)
            if not fields.faulty:
                key = f"{part.stem}-{row.number}"
                key = key if key not in cases else f"{key}+{len(cases)}"
                cases[key], places[key] = case, row.where
    log.raise_if_faulty()
    _no_doubles(layout, cases, places, source)
    return Benchmark(layout.name, cases, Places(source, places), log.notes)


def _layout(parts: Sequence[tuple[str, Sequence[Row]]], source: str) -> Layout | None:
    """The layout that at least half of the rows looked at of each file have.

    Raises:
        DataError: files of several layouts.
    """
    found = [(stem, rows, _layout_of(rows)) for stem, rows in parts]
    first = next((layout for _, _, layout in found if layout), None)
    if first is None:
        return None
    for stem, rows, layout in found:
        is_prior = layout is None and first.name == "rewardbench" and prior_set(stem) and _are_pairs(rows)
        if layout is not first and not is_prior:
            kind = TITLES[layout.name] if layout else "no benchmark"
            raise DataError(
                f"files of different kinds: of {TITLES[first.name]}, and {stem}, which is of {kind}",
                where=source,
                cure="evaluate the benchmarks one at a time",
            )
    return first


def _layout_of(rows: Sequence[Row]) -> Layout | None:
    fitting = (layout for layout in LAYOUTS if 2 * sum(map(layout.fits, rows)) >= len(rows))
    return next((layout for layout in fitting if any(map(layout.somewhere, rows))), None)


def _are_pairs(rows: Sequence[Row]) -> bool:
    return all(has(row, "prompt", "chosen", "rejected") for row in rows)


def _no_doubles(layout: Layout, cases: dict[str, Case], places: dict[str, str], source: str) -> None:
    """Refuse two questions of Ties with one name: the name says which two belong together."""
    seen: dict[str, str] = {}
    for key, case in cases.items():
        if layout.name != "rewardbench-2" or case.subset != TIES:
            continue
        if case.id in seen:
            what = f"the id {case.id!r} stands in two rows, {places[seen[case.id]]} and {places[key]}"
            raise DataError(what, where=source, cure="give each question of Ties an id of its own, or remove one")
        seen[case.id] = key
