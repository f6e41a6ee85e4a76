"""Rate limits: a token bucket for each key, in the memory of this process."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from plaudit.errors import PlauditError

MOST_KEYS = 20_000
"""Buckets kept. Anybody can make new keys by trying names, and memory must not grow with that."""


@dataclass(frozen=True, slots=True)
class Limit:
    """``per_second`` on average, and ``burst`` at once."""

    per_second: float
    burst: int


# Three limits on logging in, because each alone has a gap. By account and address: guessing one password. By account:
# guessing it from many addresses; anybody could use it to keep a person out, so attempts wait and none is refused.
# By address: one common password tried on many accounts; a whole office behind one address must still get in.
LOGIN = Limit(5 / 60, 5)
"""Attempts for one account from one address."""
LOGIN_ACCOUNT = Limit(20 / 60, 20)
"""Attempts for one account from anywhere; those above it wait `MOST_WAIT` seconds at most."""
MOST_WAIT = 5.0
LOGIN_ADDRESS = Limit(30 / 60, 30)
"""Attempts from one address, whatever the account."""
WRITES = Limit(20, 60)
"""Writes of one person."""
READS = Limit(50, 200)
"""Reads of one person, or of one address."""


class TooMany(PlauditError):
    """Too many requests; ``seconds`` until the next one is allowed."""

    code, exit_code = "TOO_MANY", 70

    def __init__(self, seconds: float) -> None:
        self.seconds = max(1, math.ceil(seconds))
        super().__init__("too many requests", cure=f"wait {self.seconds} seconds")


class Limiter:
    """Buckets by key; safe to use from several threads. ``clock`` gives seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._buckets: dict[tuple[Limit, str], tuple[float, float]] = {}

    def take(self, limit: Limit, key: str) -> None:
        """Take one token, or raise TooMany."""
        now = self._clock()
        with self._lock:
            # Buckets are not refilled by a timer: what has come in since the last request is added at the next one.
            left, then = self._buckets.get((limit, key), (float(limit.burst), now))
            left = min(float(limit.burst), left + (now - then) * limit.per_second)
            if left < 1:
                raise TooMany((1 - left) / limit.per_second)
            if len(self._buckets) >= MOST_KEYS:
                self._forget(now)
            self._buckets[(limit, key)] = (left - 1, now)

    def wait(self, limit: Limit, key: str, most: float = MOST_WAIT) -> float:
        """Take one token, and return the seconds to wait where there is none, ``most`` at most; it refuses nobody."""
        try:
            self.take(limit, key)
        except TooMany as full:
            return min(most, float(full.seconds))
        return 0.0

    def _forget(self, now: float) -> None:
        """Drop the buckets that are full again, which is the same as having none; if there are none, the older half."""
        full = [
            k for k, (left, t) in self._buckets.items() if left + (now - t) * k[0].per_second >= k[0].burst
        ]
        oldest = sorted(self._buckets, key=lambda k: self._buckets[k][1])[: MOST_KEYS // 2]
        for key in full or oldest:
            del self._buckets[key]
