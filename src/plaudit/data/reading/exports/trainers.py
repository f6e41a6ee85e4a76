"""Data as other trainers read them: OpenAI, LLaMA-Factory, ms-swift, ShareGPT."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from plaudit.data.reading.exports.item import Item, OwnRow
from plaudit.data.reading.exports.shapes import by_assistant, is_chat, shared_prompt, turn, with_system
from plaudit.data.reading.rows import shorten

LABELS = ("kto_tag", "label")
"""Columns with a truth value: whether the response is a good one."""


def openai_preference(item: Item) -> list[OwnRow]:
    """`input` with messages and tools, `preferred_output`, `non_preferred_output`."""
    given = item.item("input")
    return [
        {
            "prompt": given.content("messages"),
            "chosen": item.content("preferred_output"),
            "rejected": item.content("non_preferred_output"),
            **_tools(given),
        }
    ]


# Instruction, query, history


def instruction(item: Item) -> list[OwnRow]:
    """`instruction`, `input`, `system`, `history`, and `output`, `chosen` and `rejected`, or `output` and `kto_tag`."""
    words, more = item.content("instruction"), item.label("input")
    prompt = _prompt(item, f"{words}\n\n{more}" if more else str(words))
    outputs = item.peek("output")
    if item.has("chosen") or isinstance(outputs, list):
        return [prompt | _pair(item, outputs)]
    if item.has(*LABELS):
        return [prompt | {"response": item.content("output"), "label": item.flag(*LABELS)}]
    return [prompt | {"response": item.content("output")}]


def _pair(item: Item, outputs: Any) -> OwnRow:
    """Chosen and rejected, from two columns or from a list of two."""
    if item.has("chosen"):
        return {"chosen": item.content("chosen"), "rejected": item.content("rejected")}
    item.take("output")
    if len(outputs) != 2:
        item.fault("output", shorten(outputs), "expected two responses, the better one first")
        return {}
    return dict(zip(("chosen", "rejected"), outputs, strict=True))


def query(item: Item) -> list[OwnRow]:
    """`query`, `system`, `history`, `response`, and `rejected_response` or `label` where there is one."""
    prompt = _prompt(item, str(item.content("query", "prompt", "instruction")))
    if item.has("rejected_response"):
        return [prompt | {"chosen": item.content("response"), "rejected": item.content("rejected_response")}]
    if item.has("response") and item.has(*LABELS):
        return [prompt | {"response": item.content("response"), "label": item.flag(*LABELS)}]
    return [prompt | ({"response": item.content("response")} if item.has("response") else {})]


def _prompt(item: Item, words: str) -> OwnRow:
    turns = [turn("user", words)]
    for said, answered in reversed(_history(item)):
        turns[:0] = [turn("user", said), turn("assistant", answered)]
    row: OwnRow = {"prompt": with_system(turns, item.label("system")), **_tools(item)}
    return row | ({"id": item.label("id")} if item.has("id") else {})


def _history(item: Item) -> list[tuple[str, str]]:
    """Earlier prompts and responses: a list of pairs."""
    pairs = item.chat("history") if item.has("history") else []
    if not all(isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in pairs):
        item.fault("history", shorten(pairs), "expected pairs: each a prompt and its response")
        return []
    return [(str(said), str(answered)) for said, answered in pairs]


def _tools(item: Item) -> OwnRow:
    tools = item.take("tools")
    return {"tools": tools} if tools else {}


# Conversations


def conversation_pair(item: Item) -> list[OwnRow]:
    """`conversations` (or `messages`) up to the prompt, and `chosen` and `rejected`, each one message or several."""
    prompt = with_system(item.chat("conversations", "messages"), item.label("system"))
    sides = [[side] if isinstance(side, dict) else side for side in map(item.content, ("chosen", "rejected"))]
    # Both may be whole conversations that repeat the prompt.
    if all(is_chat(side) and side[: len(prompt)] == prompt for side in sides):
        sides = [side[len(prompt) :] for side in sides]
    return [{"prompt": prompt, "chosen": sides[0], "rejected": sides[1], **_identity(item), **_tools(item)}]


def conversation_label(item: Item) -> list[OwnRow]:
    """`conversations` (or `messages`) that end with the response, and `kto_tag` or `label`: whether it is good."""
    prompt, response = _last_response(item, with_system(item.chat("conversations", "messages"), item.label("system")))
    label = item.flag(*LABELS)
    return [{"prompt": prompt, "response": response, "label": label, **_identity(item), **_tools(item)}]


def rejected_besides(item: Item) -> list[OwnRow]:
    """`messages` that end with the chosen response, and `rejected_response` or `rejected_messages`."""
    messages = with_system(item.chat("messages", "conversations"), item.label("system"))
    more = {**_identity(item), **_tools(item)}
    other = item.peek("rejected_response")
    if item.has("rejected_messages"):
        rejected = with_system(item.chat("rejected_messages"), item.label("system"))
        at = shared_prompt(messages, rejected)
        return [{"prompt": messages[:at], "chosen": messages[at:], "rejected": rejected[at:], **more}]
    # A list of several rejected responses gives a pair with each.
    rejects = other if isinstance(other, list) and not is_chat(other) else [other]
    item.take("rejected_response")
    prompt, chosen = _last_response(item, messages)
    return [{"prompt": prompt, "chosen": chosen, "rejected": each, **more} for each in rejects]


def exchanges(item: Item) -> list[OwnRow]:
    """`conversation`: exchanges, each with what the human and the assistant said; optionally `system`."""
    turns = []
    for one in item.items("conversation"):
        turns += [turn("user", one.content("human")), turn("assistant", one.content("assistant"))]
    return [{"messages": with_system(turns, item.label("system")), **_identity(item), **_tools(item)}]


def _last_response(item: Item, messages: list[Any]) -> tuple[list[Any], list[Any]]:
    """A chat before and from the last turn of the assistant on, calls of tools and their answers included."""
    at = len(messages)
    while at > 0 and (by_assistant(messages[at - 1]) or _role(messages[at - 1]) in _TOOLS):
        at -= 1
    if at == len(messages):
        item.fault("messages", "a chat that does not end with the assistant", "end it with the response")
    return messages[:at], messages[at:]


_TOOLS = ("tool", "function", "tool_response", "observation", "function_call", "tool_call")


def _role(message: Any) -> str:
    return str(message.get("role") or message.get("from")).lower() if isinstance(message, dict) else ""


def _identity(item: Item) -> OwnRow:
    return {"id": item.label("id")} if item.has("id") else {}


# Which of these a row is


def is_instruction(values: Mapping[str, Any]) -> bool:
    """Whether an instruction has its response, or two."""
    return values.get("output") is not None or all(values.get(name) is not None for name in ("chosen", "rejected"))


def has_more_than_output(values: Mapping[str, Any]) -> bool:
    """Whether an instruction has what the plain layout of instruction and output has no place for."""
    more = any(values.get(name) for name in ("system", "history", "tools", "chosen"))
    return more or values.get("kto_tag") is not None or isinstance(values.get("output"), list)


def has_more_than_response(values: Mapping[str, Any]) -> bool:
    """Whether a query has what a prompt with its response has no place for."""
    return values.get("rejected_response") is not None or bool(values.get("query") and values.get("history"))


def is_conversation(values: Mapping[str, Any]) -> bool:
    """Whether conversations or messages are a chat."""
    return is_chat(values.get("conversations")) or is_chat(values.get("messages"))


def ends_before_response(values: Mapping[str, Any]) -> bool:
    """Whether conversations or messages are the prompt of the responses beside them."""
    chats: list[Any] = [chat for chat in (values.get("conversations"), values.get("messages")) if is_chat(chat)]
    return values.get("prompt") is None and bool(chats) and not by_assistant(chats[0][-1])


def has_label(values: Mapping[str, Any]) -> bool:
    """Whether a conversation has a truth value for its response; other labels are classes."""
    return is_conversation(values) and any(isinstance(values.get(name), bool) for name in LABELS)
