"""An alarm: what a run tells its user while it goes on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something to tell the user of.

    Attributes:
        kind: one word for programs, such as "phrase"; the list is in docs/howto/reward-hacking.md.
        message: what was seen, with its figures, and what to do: for people.
        is_early: nothing was lost yet, so a run does not go back or stop on it.
    """

    kind: str
    message: str
    is_early: bool = False
