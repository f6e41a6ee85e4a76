"""Texts that the policy goes on imitating while it learns from rewards, so that it does not forget them (ptx)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from plaudit.data.chat import Encoded
from plaudit.data.collate import collate_demonstrations
from plaudit.data.split import epoch_order
from plaudit.experience import Experience


@dataclass(frozen=True, slots=True)
class TextStream:
    """Encoded texts in an endless sequence of shuffled passes, a function of the place: resume is exact."""

    rows: Sequence[Encoded]
    pad_id: int
    seed: int

    def at(self, first: int, count: int) -> Experience:
        """The ``count`` texts from place ``first`` of the sequence on."""
        size = len(self.rows)
        places = (divmod(place, size) for place in range(first, first + count))
        chosen = [self.rows[epoch_order(size, self.seed, epoch)[place]] for epoch, place in places]
        return collate_demonstrations(chosen, self.pad_id)
