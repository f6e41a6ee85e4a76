"""Does a run move at all? Looked at once, after a tenth of it: a rate that is far too small learns nothing all day."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import fmean

EARLIEST = 5
"""Steps before which nothing is said."""
SHARE = 0.1
"""Of the run, after which it is looked at."""
LAST = 3
"""Steps whose mean is what is seen: one alone is noise."""


@dataclass(frozen=True, slots=True)
class Distance:
    """A metric that says how far a policy is from its start."""

    power: int
    """It grows with this power of the way: a KL with the square, as it is least at the start; a margin in proportion.
    """
    least: float
    """Where a run would end with less, it has not moved."""
    enough: float
    """What a useful run reaches."""
    words: str


DISTANCES = {
    "objective/kl": Distance(2, 0.05, 1.0, "the KL to the start is {:.2g} nats per response"),
    "rewards/margins": Distance(1, 0.02, 0.5, "the margin of the implicit rewards is {:.2g}"),
}


@dataclass(slots=True)
class MovingWatch:
    """Says of a run that it will hardly have moved at its end, with the cure; once, and early.

    Attributes:
        total: steps of the run.
    """

    total: int
    looked: bool = False
    way: float = 0.0
    """Sum of the learning rates so far."""
    recent: dict[str, list[float]] = field(default_factory=dict)

    def look(self, step: int, metrics: Mapping[str, float]) -> str:
        """What to say after a step, in words; mostly nothing."""
        rate = metrics.get("lr", 0.0)  # none while a critic learns alone
        self.way += rate
        for name in DISTANCES.keys() & metrics.keys():
            self.recent[name] = [*self.recent.get(name, []), abs(metrics[name])][-LAST:]
        due = step >= max(EARLIEST, math.ceil(SHARE * self.total))
        if self.looked or not due or not rate or step >= self.total:
            return ""
        self.looked = True
        # As if the rate stayed as it is: a rate that falls makes the run move less, so this rather says too little.
        share = min(self.way / (rate * self.total), 1.0)
        for name, distance in DISTANCES.items():
            if name in self.recent and share > 0:
                said = _slow(distance, fmean(self.recent[name]), share, rate)
                if said:
                    return f"after {step} of {self.total} steps {said}"
        return ""


def _slow(distance: Distance, now: float, share: float, rate: float) -> str:
    """What to say of a distance after a share of the way; nothing where it grows."""
    at_end = now / share**distance.power
    if at_end >= distance.least:
        return ""
    times = min((distance.enough / max(at_end, 1e-12)) ** (1 / distance.power), 1000.0)
    return (
        f"{distance.words.format(now)}, and at this pace it will be {at_end:.2g} at the end: the policy hardly moves. "
        f"Raise --lr, which is {rate:.2g}, about {float(f'{times:.0e}'):g} times, or leave it out: auto goes by the "
        "size of the model"
    )
