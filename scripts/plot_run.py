"""Curves of a run as one picture for the docs: held-out reward, KL, entropy, length against the iteration.

python scripts/plot_run.py RUN PICTURE.png
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from plaudit.runs.files import Row, read_lines

PANELS = (
    ("reward", "reward/mean", "eval/reward_mean"),
    ("KL to the reference, nats", "objective/kl", "eval/kl"),
    ("entropy, nats per token", "policy/entropy", ""),
    ("critic: explained variance", "critic/explained_variance", ""),
)


def series(rows: list[Row], name: str) -> tuple[list[int], list[float]]:
    """Steps and values of one metric, where it was logged."""
    points = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
    return [step for step, _ in points], [value for _, value in points]


def main(run: Path, picture: Path) -> None:
    """Draw and save."""
    rows = read_lines(run / "metrics.jsonl")
    figure, axes = plt.subplots(1, len(PANELS), figsize=(13, 2.8), constrained_layout=True)
    for axis, (title, training, heldout) in zip(axes, PANELS, strict=True):
        axis.plot(*series(rows, training), color="#3465a4", linewidth=1.4, label="training")
        if heldout:
            axis.plot(*series(rows, heldout), "o-", color="#c4571b", markersize=3, linewidth=1.2, label="held out")
            axis.legend(frameon=False, fontsize=8)
        axis.set_title(title, fontsize=10, loc="left")
        axis.set_xlabel("iteration", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(picture, dpi=110)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
