"""A conversation with a model, or with two, whose answers come piece by piece; and what people say of these answers."""

from __future__ import annotations

import queue
import random
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from plaudit import backends
from plaudit.config.sections import SamplingSection
from plaudit.data.chat import ChatFormat
from plaudit.data.served import Said, verdict_of
from plaudit.errors import ConfigError, DataError
from plaudit.live import Engine, Piece, Request
from plaudit.records import Content, Message

LETTERS = "ab"


@dataclass
class Talker:
    """A model in a conversation."""

    name: str
    engine: Engine
    chat: ChatFormat
    history: tuple[Message, ...] = ()

    @classmethod
    def of(cls, source: str) -> Talker:
        """A run, a model directory, a GGUF file or a hub name.

        Raises:
            ModelError: nothing there that can be loaded.
        """
        return cls(source, *backends.open_engine(source, rows=1))

    def prompt(self, line: str) -> Content:
        """What is answered: the conversation so far; or the line alone, by a model that was not made for chats."""
        return (*self.history, Message("user", line)) if self.chat.uses_template else line

    def answer(self, prompt: Content, sampling: SamplingSection, seed: int, turn: int) -> Iterator[str]:
        """The answer in pieces. The same seed, turn and prompt give the same one.

        Raises:
            ConfigError: the conversation has become too long.
            ModelError: the model failed.
        """
        ids = tuple(self.chat.prompt_ids(prompt))
        room = self.engine.context - len(ids)
        if room < 1:
            what = f"the conversation has {len(ids)} tokens, and {self.name} can read {self.engine.context}"
            raise ConfigError(what, where="the conversation", cure="/new starts over")
        most = min(sampling.max_new_tokens, room)
        fitting = sampling.model_copy(update={"max_new_tokens": most})
        pieces: queue.SimpleQueue[Piece] = queue.SimpleQueue()
        ticket = self.engine.submit(Request(ids, fitting, seed, turn), pieces.put)
        try:
            finish = None
            while finish is None:
                piece = pieces.get()
                if piece.error is not None:
                    raise piece.error
                finish = piece.finish
                yield piece.text
        finally:
            ticket.cancel()


@dataclass(frozen=True, slots=True)
class Answer:
    """What one model said."""

    talker: Talker
    prompt: Content
    text: str


@dataclass
class Conversation:
    """The state of a chat: who talks, what was said last, and in which order it is shown.

    Args:
        talkers: one or two.
        sampling: how answers are drawn.
        seed: of answers, and of the order where models are shown blind.
        blind: two models are shown as A and B, in an order of its own at each turn.
        system: a message at the start.
    """

    talkers: Sequence[Talker]
    sampling: SamplingSection
    seed: int = 0
    blind: bool = False
    system: str = ""
    turn: int = 0
    last: list[Answer] = field(default_factory=list)
    """In the order in which they were shown."""
    names: tuple[str, ...] = ()
    """Of the last answers: the same name for the same answers, so that the last word on them counts."""

    def __post_init__(self) -> None:
        self.start_over()

    def start_over(self) -> None:
        """Forget what was said, all but the system message."""
        opening = (Message("system", self.system),) if self.system else ()
        for talker in self.talkers:
            talker.history = opening
        self.last = []

    def order(self) -> list[Talker]:
        """Who answers first at this turn."""
        talkers = list(self.talkers)
        if self.blind:
            random.Random(f"{self.seed}/{self.turn}").shuffle(talkers)
        return talkers

    def noted(self, line: str, texts: Sequence[tuple[Talker, Content, str]]) -> None:
        """All have answered a line; each goes on with its own answer."""
        self.last = [Answer(*one) for one in texts]
        self.names = tuple(f"chat-{uuid.uuid4().hex}" for _ in self.last)
        for talker, _, text in texts:
            talker.history = (*talker.history, Message("user", line), Message("assistant", text))
        self.turn += 1

    def judged(self, form: str, value: str | float, which: str = "") -> Said:
        """A thumb, a rating or an edit of an answer.

        Raises:
            DataError: nothing was said yet, it is not clear which answer is meant, or the value is none.
        """
        at = self._which(which)
        try:
            verdict, meant = verdict_of({form: value})
        except ValueError as error:
            raise DataError(str(error), where=f"/{form}", cure="/help shows what can be typed") from error
        answer = self.last[at]
        about = self._provenance(answer)
        return Said(answer.prompt, (answer.text,), verdict, meant, self.names[at], 0, "", (answer.talker.name,), about)

    def chosen(self, which: str) -> Said:
        """The better of two answers ("a" or "b"), or a tie (""); both models go on from it.

        Raises:
            DataError: there are no two answers to one conversation.
        """
        if len(self.last) < 2:
            raise DataError("there are no two answers to choose from", where=f"/{which or 'tie'}", cure="ask something")
        a, b = self.last
        if a.prompt != b.prompt:
            what = "the two models have answered different conversations"
            raise DataError(what, where=f"/{which or 'tie'}", cure="/new starts a common one; choose after each answer")
        index = LETTERS.index(which) if which else None
        better = self.last[index or 0]
        for answer in self.last:
            answer.talker.history = (*answer.talker.history[:-1], Message("assistant", better.text))
        models = (a.talker.name, b.talker.name)
        about = self._provenance(a) | {"blind": self.blind}
        return Said(a.prompt, (a.text, b.text), "chosen", index, self.names[0], 0, "", models, about)

    def _which(self, which: str) -> int:
        if not self.last:
            raise DataError("nothing was answered yet", where="the conversation", cure="ask something first")
        if len(self.last) > 1 and which not in LETTERS[: len(self.last)] or which == "" and len(self.last) > 1:
            raise DataError("there are two answers", where="the conversation", cure="say which: a or b")
        return LETTERS.index(which) if which and len(self.last) > 1 else 0

    def _provenance(self, answer: Answer) -> dict[str, object]:
        return {"sampling": self.sampling.model_dump(mode="json"), "seed": self.seed, "draw": self.turn - 1}
