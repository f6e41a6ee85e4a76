"""Tables and figure of `one_backbone.py`, from the runs that are complete.

python benchmarks/one_backbone_report.py [--out runs/one-backbone] [--images docs/images]
"""

from __future__ import annotations

import argparse
import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plaudit.runs.files import read_json, read_lines

ROLES = ("policy", "reference", "critic", "reward")
SIDES = {
    "four": ("four separate models", "#4878a8"),
    "trunk": ("policy and critic on one trunk", "#6a9f58"),
    "one": ("one backbone (LoRA)", "#d1603d"),
}


@dataclass(frozen=True, slots=True)
class Subject:
    """What was trained, and what judges it."""

    name: str
    title: str
    judge: str
    axis: str


SUBJECTS = (
    Subject("quickstart", "the quickstart's world", "gold", "true preference, held-out prompts"),
    Subject("smollm2", "SmolLM2-135M, sentiment", "reward", "reward, held-out prompts"),
)


def complete(out: Path, side: str) -> list[Path]:
    """The finished runs of a side, by seed."""
    return sorted(marker.parent for marker in out.glob(f"{side}-*/ppo.done"))


def curve(run: Path, name: str) -> dict[int, float]:
    """The mean over held-out responses at each iteration that was evaluated."""
    found: dict[int, list[float]] = {}
    for line in read_lines(run / "ppo" / "evaluation.jsonl"):
        found.setdefault(line["step"], []).append(line[name])
    return {step: statistics.fmean(values) for step, values in found.items()}


def figures(runs: list[Path], judge: str) -> dict[str, Any]:
    """What the table says of a side: means over the seeds, and every seed's gain."""
    curves = [list(curve(run, judge).values()) for run in runs]
    timings = [read_json(run / "timing.json")["ppo"] for run in runs]
    summary = read_json(runs[0] / "ppo" / "summary.json")
    iterations = max(line["step"] for line in read_lines(runs[0] / "ppo" / "metrics.jsonl"))
    laps = [
        sum(line[f"time/{part}"] for part in ("generate", "reward", "score", "update"))
        for run in runs
        for line in read_lines(run / "ppo" / "metrics.jsonl")
    ]
    return {
        "seeds": len(runs),
        "gains": [values[-1] - values[0] for values in curves],
        "kl": statistics.fmean(list(curve(run, "kl").values())[-1] for run in runs),
        "gb": {role: summary[f"memory/{role}"] for role in ROLES},
        "peak_gb": statistics.fmean(t["peak_gb"] for t in timings),
        "libraries_gb": statistics.fmean(t["libraries_gb"] for t in timings),
        "cpu_s": statistics.fmean(t["cpu_s"] for t in timings),
        "iterations": iterations,
        "seconds_per_iteration": statistics.median(laps),
        "curves": [curve(run, judge) for run in runs],
    }


def table(found: dict[str, dict[str, Any]]) -> str:
    """Markdown, one line a side; memory of the roles in MB."""
    roles = " | ".join(f"{role}" for role in ROLES)
    head = f"| | gain (each seed) | KL, nats | {roles} | sum, MB | peak GB | CPU s | s an iteration |"
    lines = [head, "|---|" + "---|" * 10]
    for side, of in found.items():
        sizes = [1000 * of["gb"][role] for role in ROLES]
        gains = f"{statistics.fmean(of['gains']):+.2f} ({', '.join(f'{g:+.2f}' for g in of['gains'])})"
        cells = [SIDES[side][0], gains, f"{of['kl']:.1f}", *(f"{size:.1f}" for size in (*sizes, sum(sizes)))]
        cells += [f"{of['peak_gb']:.2f}", f"{of['cpu_s']:.0f}", f"{of['seconds_per_iteration']:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(path: Path, everything: dict[str, dict[str, dict[str, Any]]]) -> None:
    """Every seed's curve, thin, and the mean of each side; one panel a subject."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    shown = [subject for subject in SUBJECTS if everything.get(subject.name)]
    figure, axes = plt.subplots(1, len(shown), figsize=(5.2 * len(shown), 3.8), dpi=110, squeeze=False)
    for subject, ax in zip(shown, axes[0], strict=True):
        for side, of in everything[subject.name].items():
            label, colour = SIDES[side]
            for one in of["curves"]:
                ax.plot(list(one), list(one.values()), color=colour, alpha=0.3, linewidth=1)
            means = [
                statistics.fmean(values) for values in zip(*(c.values() for c in of["curves"]), strict=True)
            ]
            ax.plot(list(of["curves"][0]), means, color=colour, linewidth=2.2, label=label)
        seeds = min(of["seeds"] for of in everything[subject.name].values())
        ax.set(xlabel="PPO iteration", ylabel=subject.axis, title=f"{subject.title}, {seeds} seeds")
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.spines[["top", "right"]].set_visible(False)
    axes[0][0].legend(frameon=False)
    path.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(path / "one-backbone.png")


def report(out: Path, images: Path) -> None:
    """Print the tables, write ``figures.json``, and draw."""
    everything: dict[str, dict[str, dict[str, Any]]] = {}
    for subject in SUBJECTS:
        runs = {side: complete(out / subject.name, side) for side in SIDES}
        found = {side: figures(each, subject.judge) for side, each in runs.items() if each}
        if found:
            everything[subject.name] = found
            print(f"\n{subject.title}\n\n{table(found)}")
    (out / "figures.json").write_text(json.dumps(everything, indent=1) + "\n", encoding="utf-8")
    draw(images, everything)


def main() -> None:
    """What there is so far."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/one-backbone"))
    parser.add_argument("--images", type=Path, default=Path("docs/images"))
    given = parser.parse_args()
    report(given.out, given.images)


if __name__ == "__main__":
    main()
