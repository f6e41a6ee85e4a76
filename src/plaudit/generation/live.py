"""Continuous batching: requests join the rows that are being decoded, and leave them, one by one."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from plaudit.data.chat import Tokens
from plaudit.errors import ConfigError, DataError, MachineError, ModelError, PlauditError
from plaudit.generation.batches import Batch, Response, Rules, Slots, WholeRows
from plaudit.generation.decoder import Decoder
from plaudit.generation.sampling import Distribution, sample_seed
from plaudit.generation.steps import draw_one
from plaudit.generation.texts import GrowingText, ResponseTexts
from plaudit.live import Busy, Listener, Load, Piece, Request, TimedOut
from plaudit.models.files.vocabulary import Words
from plaudit.records import Prompt
from plaudit.runtime import TokenPrompt

CONTEXT = 4096
"""Tokens of a row where nobody says how many: memory grows with the longest row, times the number of rows."""
FIRST_COLUMNS = 256
"""Columns that the cache begins with; it grows with the longest row."""
PROMPT_TOKENS = 1024
"""Prompt tokens that are read between two steps: those that are being answered wait as long for their next token."""
FASTER = "ask for fewer tokens, or raise --timeout"
LONG = 1 << 30
"""Tokens that are drawn in the life of an engine: it always pays to lay the weights out anew."""


@dataclass(slots=True, eq=False)
class _Guest:
    """A request while it is answered. Its own ticket."""

    response: Response
    listener: Listener
    text: GrowingText
    until: float
    """The moment of `time.monotonic` at which it is aborted."""

    def cancel(self) -> None:
        """See `Ticket.cancel`."""
        self.response.unwanted = True


class LiveGenerator:
    """See `Engine`: the decoding loop of `NativeGenerator`, in a thread of its own, for requests that come one by one.

    A response depends on its request alone and not on its neighbours, but for rounding. What one row does wrong ends
    that row only.

    Args:
        lm: causal LM, or a peft model around one.
        tokenizer: decodes ids; finds stop texts.
        ends: tokens and texts that end a response.
        rows: most responses that are drawn side by side.
        context: most tokens of a prompt and its response; 0: what the model can read, `CONTEXT` at most.
        queue: most requests that wait for a row.

    Raises:
        ModelError: the model cannot be sampled from.
        ConfigError: the model cannot read so much.
    """

    def __init__(
        self,
        lm: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        ends: Sequence[int | str],
        *,
        rows: int = 32,
        context: int = 0,
        queue: int = 256,
    ) -> None:
        self._decoder = Decoder(lm, torch.float32, Words.known_to(tokenizer))
        self._tokens = Tokens(tokenizer)
        self._end_ids = tuple(end for end in ends if isinstance(end, int))
        self._stop_texts = tuple(end for end in ends if isinstance(end, str))
        self._rows, self._queue = rows, queue
        most = self._decoder.longest
        if context > most:
            what = f"a context of {context} tokens, and {type(lm).__name__} can read {most}"
            raise ConfigError(what, where="--context", cure=f"give {most} or less, or leave it out")
        self.context = context or min(most, CONTEXT)
        self._changed = threading.Condition()
        self._new: list[_Guest] = []
        self._guests: dict[Response, _Guest] = {}
        self._closing, self._last = False, 0.0
        self._drawn = self._read = 0
        self._numbers = itertools.count()
        with self._decoder.ready():  # says now what would go wrong at the first request
            pass
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()

    @property
    def vocabulary(self) -> int:
        """See `Engine.vocabulary`."""
        return self._decoder.vocabulary

    @property
    def notes(self) -> tuple[str, ...]:
        """What people should know of how the model is sampled."""
        return (self._decoder.note,) if self._decoder.note else ()

    def submit(self, request: Request, listener: Listener) -> _Guest:
        """See `Engine.submit`.

        Raises:
            Busy, ConfigError: see there.
            DataError: a prompt without tokens.
        """
        most = request.sampling.max_new_tokens
        if not request.ids:
            raise DataError("the prompt has no tokens", where="prompt", cure="give it some text")
        if len(request.ids) + most > self.context:
            both = f"the prompt has {len(request.ids)} tokens and max_tokens is {most}"
            what = f"{both}, together more than {self.context}"
            raise ConfigError(what, where="max_tokens", cure="shorten the prompt or lower max_tokens")
        texts = ResponseTexts(self._tokens, (*self._stop_texts, *request.sampling.stop), request.sampling.text)
        shape = Distribution(top_k=1) if request.greedy else Distribution.of(request.sampling)
        least = request.sampling.min_new_tokens
        rules = Rules(shape, texts, self._end_ids, least, request.alternatives)
        # Seeded as the response of `NativeGenerator` to a prompt of this name.
        seed = sample_seed(request.seed, 0, "prompt", request.draw)
        prompt = TokenPrompt(Prompt("prompt", ""), request.ids)
        response = Response(prompt, next(self._numbers), seed, most, rules)
        until = time.monotonic() + request.seconds if request.seconds else float("inf")
        guest = _Guest(response, listener, GrowingText(texts, request.ids), until)
        with self._changed:
            if self._closing:
                raise _closing()
            if self.load().waiting >= self._queue:
                raise Busy(f"{self._queue} requests wait already", cure="ask again later, or raise --queue")
            self._new.append(guest)
            self._guests[response] = guest
            self._changed.notify()
        return guest

    def load(self) -> Load:
        """See `Engine.load`."""
        with self._changed:
            guests = list(self._guests.values())
        running = sum(1 for guest in guests if guest.response.ids)
        waiting = sum(1 for guest in guests if not guest.response.ids and not guest.response.unwanted)
        return Load(running, waiting, self._rows, self._read, self._drawn)

    def token_text(self, token: int) -> str:
        """See `Engine.token_text`."""
        return self._tokens.text_behind((), (token,))

    def close(self, seconds: float = 0.0) -> None:
        """See `Engine.close`."""
        with self._changed:
            self._closing, self._last = True, time.monotonic() + seconds
            self._changed.notify()
        self._thread.join()

    # In the thread

    def _work(self) -> None:
        with self._decoder.ready(self._rows, LONG):
            batch = self._batch()
            while self._has_work():
                batch.join(self._arrived())
                try:
                    batch.admit()
                    self._drawn_one(batch, list(batch.rows))
                except Exception as error:  # of the model or the machine: whoever waits is told, and the engine goes on
                    self._fail_all(error)
                    batch = self._batch()

    def _drawn_one(self, batch: Batch, rows: Sequence[Response]) -> None:
        """One token more of each row, told to whoever waits for it."""
        if rows:
            draw_one(batch)
        for row in rows:
            self._tell(self._guests[row])
        self._dismiss()

    def _batch(self) -> Batch:
        if self._decoder.in_slots(self.context):
            columns = min(FIRST_COLUMNS, self.context)
            return Slots(self._decoder, self._rows, columns, prompt_tokens=PROMPT_TOKENS)
        return WholeRows(self._decoder, self._rows)

    def _has_work(self) -> bool:
        """Wait for something to do; False when the engine is closed and nothing is left."""
        with self._changed:
            while not self._guests and not self._closing:
                self._changed.wait()
            return bool(self._guests)

    def _arrived(self) -> list[Response]:
        with self._changed:
            new, self._new = self._new, []
        return [guest.response for guest in new]

    def _tell(self, guest: _Guest) -> None:
        """The listener about the token that was drawn last."""
        row = guest.response
        self._drawn += 1
        self._read += len(row.prompt.ids) if len(row.ids) == 1 else 0
        if row.finish is not None:
            self._leave(row)
        if row.unwanted:
            return
        if row.error is not None:
            self._said(guest, Piece(-1, 0.0, finish="abort", error=row.error))
            return
        is_end = row.finish == "stop" and row.ids[-1] in row.rules.end_ids
        ids = row.ids[:-1] if is_end else row.ids
        if row.finish is None:
            text = guest.text.grown(ids)
        else:
            stopped = row.finish == "stop" and not is_end
            text = guest.text.ended(row.rules.texts.of(row.prompt.ids, ids, stopped=stopped))
        best = row.alternatives[-1] if row.alternatives else ()
        self._said(guest, Piece(row.ids[-1], row.logprobs[-1], text, best, row.finish, is_end))

    def _dismiss(self) -> None:
        """Abort those who have waited too long; forget those who have left before their first token."""
        now = time.monotonic()
        closing = self._closing and now > self._last
        for guest in list(self._guests.values()):
            row = guest.response
            if not row.unwanted and (closing or now > guest.until):
                row.unwanted = True
                error = _closing() if closing else TimedOut("the response took too long", cure=FASTER)
                self._said(guest, Piece(-1, 0.0, finish="abort", error=error))
            if row.unwanted and not row.ids:
                self._leave(row)

    def _fail_all(self, error: Exception) -> None:
        words = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        failure = error if isinstance(error, PlauditError) else ModelError(words, cure="see the server's log")
        if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
            cure = "lower --rows or --context, or give it more memory"
            failure = MachineError(f"out of memory ({words})", cure=cure)
        with self._changed:
            guests, self._new = list(self._guests.values()), []
            self._guests.clear()
        for guest in guests:
            self._said(guest, Piece(-1, 0.0, finish="abort", error=failure))

    def _leave(self, row: Response) -> None:
        with self._changed:
            del self._guests[row]

    def _said(self, guest: _Guest, piece: Piece) -> None:
        # Whoever listens may be gone, its loop closed: that is not to end the others.
        with contextlib.suppress(RuntimeError):
            guest.listener(piece)


def _closing() -> Busy:
    return Busy("the server is being stopped", cure="ask again when it is up")
