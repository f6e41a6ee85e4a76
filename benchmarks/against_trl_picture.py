"""The figure of `against_trl.py`: how many times as fast as TRL, by task.

python benchmarks/against_trl_picture.py runs/bench/against_trl.json [MORE.json ...] [--images docs/images]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tables import Case, Measured, ratio, spread

TASKS = {
    "sft": "SFT",
    "rm": "reward\nmodel",
    "dpo": "DPO",
    "grpo": "GRPO",
    "rloo": "RLOO",
    "ppo": "PPO",
    "ppo_trunk": "PPO,\none trunk",
}
COLOURS = {"tiny": "#4878a8", "smollm2": "#d1603d", "llama1.5b": "#6a9f58"}
NAMES = {"tiny": "tiny, 5.9 M", "smollm2": "SmolLM2-135M", "llama1.5b": "Llama, 1.5 B"}
LENGTHS = {"varied": "varied lengths, as responses have them", "fixed": "all lengths equal"}


def read_cases(paths: Sequence[Path]) -> list[Case]:
    """The cases of one or more saved runs; of two of the same case the later file's counts."""
    cases = {}
    for path in paths:
        for case in json.loads(path.read_text(encoding="utf-8"))["cases"]:
            sides = [Measured(**side) for side in case["sides"]]
            key = (case["model"], case["task"], case["lengths"])
            cases[key] = Case(*key, sides)
    return list(cases.values())


def bars(ax: Any, cases: Sequence[Case]) -> None:
    """One bar a task and model: the median ratio over TRL's fastest setting, with smallest and largest."""
    models = [m for m in COLOURS if any(c.model == m for c in cases)]
    tasks = [t for t in TASKS if any(c.task == t for c in cases)]
    width = 0.8 / len(models)
    for i, model in enumerate(models):
        for case in (c for c in cases if c.model == model):
            ours, theirs = case.side("plaudit"), case.fastest_trl()
            if ours is None or theirs is None:
                continue
            middle, (low, high) = ratio(ours, theirs), spread(ours, theirs)
            x = tasks.index(case.task) + (i - (len(models) - 1) / 2) * width
            label = NAMES[model] if case is next(c for c in cases if c.model == model) else None
            ax.bar(x, middle, width * 0.92, color=COLOURS[model], label=label)
            ax.plot([x, x], [low, high], color="#333333", linewidth=1)
            ax.text(x, high + 0.04, f"{middle:.2f}", ha="center", fontsize=7.5)
    ax.axhline(1, color="#333333", linewidth=1, linestyle=":")
    ax.set_xticks(range(len(tasks)), [TASKS[t] for t in tasks], fontsize=8.5)
    ax.spines[["top", "right"]].set_visible(False)


def draw(cases: Sequence[Case], path: Path) -> None:
    """One panel a kind of lengths."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    kinds = [k for k in LENGTHS if any(c.lengths == k for c in cases)]
    figure, axes = plt.subplots(
        1, len(kinds), figsize=(5.6 * len(kinds), 3.4), dpi=110, sharey=True, squeeze=False
    )
    for kind, ax in zip(kinds, axes[0], strict=True):
        bars(ax, [c for c in cases if c.lengths == kind])
        ax.set_title(LENGTHS[kind], fontsize=10)
    axes[0][0].set_ylabel("tokens per second, TRL's fastest = 1", fontsize=9)
    axes[0][0].legend(frameon=False, fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(path)


def main() -> None:
    """Read and draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--images", type=Path, default=Path("docs/images"))
    given = parser.parse_args()
    draw(read_cases(given.runs), given.images / "against-trl.png")


if __name__ == "__main__":
    main()
