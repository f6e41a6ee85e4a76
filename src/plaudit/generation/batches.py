"""The responses that are being drawn, and how the model reads their tokens: in slots of a cache, or whole."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from plaudit.errors import ModelError
from plaudit.generation.cache import SlotCache
from plaudit.generation.decoder import MOST_TOKENS, Decoder, Prefill
from plaudit.generation.fixed_shapes import FixedShapes, Record
from plaudit.generation.sampling import Distribution
from plaudit.generation.texts import ResponseTexts
from plaudit.records import FinishReason
from plaudit.runtime import TokenPrompt


@dataclass(frozen=True, slots=True)
class Rules:
    """How the tokens of a response are drawn, and what ends it."""

    shape: Distribution
    texts: ResponseTexts
    """Finds stop texts."""
    end_ids: tuple[int, ...]
    least: int = 0
    """Tokens below which it does not end."""
    alternatives: int = 0
    """How many of the likeliest tokens are noted at each place."""


@dataclass(slots=True, eq=False)
class Response:
    """One response while it is drawn."""

    prompt: TokenPrompt
    group: int
    seed: int
    most: int
    rules: Rules
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    alternatives: list[tuple[tuple[int, float], ...]] = field(default_factory=list)
    """At each place the likeliest tokens with their log-probs, as many as the rules say."""
    finish: FinishReason | None = None
    unwanted: bool = False
    """Whoever asked for it does not wait any more: it leaves at the next token."""
    error: ModelError | None = None
    """Why it was aborted."""


class Batch(Protocol):
    """The rows being decoded, and the state from which the next token of each is drawn."""

    rows: list[Response]

    def join(self, responses: Iterable[Response]) -> None:
        """Let more responses wait for a row, in their order behind those that wait already."""
        ...

    @property
    def waiting(self) -> int:
        """How many wait for a row."""
        ...

    def admit(self) -> None:
        """Give waiting responses the free rows."""
        ...

    def leave(self) -> list[int]:
        """Take finished rows out; returns the old row numbers in the new order."""
        ...

    def forward(self, tokens: Tensor) -> None:
        """Compute the states after the tokens [R] that were drawn last."""
        ...

    def logits(self) -> Tensor:
        """Logits [R, V] in fp32 of the next token of each row."""
        ...


class Slots:
    """See `Batch`: each row in a slot of a key/value cache, one new token of all rows in each forward pass.

    Args:
        decoder: reads tokens.
        rows: how many slots there are.
        capacity: columns that the cache begins with; it grows where a row needs more.
        record: records steps; capacity must then suffice.
        prompt_tokens: prompt tokens that one admission reads at most, one prompt in any case; 0: as many as there are
            free rows. With a limit free rows are given away at once, so that nobody waits long for a first token.
    """

    def __init__(
        self, decoder: Decoder, rows: int, capacity: int, record: Record | None = None, prompt_tokens: int = 0
    ) -> None:
        self._decoder = decoder
        self._waiting: deque[Response] = deque()
        self._size, self._most = rows, prompt_tokens
        self._cache = SlotCache(rows, capacity)
        self._fixed = record and FixedShapes(
            decoder.read, self._cache, rows, capacity, decoder.device, record
        )
        self._read: dict[tuple[int, ...], tuple[Prefill, int]] = {}
        self.rows: list[Response] = []
        self.state: Tensor | None = None  # [R, D]

    def join(self, responses: Iterable[Response]) -> None:
        """See `Batch.join`."""
        self._waiting.extend(responses)

    @property
    def waiting(self) -> int:
        """See `Batch.waiting`."""
        return len(self._waiting)

    def admit(self) -> None:
        """Give waiting responses the free rows, and prefill prompts that are new.

        Without a limit of prompt tokens only if these rows are a quarter of all.
        """
        # Not at every free row: a prefill of one prompt costs as much time as several steps of the whole batch.
        free = self._size - len(self.rows)
        if not self._waiting or (self.rows and not self._most and 4 * free < self._size):
            return
        new = self._admitted(free)
        if not new:
            return
        self._prefill({r.prompt.ids for r in new} - self._read.keys())
        for prefill in {id(self._read[r.prompt.ids][0]): self._read[r.prompt.ids][0] for r in new}.values():
            self._fill(prefill, [r for r in new if self._read[r.prompt.ids][0] is prefill])
        # A group can be split between two admissions. Then its prefill is kept for the rest, and only this one: others
        # hold the caches of prompts that will not come again.
        following = self._waiting[0].prompt.ids if self._waiting else None
        self._read = {ids: at for ids, at in self._read.items() if ids == following}

    def _admitted(self, free: int) -> list[Response]:
        """The first of those that wait, as far as rows and prompt tokens go."""
        new: list[Response] = []
        prompts: set[tuple[int, ...]] = set()
        while self._waiting and len(new) < free:
            if self._waiting[0].unwanted:
                self._waiting.popleft()
                continue
            ids = self._waiting[0].prompt.ids
            if self._most and new and sum(map(len, prompts | {ids})) > self._most:
                break
            prompts.add(ids)
            new.append(self._waiting.popleft())
        return new

    def _prefill(self, prompts: set[tuple[int, ...]]) -> None:
        # Longest first, so that prompts of one chunk are of similar length and little of it is padding.
        ordered = sorted(prompts, key=lambda ids: (len(ids), ids), reverse=True)
        while ordered:
            count = max(1, MOST_TOKENS // len(ordered[0]))
            chunk, ordered = ordered[:count], ordered[count:]
            prefill = self._decoder.prefill(chunk)
            self._read.update({ids: (prefill, i) for i, ids in enumerate(chunk)})

    def _fill(self, prefill: Prefill, new: Sequence[Response]) -> None:
        """Put responses whose prompts are in one prefill into the next slots."""
        index = torch.tensor([self._read[r.prompt.ids][1] for r in new], device=prefill.state.device)
        self._cache.admit(prefill.cache, index, len(self.rows))
        state = prefill.state[index]
        self.state = state if self.state is None else torch.cat([self.state, state])
        self.rows.extend(new)

    def leave(self) -> list[int]:
        """Take finished rows out and move the last rows into their slots; returns the old row numbers in new order."""
        # Closing gaps by moving whole rows costs one copy for each finished response; a step over rows with gaps would
        # cost attention over dead rows for every token. Order does not matter to a response: its random numbers depend
        # on its own seed and length alone.
        order = [i for i, r in enumerate(self.rows) if r.finish is None]
        if len(order) == len(self.rows):
            return order
        kept = len(order)
        holes = [i for i, r in enumerate(self.rows[:kept]) if r.finish is not None]
        movers = [i for i in order if i >= kept]
        if holes:
            width = max(len(self.rows[i].prompt.ids) + len(self.rows[i].ids) for i in movers)
            device = self._decoder.device
            self._cache.move(torch.tensor(movers, device=device), torch.tensor(holes, device=device), width)
        filled = dict(zip(holes, movers, strict=True))
        order = [filled.get(i, i) for i in range(kept)]
        self.rows = [self.rows[i] for i in order]
        return order

    def forward(self, tokens: Tensor) -> None:
        """Compute the states after the tokens [R] that were drawn last."""
        # The position of the token drawn last: it is in r.ids already, but not yet in the cache.
        lengths = [len(r.prompt.ids) + len(r.ids) - 1 for r in self.rows]
        if not self.rows:
            self.state = None
        elif self._fixed:
            self.state = self._fixed.step(tokens, lengths)
        else:
            self.state = self._decoder.step(tokens, lengths, self._cache)

    def logits(self) -> Tensor:
        """Logits [R, V] in fp32 of the next token of each row."""
        assert self.state is not None, "rows have been read"
        return self._decoder.logits(self.state)


class WholeRows:
    """See `Batch`: all tokens of a row in each forward pass, rows of equal length together, without a cache.

    For models of which rows of different length cannot be kept in one cache.
    """

    def __init__(self, decoder: Decoder, rows: int) -> None:
        self._decoder, self._size = decoder, rows
        self._waiting: deque[Response] = deque()
        self.rows: list[Response] = []
        self.state: Tensor | None = None

    def join(self, responses: Iterable[Response]) -> None:
        """See `Batch.join`."""
        self._waiting.extend(responses)

    @property
    def waiting(self) -> int:
        """See `Batch.waiting`."""
        return len(self._waiting)

    def admit(self) -> None:
        """All free rows at once: a new row costs no more than an old one."""
        wanted = [r for r in self._waiting if not r.unwanted]
        free = self._size - len(self.rows)
        new, self._waiting = wanted[:free], deque(wanted[free:])
        if new:
            state = self._decoder.whole([r.prompt.ids for r in new])
            self.state = state if self.state is None else torch.cat([self.state, state])
            self.rows.extend(new)

    def leave(self) -> list[int]:
        """See `Batch.leave`."""
        order = [i for i, r in enumerate(self.rows) if r.finish is None]
        self.rows = [self.rows[i] for i in order]
        return order

    def forward(self, tokens: Tensor) -> None:
        """See `Batch.forward`; the tokens are in the responses already."""
        whole = [(*r.prompt.ids, *r.ids) for r in self.rows]
        self.state = self._decoder.whole(whole) if whole else None

    def logits(self) -> Tensor:
        """See `Batch.logits`."""
        assert self.state is not None, "rows have been read"
        return self._decoder.logits(self.state)
