"""What a tokenizer makes of a text that goes on from another one, and of tokens that were sampled behind others."""

# Tokenizers in the manner of SentencePiece write a mark in front of a text, for the space before its first word, and
# take one space from the front of what they decode. A response is no text of its own: encoded apart from its prompt it
# would begin with a mark that no policy draws there, and decoded apart from it it would lose its first space.

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Protocol

_BEFORE = ("\n", "a", ".", "0")
"""Texts to put before another one, so that it is encoded as the middle of a text: the first that stays apart."""


class Tokenizer(Protocol):
    """The part of a Hugging Face fast tokenizer that is used here."""

    chat_template: Any
    name_or_path: str
    eos_token_id: int | None
    bos_token_id: int | None
    sep_token_id: int | None

    @property
    def all_special_ids(self) -> Any:
        """The ids of the special tokens."""

    @property
    def added_tokens_decoder(self) -> Any:
        """The tokens that were added to the vocabulary, by id; each has ``special``."""

    def __call__(self, text: str, **options: Any) -> Any:
        """Token ids under "input_ids", "offset_mapping" where asked for, and ``token_to_chars``."""

    def apply_chat_template(self, conversation: Any, **options: Any) -> Any:
        """A conversation as text."""

    def convert_ids_to_tokens(self, ids: int) -> Any:
        """The token with an id."""

    def decode(self, token_ids: Any, **options: Any) -> Any:
        """The text of tokens."""


class Tokens:
    """Texts to tokens and back, in their context.

    Args:
        tokenizer: a Hugging Face fast tokenizer.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer

    # Texts to tokens

    def ids(self, text: str) -> list[int]:
        """The tokens of a text, without a beginning or an end that the tokenizer would add."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []

    def read(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """The tokens of a text, and the characters that each of them covers."""
        read = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        return list(read["input_ids"]), list(read["offset_mapping"])

    def following(self, before: str, before_ids: Sequence[int], text: str) -> tuple[list[int], bool]:
        """The tokens of a text that goes on from another, and whether both together give the same ones.

        The tokens before stay as they are, since in generation the text is drawn behind them. Where both texts as one
        would give other tokens there, because a token would cover the place between them, the text is encoded apart.

        Args:
            before: the earlier text.
            before_ids: its tokens.
            text: what follows.
        """
        if not text or not before_ids:
            return self.ids(text), True
        after = self._behind(*self._last_section(before, list(before_ids)), text)
        return (self.apart(text), False) if after is None else (after, True)

    def _last_section(self, text: str, ids: list[int]) -> tuple[str, list[int]]:
        """The end of a text from its last special or added token on, with its tokens; the whole text without one."""
        # A text is cut at these tokens before anything else, and what stands between them is encoded by itself: so a
        # long prompt is not read again for each response. Where a mark depends on the place, it is read as a whole.
        if self.marks_beginnings:
            return text, ids
        at = next((i for i in reversed(range(len(ids))) if self.is_marker(ids[i])), None)
        start = -1 if at is None else text.rfind(str(self.tokenizer.convert_ids_to_tokens(ids[at])))
        return (text, ids) if at is None or start < 0 else (text[start:], ids[at:])

    def _behind(self, before: str, before_ids: list[int], text: str) -> list[int] | None:
        """The tokens of ``text`` in ``before + text``; None where they are not those of ``before`` and then others."""
        read = self.tokenizer(before + text, add_special_tokens=False)
        ids, count = list(read["input_ids"]), len(before_ids)
        if ids[:count] != before_ids:
            return None
        over = count > 0 and read.token_to_chars(count - 1).end > len(before)
        under = count < len(ids) and read.token_to_chars(count).start < len(before)
        return None if over or under else ids[count:]

    def apart(self, text: str) -> list[int]:
        """The tokens of a text as of the middle of a longer one."""
        if self.marks_beginnings:
            for before in _BEFORE:
                after = self._behind(before, self.ids(before), text)
                if after is not None:
                    return after
        return self.ids(text)

    @cached_property
    def opening(self) -> tuple[int, ...]:
        """Tokens that the tokenizer puts before every text: the beginning-of-text token, or none."""
        # Found by encoding a letter with and without special tokens: not every tokenizer that has a bos_token uses it.
        bare = self.ids("a")
        complete = list(self.tokenizer("a")["input_ids"])
        at = next((i for i in range(len(complete)) if bare and complete[i : i + len(bare)] == bare), 0)
        return tuple(complete[:at])

    @cached_property
    def marks_beginnings(self) -> bool:
        """Whether a word has other tokens at the beginning of a text than behind a line break."""
        behind = (self._behind(before, self.ids(before), "b") for before in _BEFORE)
        apart = next((after for after in behind if after is not None), None)
        return apart is not None and apart != self.ids("b")

    def without_opening(self, ids: list[int]) -> list[int]:
        """Tokens without beginning-of-text tokens at their start."""
        begin = self.tokenizer.bos_token_id
        opening = list(self.opening) or ([] if begin is None else [begin])
        while opening and ids[: len(opening)] == opening:
            ids = ids[len(opening) :]
        return ids

    # Tokens to texts

    def is_marker(self, token: int) -> bool:
        """Whether a token is no piece of text: special, or added to the vocabulary as one that is never cut."""
        return token in self._added or token in self._special

    def is_special(self, token: int) -> bool:
        """Whether a token is special by its own or its tokenizer's word."""
        # Some tokenizers list the end of a turn among the added tokens only, and not among the special ones.
        added = self._added.get(token)
        return token in self._special or bool(added and added.special)

    # Kept, because a tokenizer makes them anew each time that it is asked.

    @cached_property
    def _added(self) -> Any:
        return self.tokenizer.added_tokens_decoder

    @cached_property
    def _special(self) -> frozenset[int]:
        return frozenset(self.tokenizer.all_special_ids)

    def text_behind(self, before: Sequence[int], ids: Sequence[int], *, special: bool = True) -> str:
        """The text of tokens that stand behind others.

        Args:
            before: the tokens before them.
            ids: the tokens.
            special: show special tokens by their names.
        """
        if not self.marks_beginnings or self._begins_behind(before):
            return self._decoded(ids, special)
        known = self.ids("a")
        text, alone = self._decoded([*known, *ids], special), self._decoded(known, special)
        return text.removeprefix(alone) if text.startswith(alone) else self._decoded(ids, special)

    def _begins_behind(self, before: Sequence[int]) -> bool:
        """Whether a text behind these tokens is encoded as at the beginning."""
        if not self.without_opening(list(before)):
            return True
        return self._begins_behind_marker(before[-1]) if self.is_marker(before[-1]) else False

    def _begins_behind_marker(self, token: int) -> bool:
        if token not in self._beginnings:
            ids = self.ids(str(self.tokenizer.convert_ids_to_tokens(token)) + "a")
            self._beginnings[token] = ids == [token, *self.ids("a")]
        return self._beginnings[token]

    @cached_property
    def _beginnings(self) -> dict[int, bool]:
        return {}

    def _decoded(self, ids: Sequence[int], special: bool) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=not special))

    def without_special(self, text: str) -> str:
        """A text without the names of special tokens."""
        for name in self._special_names:
            text = text.replace(name, "")
        return text

    @cached_property
    def _special_names(self) -> tuple[str, ...]:
        ids = {*self._special, *(i for i, added in self._added.items() if added.special)}
        names = {str(self.tokenizer.convert_ids_to_tokens(i)) for i in ids}
        return tuple(sorted(names, key=lambda name: (-len(name), name)))
