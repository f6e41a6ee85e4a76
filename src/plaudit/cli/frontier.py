"""`plaudit frontier`: reward and gold reward over the distance from the start, with the predicted peak."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

from plaudit.cli.parser import Parser, answer, show
from plaudit.runs.reading import run_directory

ABOUT = """Reward and gold reward over the root of the KL to the start, at every evaluation of a run, with the curves of
Gao et al. (2022) and the peak that they predict. From the files of the run; no model is loaded."""


def run(command: str, argv: list[str]) -> int:
    """Print the points, the fits and the peaks."""
    parser = Parser("frontier", ABOUT)
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
