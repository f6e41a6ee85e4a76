"""The files of a run: JSON lines that stay readable after a crash, and JSON objects that are replaced as a whole."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from plaudit.errors import DataError

Row = dict[str, Any]

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
        path.parent.mkdir(parents=True, exist_ok=True)
        _cut_torn_tail(path)
        self._file = path.open("a", encoding="utf-8")

    def add(self, row: Mapping[str, Any]) -> None:
        """Append one row."""
        self._file.write(json.dumps(jsonable(row), ensure_ascii=False) + "\n")
        self._file.flush()

    def keep(self, wanted: Callable[[Row], bool]) -> int:
        """Rewrite the file with the rows for which ``wanted`` is true; returns how many were dropped."""
        rows = read_lines(self.path)
        kept = [row for row in rows if wanted(row)]
        if len(kept) == len(rows):
            return 0
        # Closed first: the old file is replaced by name, and a handle kept open would go on writing into the old one.
        self._file.close()
        write_lines(self.path, kept)
        self._file = self.path.open("a", encoding="utf-8")
        return len(rows) - len(kept)

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._file.close()


def _cut_torn_tail(path: Path) -> None:
    # Without this the next row would be appended to the incomplete one, and both would be lost in one unreadable line.
    if not path.exists() or path.stat().st_size == 0:
        return
    with path.open("rb+") as file:
        content = file.read()
        if not content.endswith(b"\n"):
            file.truncate(content.rfind(b"\n") + 1)


def read_lines(path: Path) -> list[Row]:
    """The rows of a JSONL file; [] if there is none. An incomplete last line is left out: a run may be writing it.

    Raises:
        DataError: a line that is not a JSON object, with file and line.
    """
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    rows = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        row = _parse(line)
        if row is None and number == len(lines):
            break
        if row is None:
            raise DataError(
                f"this line is not a JSON object: {line[:80]!r}",
                where=f"{path}:{number}",
                cure="delete the line, or the file if you do not need it",
            )
        rows.append(row)
    return rows


def _parse(line: str) -> Row | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a whole JSONL file at once: a reader gets the old file or the new one, never a part."""
    _replace(path, "".join(json.dumps(jsonable(row), ensure_ascii=False) + "\n" for row in rows))


def read_json(path: Path) -> Row:
    """A JSON object; {} if the file does not exist.

    Raises:
        DataError: not a JSON object.
    """
    if not path.exists():
        return {}
    row = _parse(path.read_text(encoding="utf-8"))
    if row is None:
        raise DataError(
            "this file is not a JSON object", where=str(path), cure="delete it; it is written again"
        )
    return row


def merge_json(path: Path, values: Mapping[str, Any]) -> Row:
    """Add ``values`` to the JSON object in ``path`` (newer values win), atomically; returns the whole."""
    merged = {**read_json(path), **jsonable(values)}
    _replace(path, json.dumps(merged, indent=2, ensure_ascii=False) + "\n")
    return merged


def _replace(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Write beside, sync, rename: the rename is atomic within one directory (POSIX), so at every moment the name
    # refers to a complete file. Without the sync the rename could reach the disk before the content, and a power cut
    # would leave an empty file under the name.
    temporary = path.with_name(path.name + ".partial")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
