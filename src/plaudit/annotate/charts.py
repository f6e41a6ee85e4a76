"""Plots as inline SVG, without scripts and styles: shapes carry class names that the style sheet colours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

WIDTH, ROW, LABEL, RIGHT = 640, 30, 150, 70


@dataclass(frozen=True, slots=True)
class Dot:
    """One row of a plot: a value with its interval; ``bad`` marks it."""

    label: str
    value: float
    low: float = math.nan
    high: float = math.nan
    note: str = ""
    bad: bool = False


def dots(
    rows: Sequence[Dot], title: str, *, line: float | None = None, low: float = 0.0, high: float = 1.0
) -> Markup:
    """Values with intervals on a common scale from ``low`` to ``high``; a dashed line where chance or half is."""
    rows = [row for row in rows if math.isfinite(row.value)]
    if not rows:
        return Markup("")
    height = ROW * len(rows) + 34
    parts = [_open(height, title)]
    for tick in range(5):
        value = low + (high - low) * tick / 4
        x = _x(value, low, high)
        parts.append(_line(x, 8, x, height - 24, "grid"))
        parts.append(_text(x, height - 8, f"{value:.3g}", "tick", "middle"))
    if line is not None:
        parts.append(_line(_x(line, low, high), 4, _x(line, low, high), height - 24, "half"))
    for number, row in enumerate(rows):
        parts.append(_dot(row, 8 + ROW * number + ROW / 2, (low, high)))
    return Markup("").join([*parts, Markup("</svg>")])


def _dot(row: Dot, y: float, scale: tuple[float, float]) -> Markup:
    parts = [
        _text(
            LABEL - 12,
            y + 4,
            row.label if len(row.label) <= 20 else f"{row.label[:19]}\u2026",
            "label",
            "end",
        )
    ]
    if math.isfinite(row.low) and math.isfinite(row.high):
        parts.append(
            _line(_x(row.low, *scale), y, _x(row.high, *scale), y, "whisker bad" if row.bad else "whisker")
        )
    shape = '<circle cx="{:.1f}" cy="{:.1f}" r="5" class="{}"><title>{}</title></circle>'
    said = f"{row.label}: {row.value:.2f} {row.note}"
    parts.append(Markup(shape).format(_x(row.value, *scale), y, "dot bad" if row.bad else "dot", said))
    parts.append(_text(WIDTH - RIGHT + 10, y + 4, row.note or f"{row.value:.2f}", "value", "start"))
    return Markup("").join(parts)


def bars(counts: Sequence[tuple[str, int]], title: str) -> Markup:
    """Counts as upright bars with their labels below."""
    most = max((n for _, n in counts), default=0)
    if not most:
        return Markup("")
    height, wide = 170, WIDTH / len(counts)
    parts = [_open(height, title)]
    shape = '<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" rx="3" class="bar"><title>{}: {}</title></rect>'
    for i, (label, n) in enumerate(counts):
        tall = 115 * n / most
        parts.append(Markup(shape).format(i * wide + wide * 0.14, 140 - tall, wide * 0.72, tall, label, n))
        parts.append(_text(i * wide + wide / 2, 135 - tall, str(n), "value", "middle"))
        parts.append(_text(i * wide + wide / 2, 158, label, "tick", "middle"))
    return Markup("").join([*parts, Markup("</svg>")])


def _open(height: float, title: str) -> Markup:
    head = '<svg class="plot" viewBox="0 0 {} {:.0f}" role="img" aria-label="{}">'
    return Markup(head).format(WIDTH, height, title)


def _x(value: float, low: float, high: float) -> float:
    inside = min(max(value, low), high)
    return LABEL + (WIDTH - LABEL - RIGHT) * (inside - low) / (high - low)


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    shape = '<line x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}" class="{}"/>'
    return Markup(shape).format(x1, y1, x2, y2, kind)


def _text(x: float, y: float, text: str, kind: str, anchor: str) -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" class="{}" text-anchor="{}">{}</text>').format(
        x, y, kind, anchor, text
    )
