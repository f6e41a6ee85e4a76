"""Tables and figure of the bake-off, from the curves."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bake_off_methods import Method

Curve = Sequence[dict[str, float]]
Found = Sequence[dict[str, dict[str, Any]]]
"""One dict a seed: name of a method -> its points, and the seconds; a method that was not run is not in it."""

T_975 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
"""Quantile of Student's t distribution by degrees of freedom."""
BUDGETS = (1.84, 2.5)
"""Nats: the KL bound of best of 16, and one that the trained policies reach."""
MARKS = ("<!-- tables, by benchmarks/bake_off.py -->", "<!-- end of the tables -->")
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
    """Mean over seeds and half the width of its 95 % interval, by Student's t distribution.

    >>> [round(x, 3) for x in interval([1.0, 2.0, 3.0, 4.0])]
    [2.5, 2.054]
    """
    if len(values) < 2:
        return statistics.fmean(values) if values else math.nan, math.nan
    error = statistics.stdev(values) / math.sqrt(len(values))
    return statistics.fmean(values), T_975[len(values) - 1] * error


def each(values: Sequence[float]) -> str:
    """The mean, and in brackets the value of each seed.

    >>> each([1.0, 2.0])
    '1.50 (1.00, 2.00)'
    """
    known = [v for v in values if not math.isnan(v)]
    if not known:
        return "-"
    cells = ", ".join("-" if math.isnan(v) else f"{v:.2f}" for v in values)
    return f"{statistics.fmean(known):.2f} ({cells})"


def insert(path: Path, text: str) -> None:
    """Put the tables into the page, between its two marks.

    Raises:
        ValueError: the page has no such marks.
    """
    before, first, rest = path.read_text(encoding="utf-8").partition(MARKS[0])
    _, last, after = rest.partition(MARKS[1])
    if not (first and last):
        raise ValueError(f"{path} has no {MARKS[0]} ... {MARKS[1]}")
    path.write_text(f"{before}{first}\n\n{text}\n\n{last}{after}", encoding="utf-8")


def curves(found: Found, name: str) -> list[Curve]:
    """Of each seed; no points where the method was not run."""
    return [seed[name]["points"] if name in seed else [] for seed in found]


def golds(found: Found, name: str) -> tuple[list[float], list[float]]:
    """Gold of each seed at the two budgets; for best-of-n the first is its largest n."""
    all_points = curves(found, name)
    first, second = ([at_kl(points, kl) for points in all_points] for kl in BUDGETS)
    if name == "best-of-n":
        first = [points[-1]["gold"] if points else math.nan for points in all_points]
    return first, second


def tables(methods: Sequence[Method], found: Found) -> str:
    """Markdown: equal KL with differences paired by seed; the end of each run; settings."""
    seeds = f"{len(found)} seeds. In round brackets each seed (-: not run, or not reached); in square "
    seeds += "ones 95 % intervals over seeds, paired, by Student's t distribution."
    return "\n\n".join((seeds, _equal(methods, found), _ends(methods, found), _settings(methods, found)))


def _settings(methods: Sequence[Method], found: Found) -> str:
    lines = ["| method | learning rate | settings | seconds of CPU a seed |", "|---|---|---|---|"]
    for method in methods:
        seconds = statistics.fmean(seed[method.name]["seconds"] for seed in found if method.name in seed)
        lines.append(f"| {method.name} | {method.lr or '-'} | {method.settings} | {seconds:.0f} |")
    return "\n".join(lines)


def _ends(methods: Sequence[Method], found: Found) -> str:
    lines = ["| at the end | KL, nats | gold | reward model | tokens | different responses |"]
    lines.append("|---|---|---|---|---|---|")
    start = [points[0] for points in curves(found, methods[0].name) if points]
    lines.append(_row("SFT, the start", start))
    for method in methods:
        lines.append(_row(method.name, [points[-1] for points in curves(found, method.name) if points]))
    return "\n".join(lines)


def _row(name: str, points: Curve) -> str:
    cells = [each([p[field] for p in points]) for field in ("kl", "gold", "reward")]
    if "length" in points[0]:
        length, distinct = (statistics.fmean(p[f] for p in points) for f in ("length", "distinct"))
        return f"| {' | '.join([name, *cells, f'{length:.1f}', f'{distinct:.0%}'])} |"
    return f"| {' | '.join([name, *cells, '-', '-'])} |"


def _equal(methods: Sequence[Method], found: Found) -> str:
    heads = [f"gold at {kl:g} nats" for kl in BUDGETS]
    heads += [f"less {other}'s" for other in ("best of 16", "PPO")]
    lines = [f"| equal KL | {' | '.join(heads)} |", "|---|---|---|---|---|"]
    best, ppo = golds(found, "best-of-n")[0], golds(found, "PPO")[1]
    for name in (m.name for m in methods):
        first, second = golds(found, name)
        cells = [each(first), each(second)]
        cells.append(_difference(first, best, name == "best-of-n"))
        cells.append(_difference(second, ppo, name == "PPO"))
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
    means = {m.name: _mean_curve([c for c in curves(found, m.name) if c]) for m in methods}
    for axis, method, colour in zip(axes.flat, methods, COLOURS, strict=False):
        for other, (x, y, _, _) in means.items():
            if other != method.name:
                axis.plot(x, y, color="#cccccc", linewidth=1.0, zorder=1)
        for points in curves(found, method.name):
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
    for points in zip(*curves, strict=False):  # a seed may have fewer preferences, hence fewer measurements
        for values, means, errors in (
            ([math.sqrt(max(p["kl"], 0.0)) for p in points], xs, x_errors),
            ([p["gold"] for p in points], ys, y_errors),
        ):
            means.append(statistics.fmean(values))
            errors.append(statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0)
    return xs, ys, x_errors, y_errors
