"""What a run is waiting for at this moment, by name and since when: for whoever watches that it goes on."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Awaited:
    """Something that a run waits for."""

    what: str
    seconds: float = 0.0
    """It should take no longer; 0: nobody knows how long it takes."""


class _Present:
    """Written by whoever works, read by whoever watches; one run works at a time."""

    def __init__(self) -> None:
        self.stack: list[Awaited] = [Awaited("the next step")]
        self.since = time.monotonic()


_PRESENT = _Present()


def beat() -> None:
    """Something has happened: the run goes on."""
    _PRESENT.since = time.monotonic()


@contextlib.contextmanager
def awaiting(what: str, seconds: float = 0.0) -> Iterator[None]:
    """Within it the run waits for ``what``, in words; see `Awaited`."""
    _PRESENT.stack.append(Awaited(what, seconds))
    beat()
    try:
        yield
    finally:
        _PRESENT.stack.pop()
        beat()


def present() -> tuple[Awaited, float]:
    """What is awaited now, and the moment of `time.monotonic` at which something has happened last."""
    return _PRESENT.stack[-1], _PRESENT.since
