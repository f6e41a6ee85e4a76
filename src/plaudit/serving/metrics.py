"""Figures of the server in the text format of Prometheus (version 0.0.4)."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator

from plaudit.live import Load

SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Upper bounds of the buckets of times."""
TIMES = {
    "time_to_first_token_seconds": "From the arrival of a request to the first token of its response.",
    "request_seconds": "From the arrival of a request to the end of its answer.",
}


class Metrics:
    """Counts and times; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: dict[tuple[str, int], int] = defaultdict(int)
        self._feedback: dict[str, int] = defaultdict(int)
        self._unlogged = 0
        self._times = {name: [0] * (len(SECONDS) + 1) for name in TIMES}
        self._sums = dict.fromkeys(TIMES, 0.0)

    def answered(self, path: str, status: int, seconds: float) -> None:
        """A request to a path was answered."""
        with self._lock:
            self._requests[path, status] += 1
        self.took("request_seconds", seconds)

    def took(self, name: str, seconds: float) -> None:
        """A time, by a name of `TIMES`."""
        bucket = next((i for i, bound in enumerate(SECONDS) if seconds <= bound), len(SECONDS))
        with self._lock:
            self._times[name][bucket] += 1
            self._sums[name] += seconds

    def judged(self, verdict: str) -> None:
        """Somebody gave feedback of this form."""
        with self._lock:
            self._feedback[verdict] += 1

    def unlogged(self) -> None:
        """A response that was to be logged could not be."""
        with self._lock:
            self._unlogged += 1

    def text(self, load: Load | None) -> str:
        """All figures."""
        with self._lock:
            return "\n".join([*self._counts(), *self._gauges(load), *self._histograms()]) + "\n"

    def _counts(self) -> Iterator[str]:
        yield from _head("requests_total", "counter", "Requests by path and status.")
        for (path, status), count in sorted(self._requests.items()):
            yield f'plaudit_requests_total{{path="{path}",status="{status}"}} {count}'
        yield from _head("feedback_total", "counter", "Feedback by form.")
        for verdict, count in sorted(self._feedback.items()):
            yield f'plaudit_feedback_total{{form="{verdict}"}} {count}'
        yield from _head("unlogged_total", "counter", "Responses that could not be logged.")
        yield f"plaudit_unlogged_total {self._unlogged}"

    def _gauges(self, load: Load | None) -> Iterator[str]:
        if load is None:
            return
        for name, kind, about, value in (
            ("responses_running", "gauge", "Responses that are being drawn.", load.running),
            ("responses_waiting", "gauge", "Responses that wait for a row.", load.waiting),
            ("rows", "gauge", "Most responses that are drawn side by side.", load.rows),
            ("prompt_tokens_total", "counter", "Prompt tokens read.", load.prompt_tokens),
            ("response_tokens_total", "counter", "Tokens drawn.", load.response_tokens),
        ):
            yield from _head(name, kind, about)
            yield f"plaudit_{name} {value}"

    def _histograms(self) -> Iterator[str]:
        for name, about in TIMES.items():
            yield from _head(name, "histogram", about)
            total = 0
            for bound, count in zip((*SECONDS, "+Inf"), self._times[name], strict=True):
                total += count
                yield f'plaudit_{name}_bucket{{le="{bound}"}} {total}'
            yield f"plaudit_{name}_sum {self._sums[name]:.6f}"
            yield f"plaudit_{name}_count {total}"


def _head(name: str, kind: str, about: str) -> Iterator[str]:
    yield f"# HELP plaudit_{name} {about}"
    yield f"# TYPE plaudit_{name} {kind}"
