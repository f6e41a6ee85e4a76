"""Requests of JSON over HTTP: a deadline for each, further tries after a wait, and one exception if all fail."""

from __future__ import annotations

import functools
import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from plaudit.awaited import beat
from plaudit.rewards.result import shortened

AGAIN = (408, 425, 429, 500, 502, 503, 504)
"""Answers after which the same request may succeed: the server is busy, starting, or broken for the moment."""
TRIES = 5
FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0
"""Seconds before the second try; doubled before each further one, up to the second number."""
MOST_BYTES = 64 << 20
"""Longest answer that is read: numbers for a batch are a few kB, so a longer one is not an answer to the question."""
MOST_OF_AN_ERROR = 4096
"""Bytes that are read of an answer that only says what was wrong."""


class NoAnswer(Exception):
    """A request that failed for good.

    Attributes:
        reason: what the server did, after its name: "answered 404 Not Found".
        status: of HTTP; 0 where there was no answer at all, or one that is too long.
        detail: the beginning of what the server sent with that status. Anything can stand in it.
        tries: how often it was asked.
    """

    def __init__(self, reason: str, *, status: int = 0, detail: str = "", tries: int = 1) -> None:
        super().__init__(reason)
        self.reason, self.status, self.detail, self.tries = reason, status, detail, tries

    def __str__(self) -> str:
        return self.reason + (f", {self.tries} tries" if self.tries > 1 else "")


class Transport:
    """Sends requests, each with a deadline, and tries again what may succeed later.

    Several threads may use it at the same time: each does nothing but wait for the server.

    Args:
        timeout: seconds in which the whole answer to one try must be there.
        headers: of every request, besides those of JSON.
        sleep: waits so many seconds; a test gives its own.
    """

    def __init__(
        self,
        timeout: float,
        headers: Mapping[str, str] | None = None,
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._timeout, self._headers, self._sleep = timeout, dict(headers or {}), sleep
        # No proxy from the environment: only the command line reads that, and a reward server stands on a machine of
        # one's own, which a proxy would not find.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _SameHost())

    def send(self, url: str, body: bytes | None = None) -> bytes:
        """The body of the answer to a POST of ``body``, or to a GET without one.

        Raises:
            NoAnswer: no try had one.
        """
        for attempt in range(TRIES):
            beat()
            try:
                return self._once(url, body)
            except urllib.error.HTTPError as error:
                wait = _seconds(error.headers.get("Retry-After"))
                failed = _refused(error)
                again = error.code in AGAIN
            except (OSError, http.client.HTTPException) as error:
                wait, again, failed = 0.0, True, NoAnswer(f"gave no answer ({_reason(error)})")
            failed.tries = attempt + 1
            if not again or attempt + 1 == TRIES:
                break
            self._sleep(max(wait, min(FIRST_WAIT * 2**attempt, LONGEST_WAIT)))
        raise failed

    def _once(self, url: str, body: bytes | None) -> bytes:
        """The body of the answer, all of it within the time limit."""
        ends = time.monotonic() + self._timeout
        headers = {"Content-Type": "application/json", "Accept": "application/json", **self._headers}
        request = urllib.request.Request(url, body, headers, method="GET" if body is None else "POST")
        with self._opener.open(request, timeout=self._timeout) as answer:
            parts: list[bytes] = []
            # Part by part, as the timeout of a socket counts from the last byte: a server that sends a byte now and
            # then would hold the run for ever.
            while part := answer.read1(1 << 16):
                parts.append(part)
                if time.monotonic() > ends:
                    raise TimeoutError(f"more than {self._timeout:g} s")
                if sum(map(len, parts)) > MOST_BYTES:
                    raise NoAnswer(f"did not answer with JSON (it is longer than {MOST_BYTES} bytes)")
        return b"".join(parts)


class _SameHost(urllib.request.HTTPRedirectHandler):
    """Follows a redirect that keeps the host and the method; refuses any other.

    Prompts and responses may be private, and a key is: they go to the host that was named, and to no other that it
    points to. A 301, 302 or 303 makes a GET without a body of a POST, which cannot be answered.
    """

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:  # the standard library's parameters
        """The request to send instead."""
        before, after = urlsplit(req.full_url), urlsplit(newurl)
        if code not in (307, 308) or (before.scheme, before.netloc) != (after.scheme, after.netloc):
            raise urllib.error.HTTPError(
                req.full_url, code, f"a redirect to {newurl}; name that address", headers, fp
            )
        return urllib.request.Request(newurl, req.data, dict(req.header_items()), method=req.get_method())


def not_json(error: Exception) -> str:
    """What to say of an answer that cannot be read as JSON."""
    return f"did not answer with JSON ({shortened(str(error))})"


def _refused(error: urllib.error.HTTPError) -> NoAnswer:
    """The answer of a server that did not do what was asked."""
    try:
        # One read and not all of it: a server that sends a byte now and then would hold the run for ever.
        detail = error.read1(MOST_OF_AN_ERROR).decode(errors="replace")
    except (OSError, http.client.HTTPException):  # the connection ended before what it was to say
        detail = ""
    error.close()
    return NoAnswer(f"answered {error.code} {error.reason}".strip(), status=error.code, detail=detail)


@functools.singledispatch
def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


@_reason.register
def _(error: urllib.error.URLError) -> str:
    return _reason(error.reason) if isinstance(error.reason, BaseException) else str(error.reason)


def _seconds(value: str | None) -> float:
    """What ``Retry-After`` asks for, where it is a number of seconds; at most `LONGEST_WAIT`."""
    return min(float(value), LONGEST_WAIT) if value and value.isdecimal() else 0.0
