"""Which weights of a run are handed out: chosen on some held-out prompts, so that they can be judged on others.

The best of many evaluations is the luckiest as well. So it is sampled anew before anything follows from it, and what
the page says of the chosen weights is measured on prompts that took no part in the choice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import blake2b
from statistics import fmean
from typing import Any, TypeVar

from plaudit.statistics.clustered import mean_over
from plaudit.statistics.intervals import Estimate

Means = Mapping[str, float]
"""Prompt id -> mean of the judge over the responses to it."""
ENOUGH = 10
"""Below so many prompts an interval tells too little to call a difference anything."""
HINTED = 0.6
"""Confidence of an interval above 0 that is worth a second look: one in five equal steps has it by chance."""
SMALLEST = 0.005
"""Nats. A held-out loss that moved less has not moved, however sure the interval is: training moves every weight a
little, and thousands of rows make the smallest change certain."""
P = TypeVar("P")


def divide(prompts: Sequence[P], key: Callable[[P], str]) -> tuple[list[P], list[P]]:
    """Held-out prompts to choose weights by, and those that are kept for the end; about half each, in the given order.

    By a hash and not by position, because files are often sorted by topic; prompts of one key are on one side. Of a
    single prompt there is nothing to divide: it is on both sides.

    >>> [len(side) for side in divide([str(number) for number in range(7)], str)]
    [3, 4]
    """
    place = {name: blake2b(f"final/{name}".encode(errors="surrogatepass")).digest() for name in map(key, prompts)}
    if len(place) < 2:
        return list(prompts), list(prompts)
    chosen = set(sorted(place, key=lambda name: place[name])[: len(place) // 2])
    return [p for p in prompts if key(p) in chosen], [p for p in prompts if key(p) not in chosen]


def verdict_on_loss(change: Estimate) -> str:
    """What a change of the held-out loss says, in a word: "better", "no_change", "worse" or "too_few"."""
    if change.n < ENOUGH or math.isnan(change.low):
        return "too_few"
    if change.high < -SMALLEST:
        return "better"
    return "worse" if change.low > SMALLEST else "no_change"


def means_of(rows: Iterable[Mapping[str, Any]], judge: str) -> dict[str, float]:
    """Mean of a column over the rows of each prompt; rows without a value are left out."""
    values: dict[str, list[float]] = {}
    for row in rows:
        if row.get(judge) is not None:
            values.setdefault(str(row.get("prompt_id")), []).append(float(row[judge]))
    return {prompt: fmean(each) for prompt, each in values.items()}


def difference(before: Means, after: Means, confidence: float = 0.95) -> Estimate:
    """How much larger ``after`` is, prompt by prompt, over the prompts that both have."""
    both = sorted(before.keys() & after.keys())
    return mean_over([after[prompt] - before[prompt] for prompt in both], confidence=confidence)


def clearly(estimate: Estimate) -> bool:
    """Whether a difference is above 0 beyond what chance explains; never with too few prompts."""
    return estimate.n >= ENOUGH and estimate.low > 0
