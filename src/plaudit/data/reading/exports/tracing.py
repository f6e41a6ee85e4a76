"""Exports of Langfuse and LangSmith: examples with inputs and outputs, and scores of what was sampled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from plaudit.data.reading.exports.item import Item, OwnRow, as_number
from plaudit.data.reading.exports.shapes import (
    PROMPTS,
    RESPONSES,
    hint,
    is_chat,
    is_turn,
    name_of,
    with_system,
)
from plaudit.data.reading.rows import shorten, shorten_names

_ROLES = {"human": "user", "ai": "assistant", "system": "system", "tool": "tool"}


def langfuse_item(item: Item) -> list[OwnRow]:
    """A dataset item: `input` and `expectedOutput`."""
    if item.label("status").upper() == "ARCHIVED":
        item.log.leave_out("archived items, left out")
        return []
    row = {"id": item.label("id") or item.identity, **_prompt(item, "input")}
    name = item.has("expectedOutput", "expected_output")
    return [row | ({"response": _response(item, name)} if name else {})]


def langfuse_trace(item: Item) -> list[OwnRow]:
    """A trace or observation: `input`, `output`, and `scores`: a list of them, or numbers by name."""
    scores: dict[str, list[float]] = {}
    listed = item.peek("scores")
    if isinstance(listed, dict):
        scores = {str(name): _numbers(value) for name, value in listed.items()}
        item.take("scores")
    else:
        for score in item.items("scores"):
            number = _score(score)
            if number is not None:
                scores.setdefault(score.label("name"), []).append(number)
    return _rated(item, scores, "input", "output")


def langsmith_example(item: Item) -> list[OwnRow]:
    """An example: `inputs` and `outputs`; outputs with `chosen` and `rejected` are a preference."""
    row = {"id": item.label("id") or item.identity, **_prompt(item, "inputs")}
    outputs = item.peek("outputs")
    if isinstance(outputs, dict) and {"chosen", "rejected"} <= outputs.keys():
        inner = item.item("outputs")
        return [row | {name: inner.content(name) for name in ("chosen", "rejected")}]
    return [row | ({"response": _response(item, "outputs")} if outputs else {})]


def langsmith_run(item: Item) -> list[OwnRow]:
    """A run with `feedback_stats` (numbers by key, or objects with their mean in `avg`)."""
    stats = item.item("feedback_stats")
    scores: dict[str, list[float]] = {}
    for key in stats.values:
        about = stats.peek(key)
        number = as_number(about.get("avg")) if isinstance(about, dict) else as_number(about)
        if number is not None:
            scores[str(key)] = [number]
            stats.take(key) if not isinstance(about, dict) else stats.item(key).take("avg")
    return _rated(item, scores, "inputs", "outputs")


def without_texts(item: Item) -> list[OwnRow]:
    """Scores or feedback that name a trace or run, and hold no text: nothing can be learned from them alone."""
    found = f"only {shorten_names(item.values)}"
    item.fault("output", found, "export the traces or runs with their inputs, outputs and scores, not the scores alone")
    return []


def _rated(item: Item, scores: Mapping[str, list[float]], asked: str, answered: str) -> list[OwnRow]:
    """A rating: one score is the reward, several are axes; several of one name are averaged."""
    means = {name: sum(numbers) / len(numbers) for name, numbers in scores.items() if numbers}
    if not means or not item.has(answered):
        item.log.leave_out("traces without a score or an output, left out")
        return []
    item.log.count("scores of one name on one trace, averaged", sum(len(n) for n in scores.values() if len(n) > 1))
    row = {"id": item.label("id") or item.identity, **_prompt(item, asked), "response": _response(item, answered)}
    return [row | ({"reward": next(iter(means.values()))} if len(means) == 1 else {"axes": means})]


def _score(score: Item) -> float | None:
    value = as_number(score.peek("value"))
    if value is None:
        score.log.leave_out("scores that are no number, left out")
        return None
    score.take("value")
    return value


def _numbers(value: Any) -> list[float]:
    values = value if isinstance(value, list) else [value]
    return [number for each in values if (number := as_number(each)) is not None]


# Inputs and outputs: text, chat, or an object that a project named


def _prompt(item: Item, name: str) -> OwnRow:
    value = item.peek(name)
    if isinstance(value, dict) and not is_turn(value):
        inner = item.item(name)
        if inner.has("messages"):
            tools = inner.take("tools")
            return {"prompt": _chat(inner.chat("messages")), **({"tools": tools} if tools else {})}
        at = name_of(inner, "prompt", PROMPTS, ("system", "system_prompt"))
        if at:
            return {"prompt": with_system(_chat(inner.content(at)), inner.label("system", "system_prompt"))}
        item.fault(name, shorten(value), hint("prompt"))
        return {"prompt": ""}
    value = item.take(name)
    if not isinstance(value, (str, list, dict)):
        item.fault(name, shorten(value), "expected text, a chat, or an object with one of them")
    return {"prompt": _chat(value)}


def _response(item: Item, name: str) -> Any:
    value = item.peek(name)
    if not isinstance(value, dict) or is_turn(value) or _is_chain(value):
        value = item.take(name)
        if not isinstance(value, (str, list, dict)):
            item.fault(name, shorten(value), "expected text, a message, or an object with one of them")
        return _chat([value] if isinstance(value, dict) else value)
    inner = item.item(name)
    if is_chat(inner.peek("messages")):
        return inner.chat("messages")[-1:]
    at = name_of(inner, "response", RESPONSES)
    if not at:
        item.fault(name, shorten(value), hint("response"))
        return ""
    return _chat(inner.content(at))


def _is_chain(value: Any) -> bool:
    return isinstance(value, dict) and value.get("type") in _ROLES and ("content" in value or "data" in value)


def _chat(value: Any) -> Any:
    """A chat whose turns LangChain wrote (a type, and content or data) in the usual keys; all else as it is."""
    if not isinstance(value, list) or not value or not all(map(_is_chain, value)):
        return value
    inner = [each["data"] if isinstance(each.get("data"), dict) else each for each in value]
    bare = [{key: other for key, other in data.items() if key != "type"} for data in inner]
    return [{"role": _ROLES[each["type"]], **data} for each, data in zip(value, bare, strict=True)]
