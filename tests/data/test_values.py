"""Values from Python become what the same rows of a file become, and are refused with the same words."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from plaudit.data.load import load_records
from plaudit.data.values import load_values, prompt_of
from plaudit.errors import DataError
from plaudit.records import Demonstration, Message, Preference, Prompt, Rating

CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
TURNS = (Message("system", "Be brief."), Message("user", "Hi"))
CALL = {"type": "function", "function": {"name": "f", "arguments": {"a": None}}}
TOOLS = [{"type": "function", "function": {"name": "f"}}]


def prompts(*values):
    return load_values(values, "prompts", "prompt").records


@pytest.mark.parametrize(
    ("value", "content"),
    [
        ("say red", "say red"),
        (CHAT, TURNS),
        (tuple(CHAT), TURNS),
        (TURNS, TURNS),
        (list(TURNS), TURNS),
        ([("system", "Be brief."), ("user", "Hi")], TURNS),
        ([("system", "Be brief."), CHAT[1]], TURNS),
        ({"prompt": "say red"}, "say red"),
        ({"prompt": CHAT}, TURNS),
        ({"prompt": TURNS}, TURNS),
        (Prompt("p", TURNS), TURNS),
        (np.str_("say red"), "say red"),
    ],
)
def test_each_way_to_write_a_prompt(value, content):
    [prompt] = prompts(value)
    assert prompt.content == content and prompt_of(value, "prompt") == content
    assert prompt.id == ("p" if isinstance(value, Prompt) else "prompt-0")


def test_rows_keep_ids_answers_and_columns():
    [prompt] = prompts({"id": 7, "prompt": "q", "answer": 4, "level": np.int64(3), "none": None, "to": (1, 2)})
    assert prompt == Prompt("7", "q", "4", {"level": 3, "to": [1, 2]})


def test_a_generator_is_read_once_and_a_limit_holds():
    values = (f"say {i}" for i in range(5))
    loaded = load_values(values, "prompts", "prompt", limit=2)
    assert [p.content for p in loaded.records] == ["say 0", "say 1"] and next(values) == "say 2"


def test_tables_of_datasets_and_pandas():
    import datasets
    import pandas

    rows = [
        {"prompt": "a", "answer": "1", "level": 1},
        {"prompt": "b", "answer": None, "level": 2},
    ]
    wanted = [Prompt("prompt-0", "a", "1", {"level": 1}), Prompt("prompt-1", "b", None, {"level": 2})]
    table = datasets.Dataset.from_list(rows)
    for values in (table, list(table), pandas.DataFrame(rows), table.to_iterable_dataset(), rows):
        read = load_values(values, "prompts", "prompt").records
        assert list(read) == wanted and [p.columns for p in read] == [p.columns for p in wanted]
    chats = datasets.Dataset.from_list([{"prompt": CHAT}, {"prompt": [{"role": "user", "content": "b"}]}])
    assert load_values(chats, "prompts", "prompt").records[0].content == TURNS
    assert load_values(chats.to_pandas(), "prompts", "prompt").records[0].content == TURNS
    with pytest.raises(DataError, match="several splits: train, test") as caught:
        load_values(datasets.DatasetDict(train=table, test=table), "prompts", "prompt")
    assert "prompts=data['train']" in caught.value.cure


def test_keys_that_a_table_fills_with_nothing_are_no_arguments():
    import datasets

    calls = [[{"function": {"name": "f", "arguments": {key: 1}}}] for key in "ab"]
    rows = [{"messages": [CHAT[1], {"role": "assistant", "tool_calls": call}]} for call in calls]
    table = load_values(datasets.Dataset.from_list(rows), "demonstrations", "demonstration").records
    assert [r.response[0].tool_calls[0]["function"]["arguments"] for r in table] == [{"a": 1}, {"b": 1}]
    [given] = load_values([{"messages": [CHAT[1], {"role": "assistant", "tool_calls": [CALL]}]}], "x").records
    assert given.response[0].tool_calls == (CALL,), "None in a value of Python is a value"


BAD = {
    "a chat that ends with the assistant": [*CHAT, {"role": "assistant", "content": "Hello"}],
    "an empty text": " ",
    "an unknown role": [{"role": "wizard", "content": "a"}],
    "a picture": [{"role": "user", "content": [{"type": "image"}]}],
    "a misspelt key": [{"role": "user", "content": "a", "tool_cals": [1]}],
    "a text in a list": ["a"],
    "tools that are none": {"prompt": CHAT, "tools": "hammer"},
}


@pytest.mark.parametrize("name", BAD)
def test_faults_have_the_words_of_a_file_and_the_place_of_a_value(name, write_lines):
    row = BAD[name] if isinstance(BAD[name], dict) else {"prompt": BAD[name]}
    with pytest.raises(DataError) as in_file:
        load_records(write_lines({"prompt": "fine"}, row), "prompt")
    with pytest.raises(DataError) as in_python:
        load_values(["fine", BAD[name]], "prompts", "prompt")
    assert in_python.value.where == "prompts[1]" and in_file.value.where.endswith("rows.jsonl:2")
    assert (in_python.value.what, in_python.value.cure) == (in_file.value.what, in_file.value.cure)
    with pytest.raises(DataError, match="prompt"):
        prompt_of([BAD[name]] if isinstance(BAD[name], str) else BAD[name], "prompt")


def test_a_prompt_record_that_ends_with_the_assistant_is_refused_too():
    with pytest.raises(DataError, match="ends with the assistant's turn") as caught:
        prompts("fine", Prompt("p", (*TURNS, Message("assistant", "Hello"))))
    assert caught.value.where == "prompts[1]"
    with pytest.raises(DataError, match="ends with the assistant's turn") as caught:
        prompts(Prompt("p", (*TURNS, Message("assistant", "Hello"))))
    assert caught.value.where == "prompts[0]"


@pytest.mark.parametrize("value", [7, None, b"bytes", object(), {1, 2}, Message("user", "Hi"), CHAT[1]])
def test_what_is_no_prompt_is_refused_with_its_place(value):
    with pytest.raises(DataError) as caught:
        prompts("fine", value)
    assert caught.value.where == "prompts[1]" and caught.value.cure


NO_LISTS = ["one text", 7, CHAT, {"prompt": ["a", "b"]}, CHAT[1], [], iter(()), Prompt("p", "q")]


@pytest.mark.parametrize("values", NO_LISTS)
def test_what_is_no_list_of_prompts_is_refused(values):
    with pytest.raises(DataError) as caught:
        load_values(values, "prompts", "prompt")
    assert caught.value.where == "prompts" and caught.value.cure


def test_what_is_not_used_is_said_as_for_files():
    loaded = load_values([{"prompt": "a", "mood": 1}, {"prompt": "b"}], "prompts", "prompt")
    assert "fields not used: mood" in loaded.notes and loaded.unused == ("mood",)
    chat = [CHAT[1] | {"timestamp": 3}]
    assert load_values([chat], "prompts", "prompt").unused == ("timestamp of messages",)


def test_other_kinds_and_conversions():
    pair = {"prompt": "q", "chosen": "a", "rejected": "b"}
    assert load_values([pair], "preferences", "preference").records == (Preference("preference-0", "q", "a", "b"),)
    mixed = load_values([pair, Preference("x", "q", "c", "d", 2.0)], "preferences", "preference").records
    assert mixed[1] == Preference("x", "q", "c", "d", 2.0)
    ratings = load_values([{"prompt": "q", "response": "a", "reward": 1}], "preferences", "rating").records
    assert ratings == (Rating("preference-0", "q", "a", 1.0),)
    chosen = load_values([Preference("x", "q", "c", "d")], "demonstrations", "demonstration")
    assert chosen.records == (Demonstration("x", "q", "c"),) and chosen.places.of("x") == "demonstrations[0]"
    with pytest.raises(DataError, match="several kinds"):
        load_values([Prompt("p", "q"), Preference("x", "q", "c", "d")], "prompts", "prompt")
    with pytest.raises(DataError, match="preference is needed"):
        load_values(["a text"], "preferences", "preference")


def test_tools_of_a_row_and_places():
    loaded = load_values([{"prompt": "q", "tools": TOOLS}, "r"], "prompts", "prompt")
    assert loaded.records[0].content == (Message("user", "q", tools=tuple(TOOLS)),)
    assert [loaded.places.of(record.id) for record in loaded.records] == ["prompts[0]", "prompts[1]"]
    assert loaded.places.of("prompt-1/chosen") == "prompts[1]" and loaded.places.of("other") == "prompts"


def test_neither_library_is_imported():
    code = (
        "import sys; from plaudit.data.values import load_values; load_values(['a'], 'prompts', 'prompt');"
        "print([name for name in ('pandas', 'datasets', 'torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.replace("'", '"')) == []
