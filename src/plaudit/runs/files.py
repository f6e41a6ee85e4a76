"""The files of a run: JSON lines that stay readable after a crash, and JSON objects that are replaced as a whole."""

from __future__ import annotations

import contextlib
import json
import math
import os
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from plaudit.errors import DataError, MachineError
from plaudit.machine import make_folder, sync, writing

Row = dict[str, Any]
Key = tuple[str, type]
STEP: Key = ("step", int)

PARTIAL = ".partial"
"""Ending of a file that is being written. A kill may leave one; it is nobody's."""
# Written by every run.
METRICS, SAMPLES, EVENTS = "metrics.jsonl", "samples.jsonl", "events.jsonl"
SUMMARY, CONFIG = "summary.json", "config.toml"
# Written by some: what was measured on held-out rows or prompts, one row a pair, list or response.
HELDOUT, RANKINGS, SPOILED = "heldout.jsonl", "rankings.jsonl", "spoiled.jsonl"
SWAPS = "swaps.jsonl"
"""Of earlier versions: responses after another prompt, which spoiled.jsonl has too."""
WORDS = "words.json"
"""The weight of each word, fitted on the training rows: the baseline of a reward model."""
HELDOUT_START = "heldout_start.jsonl"
"""Held-out rows by the reward model as it started."""
BENCHMARK = "benchmark.jsonl"
"""The prompts of a published benchmark, scored by a reward model."""
LOOP = "loop.json"
"""How far a loop is, and the figures of its rounds; it lies in the loop's directory, above its runs."""
PREFERENCES, EVALUATION, BEST = "preferences.jsonl", "evaluation.jsonl", "best.jsonl"
# Written by an evaluation after the run: pairs by a judge in both orders, held-out texts, requests to be refused.
JUDGED, FORGETTING, RED_TEAM = "judged.jsonl", "forgetting.jsonl", "red_team.jsonl"
PAIRS = "pairs.jsonl"
"""Responses of start and trained policy side by side, for people to compare."""


def jsonable(value: Any) -> Any:
    """``value`` as plain JSON: NaN and infinities become ``None``; numbers of other types (numpy) become floats.

    >>> jsonable({"a": float("nan"), "b": (1, True)})
    {'a': None, 'b': [1, True]}
    """
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [jsonable(item) for item in value]
    # json.dumps writes NaN as a bare word, which is not JSON: other readers (jq, browsers, pandas) stop at that line.
    try:
        number = float(value)
    except (TypeError, ValueError):
        return str(value)
    return number if math.isfinite(number) else None


class Lines:
    """A JSONL file open for appending; every row has been handed to the operating system when ``add`` returns.

    An incomplete last line, left by a crash, is cut off when the file is opened again.
    """

    # Flushed but not fsynced: a row survives the end of the process, which is the common case; after a power cut the
    # last rows may be missing, and `resume` records them again from the checkpoint on. fsync for every row would cost
    # more than a small step.

    def __init__(self, path: Path) -> None:
        self.path = path
        with writing(path, path.name):
            path.parent.mkdir(parents=True, exist_ok=True)
            _cut_torn_tail(path)
            self._file = path.open("a", encoding="utf-8")

    def add(self, row: Mapping[str, Any]) -> None:
        """Append one row.

        Raises:
            MachineError: the disk is full, or refuses.
        """
        with writing(self.path, f"a line of {self.path.name}"):
            self._file.write(_json(row) + "\n")
            self._file.flush()

    def keep(self, wanted: Callable[[Row], bool], *, has: Key = STEP) -> tuple[int, str]:
        """Rewrite the file with the rows for which ``wanted`` is true.

        Args:
            has: what ``wanted`` reads; a line without it is one that cannot be read.

        Lines that cannot be read (a damaged disk, an editor) are moved to ``<name>.unreadable`` beside it.

        Returns:
            How many rows were dropped; and, where lines were moved, a sentence that says so.
        """
        rows, broken = _rows_of(self.path, has)
        kept = [row for row in rows if wanted(row)]
        if len(kept) == len(rows) and not broken:
            return 0, ""
        # Closed first: the old file is replaced by name, and a handle kept open would go on writing into the old one.
        self._file.close()
        moved = ""
        if broken:
            aside = self.path.with_name(self.path.name + ".unreadable")
            with writing(aside, aside.name), aside.open("ab") as file:
                file.writelines(line + b"\n" for _, line in broken)
            moved = (
                f"{len(broken)} lines of {self.path.name}, the first of them line {broken[0][0]}, could not be read "
                f"and were moved to {aside.name}: what they said is missing in the report"
            )
        write_lines(self.path, kept)
        self._file = self.path.open("a", encoding="utf-8")
        return len(rows) - len(kept), moved

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        with contextlib.suppress(OSError):  # every row was flushed before, so there is nothing to lose
            self._file.close()


def _cut_torn_tail(path: Path) -> None:
    # Without this the next row would be appended to the incomplete one, and both would be lost in one unreadable line.
    if not path.exists() or path.stat().st_size == 0:
        return
    with path.open("rb+") as file:
        content = file.read()
        if not content.endswith(b"\n"):
            file.truncate(content.rfind(b"\n") + 1)


def read_lines(path: Path, *, has: Key | None = None) -> list[Row]:
    """The rows of a JSONL file; [] if there is none. An incomplete last line is left out: a run may be writing it.

    Args:
        has: a key that each row must have, with the type of its value.

    Raises:
        DataError: a line that is not such a row, with file and line.
    """
    if not path.exists():
        return []
    rows, broken = _rows_of(path, has)
    if broken:
        number, line = broken[0]
        what = f"a JSON object with a {has[0]}" if has else "a JSON object"
        more = f", and {len(broken) - 1} other lines" if len(broken) > 1 else ""
        raise DataError(
            f"this line{more} is not {what}: {line[:80].decode(errors='replace')!r}",
            where=f"{path}:{number}",
            cure="delete the line, or the file if you do not need it",
        )
    return rows


def _rows_of(path: Path, has: Key | None) -> tuple[list[Row], list[tuple[int, bytes]]]:
    """The rows of a file, and the lines, with their numbers, that are none."""
    lines = path.read_bytes().split(b"\n")
    rows: list[Row] = []
    broken: list[tuple[int, bytes]] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        row = _parse(line)
        if row is None or (has is not None and type(row.get(has[0])) is not has[1]):
            if number < len(lines):  # the last one may be on its way
                broken.append((number, line))
            continue
        rows.append(row)
    return rows, broken


def _json(value: Any, indent: int | None = None) -> str:
    text = json.dumps(jsonable(value), indent=indent, ensure_ascii=False)
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can hold and UTF-8 cannot: it stays escaped
        return json.dumps(jsonable(value), indent=indent)
    return text


def _parse(line: bytes) -> Row | None:
    try:
        row = json.loads(line.decode())
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a whole JSONL file at once: a reader gets the old file or the new one, never a part."""
    write_text(path, "".join(f"{_json(row)}\n" for row in rows))


def read_json(path: Path, cure: str = "delete it; it is written again") -> Row:
    """A JSON object; {} if the file does not exist.

    Args:
        cure: of a file that is damaged.

    Raises:
        DataError: not a JSON object.
    """
    if not path.exists():
        return {}
    row = _parse(path.read_bytes())
    if row is None:
        raise DataError("this file is not a JSON object", where=str(path), cure=cure)
    return row


def read_settings(path: Path) -> tuple[Row, str]:
    """The tables of a run's config.toml, and its text with the comments; ({}, "") if the file does not exist.

    Raises:
        DataError: no TOML, such as a run writes.
    """
    if not path.exists():
        return {}, ""
    try:
        text = path.read_bytes().decode()
        return tomllib.loads(text), text
    # Of a damaged file: no UTF-8, no TOML, a number of thousands of digits, tables in each other without end.
    except (ValueError, RecursionError) as error:
        cure = "mend the line; what the run was told stands in its manifest.json too"
        raise DataError(f"this file is not TOML: {error}", where=str(path), cure=cure) from None


def merge_json(path: Path, values: Mapping[str, Any]) -> Row:
    """Add ``values`` to the JSON object in ``path`` (newer values win), atomically; returns the whole."""
    merged = {**read_json(path), **jsonable(values)}
    write_text(path, _json(merged, indent=2) + "\n")
    return merged


def write_text(path: Path, text: str) -> None:
    """Write a whole file at once: a reader, also one after a power cut, gets the old file or the new one.

    Raises:
        MachineError: the disk is full, or refuses. The old file is as it was.
    """
    # Write beside, sync, rename: the rename is atomic within one directory (POSIX), so at every moment the name
    # refers to a complete file. Without the sync the rename could reach the disk before the content, and a power cut
    # would leave an empty file under the name. Without the one after it a later file could be there and this one not:
    # a loop's record of a step, and not the step.
    temporary = path.with_name(path.name + PARTIAL)
    try:
        with writing(path, path.name, needed=len(text)):
            make_folder(path.parent)
            with temporary.open("w", encoding="utf-8", errors="replace") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            sync(path.parent)
    except MachineError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
