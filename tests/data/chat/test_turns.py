"""What a turn has beyond its words goes to the template; what the template does not write is refused, or said."""

from __future__ import annotations

import json
from typing import Any

import chat_patterns as patterns
import pytest

from plaudit.data.chat import ChatFormat
from plaudit.errors import DataError
from plaudit.records import Message

ASK = Message("user", "hello")


def form(name: str) -> ChatFormat:
    return ChatFormat(patterns.tokenizer_of(name))


def call(name: str = "weather", **arguments: Any) -> dict[str, Any]:
    return {"id": "abcdefghi", "type": "function", "function": {"name": name, "arguments": arguments}}


def answer(chat: ChatFormat, turn: Message, *before: Message) -> str:
    row = chat.encode(before or (ASK,), (turn,))
    return chat.decode(row.ids[row.prompt_length :])


@pytest.mark.parametrize("given", [{"town": "Ulm"}, '{"town": "Ulm"}'], ids=["object", "text"])
@pytest.mark.parametrize("shape", ["whole", "bare"])
@pytest.mark.parametrize(
    "name", ["qwen2.5", "qwen3", "mistral v0.3", "gpt-oss", "llama3", "deepseek r1", "deepseek v3.1"]
)
def test_calls_are_written_in_the_form_that_the_template_reads(name: str, shape: str, given: Any) -> None:
    whole = {"id": "abcdefghi", "type": "function", "function": {"name": "weather", "arguments": given}}
    made = whole if shape == "whole" else {"name": "weather", "arguments": given}
    text = answer(form(name), Message("assistant", "", tool_calls=(made,)))
    assert "weather" in text and json.dumps({"town": "Ulm"}) in text.replace('":"', '": "')


@pytest.mark.parametrize(
    "name, turn, what",
    [
        ("chatml", Message("assistant", "", tool_calls=(call(),)), "tool_calls"),
        ("chatml", Message("assistant", "fine", tool_calls=(call(),)), "tool_calls"),
        ("chatml", Message("assistant", "fine", reasoning_content="first"), "reasoning_content"),
        ("llama2", Message("assistant", "fine", reasoning_content="first"), "reasoning_content"),
    ],
)
def test_what_a_template_does_not_write_of_a_response_is_refused(name: str, turn: Message, what: str) -> None:
    with pytest.raises(DataError, match=what) as refused:
        form(name).encode((ASK,), (turn,))
    assert refused.value.cure


def test_calls_of_earlier_turns_and_tools_are_refused_too() -> None:
    called = (ASK, Message("assistant", "", tool_calls=(call(),)), Message("tool", "rain"))
    with pytest.raises(DataError, match="tool_calls"):
        form("zephyr").prompt_ids(called)
    with pytest.raises(DataError, match="tools"):
        form("zephyr").prompt_ids((Message("user", "hello", tools=(call(),)),))


def test_a_template_that_writes_one_call_of_two_is_refused() -> None:
    chat = form("qwen2.5")
    whole = patterns.PATTERNS["qwen2.5"].template
    chat.tokenizer.chat_template = whole.replace("m.tool_calls or []", "(m.tool_calls or [])[:1]")
    assert "weather" in answer(chat, Message("assistant", "", tool_calls=(call(),)))
    with pytest.raises(DataError, match="every call of town"):
        chat.encode((ASK,), (Message("assistant", "", tool_calls=(call(), call("town"))),))
    chat.tokenizer.chat_template = patterns.PATTERNS["qwen2.5"].template


def test_a_template_that_writes_nothing_of_a_response_is_refused() -> None:
    tokenizer = patterns.make_tokenizer("bytes", ["</s>"], eos_token="</s>")
    words = "{{ m.content if m.role == 'user' else m.words }}"
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }}:" + words + "</s>{% endfor %}"
    with pytest.raises(DataError, match="nothing of the response"):
        ChatFormat(tokenizer).encode((ASK,), "fine")


@pytest.mark.parametrize("name", ["qwen3", "gpt-oss", "qwen3, thoughts if any"])
def test_thoughts_go_to_templates_that_know_them(name: str) -> None:
    chat = form(name)
    assert "first" in answer(chat, Message("assistant", "fine", reasoning_content="first")) and chat.notes == ()


def test_what_is_left_out_of_earlier_turns_is_counted() -> None:
    chat = form("minicpm")
    turn = "{% if m.role != 'tool' %}<|{{ m.role }}|>{{ m.content }}{% endif %}"
    chat.tokenizer.chat_template = "{% for m in messages %}" + turn + "{% endfor %}<|assistant|>"
    earlier = Message("assistant", "fine", reasoning_content="first", name="Ada")
    chat.prompt_ids((ASK, earlier, Message("tool", "rain"), Message("user", "so", name="Bob")))
    said = " ".join(chat.notes)
    assert "1 turns of the tool that the chat template leaves out" in said
    assert "1 earlier turns whose thoughts" in said and "2 turns whose speaker's name" in said
    chat.tokenizer.chat_template = patterns.PATTERNS["minicpm"].template


def test_two_responses_to_one_prompt_count_it_once() -> None:
    chat = form("chatml")
    prompt = (Message("user", "hello", name="Ada"),)
    for response in ("fine", "rain", "sun"):
        chat.encode(prompt, response)
    assert chat.notes == ("1 turns whose speaker's name the chat template does not write",)
    chat.count_from({})
    assert chat.notes == ()


# Turns that are context only


def trained(chat: ChatFormat, *args: Any, **options: Any) -> str:
    row = chat.encode(*args, **options)
    return chat.decode([i for i, yes in zip(row.ids, row.mask, strict=True) if yes])


def test_turns_that_are_context_only_are_not_trained_on() -> None:
    chat, wrong = form("chatml"), Message("assistant", "wrong", train=False)
    prompt = (ASK, wrong, Message("user", "sure"), Message("assistant", "yes"), Message("user", "so"))
    assert trained(chat, prompt, "fine", all_turns=True) == "yes<|im_end|>fine<|im_end|>"
    assert trained(chat, (ASK,), (*prompt[1:], Message("assistant", "fine"))) == "yes<|im_end|>fine<|im_end|>"
    assert trained(chat, (ASK,), (wrong,)) == "" and chat.notes == ()


def test_a_turn_that_asks_for_it_is_trained_on() -> None:
    prompt = (ASK, Message("assistant", "yes", train=True), Message("user", "so"))
    assert trained(form("chatml"), prompt, "fine") == "yes<|im_end|>fine<|im_end|>"


def test_a_response_that_was_cut_off_has_no_end() -> None:
    for name in ("chatml", "llama2", "end of several tokens"):
        chat = form(name)
        row = chat.encode((ASK,), "fine", finished=False)
        assert chat.decode(row.ids[row.prompt_length :]).strip() == "fine"


def test_what_follows_a_response_has_one_end_between() -> None:
    for name in ("chatml", "gpt-oss", "end of several tokens", "llama2"):
        chat = form(name)
        row = chat.encode((ASK,), "fine").ids
        if chat.stop_texts:
            row = row[:-1]  # sampling stops at the text
        reply = chat.continuation("so", row, chat=True)
        once = chat.decode([*row, *reply])
        end = chat.stop_texts[0] if chat.stop_texts else chat.decode(row[-1:])
        assert f"fine{end}" in once.replace(" <", "<") and once.count(f"{end}{end}") == 0
        if name == "gpt-oss":
            assert "<|return|><|start|>user" in once
