"""Messages of chats, in the keys of OpenAI, Hugging Face, ShareGPT and their relatives, to turns.

What a turn cannot hold is refused, or counted as not used: no key that has a value is passed over without a word.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar

from plaudit.data.reading.rows import ReadLog, Row, shorten, shorten_names
from plaudit.data.reading.structures import structure_in
from plaudit.data.reading.transcripts import as_messages
from plaudit.records import Message, Prompt, Record, Role

R = TypeVar("R", bound=Record)

ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "ai": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "tool_call": "assistant",
    "tool": "tool",
    "function": "tool",
    "tool_response": "tool",
    "observation": "tool",
    "ipython": "tool",
}
CALLING = ("function_call", "tool_call")
"""Roles of turns whose text is the JSON of a call (LLaMA-Factory, ms-swift)."""

_ROLE, _WORDS = ("role", "from"), ("content", "value")
_THOUGHTS = ("reasoning_content", "reasoning", "thinking", "thought")
_TRAINED = ("weight", "train", "loss", "trainable")
_CALLS = ("tool_calls", "function_call")
_TOOLS = ("tools", "functions")
_KNOWN = (*_ROLE, *_WORDS, *_THOUGHTS, *_TRAINED, *_CALLS, *_TOOLS, "name", "tool_call_id", "refusal")
_NO_TEXT = ("image", "images", "audio", "audios", "video", "videos", "file", "files", "attachments")
_TEXT_PARTS = ("text", "input_text", "output_text", "refusal")
_THOUGHT_PARTS = ("thinking", "reasoning")
_RESPONSES = ("response", "chosen", "rejected", "response_a", "response_b")
_ONLY_TEXT = "only text is read: remove it, or the row"


class Faults(Protocol):
    """Where faults of a row are listed: `Fields`."""

    row: Row
    log: ReadLog

    def fault(self, field: str, found: str, cure: str) -> None:
        """List a fault."""

    def checked(self, value: Any, field: str) -> str:
        """A text; anything else is a fault."""


def read_messages(values: Sequence[Any], field: str, fields: Faults) -> tuple[Message, ...]:
    """The turns of a chat; tools that any message names stand on the first turn."""
    turns: list[Message] = []
    for index, value in enumerate(values):
        turn = _Reader(value, f"{field}[{index}]", fields).message()
        if turns and turns[-1].role == "assistant" and _role_of(value) in CALLING:
            # A call written as a turn of its own belongs to the turn of the assistant before it.
            calls = (*(turns[-1].tool_calls or ()), *(turn.tool_calls or ()))
            turn = dataclasses.replace(turns.pop(), tool_calls=calls)
        turns.append(turn)
    _report_order(turns, field, fields)
    tools = [turn.tools for turn in turns if turn.tools]
    if not tools:
        return tuple(turns)
    if any(others != tools[0] for others in tools):
        fields.fault(field, "messages with different tools", "give the tools once, on the first message")
    bare = [dataclasses.replace(turn, tools=None) for turn in turns]
    return with_tools(tuple(bare), tools[0])


def _report_order(turns: Sequence[Message], field: str, fields: Faults) -> None:
    """Say where turns follow each other as no chat does: many templates refuse or drop such turns."""
    advice = "join the turns, or put them in order"
    for index, (turn, before) in enumerate(zip(turns[1:], turns, strict=False), 1):
        place, found = f"{field}[{index}]", f"{before.role}, {turn.role}"
        if turn.role == before.role and turn.role in ("user", "assistant"):
            what = f"chats with two turns of the {turn.role} in a row"
            fields.log.odd(what, fields.row.where, place, found, advice)
        elif turn.role == "system":
            what = "turns of the system that are not the first of their chat"
            fields.log.odd(what, fields.row.where, place, found, advice)


def with_tools(turns: tuple[Message, ...], tools: tuple[Mapping[str, Any], ...]) -> tuple[Message, ...]:
    """A chat in which the assistant may call these tools."""
    return (dataclasses.replace(turns[0], tools=tools), *turns[1:])


def with_tools_of(record: R, tools: tuple[Mapping[str, Any], ...], field: str, fields: Faults) -> R:
    """The record of a row whose assistant may call tools: they stand on the first turn of each chat."""
    names = ("content",) if isinstance(record, Prompt) else ("prompt", *_RESPONSES)
    contents = {name: value for name in names if (value := getattr(record, name, ""))}
    if {"content", "prompt"} & set(contents):  # a template writes tools; so a plain text becomes a user's turn
        first = next(iter(contents))
        chats = {first: as_messages(contents[first], "user")}
    elif any(not isinstance(content, str) for content in contents.values()):  # responses that are whole chats
        chats = {name: as_messages(content, "assistant") for name, content in contents.items()}
    else:
        chats = {}
        fields.fault(field, "tools without a chat", "give messages, or a prompt")
    given = [turns[0].tools for turns in chats.values() if turns[0].tools]
    if any(others != tools for others in given):
        fields.fault(field, "other tools than in the messages", "keep one of the two")
    changes: dict[str, Any] = {name: with_tools(turns, tools) for name, turns in chats.items()}
    return dataclasses.replace(record, **changes)


def read_tools(value: Any, field: str, fields: Faults) -> tuple[dict[str, Any], ...] | None:
    """Tools as JSON schemas, from a list of them or its JSON text; functions of OpenAI's older form are wrapped."""
    tools = _objects(value, field, fields)
    if any("name" not in _inner(tool) and "type" not in tool for tool in tools):
        fields.fault(field, shorten(value), "expected tools: JSON schemas, each with a name")
    if field.endswith("functions"):
        tools = [tool if "function" in tool else {"type": "function", "function": tool} for tool in tools]
    return tuple(tools) or None


def _role_of(value: Any) -> str:
    role = (value.get("role") or value.get("from")) if isinstance(value, dict) else None
    return role.lower() if isinstance(role, str) else ""


class _Reader:
    """One message. ``field`` says where it stands in its row."""

    def __init__(self, value: Any, field: str, fields: Faults) -> None:
        self.field, self.fields, self.log = field, fields, fields.log
        self.is_object = isinstance(value, dict)
        # Parquet and OpenAI's client write every key that a message may have: null is no value.
        self.values = {k: v for k, v in value.items() if v is not None} if isinstance(value, dict) else {}
        if not self.is_object:
            self.fields.fault(field, shorten(value), "expected an object with role and content")

    def message(self) -> Message:
        """The turn; after a fault one that may be incomplete."""
        if not self.is_object:
            return Message("user", "")
        role = self._role()
        self._report_unknown()
        content, thoughts = self._words()
        calls = self._calls(role, content)
        thoughts = thoughts or self._text(_THOUGHTS)
        if content is None and calls is None and not thoughts:
            self._fault("content", shorten(next(self._of(_WORDS), (None, None))[1]), "expected text")
        if content is None or _role_of(self.values) in CALLING:
            content = ""
        name, answers = self._text(("name",)), self._text(("tool_call_id",))
        marked, tools = self._trained(role), self._tools()
        return Message(role, content, name or None, thoughts or None, calls, answers or None, marked, tools)

    def _fault(self, key: str, found: str, cure: str) -> None:
        self.fields.fault(f"{self.field}.{key}" if key else self.field, found, cure)

    def _of(self, keys: Sequence[str]) -> Any:
        """The keys among these that the message has, each with its value."""
        return ((key, self.values[key]) for key in keys if key in self.values)

    def _text(self, keys: Sequence[str]) -> str:
        """The text under these keys, which mean the same; "" without one."""
        texts = {key: self.fields.checked(value, f"{self.field}.{key}") for key, value in self._of(keys)}
        different = {text for text in texts.values() if text}
        if len(different) > 1:
            self._fault(next(iter(texts)), f"different texts in {' and '.join(texts)}", "keep one of them")
        return next((text for text in texts.values() if text), "")

    def _role(self) -> Role:
        role = next(self._of(_ROLE), ("role", None))[1]
        known = ROLES.get(_role_of(self.values))
        if known is None:
            self._fault("role", shorten(role), "expected system, user, assistant or tool")
        if _role_of(self.values) == "developer":
            self.log.count("turns of the developer, read as turns of the system")
        return known or "user"

    def _report_unknown(self) -> None:
        for key, value in self.values.items():
            if key in _KNOWN or value in ("", [], {}):
                continue
            near = next(iter(difflib.get_close_matches(str(key).lower(), _KNOWN, 1, 0.8)), "")
            if key in _NO_TEXT:
                self._fault(key, shorten(value), _ONLY_TEXT)
            elif near:
                self._fault(shorten(key)[1:-1], "a key that is not known", f"did you mean {near}?")
            else:
                self.log.unused_key(str(key), "messages")

    # What was said

    def _words(self) -> tuple[str | None, str]:
        """The text of the message, None without one, and the thoughts that stand among its parts."""
        texts: list[str] = []
        thoughts: list[str] = []
        for key, value in self._of(_WORDS):
            if not isinstance(value, (list, dict)):
                texts.append(self.fields.checked(value, f"{self.field}.{key}"))
                continue
            # Some sources write a message as a list of parts.
            parts = value if isinstance(value, list) else [value]
            both = [self._part(part, f"{key}[{index}]") for index, part in enumerate(parts)]
            texts += ["".join(text for text, is_thought in both if not is_thought)] if both else []
            thoughts += [text for text, is_thought in both if is_thought]
        refusal = self._text(("refusal",))
        if refusal and not any(texts):
            self.log.count("turns whose text stood under refusal")
            texts.append(refusal)
        different = [text for text in dict.fromkeys((*texts, refusal)) if text]
        if len(different) > 1:
            self._fault("content", "different texts for one message", "keep one of content, value and refusal")
        return (different[0] if different else "" if texts else None), "\n\n".join(thoughts)

    def _part(self, part: Any, key: str) -> tuple[str, bool]:
        """The text of a part, and whether it is a thought."""
        if isinstance(part, str):
            return self.fields.checked(part, f"{self.field}.{key}"), False
        values = {k: v for k, v in part.items() if v is not None} if isinstance(part, dict) else {}
        kind = values.get("type", "text")
        name = kind if isinstance(kind, str) and kind in values else "text"
        if kind not in (*_TEXT_PARTS, *_THOUGHT_PARTS) or name not in values:
            found = f"a part of type {shorten(kind)}" if "type" in values else shorten(part)
            self._fault(key, found, _ONLY_TEXT)
            return "", False
        for other in values:
            if other not in ("type", name):
                self.log.unused_key(str(other), "parts of messages")
        return self.fields.checked(values[name], f"{self.field}.{key}.{name}"), kind in _THOUGHT_PARTS

    # Calls and tools

    def _calls(self, role: Role, content: str | None) -> tuple[dict[str, Any], ...] | None:
        given = dict(self._of(_CALLS))
        if _role_of(self.values) in CALLING:
            given = {next(self._of(_WORDS), ("content", None))[0]: content}
        read = {key: self._read_calls(value, key) for key, value in given.items() if value not in ("", [], {})}
        calls = [some for some in read.values() if some]
        if any(others != calls[0] for others in calls):
            self._fault("tool_calls", f"different calls in {' and '.join(read)}", "keep one of them")
        if calls and role != "assistant":
            self._fault(next(iter(read)), f"calls in a turn of {role}", "only the assistant calls tools")
        return calls[0] if calls else None

    def _read_calls(self, value: Any, key: str) -> tuple[dict[str, Any], ...]:
        calls = []
        for call in _objects(value, f"{self.field}.{key}", self.fields):
            if not isinstance(_inner(call).get("name"), str):
                self._fault(key, shorten(call), "expected calls: each a function with name and arguments")
            # The form that chat templates know: {"type": "function", "function": {"name": ..., "arguments": ...}}
            short = {k: v for k, v in call.items() if k not in ("id", "type")}
            name = {"id": call["id"]} if "id" in call else {}
            calls.append(call if "function" in call else {**name, "type": "function", "function": short})
        return tuple(calls)

    def _tools(self) -> tuple[dict[str, Any], ...] | None:
        given = [read_tools(value, f"{self.field}.{key}", self.fields) for key, value in self._of(_TOOLS)]
        return next(iter(given), None)

    # Whether it is trained on

    def _trained(self, role: Role) -> bool | None:
        """False for a turn of the assistant that is context only; else the settings decide."""
        marks = {}
        for key, value in self._of(_TRAINED):
            if value not in (0, 1):
                self._fault(key, shorten(value), "expected 1 (trained on) or 0 (context only)")
            marks[key] = bool(value)
        if len(set(marks.values())) > 1:
            self._fault(next(iter(marks)), f"{' and '.join(marks)} that contradict", "keep one of them")
        trained = next(iter(marks.values()), None)
        if trained and role != "assistant":
            self.log.count("turns that are not the assistant's are marked to be trained on: they are context")
        return False if trained is False and role == "assistant" else None


def _inner(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """The function of a call or tool; calls and tools of older forms are the function itself."""
    inner = value.get("function")
    return inner if isinstance(inner, dict) else value


def _objects(value: Any, field: str, fields: Faults) -> list[dict[str, Any]]:
    """A list of objects, one object, or the JSON text of these; every text in it is checked."""
    read = value
    if isinstance(value, str):
        read = structure_in(value) if value.strip() else []
    listed = [read] if isinstance(read, dict) else read
    if not isinstance(listed, list) or not all(isinstance(item, dict) for item in listed):
        fields.fault(field, shorten(value), "expected a list of objects, or its JSON text")
        return []
    return [_sound(item, field, fields, nulls=fields.row.nulls and read is value) for item in listed]


def _sound(value: Any, field: str, fields: Faults, *, nulls: bool) -> Any:
    """A JSON-ready copy, its texts checked; without nulls that only say that another row has the key."""
    if isinstance(value, dict):
        kept = {k: v for k, v in value.items() if v is not None or not nulls}
        return {str(k): _sound(v, f"{field}.{shorten_names([k])}", fields, nulls=nulls) for k, v in kept.items()}
    if isinstance(value, (list, tuple)):
        return [_sound(v, field, fields, nulls=nulls) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        fields.fault(field, repr(value), "expected a finite number")
    if value is None or isinstance(value, (bool, int, float)):
        return value
    # Parquet has types that JSON has not: dates, decimals.
    return fields.checked(value if isinstance(value, str) else str(value), field)
