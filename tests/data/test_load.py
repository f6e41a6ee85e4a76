"""Every kind and encoding is recognised, said in one line, and read alike; all faults come in one pass."""

from __future__ import annotations

import csv
import gzip
import json
import sys
import types
from decimal import Decimal

import pyarrow
import pyarrow.parquet
import pytest

from plaudit.data.load import load_records
from plaudit.data.reading.rows import BadRows
from plaudit.errors import DataError
from plaudit.records import Demonstration, Judgement, Message, Preference, Prompt, Ranking, Rating, to_json

USER, SAID = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}
ASKED = (Message("user", "Hi"),)
HH = "\n\nHuman: Hi\n\nAssistant:"

ROWS = {
    "prompt and response": ({"prompt": "Hi", "response": "Hello"}, Demonstration("1", "Hi", "Hello")),
    "prompt-completion": ({"prompt": "Hi", "completion": "Hello"}, Demonstration("1", "Hi", "Hello")),
    "conversational prompt-completion": (
        {"prompt": [USER], "completion": [SAID]},
        Demonstration("1", ASKED, "Hello"),
    ),
    "messages": ({"messages": [USER, SAID]}, Demonstration("1", ASKED, "Hello")),
    "conversations": (
        {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]},
        Demonstration("1", ASKED, "Hello"),
    ),
    "instruction": (
        {"instruction": "Say", "input": "it", "output": "It"},
        Demonstration("1", (Message("user", "Say\n\nit"),), "It"),
    ),
    "language modeling": ({"text": "Once upon a time"}, Demonstration("1", "", "Once upon a time")),
    "HH-RLHF text": ({"text": HH + " Hello"}, Demonstration("1", ASKED, "Hello")),
    "explicit prompt": ({"prompt": "Hi", "chosen": "a", "rejected": "b"}, Preference("1", "Hi", "a", "b")),
    "margin": (
        {"prompt": "Hi", "chosen": "a", "rejected": "b", "margin": 2, "annotator": "ann"},
        Preference("1", "Hi", "a", "b", 2.0, annotator="ann"),
    ),
    "strength": (
        {"prompt": "Hi", "chosen": "a", "rejected": "b", "strength": 1, "agreement": 0.75},
        Preference("1", "Hi", "a", "b", 1.0, 0.75),
    ),
    "implicit prompt": (
        {"chosen": "The sky is blue.", "rejected": "The sky is green."},
        Preference("1", "The sky is", " blue.", " green."),
    ),
    "implicit conversational prompt": (
        {"chosen": [USER, SAID], "rejected": [USER, {"role": "assistant", "content": "No"}]},
        Preference("1", ASKED, "Hello", "No"),
    ),
    "prompt repeated in the responses": (
        {"prompt": "Hi", "chosen": [USER, SAID], "rejected": [USER, {"role": "assistant", "content": "No"}]},
        Preference("1", ASKED, "Hello", "No"),
    ),
    "HH-RLHF": ({"chosen": HH + " Hello", "rejected": HH + " No"}, Preference("1", ASKED, "Hello", "No")),
    "HH-RLHF with an empty response": (
        {"chosen": HH + " Hello", "rejected": HH},
        Preference("1", ASKED, "Hello", ""),
    ),
    "HH-RLHF prompt": (
        {"prompt": HH, "chosen": " Hello", "rejected": " No"},
        Preference("1", ASKED, "Hello", "No"),
    ),
    "ranking": (
        {"prompt": "Hi", "responses": ["a", "b", "c"], "ranks": [2, 1, 1]},
        Ranking("1", "Hi", ("a", "b", "c"), (2, 1, 1)),
    ),
    "ranking from 0": (
        {"prompt": "Hi", "responses": ["a", "b"], "ranks": [1, 0]},
        Ranking("1", "Hi", ("a", "b"), (2, 1)),
    ),
    "rating": ({"prompt": "Hi", "response": "a", "reward": 7}, Rating("1", "Hi", "a", 7.0)),
    "axes": (
        {"prompt": "Hi", "response": "a", "axes": {"wit": 1, "truth": 4}},
        Rating("1", "Hi", "a", 2.5, {"wit": 1.0, "truth": 4.0}),
    ),
    "columns of axes": (
        {"prompt": "Hi", "response": "a", "helpfulness": 1, "overall": 4},
        Rating("1", "Hi", "a", 4.0, {"helpfulness": 1.0, "overall": 4.0}),
    ),
    "unpaired preference": (
        {"prompt": "Hi", "completion": "a", "label": False},
        Rating("1", "Hi", "a", 0.0),
    ),
    "classification": ({"text": "Good", "label": 1}, Rating("1", "", "Good", 1.0)),
    "classification by name": ({"text": "Bad", "label": "negative"}, Rating("1", "", "Bad", 0.0)),
    "judgement": (
        {"prompt": "Hi", "response_a": "x", "response_b": "y", "label": "B", "model_a": "m", "annotator": 7},
        Judgement("1", "Hi", "x", "y", 1, "m", "", "7"),
    ),
    "strong judgement": (
        {"prompt": "Hi", "response_a": "x", "response_b": "y", "strength": -2},
        Judgement("1", "Hi", "x", "y", -2),
    ),
    "prompt": ({"prompt": "Hi"}, Prompt("1", "Hi")),
    "prompt with an answer": ({"prompt": [USER], "answer": 4}, Prompt("1", ASKED, "4")),
}


@pytest.mark.parametrize("name", ROWS)
def test_layouts(name, write_lines):
    row, record = ROWS[name]
    loaded = load_records(write_lines({"id": "1", **row}))
    assert loaded.records == (record,)
    assert "\n" not in loaded.format


def _as_jsonl(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def _as_csv(rows, path):
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(rows[0])
        nested = [[json.dumps(v) if isinstance(v, list | dict) else v for v in row.values()] for row in rows]
        writer.writerows(nested)


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("ending", ["json", "csv", "parquet", "jsonl.gz", "json.gz", "csv.gz", "parquet.gz"])
def test_encodings_read_alike(name, ending, tmp_path):
    row, record = ROWS[name]
    rows = [{"id": "1", **row}]
    plain = tmp_path / f"rows.{ending.removesuffix('.gz')}"
    if plain.suffix == ".csv":
        _as_csv(rows, plain)
    elif plain.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), plain)
    else:
        plain.write_bytes(json.dumps(rows).encode() if plain.suffix == ".json" else _as_jsonl(rows))
    path = plain
    if ending.endswith(".gz"):
        path = tmp_path / f"rows.{ending}"
        path.write_bytes(gzip.compress(plain.read_bytes()))
    loaded = load_records(str(path))
    assert loaded.records == (record,)
    assert loaded.format.endswith("gzip") == ending.endswith(".gz")


def test_format_says_layout_style_and_encoding(tmp_path):
    path = tmp_path / "hh.jsonl.gz"
    path.write_bytes(gzip.compress(_as_jsonl([{"chosen": HH + " Hello", "rejected": HH + " No"}])))
    loaded = load_records(str(path))
    line = "preferences with the prompt inside both texts (HH-RLHF transcripts), JSONL gzip"
    assert (loaded.format, loaded.kind, loaded.rows) == (line, "preference", 1)


def test_labels_of_several_annotators_become_several_judgements(write_lines):
    row = {"id": "x", "prompt": "Hi", "response_a": "1", "response_b": "2"}
    loaded = load_records(write_lines({**row, "labels": {"ann": "a", "ben": "b", "cy": "tie", "dee": 2}}))
    assert [(r.id, r.annotator, r.strength) for r in loaded.records] == [
        ("x/ann", "ann", -1),
        ("x/ben", "ben", 1),
        ("x/cy", "cy", 0),
        ("x/dee", "dee", 2),
    ]
    assert loaded.rows == 1


def test_a_response_that_looks_like_a_transcript_stays_text(write_lines):
    leak = "Human: what?\n\nAssistant: that"
    loaded = load_records(write_lines({"prompt": "Hi", "chosen": "a", "rejected": leak}))
    assert loaded.records[0].rejected == leak


def test_white_space_of_texts_is_kept(write_lines):
    loaded = load_records(write_lines({"prompt": " Hi\n", "response": "\tHello  \r\n"}))
    assert (loaded.records[0].prompt, loaded.records[0].response) == (" Hi\n", "\tHello  \r\n")


def test_ids_are_made_up_and_numbered(write_lines):
    loaded = load_records(
        write_lines({"prompt": "a"}, {"prompt": "b", "id": "x"}, {"prompt": "c", "id": "x"})
    )
    assert [r.id for r in loaded.records] == ["rows-1", "x", "x#2"]
    assert any("repeated ids" in note for note in loaded.notes)


def test_unused_fields_are_said(write_lines):
    loaded = load_records(write_lines({"prompt": "a", "solution": "b"}))
    assert "fields not used: solution" in loaded.notes


def test_further_fields_of_prompts_are_kept_as_columns(write_lines):
    rows = [{"prompt": "a", "answer": "4", "source": "s", "extra": {"n": [1, None]}, "gone": None}, {"prompt": "b"}]
    first, second = load_records(write_lines(*rows)).records
    assert first.columns == {"source": "s", "extra": {"n": [1, None]}} and second.columns == {}
    assert to_json(first) == {"id": "rows-1", "content": "a", "answer": "4"}, "files and fingerprints stay as they were"
    assert hash(first) == hash(Prompt("rows-1", "a", "4"))


def test_limit_and_directory(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(_as_jsonl([{"prompt": "1"}, {"prompt": "2"}]))
    (tmp_path / "b.csv").write_bytes(b"prompt\n3\n4\n")
    assert [r.content for r in load_records(str(tmp_path)).records] == ["1", "2", "3", "4"]
    assert [r.content for r in load_records(str(tmp_path), limit=3).records] == ["1", "2", "3"]


def test_rows_under_one_field_and_lines_in_a_json_file(tmp_path):
    wrapped, lines = tmp_path / "w.json", tmp_path / "l.json"
    wrapped.write_text('{"data": [{"prompt": "a"}, {"prompt": "b"}]}')
    lines.write_text('{"prompt": "a"}\n{"prompt": "b"}\n')
    assert [r.content for r in load_records(str(wrapped)).records] == ["a", "b"]
    assert [r.content for r in load_records(str(lines)).records] == ["a", "b"]


def test_semicolons(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("prompt;response\nHi;Hello, you\n")
    loaded = load_records(str(path))
    assert loaded.records[0].response == "Hello, you"
    assert "cells are separated by semicolons" in loaded.notes


# Faults


def test_all_faults_of_a_file_come_at_once(write_lines):
    good = {"prompt": "Hi", "chosen": "a", "rejected": "b"}
    path = write_lines(
        good,
        {"prompt": 3, "chosen": "a", "rejected": None},
        good,
        {"prompt": "Hi", "chosen": "a"},
        {**good, "margin": "much"},
    )
    with pytest.raises(BadRows) as caught:
        load_records(path)
    places = [(f.where.removeprefix(path), f.field) for f in caught.value.faults]
    assert places == [(":2", "prompt"), (":2", "rejected"), (":4", "rejected"), (":5", "margin")]
    assert caught.value.exit_code == 65
    text = str(caught.value)
    assert "4 faults" in text and f"{path}:5 · margin · found 'much' · expected a finite number" in text


def test_a_hundred_faults_are_shown_and_all_are_counted(write_lines):
    path = write_lines({"prompt": "fine"}, *({"prompt": i} for i in range(250)))
    with pytest.raises(BadRows) as caught:
        load_records(path)
    assert (len(caught.value.faults), caught.value.total) == (100, 250)
    assert "and 150 more" in str(caught.value)


def test_faults_are_in_the_order_of_lines(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"prompt": 1}\n' * 9 + "{broken\n" + '{"prompt": 1}\n{"prompt": "fine"}\n' * 12)
    with pytest.raises(BadRows) as caught:
        load_records(str(path))
    lines = [int(f.where.rsplit(":")[-1]) for f in caught.value.faults]
    assert lines == sorted(lines) and lines[9] == 10


def test_one_fault_is_four_lines(write_lines):
    with pytest.raises(BadRows) as caught:
        load_records(write_lines({"prompt": "a"}, {"prompt": ["b"]}))
    lines = str(caught.value).splitlines()
    assert len(lines) == 3 and "prompt[0]: found 'b'" in lines[0] and ":2" in lines[1] and "fix:" in lines[2]


def test_a_misspelt_prompt_is_not_read_as_an_implicit_one(write_lines):
    with pytest.raises(DataError, match="promt"):
        load_records(write_lines({"promt": "Hi", "chosen": "a", "rejected": "b"}))


def test_unknown_fields_name_the_nearest(write_lines):
    with pytest.raises(DataError) as caught:
        load_records(write_lines({"promt": "Hi", "respons": "a"}))
    assert "prompt for 'promt'" in caught.value.cure and "response for 'respons'" in caught.value.cure


def test_missing_file_names_the_nearest(write_lines):
    path = write_lines({"prompt": "a"}, name="prompts.jsonl")
    with pytest.raises(DataError) as caught:
        load_records(path.replace("prompts", "promts"))
    assert "did you mean" in caught.value.cure and "prompts.jsonl" in caught.value.cure


# The hub


def _fake_hub(monkeypatch, rows, seen):
    def load_dataset(name, subset=None, split=None):
        seen.append((name, subset, split))
        if name == "no/such":
            raise FileNotFoundError("Dataset 'no/such' doesn't exist on the Hub")
        return rows

    module = types.ModuleType("datasets")
    module.load_dataset = load_dataset
    monkeypatch.setitem(sys.modules, "datasets", module)


def test_hub_names(monkeypatch):
    seen = []
    _fake_hub(monkeypatch, [{"chosen": HH + " Hello", "rejected": HH + " No"}], seen)
    loaded = load_records("Anthropic/hh-rlhf")
    load_records("Anthropic/hh-rlhf:test", limit=5)
    load_records("a/b:main:test")
    assert loaded.records[0].prompt == ASKED and loaded.format.endswith("from the hub")
    assert seen == [
        ("Anthropic/hh-rlhf", None, "train"),
        ("Anthropic/hh-rlhf", None, "test[:5]"),
        ("a/b", "main", "test"),
    ]


def test_hub_trouble_is_a_data_error(monkeypatch):
    _fake_hub(monkeypatch, [], [])
    with pytest.raises(DataError, match="doesn't exist on the Hub"):
        load_records("no/such")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match="`datasets` is needed"):
        load_records("Anthropic/hh-rlhf")


def test_decimals_of_parquet_are_numbers(tmp_path):
    price = pyarrow.decimal128(6, 2)

    def table(name, **columns):
        path = tmp_path / name
        pyarrow.parquet.write_table(pyarrow.table(columns), path)
        return str(path)

    def decimals(*texts):
        return pyarrow.array([Decimal(text) for text in texts], price)

    rated = table("rated.parquet", prompt=["a", "b"], response=["x", "y"], reward=decimals("7.50", "-3.00"))
    assert [r.reward for r in load_records(rated).records] == [7.5, -3.0]
    pair = table("pair.parquet", prompt=["a"], chosen=["x"], rejected=["y"], margin=decimals("1.25"))
    assert [r.margin for r in load_records(pair).records] == [1.25]
    asked = table("asked.parquet", prompt=["a"], answer=decimals("12.00"), price=decimals("9.90"))
    [prompt] = load_records(asked, "prompt").records
    assert prompt.answer == "12" and prompt.columns == {"price": 9.9}
    judged = table(
        "judged.parquet", prompt=["a"], response_a=["x"], response_b=["y"], model_a=["m"], model_b=["n"],
        strength=decimals("-2.00"),
    )  # fmt: skip
    assert [r.strength for r in load_records(judged).records] == [-2]
