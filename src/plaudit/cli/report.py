"""`plaudit report`: one self-contained page about a run."""

from __future__ import annotations

from pathlib import Path

from plaudit.cli.parser import Parser, show
from plaudit.runs.reading import run_directory


def run(command: str, argv: list[str]) -> int:
    """Write report.html into the run directory and print its path."""
    parser = Parser("report", "Write report.html: curves, samples and figures of a run, in one file.")
    parser.add_argument("run", type=Path, help="a run directory, such as runs/ppo-20260101-120000")
    path = run_directory(parser.parse_args(argv).run)
    from plaudit.evaluation.report import write_report

    show(str(write_report(path)))
    return 0
