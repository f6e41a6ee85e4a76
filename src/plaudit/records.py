"""The plain values that travel between people, files and models. No torch, printable, JSON-ready."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

Role = Literal["system", "user", "assistant", "tool"]
FinishReason = Literal["stop", "length", "abort"]
Kind = Literal["demonstration", "preference", "ranking", "rating", "judgement", "comparison", "prompt"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat."""

    role: Role
    content: str


Content = str | tuple[Message, ...]
"""A prompt or a response: plain text, or chat turns. A plain-text prompt is continued as it is, without a template."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a response is sampled for. ``answer`` is the checkable truth, where there is one."""

    id: str
    content: Content
    answer: str | None = None


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A prompt and a response worth imitating. Assistant turns inside the prompt are trained on as well."""

    id: str
    prompt: Content
    response: Content


@dataclass(frozen=True, slots=True)
class Preference:
    """Two responses to one prompt of which ``chosen`` was preferred.

    ``margin`` says how much better it is (0 = negligibly); ``agreement`` is the share of annotators who chose it.
    """

    id: str
    prompt: Content
    chosen: Content
    rejected: Content
    margin: float | None = None
    agreement: float = 1.0
    annotator: str | None = None


@dataclass(frozen=True, slots=True)
class Ranking:
    """2 to 9 responses to one prompt; ``ranks[i]`` is the rank of ``responses[i]``: 1 is best, ties share a rank."""

    id: str
    prompt: Content
    responses: tuple[Content, ...]
    ranks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Rating:
    """A number given to one response (1 to 10, or 0/1 for a class label), and optionally to named axes of it."""

    id: str
    prompt: Content
    response: Content
    reward: float
    axes: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Judgement:
    """One annotator's verdict on two responses. ``strength`` from -2 (a much better) to 2 (b much better), 0 a tie."""

    id: str
    prompt: Content
    response_a: Content
    response_b: Content
    strength: int
    model_a: str = ""
    model_b: str = ""
    annotator: str = ""


@dataclass(frozen=True, slots=True)
class Comparison:
    """1 to 9 responses to one prompt that nobody has judged yet: what annotators are asked about."""

    id: str
    prompt: Content
    responses: tuple[Content, ...]
    models: tuple[str, ...] = ()
    """Who wrote each response; empty if it is not known."""
    provenance: tuple[dict[str, Any], ...] = ()
    """How each came about: run, sampling settings, seed. Empty if it is not known."""


Record = Prompt | Demonstration | Preference | Ranking | Rating | Judgement | Comparison


@dataclass(frozen=True, slots=True)
class Rollout:
    """One sampled response. The token ids are the record; ``response`` (text without special tokens) is a view."""

    prompt: Prompt
    group_id: int
    """Rollouts of the same prompt in the same iteration share it."""
    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]
    """As sampled, the end token included when there was one."""
    logprobs: tuple[float, ...]
    """Natural log-probability of each response token under the sampling distribution."""
    response: str
    finish_reason: FinishReason
    policy_version: int = 0
    reward: float | None = None
    """None: not scored, or scoring failed; such a rollout is left out of every baseline."""
    reward_parts: dict[str, float] = field(default_factory=dict)

    def scored(self, result: RewardResult) -> Rollout:
        """The same rollout with its reward filled in."""
        return dataclasses.replace(self, reward=result.value, reward_parts=dict(result.parts))


@dataclass(frozen=True, slots=True)
class RewardResult:
    """What a reward says of one rollout: a finite value, or ``None`` with the reason in ``error``."""

    value: float | None
    parts: dict[str, float] = field(default_factory=dict)
    error: str = ""


def to_json(value: Any) -> Any:
    """A record as JSON-ready dicts and lists; ``None`` fields are left out."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        pairs = ((f.name, getattr(value, f.name)) for f in dataclasses.fields(value))
        return {name: to_json(v) for name, v in pairs if v is not None}
    if isinstance(value, (list, tuple)):
        return [to_json(v) for v in value]
    if isinstance(value, dict):
        return {k: to_json(v) for k, v in value.items()}
    return value
