"""What follows a turn of the policy: nothing, or the reply of an environment (a tool, a game, another person)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from plaudit.records import Content, Rollout


@dataclass(frozen=True, slots=True)
class Done:
    """The rollout is complete."""

    reward: float | None = None
    """Added to what the rewards of the run give, as the part ``environment``; None: the environment judges nothing."""


@runtime_checkable
class Environment(Protocol):
    """Says what follows a turn of the policy.

    An environment has no state of its own: the rollout so far says all that has happened, and equal rollouts get equal
    replies. So a resumed run sees what an uninterrupted one would have seen, and rollouts may be answered in any order.
    State that is costly to rebuild from the turns may be remembered, as long as the replies stay the same.

    It is called in the process of the run, one rollout after the other, and not asynchronously: one that waits for a
    server makes the whole batch wait.
    """

    # Both are plain attributes of a class. Here they are read-only, so that a type checker takes ("</calc>",) for them.

    @property
    def max_turns(self) -> int:
        """Most turns of the policy. A rollout in which the environment wants more of them is cut off."""
        ...

    @property
    def stop(self) -> tuple[str, ...]:
        """Texts that end a turn of the policy besides its end token, such as the end of a call; they stay in it."""
        ...

    def reply(self, rollout: Rollout) -> Content | Done:
        """What follows the last turn of a rollout, which the policy ended by itself.

        Returns:
            A text to go on with; in a chat a turn of the user, or several `Message`. `Done` ends the rollout.

        Raises:
            Exception: of any kind; the rollout is aborted with it, is not scored, and the run goes on.
        """
        ...


class SingleTurn:
    """The environment that never replies: plain sampling of one response."""

    max_turns = 1
    stop: tuple[str, ...] = ()

    def reply(self, rollout: Rollout) -> Done:
        """Nothing follows."""
        return Done()
