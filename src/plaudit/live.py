"""Requests for responses that come one by one, and are answered token by token while others are: what serves them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from plaudit.config.sections import SamplingSection
from plaudit.errors import PlauditError
from plaudit.records import FinishReason


@dataclass(frozen=True, slots=True)
class Request:
    """One response that somebody waits for."""

    ids: tuple[int, ...]
    """The tokens of the prompt."""
    sampling: SamplingSection
    seed: int
    """The same seed, prompt and sampling give the same response, whoever else is answered at the time."""
    draw: int = 0
    """Which of several responses to one prompt it is."""
    greedy: bool = False
    """The likeliest token at each place; log-probs are those of temperature 1."""
    alternatives: int = 0
    """How many of the likeliest tokens are told at each place."""
    seconds: float = 0.0
    """How long it may take, the time in the queue included; 0: no limit."""


@dataclass(frozen=True, slots=True)
class Piece:
    """What one more token adds to a response."""

    token: int
    logprob: float
    """Natural, under softmax(logits / temperature) over the whole vocabulary."""
    text: str = ""
    """What can be shown now: whole characters, and nothing that may turn out to begin a stop text."""
    alternatives: tuple[tuple[int, float], ...] = ()
    finish: FinishReason | None = None
    is_end: bool = False
    """The token ends the response, and is no part of its text."""
    error: PlauditError | None = None
    """Why there is no more, where ``finish`` is abort. Then there is no token (-1)."""


Listener = Callable[[Piece], None]
"""Told of each token, in the thread of the engine: it must not wait."""


class Busy(PlauditError):
    """So many requests wait already that another one is not taken."""

    code, exit_code = "BUSY", 74


class TimedOut(PlauditError):
    """A response took longer than it may."""

    code, exit_code = "TIMEOUT", 74


@dataclass(frozen=True, slots=True)
class Load:
    """What an engine does at the moment, and has done."""

    running: int
    waiting: int
    rows: int
    """Most that are drawn side by side."""
    prompt_tokens: int
    response_tokens: int


class Ticket(Protocol):
    """A request that was taken."""

    def cancel(self) -> None:
        """Nobody waits for it any more. Its listener is not called again, but perhaps once."""
        ...


class Engine(Protocol):
    """Answers requests while others are being answered."""

    @property
    def context(self) -> int:
        """Most tokens of a prompt and its response together."""
        ...

    @property
    def vocabulary(self) -> int:
        """Ids that prompts may have are below it."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What people should know of how the model is sampled."""
        ...

    def submit(self, request: Request, listener: Listener) -> Ticket:
        """Take a request; the listener is told of each token of the response.

        Raises:
            Busy: the queue is full, or the engine is being closed.
            ConfigError: prompt and response would be longer than the context.
        """
        ...

    def load(self) -> Load:
        """How much there is to do."""
        ...

    def token_text(self, token: int) -> str:
        """A token as people see it, alone."""
        ...

    def close(self, seconds: float = 0.0) -> None:
        """Take no more requests, finish those that were taken within ``seconds``, abort the others, and end."""
        ...
