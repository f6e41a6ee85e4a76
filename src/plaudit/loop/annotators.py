"""What a loop knows of whoever answers its comparisons: one method, verdicts with where they come from, and waiting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from plaudit.errors import Stopped
from plaudit.records import Comparison, Judgement


@dataclass(frozen=True, slots=True)
class Answer:
    """One verdict on a comparison, and where it comes from."""

    judgement: Judgement
    """Its id begins with that of the comparison and a slash."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """Who answered, when, with which guidelines or which model; JSON-ready."""


class Annotators(Protocol):
    """Whoever answers comparisons. The loop knows nothing else of them."""

    def answer(self, asked: Sequence[Comparison], number: int) -> Sequence[Answer]:
        """The verdicts on the comparisons of a round, each of two responses.

        Called again with the same comparisons if the loop was ended in the meantime: what was paid for once must not
        be paid for twice.

        Args:
            asked: what is asked.
            number: of the round, from 1.

        Raises:
            Waiting: not enough has been answered yet.
        """
        ...


class Waiting(Stopped):
    """The loop waits for people. It is no failure: the same command goes on (exit code 75)."""

    code = "WAITING"
