"""Random messages with random keys: each key that has a value is in the record, is refused, or is said to be unused."""

from __future__ import annotations

import json

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plaudit.data.load import load_records
from plaudit.data.reading.messages import ROLES
from plaudit.data.write import write_records
from plaudit.errors import DataError
from plaudit.records import to_json

quick = settings(
    max_examples=120,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
words = st.sampled_from(["a", "so be it", "=1", "", " "])
functions = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["f", "g"]),
        "arguments": st.sampled_from(['{"x": 1}', {}, {"x": None, "y": [1]}, {"z": "ü"}]),
    }
)
calls = st.builds(lambda f: {"type": "function", "function": f}, functions) | functions
listed = st.lists(calls, max_size=2)
parts = st.fixed_dictionaries({"type": st.sampled_from(["text", "thinking", "image"])}).flatmap(
    lambda part: words.map(lambda text: {**part, part["type"]: text})
)
marks = st.sampled_from([0, 1, 0.0, 1.0, True, False])
anything = words | marks | st.lists(words, max_size=2) | st.dictionaries(words, words, max_size=1)
texts = st.lists(parts.filter(lambda part: part["type"] != "image"), min_size=1, max_size=2)
tools = st.just([{"type": "function", "function": {"name": "f", "parameters": None}}])
# Keys of one kind mean the same: a message has at most one of them here.
KINDS = {
    "content": {"content": words | texts | st.none(), "value": words, "refusal": words},
    "thoughts": {"reasoning_content": words, "thinking": words, "reasoning": words},
    "calls": {"tool_calls": listed | listed.map(json.dumps), "function_call": functions},
    "mark": {"weight": marks, "train": marks, "loss": marks},
    "others": {"name": words, "tool_call_id": words, "tools": tools},
    "unknown": {"id": anything, "annotations": anything, "audio": st.none()},
}
REFUSED = {"audio": {"id": "x"}, "tool_cals": [1], "weight": 0.5, "content": [{"type": "image"}], "thought": 1}


@st.composite
def messages(draw):
    """A message; now and then with a key that is refused."""
    message = {"role": draw(st.sampled_from(["assistant", "gpt", "assistant", "user"]))}
    for kind, keys in KINDS.items():
        if kind == "content" or (draw(st.booleans()) and (kind != "calls" or message["role"] != "user")):
            key = draw(st.sampled_from(list(keys)))
            message[key] = draw(keys[key])
    key = draw(st.sampled_from([None] * 20 + list(REFUSED)))
    return message | ({key: REFUSED[key]} if key else {})


NONE = (None, "", [], {})


def _texts(value):
    """Every text in a JSON value."""
    if isinstance(value, dict):
        return [text for item in value.values() for text in _texts(item)]
    if isinstance(value, list):
        return [text for item in value for text in _texts(item)]
    return [value] if isinstance(value, str) else []


def _is_there(key, value, turn, first):
    """Whether what a message has under this key is in its turn."""
    marked = turn.train is False
    if key in ("role", "from"):
        return ROLES[value] == turn.role
    if key in ("weight", "train", "loss"):
        return marked == (not value) or turn.role != "assistant"
    if key == "tools":
        return to_json(first.tools) == value
    if key in ("tool_calls", "function_call"):
        read = json.loads(value) if isinstance(value, str) else value
        names = [call.get("function", call)["name"] for call in (read if isinstance(read, list) else [read])]
        return names == [call["function"]["name"] for call in turn.tool_calls or ()]
    kept = json.dumps(to_json(turn))
    kinds = ("text", "thinking")  # the types of parts are no words
    return all(json.dumps(text)[1:-1] in kept for text in _texts(value) if text not in kinds)


@quick
@given(st.lists(messages(), min_size=1, max_size=2))
def test_no_key_vanishes_without_a_word(tmp_path, middle):
    path = tmp_path / "rows.jsonl"
    ask = {"role": "user", "content": "q"}
    chat = [ask, *(turn for message in middle for turn in (message, ask)), {"role": "assistant", "content": "z"}]
    path.write_text(json.dumps({"messages": chat}) + "\n")
    try:
        loaded = load_records(str(path))
    except DataError as error:
        assert f"{path}:1" in str(error) or error.where == str(path)
        return
    [record] = loaded.records
    turns = record.prompt[1::2]
    assert len(turns) == len(middle)
    for message, turn in zip(middle, turns, strict=True):
        for key, value in message.items():
            there = value in NONE or f"{key} of messages" in loaded.unused
            assert there or _is_there(key, value, turn, record.prompt[0]), (key, value, turn)


@quick
@given(st.lists(messages(), min_size=1, max_size=3), st.lists(messages(), min_size=1, max_size=2))
def test_all_that_is_read_is_written_and_read_again(tmp_path, first, second):
    path = tmp_path / "rows.jsonl"
    end = {"role": "assistant", "content": "z"}
    rows = [{"messages": [{"role": "user", "content": "q"}, *chat, end]} for chat in (first, second)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    try:
        records = load_records(str(path)).records
    except DataError:
        return
    for ending in ("jsonl", "json", "csv", "parquet"):
        copy = tmp_path / f"copy.{ending}"
        write_records(records, copy)
        assert load_records(str(copy)).records == records, ending
