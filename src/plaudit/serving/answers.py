"""Responses in the forms that clients of OpenAI read: whole, and in pieces."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from plaudit.live import Piece

TokenText = Callable[[int], str]


@dataclass
class Choice:
    """One response as it grows."""

    index: int
    prompt_tokens: int
    tokens: int = 0
    text: str = ""
    finish: str | None = None
    pieces: list[Piece] = field(default_factory=list)

    def add(self, piece: Piece, *, keep: bool) -> None:
        """One more token; ``keep`` it for its log-prob."""
        self.tokens += 1
        self.text += piece.text
        self.finish = piece.finish
        if keep and not piece.is_end:
            self.pieces.append(piece)


class Form:
    """How one endpoint writes: chats or completions.

    Args:
        is_chat: which of the two.
        model: the name in the answer.
        token_text: shows a token.
        alternatives: how many of them are told; None: no log-probs.
    """

    def __init__(self, is_chat: bool, model: str, token_text: TokenText, alternatives: int | None) -> None:
        self.is_chat, self.model, self._text, self._alternatives = is_chat, model, token_text, alternatives
        self.id = f"{'chatcmpl' if is_chat else 'cmpl'}-{uuid.uuid4().hex}"
        self._created = int(time.time())

    def whole(self, choices: list[Choice], usage: dict[str, int]) -> dict[str, Any]:
        """The answer in one piece."""
        rows = []
        for choice in choices:
            said = (
                {"message": {"role": "assistant", "content": choice.text, "refusal": None}}
                if self.is_chat
                else {"text": choice.text}
            )
            scored = self._logprobs(choice.pieces, 0)
            rows.append({"index": choice.index, **said, "logprobs": scored, "finish_reason": choice.finish})
        kind = "chat.completion" if self.is_chat else "text_completion"
        return self._head(kind) | {"choices": rows, "usage": usage}

    def opening(self, index: int) -> Iterator[bytes]:
        """What a stream says of a response before its first token."""
        if self.is_chat:
            yield self._chunk(index, {"delta": {"role": "assistant", "content": ""}}, None, None)

    def piece(self, choice: Choice, piece: Piece, offset: int) -> Iterator[bytes]:
        """What a stream says of a token; ``offset``: characters of the response before it."""
        scored = None if piece.is_end else self._logprobs([piece], offset)
        if piece.text or scored is not None or piece.finish:
            said = {"delta": {"content": piece.text} if piece.text else {}} if self.is_chat else {"text": piece.text}
            yield self._chunk(choice.index, said, scored, piece.finish)

    def usage(self, usage: dict[str, int]) -> bytes:
        """The last chunk of a stream, where the client wants it."""
        kind = "chat.completion.chunk" if self.is_chat else "text_completion"
        return event(self._head(kind) | {"choices": [], "usage": usage})

    def _chunk(self, index: int, said: dict[str, Any], scored: Any, finish: str | None) -> bytes:
        kind = "chat.completion.chunk" if self.is_chat else "text_completion"
        row = {"index": index, **said, "logprobs": scored, "finish_reason": finish}
        return event(self._head(kind) | {"choices": [row]})

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self._created, "model": self.model}

    def _logprobs(self, pieces: list[Piece], offset: int) -> dict[str, Any] | None:
        if self._alternatives is None:
            return None
        if self.is_chat:
            rows = [
                self._token(piece.token, piece.logprob)
                | {"top_logprobs": [self._token(*one) for one in piece.alternatives[: self._alternatives]]}
                for piece in pieces
            ]
            return {"content": rows, "refusal": None}
        texts = [self._text(piece.token) for piece in pieces]
        offsets = [offset]
        for text in texts[:-1]:
            offsets.append(offsets[-1] + len(text))
        tops = [{self._text(token): value for token, value in piece.alternatives} for piece in pieces]
        return {
            "tokens": texts, "token_logprobs": [piece.logprob for piece in pieces],
            "top_logprobs": tops if self._alternatives else None, "text_offset": offsets[: len(texts)],
        }  # fmt: skip

    def _token(self, token: int, logprob: float) -> dict[str, Any]:
        text = self._text(token)
        return {"token": text, "logprob": logprob, "bytes": list(text.encode("utf-8", "surrogatepass"))}


def usage_of(choices: list[Choice], prompts: int) -> dict[str, int]:
    """Tokens read and drawn; ``prompts``: those of all prompts, each once."""
    drawn = sum(choice.tokens for choice in choices)
    return {"prompt_tokens": prompts, "completion_tokens": drawn, "total_tokens": prompts + drawn}


def event(value: dict[str, Any]) -> bytes:
    """One event of a stream (server-sent events)."""
    return b"data: " + json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n\n"


DONE = b"data: [DONE]\n\n"
