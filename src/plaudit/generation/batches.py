"""The responses that are being drawn, and how the model reads their tokens: in slots of a cache, or whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from plaudit.generation.cache import SlotCache
from plaudit.generation.decoder import MOST_TOKENS, Decoder, Prefill
from plaudit.generation.fixed_shapes import FixedShapes, Record
from plaudit.records import FinishReason
from plaudit.runtime import TokenPrompt


@dataclass(slots=True)
class Response:
    """One response while it is drawn."""

    prompt: TokenPrompt
    group: int
    seed: int
    most: int
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish: FinishReason | None = None


class Batch(Protocol):
    """The rows being decoded, and the state from which the next token of each is drawn."""

    rows: list[Response]

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
    """See `Batch`: each row in a slot of a key/value cache, one new token of all rows in each forward pass."""

    def __init__(
        self,
        decoder: Decoder,
        responses: Sequence[Response],
        rows: int,
        capacity: int,
        record: Record | None,
    ) -> None:
        self._decoder = decoder
        # Longest prompts first, so that rows decoded together are of similar length, and memory is at its largest
        # early, where a failure costs least. Sorting by ids too puts equal prompts together, which are prefilled once.
        order = sorted(responses, key=lambda r: (len(r.prompt.ids), r.prompt.ids), reverse=True)
        self._waiting, self._next = order, 0
        self._size = rows
        self._cache = SlotCache(rows, capacity)
        self._fixed = record and FixedShapes(
            decoder.read, self._cache, rows, capacity, decoder.device, record
        )
        self._read: dict[tuple[int, ...], tuple[Prefill, int]] = {}
        self.rows: list[Response] = []
        self.state: Tensor | None = None  # [R, D]

    def admit(self) -> None:
        """Give waiting responses the free rows, if these are a quarter of all; prefill prompts that are new."""
        # Not at every free row: a prefill of one prompt costs as much time as several steps of the whole batch.
        free = self._size - len(self.rows)
        left = len(self._waiting) - self._next
        if not left or (self.rows and 4 * free < self._size):
            return
        new = self._waiting[self._next : self._next + free]
        self._next += len(new)
        self._prefill({r.prompt.ids for r in new} - self._read.keys())
        start = 0
        while start < len(new):
            start += self._fill(new[start:])
        # A group can be split between two admissions. Then its prefill is kept for the rest, and only this one: others
        # hold the caches of prompts that will not come again.
        following = self._waiting[self._next].prompt.ids if self._next < len(self._waiting) else None
        self._read = {ids: at for ids, at in self._read.items() if ids == following}

    def _prefill(self, prompts: set[tuple[int, ...]]) -> None:
        # Longest first, so that prompts of one chunk are of similar length and little of it is padding.
        ordered = sorted(prompts, key=lambda ids: (len(ids), ids), reverse=True)
        while ordered:
            count = max(1, MOST_TOKENS // len(ordered[0]))
            chunk, ordered = ordered[:count], ordered[count:]
            prefill = self._decoder.prefill(chunk)
            self._read.update({ids: (prefill, i) for i, ids in enumerate(chunk)})

    def _fill(self, new: Sequence[Response]) -> int:
        """Put the first responses of ``new`` that share one prefill into the next slots; how many they are."""
        prefill, _ = self._read[new[0].prompt.ids]
        places = [self._read[r.prompt.ids] for r in new]
        source = [i for p, i in places if p is prefill]
        assert all(p is prefill for p, _ in places[: len(source)]), "responses of one prefill are neighbours"
        index = torch.tensor(source, device=prefill.state.device)
        self._cache.admit(prefill.cache, index, len(self.rows))
        state = prefill.state[index]
        self.state = state if self.state is None else torch.cat([self.state, state])
        self.rows.extend(new[: len(source)])
        return len(source)

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

    def __init__(self, decoder: Decoder, responses: Sequence[Response], rows: int) -> None:
        self._decoder, self._size = decoder, rows
        self._waiting = list(responses)[::-1]
        self.rows: list[Response] = []
        self.state: Tensor | None = None

    def admit(self) -> None:
        """All free rows at once: a new row costs no more than an old one."""
        new = [self._waiting.pop() for _ in range(min(self._size - len(self.rows), len(self._waiting)))]
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
