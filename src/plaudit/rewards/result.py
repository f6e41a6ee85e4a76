"""From what a reward gave to a result: a finite number, or the reason why there is none."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

from plaudit.records import RewardResult


def to_result(value: Any, name: str) -> RewardResult:
    """A result from what a reward gave: a number (Python, numpy or a tensor of one element), or an error.

    >>> to_result(2, "length")
    RewardResult(value=2.0, parts={'length': 2.0}, error='')
    >>> to_result(float("nan"), "length").error
    'length returned nan, not a finite number'
    """
    try:
        number = _number(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        number = math.nan
    if math.isfinite(number):
        return RewardResult(number, {name: number})
    return RewardResult(None, error=f"{name} returned {shortened(value)}, not a finite number")


def _number(value: Any) -> float:
    if isinstance(value, Real):
        return float(value)
    item = getattr(value, "item", None)  # a tensor or array with one element
    number = item() if callable(item) else None
    return float(number) if isinstance(number, Real) else math.nan


def shortened(value: Any, limit: int = 80) -> str:
    """The ``repr`` of any value, cut; never raises."""
    try:
        text = repr(value)
    except Exception:  # the repr of a user's object may do anything
        text = f"<{type(value).__name__}>"
    return text if len(text) <= limit else text[: limit - 1] + "…"
