"""The bodies of requests, and what they ask of the engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from plaudit.config.sections import SamplingSection
from plaudit.errors import PlauditError
from plaudit.records import Content, Message, Role
from plaudit.serving.settings import MOST_ALTERNATIVES, MOST_CHOICES, MOST_SCORED

HARMLESS = {
    "user", "metadata", "store", "service_tier", "parallel_tool_calls", "safety_identifier", "prompt_cache_key",
    "prompt_cache_retention", "reasoning_effort", "verbosity",
}  # fmt: skip
"""Fields that change nothing in a response of this server, and are ignored."""
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "frequency_penalty": (0,), "presence_penalty": (0,), "repetition_penalty": (1,), "logit_bias": ({},),
    "tools": ([],), "tool_choice": ("none", "auto"), "functions": ([],), "response_format": ({"type": "text"},),
    "best_of": (1,), "echo": (False,), "suffix": ("",), "modalities": (["text"],),
}  # fmt: skip
"""Fields that this server has not, with the values that mean the same as leaving them out."""


class Bad(PlauditError):
    """A request that cannot be carried out; ``where`` is its field."""

    code, exit_code = "REQUEST", 65

    def __init__(self, what: str, where: str = "", cure: str = "", status: int = 400) -> None:
        super().__init__(what, where=where, cure=cure)
        self.status = status


class Body(BaseModel):
    """Base of every body: fields that this server does not have are refused unless they change nothing."""

    model_config = ConfigDict(extra="allow")
    model: str | None = None

    @model_validator(mode="after")
    def _no_others(self) -> Body:
        for name, value in (self.model_extra or {}).items():
            neutral = NEUTRAL.get(name, ())
            if value is not None and name not in HARMLESS and value not in neutral:
                cure = f"leave it out{', or give ' + repr(neutral[0]) if neutral else ''}"
                raise Bad(f"this server has no {name!r}", where=name, cure=cure)
        return self


class Drawn(Body):
    """What chats and completions have in common."""

    max_tokens: int | None = Field(None, ge=1)
    min_tokens: int = Field(0, ge=0)
    temperature: float | None = Field(None, ge=0, le=10)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=-1)
    min_p: float = Field(0.0, ge=0, le=1)
    n: int | None = Field(None, ge=1, le=MOST_CHOICES)
    stop: str | list[str] | None = None
    seed: int | None = Field(None, ge=-(1 << 63), lt=1 << 63)
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None

    @property
    def choices(self) -> int:
        """How many responses are wanted to each prompt."""
        return self.n or 1

    @property
    def wants_usage(self) -> bool:
        """Whether a stream ends with the number of tokens."""
        return bool((self.stream_options or {}).get("include_usage"))

    @property
    def is_greedy(self) -> bool:
        """Temperature 0: the likeliest token at each place."""
        return self.temperature == 0

    @property
    def alternatives(self) -> int | None:
        """How many of the likeliest tokens are told; None: no log-probs at all."""
        raise NotImplementedError

    def most_tokens(self, prompt: int, default: int, context: int) -> int:
        """The longest response to a prompt of so many tokens; what the request leaves open fits the context."""
        asked = self.max_tokens
        return min(asked, default) if asked else max(1, min(default, context - prompt))

    def sampling(self, most: int) -> SamplingSection:
        """How responses of at most ``most`` tokens are drawn."""
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        if len(stop) > 16 or any(len(text) > 1000 for text in stop):
            raise Bad(f"{len(stop)} stop texts", where="stop", cure="give at most 16, of at most 1000 characters")
        return SamplingSection(
            temperature=1.0 if self.is_greedy or self.temperature is None else self.temperature,
            top_p=self.top_p or 1.0, top_k=max(self.top_k or 0, 0), min_p=self.min_p,
            max_new_tokens=most, min_new_tokens=min(self.min_tokens, most), stop=tuple(stop), text="plain",
        )  # fmt: skip


class ChatBody(Drawn):
    """POST /v1/chat/completions."""

    messages: list[dict[str, Any]] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=MOST_ALTERNATIVES)

    @property
    def alternatives(self) -> int | None:
        """See `Drawn.alternatives`."""
        return (self.top_logprobs or 0) if self.logprobs else None

    @property
    def content(self) -> Content:
        """The conversation."""
        return messages_of(self.messages)

    def most_tokens(self, prompt: int, default: int, context: int) -> int:
        """See `Drawn.most_tokens`."""
        asked = self.max_completion_tokens or self.max_tokens
        return min(asked, default) if asked else super().most_tokens(prompt, default, context)


class CompletionBody(Drawn):
    """POST /v1/completions."""

    prompt: str | list[str] | list[int] | list[list[int]]
    logprobs: int | None = Field(None, ge=0, le=MOST_ALTERNATIVES)

    @property
    def alternatives(self) -> int | None:
        """See `Drawn.alternatives`."""
        return self.logprobs

    @property
    def prompts(self) -> list[str | list[int]]:
        """Each a text or token ids."""
        given = self.prompt
        alone = isinstance(given, str) or (bool(given) and isinstance(given[0], int))
        prompts = cast("list[str | list[int]]", [given] if alone else given)
        if not 1 <= len(prompts) <= MOST_CHOICES or not all(prompts):
            cure = f"give 1 to {MOST_CHOICES}, none of them empty"
            raise Bad(f"{len(prompts)} prompts", where="prompt", cure=cure)
        return prompts


class ScoreBody(Body):
    """POST /v1/score, as the rewards of kind http and those of OpenRLHF ask."""

    messages: list[list[dict[str, Any]]] | None = None
    prompts: list[str | list[dict[str, Any]]] | None = None
    responses: list[str] | None = None
    query: list[str] | None = None
    truncated: list[bool] | None = None
    labels: list[Any] | None = None
    columns: list[Any] | None = None

    def rows(self) -> tuple[list[Content], list[str], list[bool]]:
        """Prompts, responses, and which of these were cut off."""
        prompts, responses = self._chats() if self.messages is not None else self._texts()
        if not 1 <= len(responses) <= MOST_SCORED or len(prompts) != len(responses):
            what = f"{len(prompts)} prompts and {len(responses)} responses"
            raise Bad(what, where="responses", cure=f"give as many of both, 1 to {MOST_SCORED}")
        truncated = self.truncated or [False] * len(responses)
        if len(truncated) != len(responses):
            raise Bad(f"{len(truncated)} values for {len(responses)} responses", "truncated", "give one for each")
        return prompts, responses, truncated

    def _chats(self) -> tuple[list[Content], list[str]]:
        chats = [messages_of(chat) for chat in self.messages or []]
        if any(not chat or chat[-1].role != "assistant" for chat in chats):
            raise Bad("a chat that does not end with the assistant", "messages", "end each with what is scored")
        return [chat[:-1] for chat in chats], [chat[-1].text for chat in chats]

    def _texts(self) -> tuple[list[Content], list[str]]:
        if self.prompts is None or (self.responses is None and self.query is None):
            raise Bad("nothing to score", "prompts", "give prompts and responses, or messages")
        prompts: list[Content] = [one if isinstance(one, str) else messages_of(one) for one in self.prompts]
        if self.responses is not None:
            return prompts, self.responses
        pairs = zip(self.query or [], prompts, strict=False)
        return prompts, [text.removeprefix(prompt) if isinstance(prompt, str) else text for text, prompt in pairs]


class FeedbackBody(Body):
    """POST /v1/feedback: one of thumb, rating and edit, of a response that was served."""

    id: str = Field(min_length=1, max_length=200)
    index: int = Field(0, ge=0)
    thumb: Literal["up", "down"] | bool | None = None
    rating: float | None = None
    edit: str | None = None
    comment: str | None = Field(None, max_length=10_000)
    user: str = Field("", max_length=200)

    def verdict(self) -> dict[str, Any]:
        """What was given of the three."""
        named = {"thumb": self.thumb, "rating": self.rating, "edit": self.edit}
        return {name: value for name, value in named.items() if value is not None}


def messages_of(messages: Sequence[Mapping[str, Any]]) -> tuple[Message, ...]:
    """The turns of a chat.

    Raises:
        Bad: a role or a content that is none.
    """
    return tuple(_message(message, f"messages.{number}") for number, message in enumerate(messages))


def _message(message: Mapping[str, Any], where: str) -> Message:
    role = {"developer": "system"}.get(str(message.get("role")), str(message.get("role")))
    if role not in ("system", "user", "assistant", "tool"):
        cure = "it is system, developer, user, assistant or tool"
        raise Bad(f"role is {message.get('role')!r}", where=f"{where}.role", cure=cure)
    content, calls = message.get("content"), message.get("tool_calls") or None
    if isinstance(content, list):
        parts = [part if isinstance(part, dict) and part.get("type") == "text" else {} for part in content]
        texts = [part.get("text") for part in parts]
        content = None if any(not isinstance(text, str) for text in texts) else "".join(map(str, texts))
        if content is None:
            raise Bad("a part that is no text", where=f"{where}.content", cure="give parts of type text only")
    if content is None and role == "assistant" and calls:
        content = ""
    if not isinstance(content, str):
        raise Bad(f"content is {type(content).__name__}", where=f"{where}.content", cure="give a text")
    name, call = message.get("name"), message.get("tool_call_id")
    return Message(
        cast(Role, role), content, name=str(name) if name else None, tool_calls=tuple(calls) if calls else None,
        tool_call_id=str(call) if call else None,
    )  # fmt: skip


def first_fault(error: ValidationError | Any) -> Bad:
    """What pydantic found first, as ours."""
    first: dict[str, Any] = dict(error.errors()[0])
    place = [str(part) for part in first["loc"] if part != "body"]
    return Bad(str(first["msg"]), where=".".join(place), cure="see /openapi.json")
