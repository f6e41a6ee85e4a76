"""Whether ranks wait for each other for ever: where each of them is in its work, look after look."""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable, Collection
from dataclasses import dataclass

from plaudit.errors import Lost

SILENT = 60.0
"""Seconds without any answer after which it is looked where the ranks are."""
BETWEEN = 20.0
"""Seconds between two looks."""
LOOKS = 3
"""Looks in a row that find the same before it is believed."""
TO_SAY = 10.0
"""Seconds in which a rank that runs says where it is, whatever it computes."""
INNERMOST = 4
"""Frames by which a rank is known to wait in a collective: PyTorch's own Python around it is not deeper."""


@dataclass(frozen=True, slots=True)
class Where:
    """Where a rank is in its work.

    Attributes:
        waits: in a collective, for the other ranks.
        place: file, line and function.
        stack: the whole of it, in words.
    """

    waits: bool
    place: str
    stack: str


def place_of(thread: int) -> Where:
    """Where a thread of this process is; ``thread`` as of `threading.get_ident`."""
    frame = sys._current_frames().get(thread)
    frames = traceback.extract_stack(frame) if frame is not None else []
    if not frames:
        return Where(False, "no work", "no work")
    last = frames[-1]
    return Where(
        any(os.path.join("torch", "distributed") in one.filename for one in frames[-INNERMOST:]),
        f"{os.path.basename(last.filename)}:{last.lineno} in {last.name}",
        "".join(traceback.format_list(frames)),
    )


class HangWatch:
    """Finds out whether the ranks wait for each other for ever.

    A collective (a sum over ranks, say) goes on only when all ranks are in it. So a call hangs if all ranks that run
    wait in one, at the same place look after look: for a rank that does not run, or for one that waits in another.

    Args:
        places: gives of the ranks that have not answered where they are; see `Group.places`.
        what: the run waits for, in words.
        clock: seconds.
    """

    def __init__(
        self,
        places: Callable[[Collection[str]], dict[str, Where | None]],
        what: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._places, self._what, self._clock = places, what, clock
        self._next, self._before, self._same = clock() + SILENT, dict[str, Where | None](), 0

    def look(self, waiting: Collection[str]) -> None:
        """Look, if it is time.

        Raises:
            Lost: they hang. It names who and where, and has the stacks of all.
        """
        if self._clock() < self._next:
            return
        found = self._places(waiting)
        self._next = self._clock() + BETWEEN
        hangs = all(where is None or where.waits for where in found.values())
        self._same = self._same + 1 if hangs and found == self._before else int(hangs)
        self._before = found
        if self._same < LOOKS:
            return
        silent = [name for name, where in found.items() if where is None]
        others = [f"{name} waits in {where.place}" for name, where in found.items() if where is not None]
        said = [f"{' and '.join(silent)} does not run"] if silent else []
        error = Lost(
            f"the workers hang in {self._what}: {', '.join(said + others)}",
            where="--backend ray",
            cure="give the same command again with --resume: it goes on from the last checkpoint",
        )
        stacks = {name: where.stack if where else "does not say where it is" for name, where in found.items()}
        error.stacks = "\n".join(f"{name}\n{stack}" for name, stack in stacks.items())
        raise error
