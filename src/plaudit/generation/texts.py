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
