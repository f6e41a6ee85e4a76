"""What was learned, as pictures: policy and values, learning curves, the spread of the gradient."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from variance import Spread
from world import MOVES, World

COLOURS = ("#888a85", "#75507b", "#c4571b", "#4e9a06", "#3465a4", "#a40000")
NAMES = {"M": "meat", "T": "tub", "B": "broom"}


def draw_grid(axis: Axes, world: World, policy: Tensor, values: Tensor, title: str) -> None:
    """Values as colours and numbers, the policy as arrows as long as they are likely."""
    height = len(world.rows)
    shown = values.detach().clone().double()
    shown[[cell == "#" for cell in world.cells]] = float("nan")
    axis.imshow(shown.view(height, world.width).numpy(), cmap="YlGn", vmin=-10, vmax=170)
    for state, cell in enumerate(world.cells):
        row, column = divmod(state, world.width)
        if cell == "#":
            axis.add_patch(plt.Rectangle((column - 0.5, row - 0.5), 1, 1, color="#2e3436"))
            continue
        label = {"C": "cat"}.get(cell, NAMES.get(cell, ""))
        axis.text(column - 0.46, row - 0.4, label, fontsize=7, va="center", color="#2e3436")
        if world.ends[state]:
            continue
        axis.text(
            column + 0.46, row + 0.4, f"{float(values[state]):.0f}", fontsize=7, va="center", ha="right"
        )
        for action, (down, right) in enumerate(MOVES.values()):
            share = float(policy[state, action])
            if share > 0.05:
                arrow = {"width": 0.03, "head_width": 0.12, "color": "#204a87", "length_includes_head": True}
                axis.arrow(column, row, 0.42 * share * right, 0.42 * share * down, **arrow)
    axis.set_title(title, fontsize=10, loc="left")
    axis.set_xticks([])
    axis.set_yticks([])


def grids(world: World, learned: list[tuple[str, Tensor, Tensor]]) -> Figure:
    """One grid a policy: name, ``[S, A]``, ``[S]``."""
    figure, axes = plt.subplots(1, len(learned), figsize=(4.3 * len(learned), 3.2), constrained_layout=True)
    for axis, (title, policy, values) in zip(axes, learned, strict=True):
        draw_grid(axis, world, policy, values, title)
    return figure


def curves(world: World, runs: dict[str, list[list[float]]]) -> Figure:
    """Exact expected return of each method's cats after each iteration, and what is missing: mean, range over seeds."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.8), constrained_layout=True)
    best = float(world.best()[0][world.start])
    left.axhline(best, color="black", linewidth=0.8, linestyle="--", label=f"value iteration: {best:.1f}")
    for colour, (name, seeds) in zip(COLOURS, runs.items(), strict=False):
        _curve(left, seeds, colour, name)
        _curve(right, [[best - value for value in seed] for seed in seeds], colour, name)
    left.set_ylabel("expected return", fontsize=9)
    left.legend(frameon=False, fontsize=8, loc="lower right")
    right.set_ylabel("missing to the best", fontsize=9)
    right.set_yscale("log")
    for axis in (left, right):
        axis.set_xlabel("iteration (64 episodes each)", fontsize=9)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    return figure


def _curve(axis: Axes, seeds: list[list[float]], colour: str, name: str) -> None:
    columns = list(zip(*seeds, strict=True))
    axis.plot([sum(c) / len(c) for c in columns], color=colour, linewidth=1.5, label=name)
    low, high = [min(c) for c in columns], [max(c) for c in columns]
    axis.fill_between(range(len(columns)), low, high, color=colour, alpha=0.15, linewidth=0)


def bars(spreads: dict[str, dict[str, Spread]]) -> Figure:
    """Variance of the gradient from one episode, for each stage of learning."""
    figure, axes = plt.subplots(1, len(spreads), figsize=(4.3 * len(spreads), 3), constrained_layout=True)
    for axis, (title, found) in zip(axes, spreads.items(), strict=True):
        names = list(found)
        heights, errors = [found[n].variance for n in names], [2 * found[n].error for n in names]
        axis.barh(
            names[::-1], heights[::-1], xerr=errors[::-1], color=COLOURS[: len(names)][::-1], ecolor="#555753"
        )
        axis.set_title(title, fontsize=10, loc="left")
        axis.set_xlabel("variance of the gradient from one episode", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write and forget."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)
