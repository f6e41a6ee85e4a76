"""Tables and figure of the bake-off, from the curves."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bake_off_methods import Method

Curve = Sequence[dict[str, float]]
Found = Sequence[dict[str, dict[str, Any]]]
"""One dict a seed: name of a method -> its points."""

T_975 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
"""Quantile of Student's law by degrees of freedom."""
BUDGETS = (1.84, 4.0)
"""Nats: the KL bound of best of 16, and one that the trained policies reach."""
COLOURS = ("#7a7a7a", "#2b6cb0", "#2f855a", "#0f4c3a", "#d98b2b", "#a34f00", "#8b3fa0", "#000000")


def at_kl(points: Curve, kl: float) -> float:
    """Gold at a KL, on straight lines over sqrt(KL) between points in the order of training; NaN beyond their reach.

    The first crossing counts: a run that goes back and forth is read where it first spent so much.

    >>> at_kl([{"kl": 0.0, "gold": 0.0}, {"kl": 4.0, "gold": 1.0}], 1.0)
    0.5
    """
    for before, after in zip(points, points[1:], strict=False):
        low, high = math.sqrt(max(before["kl"], 0.0)), math.sqrt(max(after["kl"], 0.0))
        if before["kl"] <= kl <= after["kl"]:
            share = (math.sqrt(kl) - low) / max(high - low, 1e-12)
            return before["gold"] + share * (after["gold"] - before["gold"])
    return math.nan


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean over seeds and half the width of its 95 % interval, by Student's law.

    >>> [round(x, 3) for x in interval([1.0, 2.0, 3.0, 4.0])]
    [2.5, 2.054]
    """
    if len(values) < 2:
        return statistics.fmean(values) if values else math.nan, math.nan
    error = statistics.stdev(values) / math.sqrt(len(values))
    return statistics.fmean(values), T_975[len(values) - 1] * error


def shown(values: Sequence[float], digits: int = 2) -> str:
    """``mean ± half-width``, over the seeds where there is a value; how many, if not all."""
    known = [v for v in values if not math.isnan(v)]
    if not known:
        return "not reached"
    mean, half = interval(known)
    spread = f" ± {half:.{digits}f}" if not math.isnan(half) else ""
    few = f" ({len(known)} of {len(values)} seeds)" if len(known) < len(values) else ""
    return f"{mean:.{digits}f}{spread}{few}"


def column(found: Found, name: str, field: str) -> list[float]:
    """A figure at the end of a method's curve, by seed."""
    return [float(seed[name]["points"][-1].get(field, math.nan)) for seed in found]


def tables(methods: Sequence[Method], found: Found) -> str:
    """Markdown: settings; the end of each run; equal KL; differences paired by seed."""
    return "\n\n".join((_settings(methods, found), _ends(methods, found), _equal(methods, found)))


def _settings(methods: Sequence[Method], found: Found) -> str:
    lines = ["| method | learning rate | settings | seconds of CPU a seed |", "|---|---|---|---|"]
    for method in methods:
        seconds = statistics.fmean(seed[method.name]["seconds"] for seed in found)
        lines.append(f"| {method.name} | {method.lr or '-'} | {method.settings} | {seconds:.0f} |")
    return "\n".join(lines)


def _ends(methods: Sequence[Method], found: Found) -> str:
    lines = [
        "| at the end | KL, nats | gold | reward model | tokens | different responses |",
        "|---|---|---|---|---|---|",
    ]
    if "PPO" in {m.name for m in methods}:
        start = [seed["PPO"]["points"][0] for seed in found]
        cells = [shown([p[f] for p in start]) for f in ("kl", "gold", "reward")]
        lines.append(f"| SFT, the start | {' | '.join([*cells, *_texts(start)])} |")
    for method in methods:
        ends = [seed[method.name]["points"][-1] for seed in found]
        cells = [shown([p[f] for p in ends]) for f in ("kl", "gold", "reward")]
        lines.append(f"| {method.name} | {' | '.join([*cells, *_texts(ends)])} |")
    return "\n".join(lines)


def _texts(points: Curve) -> list[str]:
    if "length" not in points[0]:
        return ["-", "-"]
    length, distinct = (statistics.fmean(p[f] for p in points) for f in ("length", "distinct"))
    return [f"{length:.1f}", f"{distinct:.0%}"]


def _equal(methods: Sequence[Method], found: Found) -> str:
    heads = [f"gold at {kl:g} nats" for kl in BUDGETS]
    heads += [f"less {other}'s" for other in ("best of 16", "PPO")]
    lines = [f"| equal KL | {' | '.join(heads)} |", "|---|---|---|---|---|"]
    names = [m.name for m in methods]
    for name in names:
        reached = [[at_kl(seed[name]["points"], kl) for seed in found] for kl in BUDGETS]
        if name == "best-of-n":
            reached[0] = column(found, name, "gold")
        cells = [shown(values) for values in reached]
        base = column(found, "best-of-n", "gold") if "best-of-n" in names else []
        ppo = [at_kl(seed["PPO"]["points"], BUDGETS[1]) for seed in found] if "PPO" in names else []
        cells.append(_difference(reached[0], base, name == "best-of-n"))
        cells.append(_difference(reached[1], ppo, name == "PPO"))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _difference(values: Sequence[float], others: Sequence[float], same: bool) -> str:
    """Paired by seed, with its interval."""
    both = [a - b for a, b in zip(values, others, strict=False) if not math.isnan(a - b)]
    if same or not both:
        return "-"
    mean, half = interval(both)
    if math.isnan(half):
        return f"{mean:+.2f}"
    return f"{mean:+.2f} [{mean - half:+.2f}, {mean + half:+.2f}]"


def draw(methods: Sequence[Method], found: Found, path: Path) -> None:
    """Gold over sqrt(KL): all seeds thin, and the mean of each step over the seeds thick, with its standard error."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 4, figsize=(13.0, 6.4), sharex=True, sharey=True)
    means = {m.name: _mean_curve([seed[m.name]["points"] for seed in found]) for m in methods}
    for axis, method, colour in zip(axes.flat, methods, COLOURS, strict=False):
        for other, (x, y, _, _) in means.items():
            if other != method.name:
                axis.plot(x, y, color="#cccccc", linewidth=1.0, zorder=1)
        for seed in found:
            points = seed[method.name]["points"]
            xs = [math.sqrt(max(p["kl"], 0.0)) for p in points]
            axis.plot(xs, [p["gold"] for p in points], color=colour, linewidth=0.8, alpha=0.5, zorder=2)
        x, y, x_error, y_error = means[method.name]
        axis.errorbar(
            x,
            y,
            xerr=x_error,
            yerr=y_error,
            color=colour,
            linewidth=2.0,
            marker="o",
            markersize=3.5,
            zorder=3,
        )
        axis.set_title(method.name, fontsize=10)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[1]:
        axis.set_xlabel("square root of the KL to SFT (nats)")
    for axis in axes[:, 0]:
        axis.set_ylabel("gold: true preference, held out")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _mean_curve(curves: Sequence[Curve]) -> tuple[list[float], list[float], list[float], list[float]]:
    """Mean over seeds of sqrt(KL) and gold at each step, and their standard errors."""
    xs, ys, x_errors, y_errors = [], [], [], []
    for points in zip(*curves, strict=True):
        for values, means, errors in (
            ([math.sqrt(max(p["kl"], 0.0)) for p in points], xs, x_errors),
            ([p["gold"] for p in points], ys, y_errors),
        ):
            means.append(statistics.fmean(values))
            errors.append(statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0)
    return xs, ys, x_errors, y_errors
