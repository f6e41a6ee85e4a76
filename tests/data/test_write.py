"""What is written is read back as it was; what cannot be is refused or said."""

from __future__ import annotations

import csv
import gzip
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plaudit.data.load import load_records
from plaudit.data.reading.oddities import is_blank
from plaudit.data.write import write_records
from plaudit.errors import ConfigError, DataError
from plaudit.records import (
    Comparison,
    Demonstration,
    Judgement,
    Message,
    Preference,
    Prompt,
    Ranking,
    Rating,
    to_json,
)

ASKED = (Message("system", "Be kind."), Message("user", "Hi"))
TOOLS = ({"type": "function", "function": {"name": "f", "parameters": {"required": ["a"], "default": None}}},)
USER = Message("user", "Hi", tools=TOOLS)
MARKED = Message("assistant", "no", train=False)
THOUGHT = Message("assistant", "yes", reasoning_content="hm")
CALLS = Message(
    "assistant",
    "",
    tool_calls=(
        {"id": "1", "type": "function", "function": {"name": "f", "arguments": {"a": None, "b": [1, 2.5]}}},
        {"type": "function", "function": {"name": "g", "arguments": '{"c": "=1"}'}},
    ),
)
ANSWER = Message("tool", "=1+1", "f", tool_call_id="1")
KINDS = {
    "demonstration": [Demonstration("1", ASKED, "Hello\n"), Demonstration("2", ASKED[1:], " ")][:1],
    "plain demonstration": [Demonstration("1", "Q: \r\n", "=1+1"), Demonstration("2", "", "'=x")],
    "preference": [Preference("1", ASKED, "a", "b", 1.5, 0.75, "ann"), Preference("2", ASKED, "", "c")],
    "preference over turns": [
        Preference(
            "1", ASKED, (Message("assistant", "a"), Message("user", "b"), Message("assistant", "c")), "d"
        )
    ],
    "preference without prompt": [
        Preference("1", (), (*ASKED, Message("assistant", "a")), (ASKED[1], Message("assistant", "b")))
    ],
    "ranking": [Ranking("1", "q", ("a", "b", "-c"), (1, 3, 1))],
    "rating": [Rating("1", "q", "a", -1.5), Rating("2", "", "b", 2.0)],
    "axes": [Rating("1", "q", "a", 3.0, {"wit": 2.0})],
    "judgement": [Judgement("1", "q", "a", "b", -2, "m", "n", "ann"), Judgement("2", "q", "a", "b", 0)],
    "prompt": [Prompt("1", ASKED, "42"), Prompt("2", ASKED)],
    "prompt with columns": [Prompt("1", "q", None, {"level": "3", "unit": "m"})],
    "texts and turns": [
        Preference("1", ASKED, (CALLS, Message("tool", "x"), Message("assistant", "c")), "d"),
        Preference("2", ASKED, "a", (CALLS,)),
    ],
    "every key of a turn": [
        Demonstration("1", (USER, MARKED, Message("user", "b")), (THOUGHT,)),
        Demonstration("2", (Message("user", "a"), CALLS, ANSWER), "b"),
        Demonstration("3", (Message("user", "a", "Ada"),), (CALLS,)),
    ],
    "comparison of texts and calls": [Comparison("1", (USER,), ("a", (CALLS,)))],
    "ranking of calls": [Ranking("1", (USER,), ((CALLS,), "b", "c"), (1, 3, 1))],
    "rating of a call": [Rating("1", (USER,), (CALLS,), 2.0), Rating("2", (USER,), "a", 1.0)],
    "judgement of a call": [Judgement("1", (USER,), (CALLS,), "b", -2, "m", "n", "ann")],
    "prompt with tools": [Prompt("1", (USER,), None, {"tools": list(TOOLS)})],
}
ENDINGS = ["jsonl", "json", "csv", "parquet"]


@pytest.mark.parametrize("ending", [*ENDINGS, *(f"{e}.gz" for e in ENDINGS)])
@pytest.mark.parametrize("name", KINDS)
def test_own_layout_reads_back(name, ending, tmp_path):
    path = tmp_path / f"records.{ending}"
    write_records(KINDS[name], path)
    assert load_records(str(path)).records == tuple(KINDS[name])


def test_compressed_files_are_the_same_each_time(tmp_path):
    write_records(KINDS["prompt"], tmp_path / "a.jsonl.gz")
    write_records(KINDS["prompt"], tmp_path / "b.jsonl.gz")
    assert (tmp_path / "a.jsonl.gz").read_bytes() == (tmp_path / "b.jsonl.gz").read_bytes()


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1).filter(
    lambda text: not is_blank(text)
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=20))
def test_any_unicode_text_reads_back(tmp_path, pairs):
    records = tuple(Demonstration(f"id{i}", prompt, said) for i, (prompt, said) in enumerate(pairs))
    for ending in ("jsonl", "csv", "json"):
        path = tmp_path / f"records.{ending}"
        write_records(records, path)
        assert load_records(str(path)).records == records


def test_formulas_are_neutralised_and_come_back(tmp_path):
    said = ["=1+1", "+1", "-1", "@A1", "\tx", "\rx", "'=x", "'plain", "1=1"]
    records = tuple(Demonstration(f"id{i}", "q", text) for i, text in enumerate(said))
    notes = write_records(records, tmp_path / "a.csv")
    assert notes == ("7 cells protected against spreadsheet formulas by a quote in front",)
    with open(tmp_path / "a.csv", newline="") as file:
        cells = [row["response"] for row in csv.DictReader(file)]
    assert not any(cell.startswith(tuple("=+-@\t\r")) for cell in cells)
    loaded = load_records(str(tmp_path / "a.csv"))
    assert loaded.records == records
    assert "7 cells protected against spreadsheet formulas, read without the quote" in loaded.notes


def _rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


TURN = {"role": "user", "content": "Hi"}
SAID = {"role": "assistant", "content": "a"}


@pytest.mark.parametrize(
    ("record", "row"),
    [
        (Prompt("1", "q", "4"), {"prompt": "q", "answer": "4"}),
        (Demonstration("1", "q", "a"), {"prompt": "q", "completion": "a"}),
        (Demonstration("1", (Message("user", "Hi"),), "a"), {"prompt": [TURN], "completion": [SAID]}),
        (Preference("1", "q", "a", "b"), {"prompt": "q", "chosen": "a", "rejected": "b"}),
        (Rating("1", "q", "a", 1.0), {"prompt": "q", "completion": "a", "label": True}),
        (Ranking("1", "q", ("a", "b"), (1, 2)), {"prompt": "q", "chosen": "a", "rejected": "b"}),
    ],
)
def test_trl_layout(record, row, tmp_path):
    path = tmp_path / "a.jsonl"
    write_records([record], path, "trl")
    assert _rows(path) == [row]


def test_trl_conversations_read_back(tmp_path):
    path = tmp_path / "a.jsonl"
    write_records(KINDS["preference over turns"], path, "trl")
    (read,) = load_records(str(path)).records
    (was,) = KINDS["preference over turns"]
    assert (read.prompt, read.chosen, read.rejected) == (was.prompt, was.chosen, was.rejected)


def test_hh_layout_reads_back(tmp_path):
    record = Preference("hh-1", (Message("user", "Hi"),), "a", " b")
    path = tmp_path / "hh.jsonl.gz"
    write_records([record], path, "hh")
    row = json.loads(gzip.decompress(path.read_bytes()))
    assert row == {"chosen": "\n\nHuman: Hi\n\nAssistant: a", "rejected": "\n\nHuman: Hi\n\nAssistant:  b"}
    assert load_records(str(path)).records == (record,)


def test_texts_and_chats_as_prompts_do_not_fit_one_table(tmp_path):
    records = [Demonstration("1", "q", "a"), Demonstration("2", (USER,), "a")]
    with pytest.raises(DataError, match="do not fit one table"):
        write_records(records, tmp_path / "a.parquet")


def test_trl_has_tools_in_a_column_and_no_marks(tmp_path):
    path = tmp_path / "a.jsonl"
    notes = write_records([Demonstration("1", (USER, MARKED, Message("user", "b")), (CALLS,))], path, "trl")
    [row] = _rows(path)
    assert row["tools"] == to_json(TOOLS) and "tools" not in row["prompt"][0]
    assert row["completion"] == [to_json(CALLS)]
    assert "train" not in row["prompt"][1]
    assert notes == ("1 turns that are context only, which TRL trains on",)
    [read] = load_records(str(path)).records
    assert read.prompt[0] == USER and read.response == (CALLS,)


def test_hh_has_calls_as_text_and_says_so(tmp_path):
    path = tmp_path / "a.jsonl"
    notes = write_records([Preference("1", (Message("user", "b"),), (CALLS,), "no")], path, "hh")
    assert "<tool_call>" in _rows(path)[0]["chosen"]
    assert notes == ("1 turns whose names, thoughts, calls or tools became text",)


def test_what_a_layout_cannot_hold_is_said(tmp_path):
    notes = write_records(KINDS["preference"], tmp_path / "a.jsonl", "hh")
    assert notes == ("1 margins, agreements or annotators left out",)
    assert write_records([Preference("1", "q", "a", "b")], tmp_path / "a.jsonl", "hh") == (
        "1 plain-text prompts written as a turn of Human",
    )
    with pytest.raises(DataError, match="true or false"):
        write_records(KINDS["rating"], tmp_path / "a.jsonl", "trl")
    with pytest.raises(DataError, match="(?s)no place for prompt records.*plaudit or trl"):
        write_records(KINDS["prompt"], tmp_path / "a.jsonl", "hh")
    with pytest.raises(DataError, match="no place for comparison records"):
        write_records(KINDS["comparison of texts and calls"], tmp_path / "a.jsonl", "trl")


def test_openai_preferences_read_back(tmp_path):
    path = tmp_path / "a.jsonl"
    records = [Preference("a-1", (USER,), (CALLS,), "no"), Preference("a-2", (Message("user", "q"),), "a", "b")]
    assert write_records(records, path, "openai") == ()
    row, other = _rows(path)
    assert row["input"] == {"messages": [TURN], "tools": to_json(TOOLS), "parallel_tool_calls": True}
    calls = row["preferred_output"][0]["tool_calls"]
    assert [call["id"] for call in calls] == ["1", "call_1"]
    assert [call["function"]["arguments"] for call in calls] == ['{"a": null, "b": [1, 2.5]}', '{"c": "=1"}']
    assert other == {
        "input": {"messages": [{"role": "user", "content": "q"}]},
        "preferred_output": [{"role": "assistant", "content": "a"}],
        "non_preferred_output": [{"role": "assistant", "content": "b"}],
    }
    read = load_records(str(path)).records
    assert [r.rejected for r in read] == ["no", "b"] and read[0].prompt == (USER,) and read[1] == records[1]


def test_openai_says_what_it_has_no_place_for(tmp_path):
    several = (Message("assistant", "a"), Message("user", "b"), THOUGHT)
    records = [Preference("1", "q", several, "b", 2.0)]
    assert write_records(records, tmp_path / "a.jsonl", "openai") == (
        "1 margins, agreements or annotators left out",
        "1 plain-text prompts written as a turn of the user",
        "1 responses of several turns, which OpenAI refuses",
        "1 thoughts left out, for which OpenAI has no key",
    )
    with pytest.raises(DataError, match="OpenAI reads JSONL only"):
        write_records(records, tmp_path / "a.csv", "openai")
    with pytest.raises(DataError, match="no place for prompt"):
        write_records(KINDS["prompt"], tmp_path / "a.jsonl", "openai")


def test_openai_demonstrations_keep_marks_and_judgements_become_pairs(tmp_path):
    path = tmp_path / "a.jsonl"
    write_records([Demonstration("1", (USER, MARKED, Message("user", "b")), "c")], path, "openai")
    (row,) = _rows(path)
    assert row["messages"][1] == {"role": "assistant", "content": "no", "weight": 0} and row["tools"] == to_json(TOOLS)
    assert load_records(str(path)).records[0].prompt[1] == MARKED
    notes = write_records([Judgement("1", ASKED, "a", "b", -1)], path, "openai")
    assert "judgement records were made into preferences" in notes
    assert len(_rows(path)) == 1


def test_one_chat_makes_all_rows_of_trl_chats(tmp_path):
    path = tmp_path / "a.jsonl"
    records = [Preference("1", "q", "a", "b"), Preference("2", (Message("user", "q"),), "a", "b")]
    notes = write_records(records, path, "trl")
    first, second = _rows(path)
    assert first == second and first["prompt"] == [{"role": "user", "content": "q"}]
    assert notes == ("1 plain-text prompts written as a turn of the user",)


def test_trl_says_that_earlier_turns_are_not_trained_on(tmp_path):
    record = Demonstration("1", (Message("user", "a"), Message("assistant", "b"), Message("user", "c")), "d")
    notes = write_records([record], tmp_path / "a.jsonl", "trl")
    assert notes == ("1 demonstrations with earlier turns of the assistant, on which TRL does not train",)


def test_refusals(tmp_path):
    with pytest.raises(DataError, match="unknown file type"):
        write_records(KINDS["prompt"], tmp_path / "a.xlsx")
    with pytest.raises(DataError, match="no records"):
        write_records([], tmp_path / "a.jsonl")
    for ending in ENDINGS:
        with pytest.raises(DataError):
            write_records([Prompt("1", "half \ud800")], tmp_path / f"a.{ending}")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot write"):
        write_records(KINDS["prompt"], tmp_path / "file" / "a.jsonl")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file"], "nothing half-written is left"
