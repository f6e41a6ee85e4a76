"""`plaudit runs`: the runs of a directory, and several side by side, on the console."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from plaudit.cli.outcome import number
from plaudit.cli.parser import Parser, show
from plaudit.errors import DataError

ABOUT = """The runs of a directory, the newest last, with how each ended and its main figures:

  plaudit runs                          those under runs/
  plaudit runs runs/sweep --json

or runs side by side, with the settings in which they differ:

  plaudit runs runs/a runs/b"""


def run(command: str, argv: list[str]) -> int:
    """Print the table, or JSON."""
    parser = Parser("runs", ABOUT)
    parser.add_argument("paths", type=Path, nargs="*", metavar="DIR | RUN RUN ...", help="[runs]")
    parser.add_argument("--json", action="store_true", help="print rows as JSON")
    given = parser.parse_args(argv)
    paths = given.paths or [Path("runs")]
    rows = _listed(paths[0]) if len(paths) == 1 else _side_by_side(paths)
    if given.json:
        show(json.dumps(rows, indent=2, ensure_ascii=False))
    elif len(paths) == 1:
        show("\n".join(_line(row) for row in rows))
        newest = rows[-1]["run"]
        show(f"\nits page: plaudit report {newest}; several side by side: plaudit runs RUN RUN")
    else:
        show(_columns(rows))
    return 0


def _listed(folder: Path) -> list[dict[str, Any]]:
    """A row for each run in a directory or below it.

    Raises:
        DataError: there is none.
    """
    from plaudit.runs.files import METRICS

    found = sorted({path.parent for path in folder.glob(f"**/{METRICS}")}) if folder.is_dir() else []
    if not found:
        raise DataError("there is no run here", where=str(folder), cure="give the directory that holds runs")
    return sorted((_row(path) for path in found), key=lambda row: row["started"])


def _row(path: Path) -> dict[str, Any]:
    """What a run is, how it ended, and its main figures; a run that cannot be read says why."""
    from plaudit.evaluation.kinds import kind_of
    from plaudit.runs.reading import read_run

    try:
        # As recorded: a listing must not begin to compute the figures of a run that is still going.
        run = read_run(path)
    except DataError as error:
        return {"run": str(path), "command": "", "started": "", "state": error.what, "figures": {}}
    began = run.events[0].get("time") if run.events else None
    started = time.strftime("%Y-%m-%d %H:%M", time.localtime(began)) if began else ""
    figures = {name: run.summary[name] for name in kind_of(run).headline if name in run.summary}
    state = str(run.summary.get("verdict") or run.summary.get("ended") or run.reason or "not ended")
    return {"run": str(path), "command": run.command, "started": started, "state": state, "figures": figures}


def _line(row: dict[str, Any]) -> str:
    figures = "  ".join(f"{name} {number(value)}" for name, value in row["figures"].items())
    return f"{row['started']:<16}  {row['command']:<10}  {row['run']}\n{'':<18}{row['state']}" + (
        f"  {figures}" if figures else ""
    )


def _side_by_side(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """A row for each run, with the settings in which it differs from the others."""
    from plaudit.evaluation.comparing.trials import differing, trials_of

    trials = trials_of(paths)
    settings = differing(trials)
    rows = [_row(trial.run.path) for trial in trials]
    return [
        row | {"settings": {name: values[n] for name, values in settings.items()}}
        for n, row in enumerate(rows)
    ]


def _columns(rows: Sequence[dict[str, Any]]) -> str:
    """A column a run: what it is, figures, and settings that differ."""
    figures = list(dict.fromkeys(name for row in rows for name in row["figures"]))
    settings = list(rows[0]["settings"])
    lines = [[name, *(str(row[name]) for row in rows)] for name in ("run", "command", "started", "state")]
    lines += [[name, *(number(row["figures"].get(name)) or "-" for row in rows)] for name in figures]
    lines += [[name, *(str(row["settings"][name]) for row in rows)] for name in settings]
    widths = [min(max(len(line[n]) for line in lines), 60) for n in range(len(rows) + 1)]
    return "\n".join(
        "  ".join(f"{text:<{w}}" for text, w in zip(line, widths, strict=True)).rstrip() for line in lines
    )
