"""What ends a response: tokens, or a text where a template ends a turn with no single token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

from plaudit.data.chat.template import WORD, Template
from plaudit.data.chat.tokens import Tokens
from plaudit.errors import ModelError


class Ends:
    """One set of ends for training, for sampling and for the saved model.

    Args:
        tokens: of the model.
        template: of its chats; None where chats are written as transcripts.
        further: ids at which ``generate`` stops as well, from the model's generation config.

    Raises:
        ModelError: the tokenizer has no end token.
    """

    def __init__(self, tokens: Tokens, template: Template | None, further: Sequence[int]) -> None:
        self._tokens, self._template = tokens, template
        tokenizer = tokens.tokenizer
        plain = tokenizer.eos_token_id
        if plain is None:
            plain = tokenizer.sep_token_id  # encoders such as BERT end a text with a separator
        self._tail = template.tail if template else ""
        of_turn, self.turn_text = self._of_turn()
        self._is_token = of_turn is not None
        of_call = self._of_call(of_turn)
        # Chat models often end a turn with another token than a text (<|im_end|> and <|endoftext|>). Generation stops
        # at each of them; a model that was trained on one of them only would go on after the others.
        found = [end for end in (of_turn, of_call, *further, plain) if end is not None]
        if not found:
            raise ModelError("the tokenizer has no end token", cure="set its eos_token, and save it again")
        self.text: int = found[-1]
        """Ends a plain text."""
        self.turn: int = self.text if of_turn is None else of_turn
        """Ends a turn of a chat."""
        between = [end for end in dict.fromkeys(found) if end not in (self.turn, self.text)]
        self.ids: tuple[int, ...] = tuple(dict.fromkeys((self.turn, *between, self.text)))
        """All of them: the one of a turn first, then others, then the one of plain texts, if it is another."""

    @property
    def stop_texts(self) -> tuple[str, ...]:
        """Texts of several tokens with which the template ends a turn."""
        return (self.turn_text,) if self.turn_text and not self._is_token else ()

    @property
    def notes(self) -> Iterator[str]:
        """What training does otherwise than the template writes, in words."""
        if self._template is None or self._is_token:
            return
        end = str(self._tokens.tokenizer.convert_ids_to_tokens(self.text))
        if self.turn_text:
            yield (
                f"the chat template ends a turn with the text {self.turn_text!r}, which is not one token: sampling "
                f"stops at this text; {end} is trained after it, so that a plain `generate` stops too"
            )
        else:
            yield f"the chat template writes no end after a turn of the assistant: {end} is trained and ends it"

    # What the template writes after a turn

    def _of_turn(self) -> tuple[int | None, str]:
        """The token with which the template ends a turn of the assistant, if it is one; and what it writes to its end.
        """
        words = self._tail.strip()
        known = self._tokens.ids(WORD)
        ids = self._tokens.following(WORD, known, self._tail)[0] if words else []
        markers = [i for i in ids if self._tokens.is_marker(i) and self._name(i) in self._tail]
        # What closes a part of the answer may come before the end of the turn, and the end of the text behind it.
        lasting = self._template.lasting_tail if self._template else ""
        marker = next((i for i in reversed(markers) if self._name(i) in lasting), next(iter(markers), None))
        if marker is not None:
            before, name, _ = self._tail.partition(self._name(marker))
            return marker, before + name
        # One token of the ordinary vocabulary ends a turn as well as a special one, if it is the whole text.
        ids = self._tokens.following(WORD, known, words)[0]
        single = len(ids) == 1 and self._tokens.text_behind(known, ids).strip() == words
        return (ids[0] if words and single else None), self._tail.rstrip()

    def _of_call(self, of_turn: int | None) -> int | None:
        """The token with which the template ends a turn that makes a call."""
        after = self._template.written_call.rpartition("plaudit_")[2] if self._template else ""
        ids = [i for i in self._tokens.ids(after) if self._tokens.is_special(i)] if after else []
        return of_turn if of_turn in ids else (ids[-1] if ids else None)

    @cached_property
    def of_user(self) -> int | None:
        """The token with which the template ends a turn of the user, and maybe those of the assistant in a history."""
        after = self._tokens.ids(self._template.after_user) if self._template else []
        return after[0] if after and self._tokens.is_marker(after[0]) else None

    def _name(self, token: int) -> str:
        return str(self._tokens.tokenizer.convert_ids_to_tokens(token))

    # Texts that end

    def cut(self, text: str) -> str:
        """A finished turn as the template writes it, without what comes after its end."""
        if text.endswith(self._tail):
            return text[: len(text) - len(self._tail)] + self.turn_text
        end, rest = len(text), text.rstrip()
        while name := next((n for n in self._names if rest.endswith(n)), ""):
            end = len(rest)
            rest = rest.removesuffix(name).rstrip()
        return text[:end]

    def bare(self, words: str) -> str:
        """Words without ends after them."""
        while name := next((n for n in self._names if words.rstrip().endswith(n)), ""):
            words = words.rstrip().removesuffix(name)
        return words

    def words(self, text: str) -> str:
        """A turn that `cut` has cut, without its end."""
        if self.turn_text and text.endswith(self.turn_text):
            return text.removesuffix(self.turn_text)
        name = next((n for n in self._names if text.endswith(n)), "")
        return text.removesuffix(name)

    @cached_property
    def _names(self) -> tuple[str, ...]:
        """The texts of all ends, longer ones first."""
        names = {self._name(i) for i in self.ids if self._tokens.is_marker(i)} | {self.turn_text.strip()}
        return tuple(sorted(names - {""}, key=lambda name: (-len(name), name)))

    # Tokens that end

    def closed(self, ids: list[int], *, chat: bool) -> list[int]:
        """Tokens of a response with one end token after them: of a chat the last that they end with, if they do."""
        end = self.turn if chat else self.text
        if chat and ids and ids[-1] in self.ids:
            end = ids[-1]
        return [*self.open(ids, chat=chat), end]

    def open(self, ids: list[int], *, chat: bool) -> list[int]:
        """Tokens of a response without end tokens after them."""
        ends, count = (self.ids if chat else (self.text,)), len(ids)
        while count and ids[count - 1] in ends:
            count -= 1
        return ids[:count]

    def are_in(self, ids: Sequence[int]) -> bool:
        """Whether any of the tokens would end a response."""
        return not self._set.isdisjoint(ids)

    @cached_property
    def _set(self) -> frozenset[int]:
        return frozenset(self.ids)
