"""Texts that end a response."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class StopTexts:
    """Finds stop texts while a response grows, decoding only its last tokens.

    Args:
        tokenizer: anything with ``decode(ids, skip_special_tokens=)``.
        texts: the stop texts; empty ones are ignored.
    """

    def __init__(self, tokenizer: Any, texts: Sequence[str]) -> None:
        self.texts = tuple(t for t in texts if t)
        self._tokenizer = tokenizer
        # A token is at least one byte; some slack for tokens that decode to nothing.
        self._window = max((len(t.encode()) for t in self.texts), default=0) + 8

    def __bool__(self) -> bool:
        return bool(self.texts)

    def hit(self, ids: Sequence[int]) -> bool:
        """Whether a stop text is complete in the last tokens of ``ids``."""
        tail = self._tokenizer.decode(ids[-self._window :], skip_special_tokens=True)
        return any(t in tail for t in self.texts)

    def cut(self, text: str) -> str:
        """``text`` up to the stop text that ended it; unchanged if there is none."""
        starts = [i for i in (text.rfind(t) for t in self.texts) if i >= 0]
        return text[: min(starts)] if starts else text
