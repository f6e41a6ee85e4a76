"""The tokens before a response, and which of them are earlier turns that are trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from plaudit.data.chat.answers import Answers, Count, unwritten
from plaudit.data.chat.ends import Ends
from plaudit.data.chat.template import Template
from plaudit.data.chat.tokens import Tokens
from plaudit.data.reading.transcripts import write_transcript
from plaudit.errors import DataError
from plaudit.records import Content, Message

Turns = tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Before:
    """What stands before a response, as tokens."""

    text: str
    bare: list[int]
    """The tokens of the text alone."""
    ids: list[int]
    """The same behind the beginning-of-text token, where there is one."""
    mask: list[bool]
    starts: dict[int, int]
    """The first token of turns of the assistant, by the number of the turn."""


class History:
    """Reads what stands before responses: texts, and chats up to the opening of the assistant's turn.

    Args:
        tokens: of the model.
        template: of its chats; None where they are written as transcripts.
        ends: of responses.
        count: told of rows in which something is done otherwise than the template or the data say.
    """

    def __init__(self, tokens: Tokens, template: Template | None, ends: Ends, count: Count) -> None:
        self._tokens, self._template, self._ends, self._count = tokens, template, ends, count
        self.answers = Answers(template, count) if template else None
        """What the template writes of the assistant's turns."""
        self.reads_chats = False
        """Whether a chat was read so far."""
        self._kept: tuple[Content, frozenset[int], Before] | None = None

    def before(self, content: Content, wanted: frozenset[int] = frozenset()) -> Before:
        """The tokens before a response.

        Args:
            content: a text, or turns.
            wanted: the numbers of the turns of the assistant that belong to a response or are trained on.

        Raises:
            DataError: the template refuses the chat, or does not write its calls or its tools.
        """
        # Two responses to one prompt, or nine, come one after the other: the last prompt is kept.
        if self._kept is None or self._kept[:2] != (content, wanted):
            read = self._text(content) if isinstance(content, str) else self._turns(content, wanted)
            self._kept = (content, wanted, read)
        return self._kept[2]

    def _text(self, text: str) -> Before:
        bare = self._tokens.ids(text)
        ids, _ = self._opened(bare)
        return Before(text, bare, ids, [False] * len(ids), {})

    def _turns(self, turns: Turns, wanted: frozenset[int]) -> Before:
        self.reads_chats = True
        # The history is tokenized as one text, as in generation. Which tokens belong to a turn is read from the
        # characters that each token covers, because tokenizing turn by turn could give other tokens.
        text = self._write(turns)
        if self._template is not None:
            for words in unwritten(turns, text):
                self._count(words)
        spans = self._spans(text, turns, wanted)
        if not spans:
            return self._text(text)
        bare, places = self._tokens.read(text)
        ids, shift = self._opened(bare)
        mask = [False] * len(ids)
        starts: dict[int, int] = {}
        for index, (start, end) in enumerate(places):
            turn = next((t for t, (a, b) in spans.items() if a <= start < b and start < end), None)
            if turn is not None and index + shift >= 0:
                mask[index + shift] = turns[turn].train is not False
                starts.setdefault(turn, index + shift)
        return Before(text, bare, ids, mask, starts)

    def _write(self, turns: Turns) -> str:
        """Turns up to the opening of the assistant's."""
        if self._template is None:
            return write_transcript(turns, open_end=True)
        try:
            return self._template.write(turns, open_end=True)
        except DataError:
            if turns:
                raise
            return ""  # many templates refuse a chat without turns; nothing stands before an assistant that begins

    def _spans(self, text: str, turns: Turns, wanted: frozenset[int]) -> dict[int, tuple[int, int]]:
        """The places of turns of the assistant in ``text``, each with its end. A turn that stands there otherwise than
        it was written as an answer has none, and is not trained on."""
        spans: dict[int, tuple[int, int]] = {}
        for index in sorted(wanted):
            before = self._write(turns[:index]) if index else ""
            end = self._end_of(text, before, turns[: index + 1]) if text.startswith(before) else len(before)
            if end > len(before):
                spans[index] = (len(before), end)
            elif turns[index].train is not False:
                self._count("earlier turns are not trained on: the template writes them otherwise than as an answer")
        return spans

    def _end_of(self, text: str, before: str, turns: Turns) -> int:
        """Where the last of some turns ends in a text that begins with ``before``."""
        start, words = len(before), turns[-1].content
        if self.answers is None:
            forms: tuple[str, ...] = (with_space(turns[-1].text),)
        elif words and text.startswith(likely := self.answers.likely(words, self._ends.turn_text), start):
            return start + len(likely)
        else:
            answer = self._ends.cut(self.answers.earlier(before, turns))
            forms = (answer, self._ends.words(answer))
        written = next((form for form in forms if form and text.startswith(form, start)), "")
        return start + len(written)

    # Beginnings

    def _opened(self, ids: list[int]) -> tuple[list[int], int]:
        """The tokens with the opening exactly once in front, and by how many places they moved to the right.

        A text without any token gets the beginning-of-text or the end token.
        """
        # Templates often write the beginning-of-text token themselves, and the tokenizer would add a second one. And
        # something must come first, for a model predicts each token from those before it.
        opening, bare = list(self._tokens.opening), ids
        while opening and bare[: len(opening)] == opening:
            bare = bare[len(opening) :]
        if not opening and not bare:
            begin = self._tokens.tokenizer.bos_token_id
            opening = [self._ends.text if begin is None else begin]
        return opening + bare, len(opening) + len(bare) - len(ids)

    def opening_of(self, ids: Sequence[int]) -> int:
        """How many tokens at the start stay when the prompt is cut."""
        if self._tokens.opening and tuple(ids[: len(self._tokens.opening)]) == self._tokens.opening:
            return len(self._tokens.opening)
        return int(bool(ids) and ids[0] == self._tokens.tokenizer.bos_token_id)


def with_space(words: str) -> str:
    """The words of a turn of a transcript, behind one space."""
    return words if words.startswith(" ") else f" {words}"
