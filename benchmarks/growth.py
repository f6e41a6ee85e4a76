"""How an iteration's cost grows with response length, number of prompts and group size (Plaudit alone, GRPO).

    python benchmarks/growth.py [--models tiny] [--quick] [--device auto]

Writes growth.json and growth.png. Each series has the exponent of the power law through its points: 1 is linear.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from against_trl import HERE, add_common, machine, run_sides
from plan import Shape, make_plan
from subjects import subject, words_of
from tables import PARTS

BASE = Shape(rows=4, group=8, fixed=(40, 64))
SERIES: dict[str, tuple[int, ...]] = {
    "response length": (64, 128, 256, 512, 1024),
    "prompts": (2, 4, 8, 16, 32),
    "group size": (2, 4, 8, 16, 32),
}
FEW = 2
"""Points of a quick run, the first ones."""


def main() -> None:
    """Measure, plot and save."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    given = add_common(parser, models=["tiny"]).parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    rounds = given.rounds or (1 if given.quick else 3)
    found: dict[str, list[dict[str, Any]]] = {}
    for name, values in SERIES.items():
        found[name] = [point(given, name, v, rounds) for v in (values[:FEW] if given.quick else values)]
        print(f"{name}: time grows with exponent {exponent(found[name]):.2f}", flush=True)
    text = json.dumps({"machine": machine(given), "series": found}, indent=1)
    (given.out / "growth.json").write_text(text + "\n", encoding="utf-8")
    plot(found, given.out / "growth.png", given.models[0])


def shape(name: str, value: int) -> Shape:
    """The base with one size changed."""
    if name == "response length":
        return replace(BASE, group=2, fixed=(40, value))
    return replace(BASE, rows=value) if name == "prompts" else replace(BASE, group=value)


def point(given: argparse.Namespace, name: str, value: int, rounds: int) -> dict[str, Any]:
    """One size, in a process of its own, so that its peak memory is its own."""
    model = given.models[0]
    path = subject(model, given.out / "models", given.smollm2)
    size = shape(name, value)
    plan = make_plan(
        "grpo", path, words_of(path), size, lengths="fixed", steps=1 + rounds, device=given.device
    )
    stem = given.out / f"growth-{name.replace(' ', '-')}-{value}"
    plan.save(stem.with_suffix(".json"))
    command = [sys.executable, str(HERE / "plaudit_side.py"), f"{stem}.json"]
    (side,) = run_sides({"plaudit": command}, plan, stem, 1, given.threads)
    stem.with_suffix(".json").unlink()
    seconds = sorted(side.seconds)[len(side.seconds) // 2]
    return {
        "value": value,
        "seconds": seconds,
        "tokens": side.tokens[0],
        "peak_gb": side.peak_gb,
    } | side.phases


def exponent(points: Sequence[dict[str, Any]]) -> float:
    """Slope of log seconds over log size, by least squares."""
    xs, ys = [math.log(p["value"]) for p in points], [math.log(p["seconds"]) for p in points]
    x, y = sum(xs) / len(xs), sum(ys) / len(ys)
    return sum((a - x) * (b - y) for a, b in zip(xs, ys, strict=True)) / sum((a - x) ** 2 for a in xs)


def plot(found: dict[str, list[dict[str, Any]]], path: Path, model: str) -> None:
    """Seconds of an iteration and of its parts, and peak memory, one panel a series."""
    figure, panels = plt.subplots(1, len(found), figsize=(4.2 * len(found), 3.6), layout="constrained")
    for panel, (name, points) in zip(panels, found.items(), strict=True):
        xs = [p["value"] for p in points]
        panel.plot(xs, [p["seconds"] for p in points], "k-o", label=f"iteration, ~ n^{exponent(points):.2f}")
        for part in PARTS:
            ys = [p.get(part, 0.0) for p in points]
            if max(ys) > 0.01 * max(p["seconds"] for p in points):
                panel.plot(xs, ys, ".-", label=part.removeprefix("time/"))
        panel.plot(xs, [p["peak_gb"] for p in points], "k:", label="peak memory, GB")
        first = points[0]
        panel.plot(
            xs, [first["seconds"] * x / first["value"] for x in xs], color="0.8", zorder=0, label="linear"
        )
        panel.set(xscale="log", yscale="log", xlabel=name, ylabel="seconds (GB)", title=f"{model}: {name}")
        panel.set_xticks(xs, [str(x) for x in xs])
        panel.minorticks_off()
        panel.legend(fontsize=7)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
