"""Results that take long to compute: made in the background from the newest data, while pages show the last ones."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

T = TypeVar("T")
LOG = logging.getLogger("plaudit.annotate")


@dataclass(frozen=True, slots=True)
class Known(Generic[T]):
    """A result, and whether it is of the newest data; None where there is none yet."""

    value: T | None
    fresh: bool


@dataclass
class _Place:
    """One kind of result: the last one, and whether the next one is being made."""

    version: Hashable = None
    value: Any = None
    running: bool = False


@dataclass(frozen=True)
class Newest:
    """The last result of each kind."""

    # One at a time: several of them side by side would only make each other slower, and everybody's answers too.
    _turn: threading.Lock = field(default_factory=threading.Lock)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _places: dict[Hashable, _Place] = field(default_factory=dict)

    def get(self, kind: Hashable, version: Hashable, make: Callable[[], T], *, wait: bool) -> Known[T]:
        """The result for this version of the data, or the last one while it is being made.

        Args:
            kind: what is computed, and for which project.
            version: changes with the data.
            make: computes it.
            wait: whether it is computed now where it is missing; for data that take a moment only.
        """
        with self._lock:
            place = self._places.setdefault(kind, _Place())
            if place.version == version:
                return Known(place.value, True)
            start = not wait and not place.running
            place.running = place.running or start
        if wait:
            return Known(self._make(place, version, make), True)
        if start:
            threading.Thread(target=self._in_background, args=(place, version, make), daemon=True).start()
        return Known(place.value, False)

    def _make(self, place: _Place, version: Hashable, make: Callable[[], T]) -> T:
        with self._turn:
            value = make()
        with self._lock:
            place.version, place.value = version, value
        return value

    def _in_background(self, place: _Place, version: Hashable, make: Callable[[], Any]) -> None:
        try:
            self._make(place, version, make)
        except Exception:
            # Nobody waits for it: the next visit tries again.
            LOG.exception("a result could not be computed")
        finally:
            with self._lock:
                place.running = False
