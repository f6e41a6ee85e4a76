"""Numbers, shares, changes and intervals as text: with real minus signs, and a dash where there is no value."""

from __future__ import annotations

import math
from collections.abc import Sequence

MINUS, THIN = "\u2212", "\u202f"


def number(value: float | None, digits: int = 2) -> str:
    """A plain number with a real minus sign; a dash where there is none.

    >>> number(0.8412), number(-2.0), number(12345.6), number(None)
    ('0.84', '−2.00', '12346', '–')
    """
    if value is None or math.isnan(value):
        return "–"
    size = abs(value)
    if size >= 1000:
        digits = 0
    elif size >= 100:
        digits = min(digits, 1)
    text = f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("-")
    return text.replace("-", MINUS)


def signed(value: float | None, digits: int = 2) -> str:
    """A difference: its sign is always shown.

    >>> signed(0.5), signed(-0.1), signed(0.0)
    ('+0.50', '−0.10', '0.00')
    """
    if value is None or math.isnan(value):
        return "–"
    text = f"{value:+.{digits}f}"
    return (text if float(text) else text[1:]).replace("-", MINUS)


def change(before: float | None, after: float | None) -> str:
    """From what to what, with as many digits as both need.

    >>> change(0.5, 1.25), change(8e-4, 4.1e-4)
    ('0.50 → 1.25', '8.0e−04 → 4.1e−04')
    """
    known = [abs(value) for value in (before, after) if value is not None]
    if known and 0 < max(known) < 0.005:
        return " → ".join("–" if v is None else f"{v:.1e}".replace("-", MINUS) for v in (before, after))
    return f"{number(before)} → {number(after)}"


def percent(value: float | None, digits: int = 0) -> str:
    """A share in percent.

    >>> percent(0.845).replace(THIN, " "), percent(None)
    ('84 %', '–')
    """
    if value is None or math.isnan(value):
        return "–"
    return f"{100 * value:.{digits}f}{THIN}%".replace("-", MINUS)


def span(ends: Sequence[float] | None, how: str = "number", digits: int = 2) -> str:
    """An interval in words.

    >>> span([-0.1, 0.5]), span([0.25, 0.5], "percent").replace(THIN, " "), span([0.1, 0.2], "signed")
    ('−0.10 to 0.50', '25 to 50 %', '+0.10 to +0.20')
    """
    if ends is None or any(end is None for end in ends):
        return ""
    low, high = ends
    if how == "percent":
        return f"{number(100 * low, 0)} to {percent(high)}"
    say = signed if how == "signed" else number
    return f"{say(low, digits)} to {say(high, digits)}"
