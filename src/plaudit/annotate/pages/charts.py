"""Plots as inline SVG, without scripts and styles: shapes carry class names that the style sheet colours."""

# Drawn here and not by a library in the browser: the pages allow no inline style or script, need nothing from other
# servers, and print well. Labels are names that people chose; ``Markup.format`` escapes every value put into a shape.

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

WIDTH, WIDEST_BAR = 640, 90
"""Width of a plot of bars, and of its widest bar."""
NARROW, ROW, RIGHT = 480, 30, 62
"""Plots of dots: their width (a phone shows it without scrolling), the height of a row, the width for its value."""
LETTER, NARROWEST, WIDEST = 8.2, 70, 230
"""Width of a letter on a phone; least and most width of the column of labels, which follows the longest label."""


@dataclass(frozen=True, slots=True)
class Dot:
    """One row of a plot: a value with its interval; ``bad`` draws it in the colour of warnings."""

    label: str
    value: float
    low: float = math.nan
    high: float = math.nan
    note: str = ""
    bad: bool = False


def dots(
    rows: Sequence[Dot], title: str, *, line: float | None = None, low: float = 0.0, high: float = 1.0
) -> Markup:
    """Values with intervals on a common scale from ``low`` to ``high``; a dashed line at ``line``, such as chance."""
    rows = [row for row in rows if math.isfinite(row.value)]
    if not rows:
        return Markup("")
    longest = max(len(row.label) for row in rows)
    ticks = nice_ticks(low, high)
    scale = Scale(ticks[0], ticks[-1], min(WIDEST, max(NARROWEST, 24 + LETTER * longest)))
    height = ROW * len(rows) + 34
    parts = [_open(NARROW, height, title)]
    for tick in ticks:
        x = scale.x(tick)
        parts.append(_line(x, 8, x, height - 24, "grid"))
        parts.append(_text(x, height - 8, f"{tick:.3g}", "tick", "middle"))
    if line is not None:
        parts.append(_line(scale.x(line), 4, scale.x(line), height - 24, "half"))
    for number, row in enumerate(rows):
        parts.append(_dot(row, 8 + ROW * number + ROW / 2, scale))
    return Markup("").join([*parts, Markup("</svg>")])


def nice_ticks(low: float, high: float) -> list[float]:
    """Round values at equal distances that include both ends, about six of them.

    >>> nice_ticks(-0.3, 1), nice_ticks(0, 25)
    ([-0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0], [0.0, 5.0, 10.0, 15.0, 20.0, 25.0])
    """
    rough = (high - low) / 6
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * part for part in (1, 2, 2.5, 5, 10) if power * part >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, last + 1)]


@dataclass(frozen=True, slots=True)
class Scale:
    """From values to places: ``low`` to ``high``, to the right of the labels."""

    low: float
    high: float
    left: float

    def x(self, value: float) -> float:
        """The place of a value; values outside are drawn at the end of the scale."""
        inside = min(max(value, self.low), self.high)
        return self.left + (NARROW - self.left - RIGHT) * (inside - self.low) / (self.high - self.low)


def _dot(row: Dot, y: float, scale: Scale) -> Markup:
    most = int((scale.left - 20) / LETTER)
    label = row.label if len(row.label) <= most else f"{row.label[: most - 1]}\u2026"
    parts = [_text(scale.left - 12, y + 4, label, "label", "end")]
    bad = " bad" if row.bad else ""
    if math.isfinite(row.low) and math.isfinite(row.high):
        parts.append(_line(scale.x(row.low), y, scale.x(row.high), y, f"whisker{bad}"))
    shape = '<circle cx="{:.1f}" cy="{:.1f}" r="5" class="{}"><title>{}</title></circle>'
    tooltip = f"{row.label}: {row.value:.2f} {row.note}"
    parts.append(Markup(shape).format(scale.x(row.value), y, f"dot{bad}", tooltip))
    parts.append(_text(NARROW - RIGHT + 10, y + 4, row.note or f"{row.value:.2f}", "value", "start"))
    return Markup("").join(parts)


def bars(counts: Sequence[tuple[str, int]], title: str) -> Markup:
    """Counts as upright bars with their labels below."""
    most = max((n for _, n in counts), default=0)
    if not most:
        return Markup("")
    height, wide = 170, min(WIDTH / len(counts), WIDEST_BAR)
    parts = [_open(WIDTH, height, title)]
    shape = '<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" rx="3" class="bar"><title>{}: {}</title></rect>'
    for i, (label, n) in enumerate(counts):
        tall = 115 * n / most
        parts.append(Markup(shape).format(i * wide + wide * 0.14, 140 - tall, wide * 0.72, tall, label, n))
        parts.append(_text(i * wide + wide / 2, 135 - tall, str(n), "value", "middle"))
        parts.append(_text(i * wide + wide / 2, 158, label, "tick", "middle"))
    return Markup("").join([*parts, Markup("</svg>")])


def _open(width: int, height: float, title: str) -> Markup:
    head = '<svg class="plot{}" viewBox="0 0 {} {:.0f}" role="img" aria-label="{}">'
    return Markup(head).format(" rows" if width == NARROW else "", width, height, title)


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    shape = '<line x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}" class="{}"/>'
    return Markup(shape).format(x1, y1, x2, y2, kind)


def _text(x: float, y: float, text: str, kind: str, anchor: str) -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" class="{}" text-anchor="{}">{}</text>').format(
        x, y, kind, anchor, text
    )
