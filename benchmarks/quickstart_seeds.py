"""The quickstart for several seeds: does the true preference rise every time? Prints the table of docs/results.md.

    python benchmarks/quickstart_seeds.py [--seeds 5] [--out runs/seeds]

A seed whose directory is complete is not run again.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from plaudit.runs.files import merge_json, read_json

HEAD = (
    "| seed | gold before | gold after | difference, 95 % interval | win rate | KL, nats | reward model | seconds |\n"
    "|---|---|---|---|---|---|---|---|"
)


def run(out: Path, seed: int) -> None:
    """One quickstart in a process of its own, timed from start to report."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "plaudit.cli.main", "quickstart", "--out", str(out), "--seed", str(seed)]
    subprocess.run(command, check=True, stdout=sys.stderr)
    merge_json(out / "timing.json", {"seconds": time.perf_counter() - began})


def row(out: Path, seed: int) -> tuple[str, bool]:
    """A line of the table, and whether the interval excludes zero."""
    ppo: dict[str, Any] = read_json(out / "ppo" / "summary.json")
    reward, timing = read_json(out / "reward" / "summary.json"), read_json(out / "timing.json")
    low, high = ppo["gold_difference_ci"]
    cells = [
        str(seed),
        f"{ppo['gold_mean_before']:.2f}",
        f"{ppo['gold_mean']:.2f}",
        f"{ppo['gold_difference']:+.2f} [{low:+.2f}, {high:+.2f}]",
        f"{ppo['win_rate']:.0%}",
        f"{ppo['kl']:.1f}",
        f"{reward['accuracy']:.0%}",
        f"{timing['seconds']:.0f}" if timing else "-",
    ]
    return f"| {' | '.join(cells)} |", low > 0


def main() -> int:
    """Exit code 1 if any seed's interval includes zero."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("runs/seeds"))
    given = parser.parse_args()
    lines, good = [], []
    for seed in range(given.seeds):
        out = given.out / f"seed{seed}"
        if not (out / "report.html").is_file():
            run(out, seed)
        line, above = row(out, seed)
        lines.append(line)
        good.append(above)
    print("\n".join([HEAD, *lines]))
    print(f"\nThe interval excludes zero for {sum(good)} of {len(good)} seeds.")
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
