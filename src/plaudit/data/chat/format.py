"""Rows of tokens from prompts and responses, for training as generation would have made them."""

# In generation the response is sampled token by token behind the prompt's tokens. So a row of training is the tokens of
# the prompt as generation has them, and then those that the policy would have to draw for the template's own text: no
# token covers the boundary, there is one beginning-of-text token at most, and one end after the response.

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from plaudit.data.chat.ends import Ends
from plaudit.data.chat.history import Before, History, Turns, with_space
from plaudit.data.chat.template import WORD, Template
from plaudit.data.chat.tokens import Tokenizer, Tokens
from plaudit.data.reading.transcripts import as_messages, plain_text, write_transcript
from plaudit.errors import DataError
from plaudit.records import Content, Message

_BEGINNING = "responses begin with the beginning-of-text token: it is left out"


@dataclass(frozen=True, slots=True)
class Encoded:
    """One row: prompt tokens, then response tokens."""

    ids: list[int]
    mask: list[bool]
    """True on tokens that are trained on: the response with its end token, and earlier turns if asked for."""
    prompt_length: int
    """Tokens before the response."""
    opening: int = 0
    """Tokens at the very start (the beginning-of-text token) that stay when the prompt is cut."""

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class ChatFormat:
    """How contents become token ids for one tokenizer.

    A text prompt is continued as it stands. A chat goes through the tokenizer's chat template; without a
    template, or with ``template="never"``, it is written as a `Human:/Assistant:` transcript, where one
    space comes before the response.
    """

    tokenizer: Tokenizer
    template: Literal["auto", "never"] = "auto"
    further_ends: tuple[int, ...] = ()
    """Ids at which the model's ``generate`` stops, besides the tokenizer's own."""

    # Properties of the tokenizer

    @property
    def uses_template(self) -> bool:
        """Whether chats go through the tokenizer's chat template."""
        return self.template == "auto" and bool(self.tokenizer.chat_template)

    @property
    def name(self) -> str:
        """How chats are written, for the log."""
        return "the tokenizer's chat template" if self.uses_template else "Human:/Assistant: transcripts"

    @property
    def opening(self) -> tuple[int, ...]:
        """Tokens that the tokenizer puts before every text: the beginning-of-text token, or none."""
        return self._tokens.opening

    @property
    def end_ids(self) -> tuple[int, ...]:
        """Tokens that end a response: the one of chats first; the one of plain texts last, if it is another.

        Raises:
            ModelError: the tokenizer has no end token.
        """
        return self._ends.ids

    @property
    def stop_texts(self) -> tuple[str, ...]:
        """Texts that end a response, where the template ends turns with no single token."""
        return self._ends.stop_texts

    @property
    def ends(self) -> tuple[int | str, ...]:
        """All that ends a response, ids and texts."""
        return (*self.end_ids, *self.stop_texts)

    @property
    def notes(self) -> tuple[str, ...]:
        """What became of the chats so far otherwise than their data or the template say, in sentences."""
        reads_chats = "_history" in self.__dict__ and self._history.reads_chats
        counted = tuple(f"{times} {words}" for words, times in self._counts.items())
        return (*(self._ends.notes if reads_chats else ()), *counted)

    def counted(self) -> Mapping[str, int]:
        """What was counted so far, for `count_from`."""
        return dict(self._counts)

    def count_from(self, counts: Mapping[str, int]) -> None:
        """Go back to earlier counts, where the same rows are encoded once more."""
        self._counts.clear()
        self._counts.update(counts)

    @cached_property
    def _tokens(self) -> Tokens:
        return Tokens(self.tokenizer)

    @cached_property
    def _template(self) -> Template | None:
        return Template(self.tokenizer) if self.uses_template else None

    @cached_property
    def _ends(self) -> Ends:
        return Ends(self._tokens, self._template, self.further_ends)

    @cached_property
    def _history(self) -> History:
        return History(self._tokens, self._template, self._ends, self._count)

    @cached_property
    def _counts(self) -> Counter[str]:
        return Counter()

    def _count(self, words: str) -> None:
        self._counts[words] += 1

    # Encoding

    def prompt_ids(self, content: Content) -> list[int]:
        """The tokens a response continues; never empty.

        A chat ends with the opening of the assistant's turn.

        Raises:
            DataError: the template refuses the chat, or does not write its calls or its tools.
        """
        return list(self._history.before(content).ids)

    def encode_prompt(self, content: Content) -> Encoded:
        """A prompt alone, ready to be fitted to a length."""
        ids = self.prompt_ids(content)
        return Encoded(ids, [False] * len(ids), len(ids), self._history.opening_of(ids))

    def encode(
        self, prompt: Content, response: Content, *, all_turns: bool = False, finished: bool = True
    ) -> Encoded:
        """A prompt and its response, with one end token after it.

        Args:
            prompt: text or chat.
            response: text, or turns that end with the assistant's; all assistant turns among them are masked
                True, unless they say that they are context only.
            all_turns: also mask True the assistant turns of the prompt, each with its end token. (A
                transcript without a template has none inside.)
            finished: False leaves the end out, for a response that was cut off.

        Raises:
            DataError: the chat does not end with the assistant's turn, or the template refuses it or does not write
                all of it.
        """
        if isinstance(response, str) and (isinstance(prompt, str) or not prompt):
            return self._text_row(prompt if isinstance(prompt, str) else "", response, finished)
        turns = as_messages(prompt, "user") if prompt else ()
        every = (*turns, *as_messages(response, "assistant"))
        last = every[-1]
        if last.role != "assistant":
            raise DataError(
                f"the response ends with a turn of {last.role}", cure="end it with the assistant's turn"
            )
        first = 0 if all_turns else len(turns)
        wanted = (i for i, turn in enumerate(every[:-1]) if turn.role == "assistant" and (i >= first or turn.train))
        before = self._history.before(every[:-1], frozenset(wanted))
        text = self._finished(before.text, (*every[:-1], self._bare(last)))
        ids, whole = self._tokens.following(before.text, before.bare, text if finished else self._ends.words(text))
        if not whole:
            self._count("responses that would share a token with their prompt: the text is cut between the two")
        # A response of several turns begins with its first assistant turn, which stands among the earlier turns.
        starts = (at for turn, at in before.starts.items() if turn >= len(turns))
        row = self._row(before, ids, min(starts, default=len(before.ids)), chat=True, finished=finished)
        if last.train is False:
            row.mask[len(before.ids) :] = [False] * (len(row) - len(before.ids))
        return row

    def _text_row(self, prompt: str, response: str, finished: bool) -> Encoded:
        before = self._history.before(prompt)
        ids, _ = self._tokens.following(before.text, before.bare, response)
        bare = self._tokens.without_opening(ids)
        if prompt and len(bare) < len(ids):
            self._count(_BEGINNING)
        return self._row(before, bare, len(before.ids), chat=False, finished=finished)

    def _row(self, before: Before, ids: list[int], length: int, *, chat: bool, finished: bool) -> Encoded:
        """A prompt and its response, with an end token after it if it is finished."""
        response = self._ends.closed(ids, chat=chat) if finished else self._ends.open(ids, chat=chat)
        if self._ends.are_in(response[: -1 if finished else None]):
            self._count("responses with an end token before their end, where sampling would stop")
        mask = before.mask + [True] * len(response)
        return Encoded(before.ids + response, mask, length, self._history.opening_of(before.ids))

    def _bare(self, last: Message) -> Message:
        """A turn without the beginning-of-text token before its words, and without end tokens after them."""
        begin = self.tokenizer.bos_token_id
        name = "" if begin is None else str(self.tokenizer.convert_ids_to_tokens(begin))
        words = last.content
        # Some tokenizers call the token that begins each turn the beginning of a text.
        if name and words.startswith(name) and not (self._template and self._template.opened.count(name) > 1):
            self._count(_BEGINNING)
            words = words.removeprefix(name)
        # Data sets that hold end tokens as text ("</s>") would otherwise give two of them.
        bare = self._ends.bare(words)
        if bare != words and self._template:
            self._count("responses end with an end token of their own, which is left out: the chat template writes one")
        return replace(last, content=bare) if bare != last.content else last

    def _finished(self, opened: str, turns: Turns) -> str:
        """The text of the last turn up to its end, from behind its opening on."""
        if self._history.answers is None:
            return with_space(turns[-1].text)
        return self._ends.cut(self._history.answers.finished(opened, turns))

    def continuation(self, reply: Content, after: int | Sequence[int], *, chat: bool) -> list[int]:
        """The tokens that follow a response when somebody answers it, up to where the next response begins.

        Only the reply is tokenised. The response before it stays as the tokens that were sampled: encoded anew, its
        text could give other tokens, which the policy never drew and which have no log-probs.

        Args:
            reply: a text, in a chat a turn of the user; or the turns, each with its role.
            after: the last tokens of the response. If they end it, the end of turn that the template writes stands in
                the row already.
            chat: the prompt is a chat; a text is just continued.

        Raises:
            DataError: turns that answer a text, or a template that refuses or rewrites them.
        """
        tokens = [after] if isinstance(after, int) else list(after)
        if not chat:
            if not isinstance(reply, str):
                raise DataError(
                    "a text prompt was answered with turns of a chat", cure="answer it with a text"
                )
            return self._tokens.apart(reply)
        turns = as_messages(reply, "user")
        if self._template is None:
            return self._tokens.apart(write_transcript(turns, open_end=True))
        # What the template writes between a response and the next one is found on a chat with a known response. It is
        # the same after any response, unless the template rewrites earlier turns, which is refused here.
        known = (Message("user", "a"), Message("assistant", WORD))
        before = self._template.write(known, open_end=False).rpartition(WORD)[0] + WORD
        whole = self._template.write((*known, *turns), open_end=True)
        if not whole.startswith(before):
            raise DataError(
                "the tokenizer's chat template writes an earlier response otherwise once it is answered",
                cure="set chat_template to never",
            )
        text = whole.removeprefix(before)
        stop = next((t for t in self.stop_texts if self._text_ends_with(tokens, t)), "")
        if stop and text.startswith(stop):
            return self._tokens.following(before + stop, self._tokens.ids(before + stop), text.removeprefix(stop))[0]
        ids = self._tokens.following(before, self._tokens.ids(before), text)[0]
        ended = bool(tokens) and tokens[-1] in self.end_ids
        return ids[1:] if ended and ids[:1] in ([self._ends.turn], [self._ends.of_user]) else ids

    def _text_ends_with(self, tokens: Sequence[int], text: str) -> bool:
        return self.decode(tokens[-(len(text.encode()) + 8) :]).endswith(text)

    def decode(self, ids: Sequence[int], before: Sequence[int] = (), *, special: bool = True) -> str:
        """Tokens as text, as they stand behind others; ``special`` shows special tokens by their names."""
        return self._tokens.text_behind(before, ids, special=special)

    def text(self, content: Content) -> str:
        """A content as people read it."""
        return plain_text(content)
