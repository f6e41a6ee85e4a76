"""Lists and chats that were stored as text: read as what they are, or refused; never learned as that text."""

from __future__ import annotations

import json

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from plaudit.data.load import load_records
from plaudit.data.reading.structures import structure_in
from plaudit.errors import DataError
from plaudit.records import Comparison, Demonstration, Judgement, Message, Preference, Ranking

ASKED = {"role": "user", "content": "What's \"it\"? } {\n 'a' 'b'"}
SAID = {"role": "assistant", "content": "It's [1 2],\nnot \\n."}
CHAT = [ASKED, SAID]
PROMPT = (Message("user", ASKED["content"]),)


def numpy_of(items, text):
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return text(array)


FORMS = {
    "JSON": json.dumps(CHAT),
    "indented JSON": json.dumps(CHAT, indent=2),
    "JSON in JSON": json.dumps(json.dumps(CHAT)),
    "repr": repr(CHAT),
    "repr of a tuple": repr(tuple(CHAT)),
    "numpy repr": numpy_of(CHAT, repr),
    "numpy str": numpy_of(CHAT, str),
    "JSON with messages": json.dumps({"messages": CHAT}),
    "space around": f"\n {CHAT!r} ",
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_chats_stored_as_text(form, ending, tmp_path):
    path = tmp_path / f"rows.{ending}"
    other = [ASKED, {"role": "assistant", "content": "No."}]
    row = {"chosen": FORMS[form], "rejected": json.dumps(other)}
    if ending == "csv":
        quoted = ('"' + cell.replace('"', '""') + '"' for cell in row.values())
        path.write_text("chosen,rejected\n" + ",".join(quoted) + "\n", newline="")
    elif ending == "jsonl":
        path.write_text(json.dumps(row) + "\n")
    else:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), path)
    loaded = load_records(str(path))
    assert loaded.records == (Preference("rows-1", PROMPT, SAID["content"], "No."),)
    assert any("stored as text" in note for note in loaded.notes)


def test_messages_stored_as_text_are_demonstrations(write_lines):
    loaded = load_records(write_lines({"messages": repr(CHAT)}))
    assert loaded.records == (Demonstration("rows-1", PROMPT, SAID["content"]),)
    loaded = load_records(write_lines({"prompt": repr([ASKED]), "response": repr(SAID)}))
    assert loaded.records == (Demonstration("rows-1", PROMPT, SAID["content"]),)


@pytest.mark.parametrize(
    "text",
    [
        repr(CHAT)[:-20],
        "[Message(role='user', content='Hi'), Message(role='assistant', content='Hello')]",
        "[{'role': 'user', 'content': 'Hi'}, ..., {'role': 'assistant', 'content': 'Hello'}]",
        "[{'role': 'user', 'content': __import__('os').getcwd()}]",
        "[{role: user, content: Hi}]",
    ],
)
@pytest.mark.parametrize("field", ["response", "prompt"])
def test_what_looks_like_messages_and_is_not_is_refused(text, field, write_lines):
    row = {"prompt": "Hi", "response": "Hello"} | {field: text}
    with pytest.raises(DataError, match="looks like a list of messages") as caught:
        load_records(write_lines(row))
    assert ":1" in caught.value.where


@pytest.mark.parametrize(
    "text", ['[{"name": "Ada"}]', "[see below]", "{'a': 1}", '{"role": "admin"}', "[1, 2]", "[]", "f([{x}])", '"[a'],
)
def test_other_structures_stay_texts(text, write_lines):
    assert load_records(write_lines({"prompt": "Hi", "response": text})).records[0].response == text


def test_lists_and_objects_stored_as_text(write_lines):
    row = {"prompt": "Hi", "responses": "['a b' 'c']", "ranks": "array([2, 1])"}
    assert load_records(write_lines(row)).records == (Ranking("rows-1", "Hi", ("a b", "c"), (2, 1)),)
    row = {"prompt": "Hi", "completions": "['a', 'b']"}
    assert load_records(write_lines(row)).records == (Comparison("rows-1", "Hi", ("a", "b")),)
    row = {"prompt": "Hi", "response_a": "a", "response_b": "b", "labels": "{'ann': 'a', 'ben': 'b'}"}
    verdicts = [r.strength for r in load_records(write_lines(row)).records if isinstance(r, Judgement)]
    assert verdicts == [-1, 1]


def test_nothing_is_joined_cut_or_run():
    assert structure_in("['a' 'b']") == ["a", "b"], "Python would join the two"
    assert structure_in("array(['a', 'b'], dtype='<U1')") == ["a", "b"]
    assert structure_in("[np.float64(1.5), np.str_('a')]") == [1.5, "a"]
    deep = "[" * 60 + "'a'" + "]" * 60
    for text in ("[1, 2, ..., 9]", "[print('x')]", "[1]]", "[1)", "[" * 9999, deep, "['a", "[b'a']"):
        assert structure_in(text) is None, text[:20]
