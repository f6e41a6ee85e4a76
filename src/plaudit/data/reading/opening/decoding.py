"""Bytes to text: gzip, UTF-8 with or without a byte order mark, any line end. Damage becomes a fault."""

# Only UTF-8 is read. Guessing another encoding would succeed for nearly every file, since almost all bytes are legal in
# Latin-1, and would fill the training data with wrong letters. So other encodings are recognised only to name the cure.

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from plaudit.data.reading.opening.guards import Meter
from plaudit.data.reading.rows import ReadLog

BROKEN = (EOFError, gzip.BadGzipFile, zlib.error, OSError)
"""The exceptions that reading a cut or damaged file raises."""

_BYTE_ORDER_MARKS = (
    (b"\xff\xfe\x00\x00", "UTF-32"),
    (b"\x00\x00\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)
_UTF8_MARK = b"\xef\xbb\xbf"


def is_gzip(path: Path) -> bool:
    """Whether a file is gzipped, whatever its name."""
    with path.open("rb") as raw:
        return raw.read(2) == b"\x1f\x8b"


def open_stream(path: Path) -> BinaryIO:
    """The bytes of a file, decompressed if it is gzipped."""
    return cast(BinaryIO, gzip.open(path)) if is_gzip(path) else path.open("rb")


def whole_text(stream: BinaryIO, where: str, log: ReadLog) -> str | None:
    """All of a file as text, or ``None`` when that is impossible (and a fault is noted)."""
    try:
        data = Meter(stream, Path(where), log.max_gb).whole()
    except BROKEN as error:
        note_damage(where, error, log)
        return None
    if _other_encoding(data[:4], where, log):
        return None
    data = _without_mark(data, log)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        _not_utf8(f"{where}:{line}", error, log)
        return None


def numbered_lines(stream: BinaryIO, where: str, log: ReadLog) -> Iterator[tuple[int, str]]:
    """Numbered lines (LF, CRLF or CR) that are not blank."""
    # Line by line and from bytes: a bad byte then spoils one line, with its number, and files larger than the
    # memory can be read.
    for number, line in enumerate(_raw_lines(stream, where, log), 1):
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            _not_utf8(f"{where}:{number}", error, log)
            continue
        if text.strip():
            yield number, text


def _raw_lines(stream: BinaryIO, where: str, log: ReadLog) -> Iterator[bytes]:
    """Lines as bytes, without their ends; nothing if the file is in another encoding."""
    number, meter = 0, Meter(stream, Path(where), log.max_gb)
    try:
        # Not `for chunk in stream`, which reads a line of any length.
        while chunk := meter.line():
            if number == 0 and _other_encoding(chunk[:4], where, log):
                return
            # Files with a mark that were joined have one in the middle.
            # Python splits bytes at LF only, so a chunk may hold several lines that end with CR.
            lines = _without_mark(chunk, log)
            for line in lines.removesuffix(b"\n").removesuffix(b"\r").split(b"\r"):
                number += 1
                yield line
    except BROKEN as error:
        note_damage(f"{where}:{number + 1}", error, log)


def _without_mark(data: bytes, log: ReadLog) -> bytes:
    if data.startswith(_UTF8_MARK):
        log.note("byte order marks at the start of the file or of a line are left out")
    while data.startswith(_UTF8_MARK):  # programs that add one do so each time they save
        data = data.removeprefix(_UTF8_MARK)
    return data


def _other_encoding(start: bytes, where: str, log: ReadLog) -> bool:
    name = next((name for mark, name in _BYTE_ORDER_MARKS if start.startswith(mark)), "")
    # UTF-16 without a mark: every second byte of Latin text is zero, which JSON and CSV never contain.
    if not name and len(start) >= 2 and start.count(0) * 2 >= len(start):
        name = "UTF-16"
    if name:
        cure = f"expected UTF-8: save it as UTF-8, or `iconv -f {name} -t UTF-8 IN > OUT`"
        log.fault(where, "file", f"{name} text", cure)
    return bool(name)


def _not_utf8(where: str, error: UnicodeDecodeError, log: ReadLog) -> None:
    byte = error.object[error.start]
    cure = "expected UTF-8: if the file is Latin-1 or Windows-1252, `iconv -f WINDOWS-1252 -t UTF-8 IN > OUT`"
    log.fault(where, "file", f"byte 0x{byte:02X} at position {error.start + 1}, which is not UTF-8", cure)


def note_damage(where: str, error: Exception, log: ReadLog) -> None:
    """Note that a file cannot be read further."""
    found = "gzip data that end too early" if isinstance(error, EOFError) else f"unreadable data ({error})"
    log.fault(where, "file", found, "the file is cut off or damaged: fetch or compress it again")
