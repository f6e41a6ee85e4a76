"""`plaudit report`: one self-contained page about a run, or about several side by side."""

from __future__ import annotations

import os
from pathlib import Path

from plaudit.cli.parser import Parser, show
from plaudit.errors import ConfigError
from plaudit.runs.reading import run_directory

ABOUT = """One self-contained HTML page: curves, samples and figures of a run, in one file.

  plaudit report runs/ppo                  a run
  plaudit report runs/quickstart           a pipeline (sft, reward, ppo): one story
  plaudit report runs/a runs/b runs/c      several runs side by side, at equal KL
  plaudit report runs/sweep                a directory of such runs: the same"""
SIDE_BY_SIDE = "comparison.html"


def run(command: str, argv: list[str]) -> int:
    """Write report.html into the run directory, or the page on several runs; print its path."""
    parser = Parser("report", ABOUT)
    parser.add_argument(
        "runs", type=Path, nargs="+", metavar="RUN", help="run directories, such as runs/ppo-20260101-120000"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=None,
        help=f"the page on several runs [{SIDE_BY_SIDE} in the directory that holds them]",
    )
    given = parser.parse_args(argv)
    paths = list(dict.fromkeys(run_directory(path) for path in given.runs))
    from plaudit.evaluation.report import write_comparison, write_report

    if len(paths) == 1:
        if given.out is not None:
            raise ConfigError(
                "--out is for a page on several runs", where="--out", cure="the page of one run lies in its directory"
            )
        show(str(write_report(paths[0])))
        return 0
    target = given.out or Path(os.path.commonpath([path.resolve().parent for path in paths])) / SIDE_BY_SIDE
    show(str(write_comparison(paths, target)))
    return 0
