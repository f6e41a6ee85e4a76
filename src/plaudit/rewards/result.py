"""From what a reward gave to a result: a finite number, or the reason why there is none."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from numbers import Real
from typing import Any

from plaudit.records import LARGEST, RewardResult


def to_result(value: Any, name: str) -> RewardResult:
    """A result from what a reward gave.

    Args:
        value: a number (of Python, `Decimal` included, of numpy, or a tensor of one element); a mapping whose ``score``
            is one, as in verl: its other numbers become parts; or a `RewardResult`. Anything else is an error.
        name: of the reward.

    >>> to_result(2, "length").parts
    {'length': 2.0}
    >>> to_result({"score": 1, "format": 0.5, "said": "yes"}, "check").parts
    {'check': 1.0, 'format': 0.5}
    >>> to_result(float("nan"), "length").error
    'length returned nan, not a finite number'
    """
    if isinstance(value, RewardResult):
        return _checked(value, name)
    parts: dict[str, float] = {}
    score = value
    if isinstance(value, Mapping) and "score" in value:
        score = value["score"]
        numbers = {str(key): _finite(part) for key, part in value.items() if key != "score"}
        parts = {key: number for key, number in numbers.items() if number is not None}
    number = _finite(score)
    if number is not None:
        return RewardResult(number, {name: number, **parts})
    # No value, and never 0: a 0 would say that the response is worse or better than others, and nobody knows that.
    return RewardResult(None, error=f"{name} returned {shortened(value)}, not a finite number")


def with_cuts(results: Sequence[RewardResult], cut: Sequence[bool], name: str) -> list[RewardResult]:
    """Results of texts of which some were longer than a model reads: the part ``<name>_cut`` is 1 for these.

    Its mean is the share of texts that were cut, in the metrics of each iteration; the first time there is a warning.
    """
    if not any(cut):
        return list(results)
    warnings.warn(
        f"{name}: {sum(cut)} of {len(cut)} texts are longer than the model reads, and were cut (the beginning of the"
        f" prompt first); reward/{name}_cut is their share from here on",
        stacklevel=2,
    )
    return [
        replace(result, parts=dict(result.parts) | {f"{name}_cut": float(was_cut)})
        for result, was_cut in zip(results, cut, strict=True)
    ]


def _checked(result: RewardResult, name: str) -> RewardResult:
    """A result that somebody else made: its value is finite, or there is a reason."""
    if result.value is None:
        return result if result.error else replace(result, error=f"{name} gave no value and no reason")
    number = _finite(result.value)
    if number is None:
        return RewardResult(None, error=f"{name} returned {shortened(result.value)}, not a finite number")
    parts = {key: part for key, value in result.parts.items() if (part := _finite(value)) is not None}
    return replace(result, value=number, parts=parts or {name: number})


def within_range(result: RewardResult, further: float = 0.0) -> RewardResult:
    """The result, or a failure where its value, with what is added to it, is larger than rewards may be.

    >>> within_range(RewardResult(-1e39)).error
    'the reward is -1e+39, beyond the 16,777,216 up to which fp32 tells rewards apart'
    """
    if result.value is None or abs(result.value + further) <= LARGEST:
        return result
    reason = f"the reward is {result.value + further:g}, beyond the {LARGEST:,.0f} up to which fp32 tells rewards apart"
    parts = {name: part for name, part in result.parts.items() if abs(part) <= LARGEST}
    return replace(result, value=None, parts=parts, error=reason)


def _finite(value: Any) -> float | None:
    """The finite number that a value is; None for anything else."""
    try:
        number = _number(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _number(value: Any) -> float:
    item = getattr(value, "item", None)  # a tensor or array with one element
    number = item() if not isinstance(value, (Real, Decimal)) and callable(item) else value
    return float(number) if isinstance(number, (Real, Decimal)) else math.nan


def shortened(value: Any, limit: int = 80) -> str:
    """The ``repr`` of any value, cut; never raises."""
    try:
        text = repr(value)
    except Exception:  # the repr of a user's object may do anything
        text = f"<{type(value).__name__}>"
    return text if len(text) <= limit else text[: limit - 1] + "…"
