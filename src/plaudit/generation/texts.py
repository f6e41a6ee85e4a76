"""The texts of responses, and the stop texts that end them while they grow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from plaudit.data.chat import Tokens


class ResponseTexts:
    """Decodes responses in the context of their prompts, and finds the stop texts in them.

    Stop texts see special tokens by their names, and so do rewards, unless the settings say otherwise. The end token is
    no part of a text.

    Args:
        tokens: of the policy.
        stop: texts that end a response, special tokens among them; empty ones are ignored.
        shown: of the text of a response: whole, or plain, without special tokens.
    """

    def __init__(
        self, tokens: Tokens, stop: Sequence[str], shown: Literal["whole", "plain"] = "whole"
    ) -> None:
        self._tokens, self._special = tokens, shown == "whole"
        self._stop = tuple(dict.fromkeys(text for text in stop if text))
        # Texts and not token ids are compared, because a stop text can be cut into tokens in several ways and can end
        # in the middle of one. Only a window is decoded, so a response of n tokens costs n short decodings and not
        # n^2 / 2 tokens: each token is at least one byte, and some slack is left for tokens that decode to nothing.
        self._window = max((len(t.encode()) for t in self._stop), default=0) + 8

    @property
    def stop(self) -> tuple[str, ...]:
        """The texts that end a response."""
        return self._stop

    def piece(self, prompt: Sequence[int], ids: Sequence[int], first: int) -> str:
        """The text of the tokens from ``first`` on, behind those before them."""
        return self._tokens.text_behind(ids[:first] or prompt, ids[first:], special=self._special)

    def stopped(self, prompt: Sequence[int], ids: Sequence[int]) -> bool:
        """Does the last of the tokens complete a stop text?"""
        if not self._stop:
            return False
        first = max(0, len(ids) - self._window)
        before = ids[:first] or prompt
        return self._cut(before, ids[first:]) is not None

    def of(self, prompt: Sequence[int], ids: Sequence[int], *, stopped: bool) -> str:
        """The text of a response.

        Args:
            prompt: the tokens before it.
            ids: its tokens, without an end token.
            stopped: it was ended by a stop text, which is cut off.
        """
        cut = self._cut(prompt, ids) if stopped else None
        if cut is None:
            return self._tokens.text_behind(prompt, ids, special=self._special)
        return cut if self._special else self._tokens.without_special(cut)

    def _cut(self, before: Sequence[int], ids: Sequence[int]) -> str | None:
        """The text of tokens up to the first stop text that their last one completes; None if it completes none.

        Stop texts that were complete before did not end the response: it was shorter than min_new_tokens.
        """
        text = self._tokens.text_behind(before, ids)
        if not any(stop in text for stop in self._stop):
            return None
        # A character that the last token completes was a replacement character before.
        old = len(self._tokens.text_behind(before, ids[:-1]).rstrip("\ufffd"))
        starts = (text.find(stop, max(0, old - len(stop) + 1)) for stop in self._stop)
        found = [start for start in starts if start >= 0]
        return text[: min(found)] if found else None


class GrowingText:
    """The text of a response that can be shown while its tokens are drawn.

    What was shown is never taken back: a character whose bytes are not all there is held back, and so is what may turn
    out to begin a stop text.

    Args:
        texts: decodes them.
        prompt: the tokens before the response.
    """

    # Only the last tokens are decoded at each step, together with the few before them, since tokenizers put spaces
    # between tokens and join bytes: what the new tokens add is the difference of the two texts.

    MOST_BYTES = 8
    """Tokens after which a replacement character is taken for what the model wrote."""

    def __init__(self, texts: ResponseTexts, prompt: Sequence[int]) -> None:
        self._texts, self._prompt = texts, prompt
        self._first = self._read = 0  # tokens from which the window begins, and up to which its text is known
        self._text, self._shown = "", 0

    def grown(self, ids: Sequence[int]) -> str:
        """What can be shown more, now that ``ids`` are all tokens of the response so far."""
        known = self._texts.piece(self._prompt, ids[: self._read], self._first)
        now = self._texts.piece(self._prompt, ids, self._first)
        if now.endswith("\ufffd") and len(ids) - self._read < self.MOST_BYTES:
            return ""
        if len(now) > len(known):
            self._text += now[len(known) :]
            self._first, self._read = self._read, len(ids)
        return self._show(len(self._text) - self._withheld())

    def ended(self, final: str) -> str:
        """The rest, where ``final`` is the whole text of the response."""
        rest = final[self._shown :] if final.startswith(self._text[: self._shown]) else ""
        self._shown += len(rest)
        return rest

    def _show(self, end: int) -> str:
        more = self._text[self._shown : end]
        self._shown = max(self._shown, end)
        return more

    def _withheld(self) -> int:
        """The length of the longest end of the text that is the beginning of a stop text."""
        lengths = (
            length
            for stop in self._texts.stop
            for length in range(min(len(stop) - 1, len(self._text)), 0, -1)
            if self._text.endswith(stop[:length])
        )
        return max(lengths, default=0)
