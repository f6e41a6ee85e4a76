"""Rate limits: a bucket of tokens for each key, in this process's memory."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from plaudit.errors import PlauditError

MOST_KEYS = 20_000


@dataclass(frozen=True, slots=True)
class Limit:
    """``per_second`` on average, and ``burst`` at once."""

    per_second: float
    burst: int


LOGIN = Limit(5 / 60, 5)
"""Attempts for one account from one address."""
LOGIN_ACCOUNT = Limit(20 / 60, 20)
"""Attempts for one account from anywhere."""
LOGIN_ADDRESS = Limit(30 / 60, 30)
"""Attempts from one address, whatever the account."""
WRITES = Limit(20, 60)
"""Of one person."""
READS = Limit(50, 200)
"""Of one person, or one address."""


class TooMany(PlauditError):
    """Too many requests; ``seconds`` until the next one is allowed."""

    code, exit_code = "TOO_MANY", 70

    def __init__(self, seconds: float) -> None:
        self.seconds = max(1, math.ceil(seconds))
        super().__init__("too many requests", cure=f"wait {self.seconds} seconds")


class Limiter:
    """Buckets by key; safe to use from several threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._buckets: dict[tuple[Limit, str], tuple[float, float]] = {}

    def take(self, limit: Limit, key: str) -> None:
        """Take one token, or raise TooMany."""
        now = self._clock()
        with self._lock:
            left, then = self._buckets.get((limit, key), (float(limit.burst), now))
            left = min(float(limit.burst), left + (now - then) * limit.per_second)
            if left < 1:
                raise TooMany((1 - left) / limit.per_second)
            if len(self._buckets) >= MOST_KEYS:
                self._forget(now)
            self._buckets[(limit, key)] = (left - 1, now)

    def _forget(self, now: float) -> None:
        """Drop the buckets that have filled up again, or the older half where none has."""
        full = [
            k for k, (left, t) in self._buckets.items() if left + (now - t) * k[0].per_second >= k[0].burst
        ]
        oldest = sorted(self._buckets, key=lambda k: self._buckets[k][1])[: MOST_KEYS // 2]
        for key in full or oldest:
            del self._buckets[key]
