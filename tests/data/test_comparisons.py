"""Responses that nobody has judged yet."""

from __future__ import annotations

import json

import pytest

from plaudit.data.load import load_records
from plaudit.data.write import write_records
from plaudit.errors import DataError
from plaudit.records import Comparison, Message, Prompt


def load(tmp_path, rows, kind=None):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_records(str(path), kind)


@pytest.mark.parametrize("ending", ["jsonl", "json.gz", "csv", "parquet"])
def test_comparisons_read_back_as_they_were(tmp_path, ending):
    origin = ({"run": "a", "seed": 1}, {"run": "b", "seed": 2})
    one = Comparison("x", "Hi", ("one", "two"), ("a", "b"), origin)
    other = Comparison("y", "Ho", ("three", "four"), ("b", "a"), origin)
    path = tmp_path / f"pairs.{ending}"
    write_records([one, other], path)
    loaded = load_records(str(path))
    assert loaded.kind == "comparison" and loaded.records == (one, other)
    assert load_records(str(path), "prompt").records == (Prompt("x", "Hi"), Prompt("y", "Ho"))


def test_pairs_without_a_verdict(tmp_path):
    row = {"id": "x", "prompt": [{"role": "user", "content": "Hi"}], "response_a": "1", "response_b": "2"}
    loaded = load(tmp_path, [row | {"model_a": "base"}, row | {"id": "y"}])
    asked = (Message("user", "Hi"),)
    assert loaded.records == (
        Comparison("x", asked, ("1", "2"), ("base", "")),
        Comparison("y", asked, ("1", "2")),
    )
    with pytest.raises(DataError, match="of kind comparison, and preference is needed"):
        load(tmp_path, [row], "preference")


def test_a_verdict_makes_it_a_judgement(tmp_path):
    row = {"prompt": "Hi", "response_a": "1", "response_b": "2"}
    assert load(tmp_path, [row | {"label": "a"}, row | {"label": "b"}]).kind == "judgement"


def test_faults_are_named(tmp_path):
    rows = [
        {"prompt": "Hi", "responses": ["1", "2"], "models": ["a"]},
        {"prompt": "Hi", "responses": []},
        {"prompt": "Hi", "responses": ["1"], "provenance": ["run"]},
    ]
    with pytest.raises(DataError) as error:
        load(tmp_path, rows)
    for words in ("1 for 2 responses", "0 responses", "expected objects"):
        assert words in str(error.value)
