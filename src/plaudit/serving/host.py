"""What answers requests: the engine, the reward model, the feedback store, and the responses that were served last."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

from plaudit.data.chat import ChatFormat
from plaudit.data.served import Said, Store, verdict_of
from plaudit.errors import PlauditError
from plaudit.live import Engine, Piece, Request
from plaudit.records import Content
from plaudit.serving.bodies import Bad, FeedbackBody
from plaudit.serving.metrics import Metrics
from plaudit.serving.settings import ServingSettings

LOG = logging.getLogger("plaudit.serving")
MOST_RECENT, MOST_CHARACTERS = 10_000, 64 << 20
"""Responses, and their characters, that are kept in memory for the feedback that may come."""


class TextScorer(Protocol):
    """A reward model; see `plaudit.rewards.model.Scorer`."""

    def score_texts(
        self, prompts: Sequence[Content], responses: Sequence[str], truncated: Sequence[bool]
    ) -> list[float]:
        """One score for each response."""
        ...


@dataclass
class Host:
    """What the endpoints have in common.

    Args:
        settings: names and limits.
        engine, chat: the model and how it reads prompts; None: only a reward model is served.
        scorer: the reward model.
        log: gets every response; None: nothing is logged.
        feedback: gets what people say, with the response it is about; None: feedback is refused.
    """

    settings: ServingSettings
    engine: Engine | None = None
    chat: ChatFormat | None = None
    scorer: TextScorer | None = None
    log: Store | None = None
    feedback: Store | None = None
    metrics: Metrics = field(default_factory=Metrics)
    recent: Recent = field(default_factory=lambda: Recent())

    def __post_init__(self) -> None:
        # One thread each: tokenizers and models are not made for several at once; and none of it in the event loop,
        # which would stand still meanwhile.
        self._reader = ThreadPoolExecutor(1, "reader")
        self._scorer = ThreadPoolExecutor(1, "scorer")
        self._writer = ThreadPoolExecutor(1, "writer")

    def model(self, name: str | None) -> tuple[Engine, ChatFormat]:
        """The engine for requests that name this model.

        Raises:
            Bad: there is no such model.
        """
        known = self.settings.model
        if self.engine is None or self.chat is None or name not in (None, known):
            cure = f"name {known}" if self.engine else "this server has a reward model only: /v1/score"
            raise Bad(f"there is no model {name!r} that writes", "model", cure, status=404)
        return self.engine, self.chat

    async def prompt_ids(self, content: Content) -> tuple[int, ...]:
        """The tokens of a prompt."""
        assert self.chat is not None, "the caller has asked for the model"
        return tuple(await self._in(self._reader, partial(self.chat.prompt_ids, content)))

    async def score(self, prompts: list[Content], responses: list[str], truncated: list[bool]) -> list[float]:
        """Scores of the reward model.

        Raises:
            Bad: there is none.
        """
        if self.scorer is None:
            raise Bad("no reward model is served", "model", "start the server with --reward MODEL", status=404)
        return await self._in(self._scorer, partial(self.scorer.score_texts, prompts, responses, truncated))

    async def served(self, said: Said, finish: str) -> None:
        """A response went out: it is kept for feedback, and logged where that was asked for."""
        if self.feedback is not None:
            self.recent.add(said)
        if self.log is not None:
            try:
                await self._in(self._writer, partial(self.log.add, said, finish_reason=finish))
            except PlauditError as error:  # whoever asked has a response all the same
                self.metrics.unlogged()
                LOG.error("a response was not logged: %s", error)

    async def judge(self, body: FeedbackBody) -> dict[str, Any]:
        """Keep what somebody says of a response.

        Raises:
            Bad: there is no store, no such response, or not one verdict.
        """
        if self.feedback is None:
            raise Bad("feedback is not kept here", "", "start the server with --feedback FILE", status=404)
        try:
            verdict, value = verdict_of(body.verdict())
        except ValueError as error:
            raise Bad(str(error), "thumb", "see docs/howto/serve.md") from error
        about = self.recent.find(body.id, body.index)
        if about is None:
            cure = f"give the id of one of the last {MOST_RECENT} responses of this server, and its index"
            raise Bad(f"there is no response {body.id!r} with index {body.index}", "id", cure, status=404)
        said = replace(about, verdict=verdict, value=value, user=body.user)
        more = {"comment": body.comment} if body.comment else {}
        await self._in(self._writer, partial(self.feedback.add, said, **more))
        self.metrics.judged(verdict)
        return {"object": "feedback", "id": body.id, "index": body.index, verdict: value}

    async def _in(self, pool: ThreadPoolExecutor, call: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(pool, call)

    def close(self) -> None:
        """End what is open."""
        if self.engine is not None:
            self.engine.close()
        for pool in (self._reader, self._scorer, self._writer):
            pool.shutdown()
        for store in {id(one): one for one in (self.log, self.feedback) if one is not None}.values():
            store.close()


class Recent:
    """The responses that were served last, by id and index."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, int], Said] = OrderedDict()
        self._characters = 0
        self._lock = threading.Lock()

    def add(self, said: Said) -> None:
        """Keep a response, and forget the oldest ones where there are too many."""
        with self._lock:
            self._kept[said.id, said.index] = said
            self._characters += _size(said)
            while len(self._kept) > MOST_RECENT or (self._characters > MOST_CHARACTERS and len(self._kept) > 1):
                self._characters -= _size(self._kept.popitem(last=False)[1])

    def find(self, name: str, index: int) -> Said | None:
        """The response, or None."""
        with self._lock:
            return self._kept.get((name, index))


def _size(said: Said) -> int:
    texts = [said.prompt] if isinstance(said.prompt, str) else [turn.content for turn in said.prompt]
    return sum(map(len, (*texts, *map(str, said.responses))))


class Drawing:
    """The responses to one request while they are drawn.

    Args:
        engine: draws them.
        requests: one for each response.

    Raises:
        Busy, ConfigError: one of them is not taken; then none is.
    """

    def __init__(self, engine: Engine, requests: Sequence[Request]) -> None:
        self._queue: asyncio.Queue[tuple[int, Piece]] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._tickets: list[Any] = []
        try:
            for number, request in enumerate(requests):
                self._tickets.append(engine.submit(request, partial(self._hear, number)))
        except PlauditError:
            self.cancel()
            raise

    def _hear(self, number: int, piece: Piece) -> None:
        self._loop.call_soon_threadsafe(self._queue.put_nowait, (number, piece))

    async def pieces(self) -> AsyncIterator[tuple[int, Piece]]:
        """Each token, with the number of its response, until all have ended.

        Raises:
            PlauditError: one of them was aborted; then all are.
        """
        left = len(self._tickets)
        try:
            while left:
                number, piece = await self._queue.get()
                if piece.error is not None:
                    raise piece.error
                left -= piece.finish is not None
                yield number, piece
        finally:
            self.cancel()

    def cancel(self) -> None:
        """Nobody waits any more."""
        for ticket in self._tickets:
            ticket.cancel()
