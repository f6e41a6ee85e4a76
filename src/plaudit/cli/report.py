"""`plaudit report`: one page about a run or several. `plaudit frontier`: rewards over the KL."""

from __future__ import annotations

import dataclasses
import math
import os
from pathlib import Path

from plaudit.cli.parser import Parser, answer, show
from plaudit.errors import ConfigError
from plaudit.runs.reading import run_directory

ABOUT = """One self-contained HTML page: curves, samples and figures of a run, in one file.

  plaudit report runs/ppo                  a run
  plaudit report runs/quickstart           a pipeline (sft, reward, ppo): one story
  plaudit report runs/a runs/b runs/c      several runs side by side, at equal KL
  plaudit report runs/sweep                a directory of such runs: the same"""
FRONTIER = """Reward and gold reward over the root of the KL to the start, at every evaluation of a run, with the
curves of Gao et al. (2022) and the peak that they predict. From the files of the run; no model is loaded."""
SIDE_BY_SIDE = "comparison.html"


def run(command: str, argv: list[str]) -> int:
    """One of the two commands that show what the files of a run say; no model is loaded."""
    return _frontier(argv) if command == "frontier" else _report(argv)


def _report(argv: list[str]) -> int:
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


def _frontier(argv: list[str]) -> int:
    """Print the points, the fits and the peaks."""
    parser = Parser("frontier", FRONTIER)
    parser.add_argument("run", type=Path, help="the run directory of a policy")
    about = "d (a - b log d) for trained policies, d (a - b d) for best of n"
    parser.add_argument("--form", choices=("rl", "best_of_n"), default="rl", help=about)
    given = parser.parse_args(argv)
    from plaudit.evaluation.frontier import frontier

    fits = frontier(run_directory(given.run), given.form)
    answer({"run": str(given.run), "fits": [dataclasses.asdict(one) | {"words": one.words} for one in fits]})
    columns = "".join(f"{one.judge:>10}" for one in fits)
    show(f"{'KL, nats':>10}{'root of KL':>12}{columns}   (change since the start)")
    for index, (distance, _) in enumerate(fits[0].points):
        gains = "".join(f"{one.points[index][1]:>+10.3f}" for one in fits if index < len(one.points))
        show(f"{distance**2:>10.2f}{distance:>12.2f}{gains}")
    for one in fits:
        show(f"\n{one.judge}: {one.words}")
        for name, value, (low, high) in (("a", one.a, one.a_ci), ("b", one.b, one.b_ci)):
            show(f"  {name} {value:.3f}" + ("" if math.isnan(low) else f"  95 % interval {low:.3f} to {high:.3f}"))
    return 0
