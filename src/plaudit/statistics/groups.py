"""Do repetitions of one experiment fall into two groups? Their mean would then be a result that nobody gets."""

from __future__ import annotations

from collections.abc import Sequence

RARE = {4: 9.2, 5: 4.3, 6: 2.9, 7: 2.2, 8: 1.75, 10: 1.3, 12: 1.0, 16: 0.8}
"""Number of values -> how many times the wider of the two groups is exceeded by the gap between them in one of forty
samples of a normal distribution (by simulation, tests/statistics/test_groups.py)."""


def two_groups(values: Sequence[float]) -> tuple[list[float], list[float]] | None:
    """The lower and the upper group, where the largest gap is too large for chance; None where it is not, or below 4.

    >>> two_groups([0.1, 1.2, 1.25, 1.15, 1.2, 1.22])
    ([0.1], [1.15, 1.2, 1.2, 1.22, 1.25])
    >>> two_groups([0.9, 1.2, 1.3, 1.1, 1.0, 1.4]) is None
    True
    """
    ordered = sorted(values)
    known = [times for count, times in RARE.items() if count <= len(ordered)]
    if not known:
        return None
    gaps = [after - before for before, after in zip(ordered, ordered[1:], strict=False)]
    at = max(range(len(gaps)), key=lambda i: gaps[i]) + 1
    low, high = ordered[:at], ordered[at:]
    widest = max(low[-1] - low[0], high[-1] - high[0])
    return (low, high) if gaps[at - 1] > known[-1] * widest and gaps[at - 1] > 0 else None
