"""A reward that a server computes: a POST of JSON for some responses, and a number for each comes back."""

from __future__ import annotations

import functools
import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

from plaudit.data.reading.rows import as_json
from plaudit.data.reading.transcripts import plain_text
from plaudit.jobs.reward_tables import HttpTable
from plaudit.records import RewardResult, Rollout
from plaudit.rewards.result import shortened, to_result
from plaudit.rewards.signature import messages_of, turns_of

AGAIN = (408, 425, 429, 500, 502, 503, 504)
"""Answers after which the same request may succeed: the server is busy, starting, or broken for the moment."""
TRIES = 5
FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0
"""Seconds before the second try; doubled before each further one, up to the second number."""
MOST_BYTES = 64 << 20
"""Longest answer that is read: numbers for a batch are a few kB, so a longer one is not an answer to the question."""


class HttpReward:
    """Asks a server for the rewards, some responses a request, some requests at the same time.

    The body of a request is ``{"query", "prompts", "responses", "labels", "messages", "columns"}``, each a list with
    one entry for each response: prompt and response as one text, the prompt, the response, the known answer or null,
    the conversation as messages, and the further columns of the data row. The answer is ``{"rewards": [...]}``, one
    for each response in their order: a number, a mapping with ``score``, or null for a failure. The names ``query``,
    ``prompts``, ``labels`` and ``rewards`` are those of OpenRLHF, whose reward servers can be used as they are.

    A request that fails is tried again after a wait that doubles. What fails for good is an error of its responses,
    with the reason, and never a reward of 0.

    Args:
        table: address, limits and tries.
        sleep: waits so many seconds; a test gives its own.
    """

    def __init__(self, table: HttpTable, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self.name = table.name or "http"
        self._table, self._sleep = table, sleep
        # No proxy from the environment: only the command line reads that, and a reward server stands on a machine of
        # one's own, which a proxy would not find.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _SameHost())

    def __call__(self, rollouts: Sequence[Rollout]) -> list[RewardResult]:
        """One result per rollout."""
        size = self._table.batch_size
        batches = [rollouts[first : first + size] for first in range(0, len(rollouts), size)]
        if not batches:
            return []
        # Threads, because each does nothing but wait for the server.
        with ThreadPoolExecutor(min(self._table.concurrency, len(batches))) as pool:
            return [result for results in pool.map(self._scored, batches) for result in results]

    def _scored(self, rollouts: Sequence[Rollout]) -> list[RewardResult]:
        body = json.dumps(question(rollouts), default=as_json).encode()
        for attempt in range(TRIES):
            reason, again, wait = "", False, 0.0
            try:
                return self._results(json.loads(self._post(body)), len(rollouts))
            except urllib.error.HTTPError as error:
                reason, again = f"answered {error.code} {error.reason}".strip(), error.code in AGAIN
                wait = _seconds(error.headers.get("Retry-After"))
                error.close()
            except (OSError, http.client.HTTPException) as error:
                reason, again = f"gave no answer ({_reason(error)})", True
            except (ValueError, RecursionError) as error:
                reason = f"did not answer with JSON ({shortened(str(error))})"
            if not again or attempt + 1 == TRIES:
                break
            self._sleep(max(wait, min(FIRST_WAIT * 2**attempt, LONGEST_WAIT)))
        tries = f", {attempt + 1} tries" if attempt else ""
        return [RewardResult(None, error=f"{self.name}: {self._table.url} {reason}{tries}")] * len(rollouts)

    def _post(self, body: bytes) -> bytes:
        """The body of the answer, all of it within the time limit."""
        ends = time.monotonic() + self._table.timeout
        request = urllib.request.Request(
            self._table.url,
            body,
            {"Content-Type": "application/json", "Accept": "application/json"},
            method="POST",
        )
        with self._opener.open(request, timeout=self._table.timeout) as answer:
            parts: list[bytes] = []
            # Part by part, as the timeout of a socket counts from the last byte: a server that sends a byte now and
            # then would hold the run for ever.
            while part := answer.read1(1 << 16):
                parts.append(part)
                if time.monotonic() > ends:
                    raise TimeoutError(f"more than {self._table.timeout:g} s")
                if sum(map(len, parts)) > MOST_BYTES:
                    raise ValueError(f"it is longer than {MOST_BYTES} bytes")
        return b"".join(parts)

    def _results(self, answer: Any, count: int) -> list[RewardResult]:
        rewards = answer.get("rewards") if isinstance(answer, Mapping) else None
        if not isinstance(rewards, list) or len(rewards) != count:
            content = f"{len(rewards)} rewards" if isinstance(rewards, list) else shortened(answer)
            reason = f'{self.name}: {self._table.url} answered {content}, expected {{"rewards": [{count} numbers]}}'
            return [RewardResult(None, error=reason)] * count
        return [to_result(reward, self.name) for reward in rewards]


def question(rollouts: Sequence[Rollout]) -> dict[str, list[Any]]:
    """The body of a request, as `HttpReward` describes it."""
    prompts = [plain_text(r.prompt.content) for r in rollouts]
    responses = [r.response for r in rollouts]
    return {
        "query": [prompt + response for prompt, response in zip(prompts, responses, strict=True)],
        "prompts": list(prompts),
        "responses": responses,
        "labels": [r.prompt.answer for r in rollouts],
        "messages": [messages_of(r.prompt.content) + turns_of(r) for r in rollouts],
        "columns": [dict(r.prompt.columns) for r in rollouts],
    }


class _SameHost(urllib.request.HTTPRedirectHandler):
    """Follows a redirect that keeps the host and the method; refuses any other.

    Prompts and responses may be private: they go to the host that was named, and to no other that it points to. A
    301, 302 or 303 makes a GET without a body of a POST, which cannot be answered.
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
        return urllib.request.Request(newurl, req.data, dict(req.header_items()), method="POST")


@functools.singledispatch
def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


@_reason.register
def _(error: urllib.error.URLError) -> str:
    return _reason(error.reason) if isinstance(error.reason, BaseException) else str(error.reason)


def _seconds(value: str | None) -> float:
    """What ``Retry-After`` asks for, where it is a number of seconds; at most `LONGEST_WAIT`."""
    return min(float(value), LONGEST_WAIT) if value and value.isdecimal() else 0.0
