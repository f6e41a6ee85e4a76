"""Tables to rows: CSV, Parquet and Arrow."""

# A cell that begins with one of these characters is run as a formula when somebody opens the file in a spreadsheet,
# and formulas can send data away. Responses of models are such text. So cells are written with a quote in front,
# and that quote is removed when the file is read. Cells that begin with quotes and such a character get one more,
# so that reading always gives back exactly what was written.

from __future__ import annotations

import csv
import gzip
import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from plaudit.data.reading.opening.decoding import BROKEN
from plaudit.data.reading.opening.guards import Meter
from plaudit.data.reading.rows import ReadLog, Row, shorten

FORMULA = re.compile(r"'*[=+\-@\t\r\0]")
"""Text that a spreadsheet would run as a formula, also with quotes in front."""

_LONGEST_CELL = 2**31 - 1
_UNQUOTED = "quote cells that hold commas, quotes or line ends"


def neutralise(cell: str) -> str:
    """A text cell that no spreadsheet takes for a formula. ``restore`` is its inverse.

    >>> neutralise("=1+1"), restore(neutralise("=1+1")), neutralise("1+1")
    ("'=1+1", '=1+1', '1+1')
    """
    return "'" + cell if FORMULA.match(cell) else cell


def restore(cell: str) -> str:
    """The text of a cell written by ``neutralise``."""
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell) else cell


def csv_rows(text: str, where: str, log: ReadLog) -> Iterator[Row]:
    """Rows of a CSV text with a header line. Cells are separated by commas, else by semicolons or tabs."""
    delimiter = _delimiter(text, log)
    # The limit of the csv module is one for the whole process, so it is put back at the end.
    limit = csv.field_size_limit(_LONGEST_CELL)
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        lines = _records(reader, where, log)
        header = next(lines, None)
        if header is None or not _sound_header(header[1], where, log):
            return
        for number, (line, cells) in enumerate(lines, 1):
            row = _csv_row(header[1], cells, f"{where}:{line}", log)
            if row is not None:
                yield Row(f"{where}:{line}", number, row, cells=True)
    finally:
        csv.field_size_limit(limit)


def _delimiter(text: str, log: ReadLog) -> str:
    # Decided by the header alone: names of columns hold no commas, texts below them do. Spreadsheets in many countries
    # write semicolons.
    header = text.lstrip("\r\n").split("\n", 1)[0]
    if "," not in header:
        for name, mark in (("semicolons", ";"), ("tabs", "\t")):
            if mark in header:
                log.note(f"cells are separated by {name}")
                return mark
    return ","


def _records(reader: Any, where: str, log: ReadLog) -> Iterator[tuple[int, list[str]]]:
    """Records that are not blank, each with the line on which it starts."""
    while True:
        # Before reading: a quoted cell may hold line ends, and the fault should name the line where its record begins.
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            log.fault(f"{where}:{line}", "row", f"broken CSV ({error})", _UNQUOTED)
            continue
        if cells and cells != [""]:
            yield line, cells


def _sound_header(header: list[str], where: str, log: ReadLog) -> bool:
    twice = next((name for name in header if header.count(name) > 1), None)
    if twice is not None:
        found = f"the column {shorten(twice)} more than once"
        log.fault(f"{where}:1", "header", found, "the first line must name every column once")
    return twice is None


def _csv_row(header: list[str], cells: list[str], where: str, log: ReadLog) -> dict[str, Any] | None:
    if len(cells) != len(header):
        log.fault(where, "row", f"{len(cells)} cells where the header has {len(header)}", _UNQUOTED)
        return None
    restored = [restore(cell) for cell in cells]
    quoted = sum(cell != text for cell, text in zip(cells, restored, strict=True))
    log.count("cells protected against spreadsheet formulas, read without the quote", quoted)
    return dict(zip(header, restored, strict=True))


def parquet_rows(stream: BinaryIO, where: str, log: ReadLog) -> Iterator[Row]:
    """Rows of a Parquet file, read in batches."""

    def batches(pyarrow: Any) -> Iterator[Any]:
        # Parquet is read from its end, which a gzip stream can reach only by unpacking everything before it, each time.
        packed = isinstance(cast(object, stream), gzip.GzipFile)
        meter = Meter(stream, Path(where), log.max_gb)
        table = pyarrow.parquet.ParquetFile(io.BytesIO(meter.whole()) if packed else stream)
        # Parquet is packed inside, and says how large it is.
        groups = range(table.metadata.num_row_groups)
        meter.check(sum(table.metadata.row_group(group).total_byte_size for group in groups))
        yield from table.iter_batches(1024)

    return _arrow_rows("Parquet", batches, where, log)


def arrow_rows(stream: BinaryIO, where: str, log: ReadLog) -> Iterator[Row]:
    """Rows of an Arrow file or stream, as `datasets` saves them."""

    def batches(pyarrow: Any) -> Iterator[Any]:
        data = Meter(stream, Path(where), log.max_gb).whole()
        if data.startswith(b"ARROW1"):
            reader = pyarrow.ipc.open_file(data)
            yield from (reader.get_batch(number) for number in range(reader.num_record_batches))
        else:
            yield from pyarrow.ipc.open_stream(data)

    return _arrow_rows("Arrow", batches, where, log)


def _arrow_rows(
    name: str, batches: Callable[[Any], Iterator[Any]], where: str, log: ReadLog
) -> Iterator[Row]:
    # Imported here: pyarrow takes a large part of a second to load, and most data are JSON.
    try:
        import pyarrow
        import pyarrow.ipc
        import pyarrow.parquet
    except ImportError:
        log.fault(where, "file", f"{name}, for which pyarrow is needed", "pip install pyarrow")
        return
    number = 0
    try:
        for batch in batches(pyarrow):
            for values in batch.to_pylist():
                number += 1
                yield Row(f"{where} row {number}", number, values, nulls=True)
    except (pyarrow.ArrowException, *BROKEN, ValueError) as error:
        found = f"a damaged {name} file ({shorten(str(error), 80)[1:-1]})"
        log.fault(where, "file", found, "the file is cut off or damaged: fetch or write it again")
