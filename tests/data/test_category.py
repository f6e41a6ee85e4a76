"""Which column says what a row is about."""

import json

import pytest

from plaudit.data.load import as_kind, load_records
from plaudit.data.write import write_records

PAIR = {"prompt": "Q", "chosen": "A", "rejected": "B"}


def loaded(tmp_path, *rows, **options):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_records(str(path), **options)


@pytest.mark.parametrize(
    ("columns", "category"),
    [
        ({"category": "code"}, "code"),
        ({"subset": "chat", "source": "web"}, "chat"),
        ({"category": 3, "source": "web"}, "3"),
        ({"source": "a" * 61}, None),
        ({"topic": "two\nlines"}, None),
        ({"category": ["code", "chat"]}, None),
        ({"kind": "code"}, None),
    ],
)
def test_of_preferences(tmp_path, columns, category):
    assert loaded(tmp_path, PAIR | columns).records[0].category == category


def test_every_kind_with_comparisons_keeps_it(tmp_path):
    rows = [
        {"prompt": "Q", "responses": ["A", "B"], "ranks": [1, 2], "category": "code"},
        {"prompt": "Q", "response_a": "A", "response_b": "B", "labels": {"x": "a"}, "category": "code"},
        {"prompt": "Q", "response": "A", "reward": 3.0, "category": "code"},
    ]
    for row in rows:
        found = loaded(tmp_path, row, row | {"reward": 1.0, "response": "B"} if "reward" in row else row)
        assert {record.category for record in found.records} == {"code"}
        assert {record.category for record in as_kind(found, "preference").records} == {"code"}
    path = tmp_path / "written.jsonl"
    write_records(found.records, path)
    assert {record.category for record in load_records(str(path)).records} == {"code"}


def test_it_can_be_named_and_a_row_without_a_prompt_has_none(tmp_path):
    found = loaded(tmp_path, PAIR | {"kind": "code"}, fields={"category": "kind"})
    assert found.records[0].category == "code"
    rows = [{"text": text, "label": label, "source": "web"} for text, label in (("fine", 1), ("bad", 0))]
    texts = loaded(tmp_path, *rows)
    assert texts.records[0].category is None and "source" in texts.unused
