"""A figure of the start and of the trained policy, and its change prompt by prompt, as entries of summary.json."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence

from plaudit.evaluation.choice import difference, means_of
from plaudit.runs.files import Row
from plaudit.statistics.clustered import Floats, difference_of_shares, mean_over, share
from plaudit.statistics.intervals import Estimate


def ends(estimate: Estimate) -> list[float] | None:
    """Both ends of an interval; None where it is undefined."""
    return None if math.isnan(estimate.low) or math.isnan(estimate.value) else list(estimate.interval)


def known(value: float) -> float | None:
    """The number; None for NaN, which JSON does not have."""
    return None if math.isnan(value) else value


def entry(name: str, estimate: Estimate) -> Row:
    """``name``, ``name_ci``, and ``name_prompts``: how many units of the interval there are."""
    return {name: known(estimate.value), f"{name}_ci": ends(estimate), f"{name}_prompts": estimate.n}


def compared(
    name: str, before: Sequence[Row], after: Sequence[Row], of: Callable[[Row], float | None], *, counted: bool = False
) -> Row:
    """Levels with intervals over prompts, and the paired change: ``name``, ``name_before``, ``name_difference``.

    Args:
        name: of the figure.
        before, after: rows of responses, each with its ``prompt_id``.
        of: the value of a row; None: it has none, and is left out.
        counted: the value is 0 or 1, and the mean a share, which has Wilson's interval, and its change Newcombe's.
    """
    values: Row = {}
    sides: list[tuple[list[float], list[Hashable]]] = []
    for rows, suffix in ((before, "_before"), (after, "")):
        measured = [(value, str(row.get("prompt_id"))) for row in rows if (value := of(row)) is not None]
        numbers, prompts = [value for value, _ in measured], [prompt for _, prompt in measured]
        level = share(numbers, prompts) if counted else mean_over(numbers, prompts)
        values |= {f"{name}{suffix}": known(level.value), f"{name}_ci{suffix}": ends(level)}
        sides.append((numbers, [*prompts]))
    (was, old), (now, new) = sides
    if counted:
        change = difference_of_shares(was, now, old, new)
    else:
        change = difference(_means(was, old), _means(now, new))
    values |= {f"{name}_difference": known(change.value), f"{name}_difference_ci": ends(change)}
    return values | {f"{name}_prompts": change.n}


def _means(numbers: Floats, prompts: Sequence[Hashable]) -> Mapping[str, float]:
    return means_of(
        [{"prompt_id": prompt, "value": value} for value, prompt in zip(numbers, prompts, strict=True)], "value"
    )
