"""The plain values that travel between people, files and models. No torch, printable, JSON-ready."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Role = Literal["system", "user", "assistant", "tool"]
FinishReason = Literal["stop", "length", "abort"]
Kind = Literal["demonstration", "preference", "ranking", "rating", "judgement", "comparison", "prompt"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat, with the keys that chat templates know. ``to_json`` writes it as they read it."""

    role: Role
    content: str
    name: str | None = None
    """Who speaks, or which tool answers."""
    reasoning_content: str | None = None
    """What the assistant thought before it answered."""
    tool_calls: tuple[Mapping[str, Any], ...] | None = field(default=None, hash=False)
    """Calls that the assistant makes, each as its chat template reads it. JSON-ready, never changed."""
    tool_call_id: str | None = None
    """Which call a turn of a tool answers."""
    train: bool | None = None
    """False: an assistant turn that is context only. None: the settings say what is trained on."""
    tools: tuple[Mapping[str, Any], ...] | None = field(default=None, hash=False)
    """On the first turn of a chat: the tools that the assistant may call, as JSON schemas."""

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> Message:
        """The turn that ``to_json`` has written; keys that are not known raise a TypeError.

        >>> Message.of({"role": "user", "content": "Hi", "name": "Ada"})
        Message(role='user', content='Hi', name='Ada')
        """
        lists = {key: tuple(value[key]) for key in ("tool_calls", "tools") if value.get(key) is not None}
        return cls(**{**value, **lists})

    @property
    def is_plain(self) -> bool:
        """Whether the words are all that there is: an assistant turn of this kind may be written as its text."""
        more = (self.name, self.reasoning_content, self.tool_calls, self.tool_call_id, self.tools)
        return not any(more) and self.train is not False

    @property
    def text(self) -> str:
        """The turn as people and rewards of texts read it: tools, thoughts and calls are written around the words.

        >>> call = {"type": "function", "function": {"name": "weather", "arguments": {"town": "Ulm"}}}
        >>> print(Message("assistant", "", tool_calls=(call,)).text)
        <tool_call>
        {"name": "weather", "arguments": {"town": "Ulm"}}
        </tool_call>
        """
        parts = [_tagged("tool", tool) for tool in self.tools or ()]
        parts += [f"<think>\n{self.reasoning_content}\n</think>"] if self.reasoning_content else []
        parts += [self.content] if self.content or not self.tool_calls else []
        parts += [_tagged("tool_call", call) for call in self.tool_calls or ()]
        return "\n\n".join(parts)

    def __repr__(self) -> str:
        said = ((f.name, getattr(self, f.name)) for f in dataclasses.fields(self))
        return f"Message({', '.join(f'{name}={value!r}' for name, value in said if value is not None)})"


def _tagged(tag: str, value: Mapping[str, Any]) -> str:
    """A tool or a call as one line of JSON between tags; a call's arguments are an object, also where its file holds
    them as a text of JSON."""
    inner = value.get("function")
    shown = dict(inner) if isinstance(inner, Mapping) else dict(value)
    if isinstance(shown.get("arguments"), str):
        with contextlib.suppress(ValueError):
            shown["arguments"] = json.loads(shown["arguments"])
    return f"<{tag}>\n{json.dumps(shown, ensure_ascii=False, default=str)}\n</{tag}>"


Content = str | tuple[Message, ...]
"""A prompt or a response: plain text, or chat turns. A plain-text prompt is continued as it is, without a template."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a response is sampled for. ``answer`` is the checkable truth, where there is one."""

    id: str
    content: Content
    answer: str | None = None
    columns: Mapping[str, Any] = field(default_factory=dict, hash=False, metadata={"json": "left out"})
    """Further columns of the data row, for rewards and environments to read; never changed. JSON-ready."""
    # Left out by `to_json`: data files and the fingerprints of a run's prompts stay as they were without columns.


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
    ``category`` is what the data call the topic or the origin of the row.
    """

    id: str
    prompt: Content
    chosen: Content
    rejected: Content
    margin: float | None = None
    agreement: float = 1.0
    annotator: str | None = None
    category: str | None = None


@dataclass(frozen=True, slots=True)
class Ranking:
    """2 to 9 responses to one prompt; ``ranks[i]`` is the rank of ``responses[i]``: 1 is best, ties share a rank."""

    id: str
    prompt: Content
    responses: tuple[Content, ...]
    ranks: tuple[int, ...]
    category: str | None = None


@dataclass(frozen=True, slots=True)
class Rating:
    """A number given to one response (1 to 10, or 0/1 for a class label), and optionally to named axes of it."""

    id: str
    prompt: Content
    response: Content
    reward: float
    axes: dict[str, float] = field(default_factory=dict)
    category: str | None = None


@dataclass(frozen=True, slots=True)
class Judgement:
    """One annotator's verdict on two responses. ``strength`` from -2 (a much better) to 2 (b much better), 0 a tie.

    ``margin`` says how much better on the scale of the data, where that has more steps than ``strength``.
    """

    id: str
    prompt: Content
    response_a: Content
    response_b: Content
    strength: int
    model_a: str = ""
    model_b: str = ""
    annotator: str = ""
    margin: float | None = None
    category: str | None = None


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
class Turn:
    """A part of a rollout that one side wrote: tokens ``start`` to ``end`` (not included) of its row."""

    author: Literal["policy", "environment"]
    start: int
    end: int
    content: Content
    """The text of a policy's turn, without its end token; what the environment said, as text or as messages."""
    finish_reason: FinishReason | None = None
    """How a turn of the policy ended; None for the environment's."""

    @property
    def text(self) -> str:
        """The content as one text."""
        if isinstance(self.content, str):
            return self.content
        return "\n\n".join(message.text for message in self.content)


@dataclass(frozen=True, slots=True)
class Rollout:
    """What followed a prompt: turns of the policy, and between them turns of an environment, over one row of tokens.

    A plain response is the case of one turn: see `single`. Only tokens of the policy's turns are trained on, count as
    length, and have log-probs.
    """

    # Token ids are the record, and texts are a view of them: several rows of tokens decode to the same text, and only
    # the row that the policy saw has the log-probs that it sampled with. So nothing is ever tokenised a second time.

    prompt: Prompt
    group_id: int
    """Rollouts of the same prompt in the same iteration share it."""
    tokens: tuple[int, ...]
    """The whole row as the policy saw it: the prompt, then all turns."""
    turns: tuple[Turn, ...]
    """In their order, each where the one before ends, the last at the end of the row."""
    logprobs: tuple[float, ...]
    """Natural log-probability of each sampled token under the sampling distribution."""
    finish_reason: FinishReason
    """stop: the last turn ended by itself, and nothing followed it; length: a limit of tokens or turns cut the
    rollout off; abort: the environment failed, see ``error``."""
    policy_version: int = 0
    reward: float | None = None
    """None: not scored, or scoring failed; such a rollout is left out of every baseline."""
    reward_parts: dict[str, float] = field(default_factory=dict)
    environment_reward: float | None = None
    """What the environment gave at the end, if it gives rewards; added to the reward by `scored`."""
    error: str = ""
    """Why an environment could not go on."""
    reward_error: str = ""
    """Why there is no reward, though the rollout was to be scored."""

    @classmethod
    def single(
        cls,
        prompt: Prompt,
        group_id: int,
        prompt_ids: Sequence[int],
        response_ids: Sequence[int],
        logprobs: Sequence[float],
        response: str,
        finish_reason: FinishReason,
    ) -> Rollout:
        """One response, of one turn.

        Args:
            response_ids: as sampled, the end token included when there was one.
            response: their text, without the end token.
        """
        tokens = (*prompt_ids, *response_ids)
        turn = Turn("policy", len(prompt_ids), len(tokens), response, finish_reason)
        return cls(prompt, group_id, tokens, (turn,), tuple(logprobs), finish_reason)

    def __post_init__(self) -> None:
        ends = [turn.end for turn in self.turns]
        starts = [turn.start for turn in self.turns]
        assert starts[1:] == ends[:-1] and ends[-1:] in ([], [len(self.tokens)]), (
            "turns cover the row to its end"
        )

    @property
    def sampled(self) -> tuple[bool, ...]:
        """For each token of the row, whether the policy sampled it."""
        mask = [False] * len(self.tokens)
        for turn in self.policy_turns:
            mask[turn.start : turn.end] = [True] * (turn.end - turn.start)
        return tuple(mask)

    @property
    def policy_turns(self) -> tuple[Turn, ...]:
        """The turns that the policy wrote."""
        return tuple(turn for turn in self.turns if turn.author == "policy")

    @property
    def prompt_ids(self) -> tuple[int, ...]:
        """The tokens before the first turn."""
        return self.tokens[: self.turns[0].start] if self.turns else self.tokens

    @property
    def response_ids(self) -> tuple[int, ...]:
        """All tokens that the policy sampled, end tokens included; their number is the length of the response."""
        return tuple(token for turn in self.policy_turns for token in self.tokens[turn.start : turn.end])

    @property
    def response(self) -> str:
        """All that the policy wrote, turn after turn, without end tokens and without what the environment wrote."""
        return "".join(turn.text for turn in self.policy_turns)

    @property
    def final(self) -> str:
        """The policy's last turn: where the answer stands after calls of tools."""
        return self.policy_turns[-1].text if self.policy_turns else ""

    def conversation(self) -> tuple[Content, str]:
        """The last turn of the policy, and before it everything that led to it: the prompt and all earlier turns.

        For readers of texts. A single response gives ``(prompt.content, response)``.
        """
        *earlier, last = self.turns or (Turn("policy", len(self.tokens), len(self.tokens), ""),)
        if isinstance(self.prompt.content, str):
            return self.prompt.content + "".join(turn.text for turn in earlier), last.text
        messages = list(self.prompt.content)
        for turn in earlier:
            said = turn.content
            role: Role = "assistant" if turn.author == "policy" else "user"
            messages += (Message(role, said),) if isinstance(said, str) else said
        return tuple(messages), last.text

    def scored(self, result: RewardResult) -> Rollout:
        """The same rollout with its reward filled in; what the environment gave is added, as a part of its own."""
        value, parts = result.value, dict(result.parts)
        if value is not None and self.environment_reward is not None:
            value, parts = value + self.environment_reward, parts | {"environment": self.environment_reward}
        return dataclasses.replace(self, reward=value, reward_parts=parts, reward_error=result.error)


LARGEST = 2.0**24
"""A reward, rating or margin beyond it, about 16.8 million, is an error. They are computed with in fp32, which has 24
bits: next to a larger number a difference of 1 between two others is lost, and the square of 1e20 is infinite."""


@dataclass(frozen=True, slots=True)
class RewardResult:
    """What a reward says of one rollout: a finite value, or ``None`` with the reason in ``error``."""

    value: float | None
    parts: dict[str, float] = field(default_factory=dict)
    error: str = ""
    abstains: bool = False
    """There is no value because the reward is not meant for this rollout; a sum of rewards goes without it."""


def to_json(value: Any) -> Any:
    """A record as JSON-ready dicts and lists; ``None`` fields are left out, and so are a prompt's further columns."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        written = (f for f in dataclasses.fields(value) if f.metadata.get("json") != "left out")
        pairs = ((f.name, getattr(value, f.name)) for f in written)
        return {name: to_json(v) for name, v in pairs if v is not None}
    if isinstance(value, (list, tuple)):
        return [to_json(v) for v in value]
    if isinstance(value, dict):
        return {k: to_json(v) for k, v in value.items()}
    return value


def content_from_json(value: Any) -> Content:
    """Text, or the turns of a chat, as `to_json` has written them."""
    if isinstance(value, str):
        return value
    return tuple(Message.of(turn) for turn in value)
