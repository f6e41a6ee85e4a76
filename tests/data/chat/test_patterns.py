"""What is trained equals what the template renders, token by token, or the run says what differs."""

from __future__ import annotations

import functools
import json
from typing import Any

import chat_patterns as patterns
import pytest

from plaudit.data.chat import ChatFormat
from plaudit.errors import DataError
from plaudit.records import Message, to_json

NAMES, KINDS = list(patterns.PATTERNS), patterns.KINDS
CALL = {"id": "abcdefghi", "type": "function", "function": {"name": "weather", "arguments": {"town": "Ulm"}}}
TOOL = {"type": "function", "function": {"name": "weather", "description": "rain", "parameters": {"type": "object"}}}
ASK = Message("user", "hello how are you")
THOUGHT = "<think>\nfirst\n</think>\n\nI am fine."
Chat = tuple[tuple[Message, ...], Any]
CHATS: dict[str, Chat] = {
    "one turn": ((ASK,), "I am fine."),
    "system": ((Message("system", "think first"), ASK), "I am fine."),
    "several turns": ((ASK, Message("assistant", "fine"), Message("user", "and the weather")), "rain"),
    "spaces around": ((ASK,), " I am fine. "),
    "line breaks around": ((ASK,), "\n\nI am fine.\n"),
    "nothing said": ((ASK,), ""),
    "ends inside": ((ASK,), "fine</s> and <|im_end|> so"),
    "an end at the end": ((ASK,), "fine</s>"),
    "thoughts in the words": ((ASK,), THOUGHT),
    "thoughts of their own": ((ASK,), (Message("assistant", "I am fine.", reasoning_content="first"),)),
    "earlier thoughts": ((ASK, Message("assistant", THOUGHT), Message("user", "and the weather")), THOUGHT),
    "a call": ((ASK,), (Message("assistant", "", tool_calls=(CALL,)),)),
    "tools, a call and its answer": (
        (
            Message("user", "hello", tools=(TOOL,)),
            Message("assistant", "", tool_calls=(CALL,)),
            Message("tool", "rain"),
        ),
        "It is rain",
    ),
}  # fmt: skip


@functools.cache
def whole(name: str, kind: str, chat: str) -> tuple[int, ...]:
    """The tokens of the finished chat as the template alone writes it."""
    tokenizer = patterns.tokenizer_of(name, kind)
    prompt, response = CHATS[chat]
    last = (Message("assistant", response),) if isinstance(response, str) else response
    messages = [to_json(turn) for turn in (*prompt, *last)]
    tools = messages[0].pop("tools", None)
    for message in messages:
        if name == "parts":
            message["content"] = [{"type": "text", "text": message["content"]}]
        for call in message.get("tool_calls", []) if name.startswith("deepseek") else []:
            call["function"]["arguments"] = json.dumps(call["function"]["arguments"])
    text = tokenizer.apply_chat_template(messages, tokenize=False, **({"tools": tools} if tools else {}))
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    first = tokenizer("a")["input_ids"][:1] if patterns.PATTERNS[name].adds_bos else []
    return tuple(ids if ids[:1] == first else first + ids)


def test_there_are_patterns_enough() -> None:
    assert len(NAMES) >= 25


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_rows_are_what_the_template_writes_or_it_is_said(name: str, kind: str) -> None:
    tokenizer = patterns.tokenizer_of(name, kind)
    answered = 0
    for chat, (prompt, response) in CHATS.items():
        form = ChatFormat(tokenizer)
        try:
            row = form.encode(prompt, response)
        except DataError as refused:
            assert refused.cure
            continue
        answered += 1
        assert row.ids[: row.prompt_length] == ChatFormat(tokenizer).prompt_ids(prompt), chat
        assert row.ids[-1] in form.end_ids and row.mask[-1]
        rendered = list(whole(name, kind, chat))
        as_rendered = row.ids == rendered[: len(row.ids)]
        assert as_rendered or form.notes, f"{chat}: {tokenizer.decode(row.ids)!r} is not {tokenizer.decode(rendered)!r}"
        rest = set(rendered[len(row.ids) :]) & set(form.end_ids) if as_rendered else set()
        assert rest <= {tokenizer.eos_token_id}, f"{chat}: the row has an end, the template goes on"
    assert answered >= 8


# What the patterns are known for. Without these a format that says everything of every row would pass.

SILENT = [
    name
    for name in NAMES
    if name not in ("qwq", "chatml, opens thoughts", "deepseek r1", "smollm3, no thoughts", "end of several tokens")
    and name not in ("vicuna, no end", "alpaca", "falcon", "glm-4")
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SILENT)
def test_formats_without_surprises_say_nothing(name: str, kind: str) -> None:
    form = ChatFormat(patterns.tokenizer_of(name, kind))
    chats = [chat for chat in ("one turn", "several turns") if not (name == "qwen3" and chat == "several turns")]
    for chat in chats:
        row = form.encode(*CHATS[chat])
        assert row.ids == list(whole(name, kind, chat))[: len(row.ids)]
    assert not [note for note in form.notes if "share a token" not in note]


@pytest.mark.parametrize("name", NAMES)
def test_the_end_of_a_turn_is_found(name: str) -> None:
    tokenizer, pattern = patterns.tokenizer_of(name), patterns.PATTERNS[name]
    form = ChatFormat(tokenizer)
    ends = [tokenizer.convert_ids_to_tokens(i) for i in form.end_ids]
    assert ends[0] == (pattern.end or pattern.eos) and pattern.eos in ends
    assert form.stop_texts == (("[END OF TURN]",) if name == "end of several tokens" else ())
    assert tokenizer.decode(form.encode((ASK,), "rain").ids[-1:]) == ends[0]


def test_other_ends_of_a_turn_that_calls() -> None:
    for name, end in (("llama3", "<|eom_id|>"), ("gpt-oss", "<|call|>")):
        form = ChatFormat(patterns.tokenizer_of(name))
        assert form.tokenizer.convert_tokens_to_ids(end) in form.end_ids  # type: ignore[attr-defined]
        assert form.tokenizer.decode(form.encode(*CHATS["a call"]).ids[-1:]) == end


OPENED = {
    "qwq": ("\n</think>\n\nI am fine.<|im_end|>", "first\n</think>\n\nI am fine.<|im_end|>"),
    "chatml, opens thoughts": ("\n</think>\n\nI am fine.<|im_end|>", "first\n</think>\n\nI am fine.<|im_end|>"),
    "deepseek r1": ("\n</think>\n\nI am fine.<|eos|>", "first\n</think>\n\nI am fine.<|eos|>"),
    "qwen3-thinking": ("\n</think>\n\nI am fine.<|im_end|>", "first\n</think>\n\nI am fine.<|im_end|>"),
}


@pytest.mark.parametrize("name", OPENED)
def test_thoughts_that_the_template_opens_are_opened_once_and_hold_no_answer(name: str) -> None:
    form = ChatFormat(patterns.tokenizer_of(name))
    without, thinking = OPENED[name]
    sampled = "first\n</think>\n\nI am fine."
    said = {"I am fine.": without, THOUGHT: thinking, f"<think>{sampled}": thinking, sampled: thinking}
    for response, expected in said.items():
        row = form.encode((ASK,), response)
        text = form.decode(row.ids)
        assert form.decode(row.ids[row.prompt_length :]) == expected
        assert text.count("<think>") == text.count("</think>") == 1
    row = form.encode(*CHATS["thoughts of their own"])
    assert form.decode(row.ids[row.prompt_length :]) == thinking


def test_a_switch_of_the_template_says_how_empty_thoughts_are_closed() -> None:
    opening = "<|assistant|><think>{% if enable_thinking == false %}-</think>{% endif %}"
    pattern = patterns.turns("<|{{ m.role }}|>", "<|end|>", opening)
    tokenizer = patterns.make_tokenizer("bytes", ["</s>", "<|end|>", "<|assistant|>", "<|user|>"], eos_token="</s>")
    tokenizer.chat_template = pattern
    form = ChatFormat(tokenizer)
    assert form.decode(form.encode((ASK,), "fine").ids).endswith("<|assistant|><think>-</think>fine<|end|>")
    assert "closed, as '-</think>'" in form.notes[0]


def test_earlier_turns_are_trained_as_they_were_answered_or_not_at_all() -> None:
    chat = (ASK, Message("assistant", THOUGHT), Message("user", "and the weather"))
    stripped = ChatFormat(patterns.tokenizer_of("qwen3"))
    row = stripped.encode(chat, "rain", all_turns=True)
    assert row.mask == [i >= row.prompt_length for i in range(len(row))]
    assert any("not trained on" in note for note in stripped.notes)
    kept = ChatFormat(patterns.tokenizer_of("chatml"))
    row = kept.encode(chat, "rain", all_turns=True)
    trained = [i for i, yes in zip(row.ids, row.mask, strict=True) if yes]
    assert kept.decode(trained) == f"{THOUGHT}<|im_end|>rain<|im_end|>" and kept.notes == ()
