"""Curves as pictures: the mean over seeds, and the range of the seeds as a band."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from PIL import Image

COLOURS = ("#3465a4", "#c4571b", "#4e9a06", "#75507b", "#888a85", "#a40000")


def draw(panels: Sequence[tuple[Any, dict[str, list[list[tuple[float, float]]]]]], file: Path) -> None:
    """One picture; each panel with the curves of its lines, one a seed."""
    file.parent.mkdir(parents=True, exist_ok=True)
    width = 4.6 if len(panels) > 1 else 6.0
    columns = min(len(panels), 2)
    rows = -(-len(panels) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(width * columns, 3.1 * rows), squeeze=False, constrained_layout=True
    )
    for axis, (panel, found) in zip(axes.flat, panels, strict=False):
        draw_panel(axis, panel, found)
    for axis in axes.flat[len(panels) :]:
        axis.remove()
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=75)
    plt.close(figure)
    Image.open(buffer).convert("RGB").quantize(96).save(file, optimize=True)  # a third of the size


def draw_panel(axis: Any, panel: Any, found: dict[str, list[list[tuple[float, float]]]]) -> None:
    best = panel.best
    if isinstance(best, float):
        axis.axhline(best, color="black", linestyle="--", linewidth=1, label=panel.best_name)
    else:
        axis.plot(*zip(*best, strict=True), color="black", linestyle="--", linewidth=1, label=panel.best_name)
    for colour, (name, curves) in zip(COLOURS, found.items(), strict=False):
        across = [x for x, _ in curves[0]]
        values = list(zip(*[[y for _, y in curve] for curve in curves], strict=True))
        axis.plot(across, [fmean(v) for v in values], color=colour, linewidth=1.6, label=name)
        axis.fill_between(
            across, [min(v) for v in values], [max(v) for v in values], color=colour, alpha=0.18, linewidth=0
        )
    if panel.log:
        axis.set_xscale("log", base=2)
    axis.set_title(panel.title, fontsize=10, loc="left")
    axis.set_xlabel(panel.across, fontsize=9)
    axis.set_ylabel(panel.up, fontsize=9)
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(fontsize=7.5, frameon=False)
