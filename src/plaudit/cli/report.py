"""`plaudit report`: one self-contained page about a run."""

from __future__ import annotations

from pathlib import Path

from plaudit.cli.parser import Parser, show
from plaudit.errors import DataError


def run(command: str, argv: list[str]) -> int:
    """Write report.html into the run directory and print its path."""
    parser = Parser("report", "Write report.html: curves, samples and figures of a run, in one file.")
    parser.add_argument("run", type=Path, help="a run directory, such as runs/ppo-20260101-120000")
    path = run_directory(parser.parse_args(argv).run)
    from plaudit.evaluation.report import write_report

    show(str(write_report(path)))
    return 0


def run_directory(path: Path) -> Path:
    """The path, if it is a run directory (or a quickstart's, which holds several).

    Raises:
        DataError: it is not.
    """
    if not path.is_dir():
        raise DataError(
            "there is no such run directory", where=str(path), cure="the runs are usually under runs/"
        )
    if not any(path.glob("**/metrics.jsonl")):
        raise DataError(
            "the directory holds no run: it has no metrics.jsonl",
            where=str(path),
            cure="give the directory that `plaudit sft`, `reward` or `ppo` printed",
        )
    return path
