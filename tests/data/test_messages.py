"""The keys of a message: each is in the turn, or refused with file and line, or counted as not used."""

from __future__ import annotations

import json

import pytest

from plaudit.data.load import load_records
from plaudit.data.reading.transcripts import plain_text, prompt_key
from plaudit.errors import DataError
from plaudit.records import Demonstration, Message, Preference, Prompt

USER = {"role": "user", "content": "Weather in Ulm?"}
FUNCTION = {"name": "weather", "arguments": '{"town": "Ulm"}'}
CALL = {"id": "c1", "type": "function", "function": FUNCTION}
CALLS = {"role": "assistant", "content": None, "tool_calls": [CALL]}
ANSWER = {"role": "tool", "tool_call_id": "c1", "name": "weather", "content": "rain"}
LAST = {"role": "assistant", "content": "It rains."}
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]


@pytest.fixture
def read(write_lines):
    """The records of rows, and what was noted of them."""

    def records(*rows):
        loaded = load_records(write_lines(*rows))
        return loaded.records, loaded

    return records


@pytest.fixture
def refused(write_lines):
    """The error that one row gives."""

    def error(row):
        with pytest.raises(DataError) as caught:
            load_records(write_lines(row))
        assert "rows.jsonl:1" in str(caught.value)
        return str(caught.value)

    return error


def turn_of(read, **keys):
    """The turn that a message of the assistant with these keys becomes, between two others."""
    [record], loaded = read({"messages": [USER, {"role": "assistant", **keys}, USER, LAST]})
    return record.prompt[1], loaded


# keys of a message -> what the turn has
READ = {
    "thoughts": ({"content": "a", "reasoning_content": "hm"}, {"reasoning_content": "hm"}),
    "thoughts of others": ({"content": "a", "thinking": "hm"}, {"reasoning_content": "hm"}),
    "thoughts said twice": ({"content": "a", "reasoning": "hm", "thought": "hm"}, {"reasoning_content": "hm"}),
    "calls": ({"content": None, "tool_calls": [CALL]}, {"tool_calls": (CALL,)}),
    "calls as text": ({"content": "", "tool_calls": json.dumps([CALL])}, {"tool_calls": (CALL,)}),
    "calls in short form": (
        {"tool_calls": [{"id": "c1", **FUNCTION}]},
        {"tool_calls": (CALL,)},
    ),
    "one call of the older form": (
        {"function_call": FUNCTION},
        {"tool_calls": ({"type": "function", "function": FUNCTION},)},
    ),
    "name": ({"content": "a", "name": "Ada"}, {"name": "Ada"}),
    "weight 0": ({"content": "a", "weight": 0}, {"train": False}),
    "weight 0.0": ({"content": "a", "weight": 0.0}, {"train": False}),
    "train": ({"content": "a", "train": False}, {"train": False}),
    "loss": ({"content": "a", "loss": False}, {"train": False}),
    "weight 1": ({"content": "a", "weight": 1, "trainable": True}, {}),
    "nulls": ({"content": "a", "tool_calls": None, "audio": None, "refusal": None, "name": None}, {}),
    "empty lists": ({"content": "a", "tool_calls": [], "images": [], "annotations": []}, {}),
    "parts": ({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, {"content": "ab"}),
    "parts with nulls": ({"content": [{"type": "text", "text": "a", "image_url": None}]}, {}),
    "parts of thoughts": (
        {"content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "a"}]},
        {"reasoning_content": "hm"},
    ),
    "one part": ({"content": {"type": "output_text", "text": "a"}}, {}),
    "value": ({"value": "a"}, {}),
    "refusal": ({"content": None, "refusal": "a"}, {}),
}


@pytest.mark.parametrize("name", READ)
def test_keys_that_are_read(name, read):
    keys, more = READ[name]
    content = more.get("content", "" if "tool_calls" in more else "a")
    turn, loaded = turn_of(read, **keys)
    assert turn == Message("assistant", content, **{k: v for k, v in more.items() if k != "content"})
    assert bool(loaded.notes) == (name == "refusal") and not loaded.unused


# keys of a message of the assistant -> what the error says
REFUSED = {
    "images": ({"content": [{"type": "image_url", "image_url": {"url": "x"}}]}, "a part of type 'image_url'"),
    "images beside text": ({"content": "a", "images": ["a.png"]}, "only text is read"),
    "audio": ({"content": None, "audio": {"id": "a"}}, "only text is read"),
    "a weight between": ({"content": "a", "weight": 0.5}, "found 0.5"),
    "a weight as text": ({"content": "a", "train": "no"}, "found 'no'"),
    "marks that contradict": ({"content": "a", "weight": 0, "train": True}, "contradict"),
    "different thoughts": ({"content": "a", "thinking": "x", "reasoning": "y"}, "different texts"),
    "thoughts that are no text": ({"content": "a", "reasoning": {"effort": 1}}, "an object with effort"),
    "text and another refusal": ({"content": "a", "refusal": "b"}, "different texts"),
    "calls that are no list": ({"content": "a", "tool_calls": "weather"}, "'weather'"),
    "a call without a name": ({"content": "a", "tool_calls": [{"id": "c1"}]}, "name and arguments"),
    "broken text in a call": (
        {"tool_calls": [{"function": {"name": "a", "arguments": "\ud800"}}]},
        "surrogate",
    ),
    "two different calls": ({"tool_calls": [CALL], "function_call": {"name": "b"}}, "different calls"),
    "a misspelt key": ({"content": "a", "tool_call": [CALL]}, "did you mean tool_calls?"),
    "a number as content": ({"content": 7}, "found 7"),
    "nothing at all": ({"content": None}, "nothing (null)"),
    "nothing but empty lists": ({"content": [], "tool_calls": []}, "expected text"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_keys_that_are_refused(name, refused):
    keys, words = REFUSED[name]
    error = refused({"messages": [USER, {"role": "assistant", **keys}, USER, LAST]})
    assert words in error and "messages[1]" in error


def test_calls_of_others_than_the_assistant_are_refused(refused):
    assert "only the assistant calls tools" in refused({"messages": [USER | {"tool_calls": [CALL]}, LAST]})


def test_keys_that_no_turn_holds_are_counted(read):
    message = LAST | {"timestamp": 12, "model": "x"}
    parts = {"role": "user", "content": [{"type": "text", "text": "a", "cache_control": {"type": "x"}}]}
    _, loaded = read({"messages": [parts, message]}, {"messages": [USER, message]})
    assert set(loaded.unused) == {
        "timestamp of messages",
        "model of messages",
        "cache_control of parts of messages",
    }
    assert "2 times the key timestamp of messages is not used" in loaded.notes


def test_roles_and_calls_of_other_tools(read):
    sharegpt = [
        {"from": "human", "value": "Weather in Ulm?"},
        {"from": "function_call", "value": json.dumps(FUNCTION)},
        {"from": "observation", "value": "rain"},
        {"from": "gpt", "value": "It rains."},
    ]
    openai = [
        USER,
        {"role": "assistant", "content": None, "function_call": FUNCTION},
        {"role": "function", "name": "weather", "content": "rain"},
        LAST,
    ]
    swift = [
        USER,
        {"role": "assistant", "content": "Let me see."},
        {"role": "tool_call", "content": json.dumps(FUNCTION)},
        {"role": "tool_call", "content": json.dumps(FUNCTION)},
        {"role": "tool_response", "content": "rain"},
        LAST,
    ]
    (first, second, third), _ = read({"conversations": sharegpt}, {"messages": openai}, {"messages": swift})
    call = {"type": "function", "function": FUNCTION}
    assert first.prompt[1] == second.prompt[1] == Message("assistant", "", tool_calls=(call,))
    assert [turn.role for turn in first.prompt] == ["user", "assistant", "tool"]
    assert second.prompt[2].name == "weather"
    assert third.prompt[1] == Message("assistant", "Let me see.", tool_calls=(call, call))


def test_a_chat_may_end_in_a_call(read):
    for last in (CALLS, CALLS | {"content": ""}, {"role": "assistant", "tool_calls": [CALL]}):
        [record], _ = read({"messages": [USER, last]})
        assert record == Demonstration(
            record.id, (Message("user", USER["content"]),), (Message("assistant", "", tool_calls=(CALL,)),)
        )


def test_a_call_then_its_answer_stay_in_the_prompt(read):
    [record], _ = read({"messages": [USER, CALLS, ANSWER, LAST]})
    assert record.response == "It rains."
    assert record.prompt[1].tool_calls == (CALL,)
    assert record.prompt[2] == Message("tool", "rain", "weather", tool_call_id="c1")


def test_pairs_that_differ_in_calls_only(read):
    other = CALL | {"function": {"name": "weather", "arguments": "{}"}}
    row = {"chosen": [USER, CALLS], "rejected": [USER, CALLS | {"tool_calls": [other]}]}
    [pair], loaded = read(row)
    assert isinstance(pair, Preference) and pair.prompt == (Message("user", USER["content"]),)
    assert pair.chosen == (Message("assistant", "", tool_calls=(CALL,)),)
    assert pair.rejected == (Message("assistant", "", tool_calls=(other,)),)
    assert not loaded.notes, "a call is no empty response"


def test_an_empty_side_of_a_pair_is_counted(read):
    _, loaded = read({"prompt": [USER], "chosen": [CALLS], "rejected": [{"role": "assistant", "content": ""}]})
    assert loaded.notes == ("1 empty responses",)


def test_turns_after_the_last_that_is_trained_on_are_left_out(read, refused):
    context = LAST | {"weight": 0}
    [record], loaded = read({"messages": [USER, LAST, USER, context]})
    assert record.prompt == (Message("user", USER["content"]),) and record.response == "It rains."
    assert loaded.notes == ("2 turns after the last one that is trained on, left out",)
    assert "no turn that is trained on" in refused({"messages": [USER, context]})
    assert "weight 0" in refused({"prompt": [USER], "response": [context]})


def test_tools_of_a_row_stand_on_the_first_turn(read, refused):
    tools = tuple(TOOLS)
    rows = [
        {"messages": [USER, CALLS], "tools": TOOLS},
        {"messages": [USER, CALLS], "tools": json.dumps(TOOLS)},
        {"messages": [USER | {"tools": TOOLS}, CALLS]},
        {"messages": [USER, CALLS | {"tools": TOOLS}]},
        {"messages": [USER, CALLS], "functions": [TOOLS[0]["function"]]},
        {"messages": [USER, CALLS], "tools": TOOLS[0]},
    ]
    records, loaded = read(*rows)
    assert {record.prompt[0] for record in records} == {Message("user", USER["content"], tools=tools)}
    assert [record.prompt[0].tools for record in records] == [tools] * len(rows)
    assert not loaded.unused
    for none in ([], "", "[]", None):
        assert read({"messages": [USER, CALLS], "tools": none})[0][0].prompt[0].tools is None
    assert "JSON text" in refused({"messages": [USER, CALLS], "tools": "hammer and nails"})
    other = [{"name": "other"}]
    assert "other tools" in refused({"messages": [USER | {"tools": TOOLS}, LAST], "tools": other})


def test_tools_make_a_plain_prompt_a_chat_and_stay_a_column_for_rewards(read):
    [prompt], _ = read({"prompt": "Weather in Ulm?", "tools": TOOLS})
    assert isinstance(prompt, Prompt)
    assert prompt.content == (Message("user", "Weather in Ulm?", tools=tuple(TOOLS)),)
    assert prompt.columns == {"tools": TOOLS}
    [pair], _ = read({"prompt": "a", "chosen": "b", "rejected": "c", "tools": TOOLS})
    assert pair.prompt[0].tools == tuple(TOOLS) and pair.chosen == "b"
    [whole], _ = read({"chosen": [LAST], "rejected": [CALLS], "tools": TOOLS})
    assert whole.chosen[0].tools == whole.rejected[0].tools == tuple(TOOLS)


def test_people_and_rewards_of_texts_see_calls_thoughts_and_tools(read):
    thought = CALLS | {"reasoning_content": "I look it up."}
    [record], _ = read({"messages": [USER, thought], "tools": TOOLS})
    text = plain_text(record.response)
    assert "I look it up." in text and '{"name": "weather", "arguments": {"town": "Ulm"}}' in text
    assert '"weather"' in plain_text(record.prompt)
    [chat], _ = read({"messages": [USER, CALLS, ANSWER, LAST]})
    assert "Tool (weather): rain" in plain_text(chat.prompt) and "town" in plain_text(chat.prompt)
    assert prompt_key(chat.prompt) != prompt_key(chat.prompt[:1] + (Message("assistant", ""),) + chat.prompt[2:])
