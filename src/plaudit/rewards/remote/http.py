"""A reward that a server computes: a POST of JSON for some responses, and a number for each comes back."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from plaudit.data.reading.rows import as_json
from plaudit.data.reading.transcripts import plain_text
from plaudit.jobs.reward_tables import HttpTable
from plaudit.records import RewardResult, Rollout
from plaudit.rewards.remote.transport import NoAnswer, Transport, not_json
from plaudit.rewards.result import shortened, to_result
from plaudit.rewards.signature import messages_of, turns_of


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
        self._table, self._transport = table, Transport(table.timeout, sleep=sleep)

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
        try:
            return self._results(json.loads(self._transport.send(self._table.url, body)), len(rollouts))
        except NoAnswer as failed:
            reason = str(failed)
        except (ValueError, RecursionError) as error:
            reason = not_json(error)
        return [RewardResult(None, error=f"{self.name}: {self._table.url} {reason}")] * len(rollouts)

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
