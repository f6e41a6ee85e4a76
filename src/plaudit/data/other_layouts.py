"""Rows as other trainers read them: TRL, OpenAI, HH-RLHF. What they have no place for is counted."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from plaudit.data.reading.rows import ReadLog
from plaudit.data.reading.transcripts import as_messages, write_transcript
from plaudit.errors import DataError
from plaudit.records import Content, Demonstration, Kind, Message, Preference, Prompt, Rating, Record, to_json

JsonRow = dict[str, Any]
"""A row of JSON values by field."""
_AS_USER = "plain-text prompts written as a turn of the user"


def columns_of(record: Record) -> JsonRow:
    """The further columns of a prompt."""
    return dict(record.columns) if isinstance(record, Prompt) else {}


def trl(records: Sequence[Record], log: ReadLog) -> list[JsonRow]:
    """Rows of one of TRL's dataset types: standard if all are plain texts, else conversational."""
    # TRL looks at one row to tell which it is, so one chat makes all of them chats.
    fields = [_trl_contents(record, log) for record in records]
    chats = any(not isinstance(content, str) for row in fields for content in row.values())
    if chats:
        log.count(_AS_USER, sum(isinstance(row["prompt"], str) for row in fields))
    written = [_trl_chats(row, log) if chats else dict(row) for row in fields]
    return [_trl_more(record) | row for record, row in zip(records, written, strict=True)]


def _trl_contents(record: Record, log: ReadLog) -> dict[str, Content]:
    """The texts and chats of a record under the names that TRL reads."""
    if isinstance(record, Prompt):
        return {"prompt": record.content}
    if isinstance(record, Demonstration):
        before = record.prompt if isinstance(record.prompt, tuple) else ()
        earlier = any(turn.role == "assistant" and turn.train is not False for turn in before)
        log.count("demonstrations with earlier turns of the assistant, on which TRL does not train", earlier)
        return {"prompt": record.prompt, "completion": record.response}
    if isinstance(record, Preference):
        _count_more(record, log)
        return {"prompt": record.prompt, "chosen": record.chosen, "rejected": record.rejected}
    if isinstance(record, Rating) and record.reward in (0.0, 1.0):
        log.count("named axes left out", bool(record.axes))
        return {"prompt": record.prompt, "completion": record.response}
    what = f"TRL's unpaired preferences are true or false; record {record.id} is not"
    raise DataError(what, where=log.source, cure="write the layout plaudit, or convert to preference first")


def _trl_more(record: Record) -> JsonRow:
    """What stands beside the texts: further columns and the answer of a prompt, the label of a rating."""
    if isinstance(record, Prompt):
        return columns_of(record) | ({} if record.answer is None else {"answer": record.answer})
    return {"label": record.reward == 1.0} if isinstance(record, Rating) else {}


def _trl_chats(contents: Mapping[str, Content], log: ReadLog) -> JsonRow:
    chats = {name: as_messages(content, "assistant") for name, content in contents.items() if name != "prompt"}
    chats = {"prompt": _asked(contents["prompt"])} | chats
    turns = [turn for chat in chats.values() for turn in chat]
    log.count("turns that are context only, which TRL trains on", sum(turn.train is False for turn in turns))
    # TRL keeps the tools in a column of their own.
    tools = next((turn.tools for turn in turns if turn.tools), None)
    bare = {name: [replace(turn, train=None, tools=None) for turn in chat] for name, chat in chats.items()}
    return to_json(bare) | ({"tools": to_json(tools)} if tools else {})


def transcripts(records: Sequence[Record], log: ReadLog) -> list[JsonRow]:
    """Chosen and rejected as whole transcripts."""
    return [_transcripts(record, log) for record in records]


def _transcripts(record: Record, log: ReadLog) -> JsonRow:
    assert isinstance(record, Preference), "converted before"
    _count_more(record, log)
    log.count("plain-text prompts written as a turn of Human", isinstance(record.prompt, str))
    turns = as_messages(record.prompt, "user") if record.prompt else ()
    said = (*turns, *as_messages(record.chosen, "assistant"), *as_messages(record.rejected, "assistant"))
    log.count("turns whose names, thoughts, calls or tools became text", sum(not m.is_plain for m in said))
    both = {"chosen": record.chosen, "rejected": record.rejected}
    return {name: write_transcript((*turns, *as_messages(c, "assistant"))) for name, c in both.items()}


def openai(records: Sequence[Record], log: ReadLog) -> list[JsonRow]:
    """Lines of a file for OpenAI's fine-tuning: preferences, or chats to be imitated."""
    return [_openai(record, log) for record in records]


def _openai(record: Record, log: ReadLog) -> JsonRow:
    if isinstance(record, Demonstration):
        log.count(_AS_USER, isinstance(record.prompt, str))
        turns = (*_asked(record.prompt), *as_messages(record.response, "assistant"))
        return {"messages": [_openai_turn(turn, log) for turn in turns], **_openai_tools(turns)}
    assert isinstance(record, Preference), "converted before"
    _count_more(record, log)
    log.count(_AS_USER, isinstance(record.prompt, str))
    asked = _asked(record.prompt)
    sides = {"preferred_output": record.chosen, "non_preferred_output": record.rejected}
    chats = {name: as_messages(content, "assistant") for name, content in sides.items()}
    # The API takes one message of the assistant on each side.
    log.count("responses of several turns, which OpenAI refuses", sum(len(chat) > 1 for chat in chats.values()))
    given = {"messages": [_openai_turn(turn, log) for turn in asked], **_openai_tools(asked)}
    return {"input": given, **{name: [_openai_turn(turn, log) for turn in chat] for name, chat in chats.items()}}


def _asked(prompt: Content) -> tuple[Message, ...]:
    return as_messages(prompt, "user") if prompt else ()


def _openai_tools(turns: tuple[Message, ...]) -> JsonRow:
    tools = next((turn.tools for turn in turns if turn.tools), None)
    return {"tools": to_json(tools), "parallel_tool_calls": True} if tools else {}


def _openai_turn(turn: Message, log: ReadLog) -> JsonRow:
    """A message in OpenAI's keys: arguments of calls are JSON text, context only is the weight 0."""
    log.count("thoughts left out, for which OpenAI has no key", turn.reasoning_content is not None)
    row: JsonRow = to_json(replace(turn, reasoning_content=None, train=None, tools=None))
    if turn.tool_calls:
        row["tool_calls"] = [_openai_call(call, f"call_{number}") for number, call in enumerate(turn.tool_calls)]
    return row | ({"weight": 0} if turn.train is False else {})


def _openai_call(call: Mapping[str, Any], name: str) -> JsonRow:
    function = dict(call.get("function", {}))
    arguments = function.get("arguments", {})
    function["arguments"] = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return {"id": name, "type": "function", **call, "function": function}


def _count_more(record: Preference, log: ReadLog) -> None:
    more = record.margin is not None or record.agreement != 1.0 or record.annotator is not None
    log.count("margins, agreements or annotators left out", more)


HOLDS: dict[str, tuple[Kind, ...]] = {
    "trl": ("prompt", "demonstration", "preference", "rating"),
    "openai": ("demonstration", "preference"),
    "hh": ("preference",),
}
"""The kinds of record for which a layout has a place."""
Writer = Callable[[Sequence[Record], ReadLog], list[JsonRow]]
WRITERS: dict[str, Writer] = {"trl": trl, "openai": openai, "hh": transcripts}
