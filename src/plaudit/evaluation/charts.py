"""Small charts as inline SVG. Their colours are CSS variables of the page, so light and dark both work."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT, WIDE = 360, 190, 430
"""Of a chart in CSS pixels: text keeps about its size from a phone to a page of two or three columns."""
LABEL_ROOM = 0.12
"""Share of the height that the name of a bound takes."""
# matplotlib knows no CSS variables. It draws with these colours, which nobody would choose, and `_svg` replaces them in
# the text, so that the page decides how the chart looks in light and in dark.
INKS = {
    "#010101": "var(--ink)",
    "#020202": "var(--muted)",
    "#030303": "var(--rule)",
    "#040404": "var(--accent)",
    "#050505": "var(--second)",
    "#060606": "var(--paper)",
}
INK, MUTED, RULE, ACCENT, SECOND, PAPER = INKS
LINES = {f"#07070{index}": f"var(--line-{index})" for index in range(8)}
"""Colours of the runs of a comparison."""
STYLE: Any = {
    "svg.fonttype": "none",
    "font.size": 11,
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 1.0,
    "xtick.color": RULE,
    "xtick.labelcolor": MUTED,
    "ytick.color": RULE,
    "ytick.labelcolor": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.major.pad": 6,
    "ytick.major.pad": 6,
    "lines.solid_capstyle": "round",
    "lines.solid_joinstyle": "round",
}


@dataclass(frozen=True, slots=True)
class Series:
    """One line: x, y, whether it is made of few, separately measured points, and whether it has no noise."""

    x: Sequence[float]
    y: Sequence[float]
    sparse: bool = False
    exact: bool = False


@dataclass(frozen=True, slots=True)
class Dot:
    """A figure with its interval, on a row of its own; ``strong`` for the one that the chart is about."""

    label: str
    mean: float
    low: float
    high: float
    strong: bool = True


@contextmanager
def _canvas(width: float, height: float, left: float = 44) -> Iterator[tuple[Any, Any]]:
    # Imported here, because matplotlib takes long to load and most commands draw nothing. Without pyplot, which would
    # keep every figure in memory and choose a window system.
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width / 72, height / 72))
        figure.subplots_adjust(left / width, 42 / height, 1 - 10 / width, 1 - 10 / height)
        axes = figure.add_subplot()
        axes.spines["bottom"].set_color(RULE)
        yield figure, axes


def _svg(figure: Any, title: str) -> str:
    """The figure as an SVG element that takes fonts and colours from the page around it."""
    import matplotlib

    # Ids in the SVG are hashes with this salt. Without one they would be random, and the page another each time; with
    # one for all charts, two charts on a page would share ids.
    buffer = io.StringIO()
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": title}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", text, flags=re.S)
    text = re.sub(r"\s*font-family: [^;\"]*;?", "", text)
    text = re.sub(r"<g id=\"[^\"]*\"", "<g", text)
    for ink, variable in (INKS | LINES).items():
        text = text.replace(ink, variable)
    view = re.search(r'viewBox="([^"]*)"', text)
    assert view is not None, "matplotlib writes a viewBox"
    head = f'<svg class="chart" viewBox="{view[1]}" role="img" aria-label="{escape(title)}">'
    return re.sub(r"<svg[^>]*>", head, text, count=1).replace("\n", " ").strip()


def line(
    title: str, series: Sequence[Series], *, x_label: str, bounds: Any = (None, None), share: bool = False
) -> str:
    """Curves over steps: the raw values faint, their moving mean strong.

    Args:
        title: for screen readers; it also keeps the ids of several charts on a page apart.
        series: the first in the accent colour, the second in the other.
        x_label: what a step is called.
        bounds: healthy (low, high); an end is drawn where the data come near it.
        share: format the y axis in percent.
    """
    with _canvas(WIDTH, HEIGHT) as (figure, axes):
        for one, colour in zip(series, (ACCENT, SECOND), strict=False):
            _draw(axes, one, colour)
        _limits(axes, series, share)
        for bound, word in zip(bounds, ("above", "below"), strict=True):
            _bound(axes, bound, word, share)
        _format(axes, share)
        axes.set_xlabel(x_label, loc="right", labelpad=2)
        return _svg(figure, title)


def overlay(title: str, series: Sequence[Series], *, x_label: str) -> str:
    """The same curve of several runs over each other, each in a colour of its own; empty series take a colour too.

    Args:
        title: for screen readers; it also keeps the ids of several charts on a page apart.
        series: at most as many as there are `LINES`.
        x_label: what a step is called.
    """
    with _canvas(WIDTH, HEIGHT) as (figure, axes):
        for one, colour in zip(series, LINES, strict=False):
            if len(one.x):
                _draw(axes, one, colour)
        _limits(axes, [one for one in series if len(one.x)], share=False)
        _format(axes, share=False)
        axes.set_xlabel(x_label, loc="right", labelpad=2)
        return _svg(figure, title)


def _draw(axes: Any, series: Series, colour: str) -> None:
    if series.sparse or len(series.x) < 12:
        axes.plot(
            series.x, series.y, color=colour, linewidth=1.6, marker="o", markersize=4, markeredgewidth=0
        )
        return
    if series.exact:
        axes.plot(series.x, series.y, color=colour, linewidth=2.2)
        return
    axes.plot(series.x, series.y, color=colour, linewidth=1, alpha=0.3)
    axes.plot(series.x, smooth(series.y), color=colour, linewidth=2.2)


def smooth(values: Sequence[float]) -> NDArray[np.float64]:
    """Centred moving mean over about an eighth of the series; at the ends over what there is.

    >>> smooth([1.0, 1.0, 4.0]).tolist()
    [1.0, 1.0, 4.0]
    """
    y = np.asarray(values, dtype=np.float64)
    # At the ends the window shrinks on both sides alike. A window cut on one side only would lean toward the middle of
    # the curve and hide where it starts and ends.
    half = len(y) // 16
    total = np.concatenate([[0.0], np.cumsum(y)])
    index = np.arange(len(y))
    reach = np.minimum(half, np.minimum(index, len(y) - 1 - index))
    means: NDArray[np.float64] = (total[index + reach + 1] - total[index - reach]) / (2 * reach + 1)
    return means


def _limits(axes: Any, series: Sequence[Series], share: bool) -> None:
    # In a long series a single spike must not press the rest into a flat line: the most extreme values may lie outside.
    values = np.concatenate([np.asarray(one.y, dtype=np.float64) for one in series])
    low, high = np.quantile(values, [0.005, 0.995]) if len(values) > 200 else (values.min(), values.max())
    room = 0.08 * (high - low) or 0.05 * abs(high) or 0.05
    low, high = low - room, high + room
    if share:
        low, high = max(low, -0.02), min(high, 1.03)
    elif values.min() >= 0 and low < 0.3 * high:  # Near enough to 0 that 0 belongs on the axis.
        low = min(0.0, low) if low < 0 else 0.0
    axes.set_ylim(low, high)
    axes.margins(x=0.015)


def _bound(axes: Any, bound: float | None, word: str, share: bool) -> None:
    if bound is None:
        return
    # A bound that is far from the curve is left out: to show it, the axis would have to reach there, and the curve
    # would be a flat line at the other end.
    low, high = axes.get_ylim()
    near = (
        high < bound < high + 0.6 * (high - low)
        if word == "below"
        else low - 0.3 * (high - low) < bound < low
    )
    if near:
        axes.set_ylim((low, bound * 1.06) if word == "below" else (bound * 0.98, high))
    elif not low < bound < high:
        return
    axes.axhline(bound, color=SECOND, linewidth=1, dashes=(3, 3))
    value = f"{100 * bound:g} %" if share else f"{bound:g}"
    low, high = axes.get_ylim()
    room = (bound - low if word == "above" else high - bound) / (high - low)
    # The label stands on the unhealthy side of the bound, where no curve is in a healthy run, if there is room.
    under = (word == "above") == (room > LABEL_ROOM)
    axes.annotate(
        f"healthy {word} {value}",
        (1, bound),
        xytext=(0, -4 if under else 3),
        xycoords=axes.get_yaxis_transform(),
        textcoords="offset points",
        ha="right",
        va="top" if under else "bottom",
        fontsize=10,
        color=SECOND,
    )


def _format(axes: Any, share: bool) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.yaxis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True, steps=[1, 2, 5, 10]))
    if share:
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g} %")
    else:
        axes.ticklabel_format(axis="y", style="sci", scilimits=(-3, 5), useMathText=False)


def intervals(title: str, dots: Sequence[Dot], *, share: bool = False, reference: float | None = None) -> str:
    """Figures with their intervals, one below the other on a common axis.

    Args:
        title: for screen readers.
        dots: drawn from top to bottom; those that are not ``strong`` are drawn muted.
        share: format the axis in percent.
        reference: a vertical line to compare with, such as chance or zero.
    """
    left = 12 + 7 * max(len(dot.label) for dot in dots)
    with _canvas(WIDE, 34 * len(dots) + 46, left) as (figure, axes):
        axes.grid(axis="x")
        axes.grid(visible=False, axis="y")
        if reference is not None:
            axes.axvline(reference, color=MUTED, linewidth=1, dashes=(3, 3))
        for row, dot in enumerate(dots):
            colour = ACCENT if dot.strong else MUTED
            axes.plot([dot.low, dot.high], [-row, -row], color=colour, linewidth=3, alpha=0.45)
            # Not clipped to the axes: a share of 100 % lies on their edge, and half of its dot would be cut off.
            axes.plot(
                [dot.mean], [-row], color=colour, marker="o", markersize=8, markeredgewidth=0, clip_on=False
            )
        axes.set_yticks([-row for row in range(len(dots))], [dot.label for dot in dots])
        axes.tick_params(axis="y", labelcolor=INK, labelsize=12)
        axes.set_ylim(0.6 - len(dots), 0.6)
        _format_x(axes, share)
        return _svg(figure, title)


def _format_x(axes: Any, share: bool) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]))
    if share:
        low, high = axes.get_xlim()
        axes.set_xlim(max(low, 0.0), min(high, 1.0))
        axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g} %")


def reliability(title: str, bins: Sequence[Mapping[str, Any]]) -> str:
    """Accuracy over confidence, a dot for each bin with its interval; on the diagonal the two are equal."""
    with _canvas(WIDE, 270, 66) as (figure, axes):
        axes.grid(axis="x")
        axes.plot([0.5, 1], [0.5, 1], color=MUTED, linewidth=1, dashes=(3, 3))
        x, y = [b["confidence"] for b in bins], [b["accuracy"] for b in bins]
        for each in bins:
            if each.get("accuracy_ci"):
                ends = each["accuracy_ci"]
                axes.plot([each["confidence"]] * 2, ends, color=ACCENT, linewidth=3, alpha=0.3)
        axes.plot(x, y, color=ACCENT, linewidth=1.6, marker="o", markersize=6, markeredgewidth=0)
        axes.set_xlim(0.49, 1.01)
        lowest = [b["accuracy_ci"][0] for b in bins if b.get("accuracy_ci")]
        axes.set_ylim(min([0.48, *y, *lowest]) - 0.02, 1.03)
        _format(axes, share=True)
        _format_x(axes, share=True)
        axes.set_xlabel("confidence", loc="right", labelpad=2)
        axes.set_ylabel("accuracy", loc="top", labelpad=4)
        return _svg(figure, title)


@dataclass(frozen=True, slots=True)
class Curve:
    """A fitted curve of the reward or of the gold reward, and where it has its peak; None: nowhere near."""

    x: Sequence[float]
    y: Sequence[float]
    peak: float | None = None


def frontier(title: str, points: Sequence[dict[str, float]], fits: Mapping[str, Curve]) -> str:
    """Held-out reward (second colour) and gold reward (accent) over the root of the KL (Gao et al. 2023).

    Args:
        title: for screen readers; it also keeps the ids of several charts on a page apart.
        points: one an evaluation, with "kl", "reward" and perhaps "gold"; joined faintly in their order.
        fits: "reward" or "gold" -> the curve that was fitted to it.
    """
    with _canvas(WIDE, 230) as (figure, axes):
        x = [max(p["kl"], 0.0) ** 0.5 for p in points]
        inks = {"reward": SECOND, "gold": ACCENT}
        for field, colour in inks.items():
            if all(field in p for p in points):
                y = [p[field] for p in points]
                axes.plot(x, y, color=colour, linewidth=1.0, alpha=0.25)
                axes.plot(x, y, color=colour, linewidth=0, marker="o", markersize=6, markeredgewidth=0)
        for field, curve in fits.items():
            axes.plot(curve.x, curve.y, color=inks[field], linewidth=2.0)
            if curve.peak is not None:
                axes.axvline(curve.peak, color=inks[field], linewidth=1.2, linestyle=(0, (3, 3)))
        _format(axes, share=False)
        _format_x(axes, share=False)
        axes.set_xlabel("√KL, in √nats", loc="right", labelpad=2)
        return _svg(figure, title)
