"""What is looked at before a file is read: whether it is a file at all, what its first bytes say, and how large it is.

A pipe or a device would be read for ever, and a small gzip file can unpack to more than any machine holds.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

from plaudit.errors import DataError

GB = 2**30
ROW_SHARE = 256
"""A row may take this share of the largest file: 64 MB of 16 GB."""
TIGHTEST = 200
"""Text is packed to a tenth, seldom to a fiftieth; gzip ends at 1032. What is packed tighter was made to be."""
MOST_BLANK = 1_000_000
"""Blank lines in a row: a few bytes of gzip hold millions of them, and each takes its time."""
LOOSE = 128 * 2**20
"""So many unpacked bytes are taken from any file, however tightly it is packed."""

_UNPACK = "unpack it, and name the data file in it; of packed files only .gz is read"
_SIGNATURES: tuple[tuple[bytes, str, str], ...] = (
    (b"PK\x03\x04", "a zip archive (or a spreadsheet or document, which are zip files too)", _UNPACK),
    (b"\xfd7zXZ\0", "packed with xz", "`xz -d` unpacks it; of packed files only .gz is read"),
    (b"BZh", "packed with bzip2", "`bzip2 -d` unpacks it; of packed files only .gz is read"),
    (b"\x28\xb5\x2f\xfd", "packed with zstd", "`zstd -d` unpacks it; of packed files only .gz is read"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (b"SQLite format 3\0", "a database of SQLite", "export the table to CSV or JSON Lines, and name that file"),
    (b"\x80\x02", "a pickle, which can run code when it is read", "write the rows as JSON Lines or Parquet"),
    (b"\x80\x04", "a pickle, which can run code when it is read", "write the rows as JSON Lines or Parquet"),
    (b"\x80\x05", "a pickle, which can run code when it is read", "write the rows as JSON Lines or Parquet"),
    (b"version https://git-lfs", "the pointer of a file in Git LFS, and not the file", "`git lfs pull` fetches it"),
    (b"%PDF", "a PDF document", "give the rows as JSON Lines, CSV or Parquet"),
    (b"<!DOCTYPE", "a web page (HTML)", "fetch the file itself: a page about it was saved in its place"),
    (b"<!doctype", "a web page (HTML)", "fetch the file itself: a page about it was saved in its place"),
    (b"<html", "a web page (HTML)", "fetch the file itself: a page about it was saved in its place"),
)
_NO_FILES = (
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)


def check_is_file(path: Path) -> None:
    """Refuse pipes, devices and sockets, which may never end, and links that lead nowhere.

    Raises:
        DataError: it is one of these.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        if not path.is_symlink():
            return  # whoever opens it says what is wrong
        what = f"a link to {os.readlink(path)}, where nothing can be read ({error.strerror})"
        raise DataError(what, where=str(path), cure="mend the link, or name the file itself") from error
    for is_kind, name in _NO_FILES:
        if is_kind(mode):
            cure = "save what comes from it to a file, and name that file"
            raise DataError(f"{name} and not a file: reading it might never end", where=str(path), cure=cure)


def check_start(start: bytes, path: Path, *, packed: bool) -> None:
    """Refuse what is known by its first bytes to be no data file.

    Args:
        start: the first bytes, unpacked; 262 of them or more where there are so many.
        packed: whether they came out of a gzip file.

    Raises:
        DataError: says what it is instead.
    """
    plain = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    found = next(((name, cure) for mark, name, cure in _SIGNATURES if plain.startswith(mark)), None)
    if start[257:262] == b"ustar":
        found = "a tar archive", _UNPACK
    if packed and start.startswith(b"\x1f\x8b"):
        found = "a gzip file inside a gzip file", "unpack it once: `gzip -d FILE`"
    if found:
        raise DataError(f"the file is {found[0]}", where=str(path), cure=found[1])


class Meter:
    """Counts the bytes that are read of a file, and refuses more than it may hold.

    Args:
        stream: unpacked.
        path: the file, whose size on the disk tells how tightly it is packed.
        max_gb: the largest file.
    """

    def __init__(self, stream: BinaryIO, path: Path, max_gb: float) -> None:
        self._stream, self._path, self._max_gb = stream, path, max_gb
        self._largest = int(max_gb * GB)
        self._tightest = max(LOOSE, TIGHTEST * path.stat().st_size)
        self._read = self._blank = 0
        self.longest_row = max(self._largest // ROW_SHARE, 1)

    def whole(self) -> bytes:
        """All bytes of the file."""
        parts = []
        while part := self._stream.read(2**20):
            self._count(part)
            parts.append(part)
        return b"".join(parts)

    def line(self) -> bytes:
        """The next line with its end; b"" at the end of the file.

        Raises:
            DataError: the line, or the file, is too large.
        """
        line = self._stream.readline(self.longest_row + 1)
        self._count(line)
        self._blank = self._blank + 1 if 0 < len(line) <= 2 and not line.strip() else 0
        if self._blank > MOST_BLANK:
            what = f"more than {MOST_BLANK:,} blank lines in a row"
            raise DataError(what, where=str(self._path), cure="look at the file: it is damaged, or made to take long")
        if len(line) > self.longest_row:
            raise self._too_large(f"a line of more than {self.longest_row / 2**20:,.0f} MB")
        return line

    def _count(self, part: bytes) -> None:
        self._read += len(part)
        self.check(self._read)
        if self._read > self._tightest:
            size = self._path.stat().st_size
            raise DataError(
                f"{size:,} bytes that unpack to more than {self._read // 2**20:,} MB: no text is packed so tightly",
                where=str(self._path),
                cure="unpack it and look at it: it is damaged, or made to fill the memory",
            )

    def check(self, size: int) -> None:
        """Refuse a file of so many unpacked bytes, if that is too large."""
        if size > self._largest:
            raise self._too_large(f"more than {self._max_gb:g} GB of data")

    def _too_large(self, what: str) -> DataError:
        cure = f"split the file, or raise --max-gb (now {self._max_gb:g}; a row may have a {ROW_SHARE}th of it)"
        return DataError(what, where=str(self._path), cure=cure)
