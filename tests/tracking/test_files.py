import numpy as np
import pytest

from plaudit.errors import DataError
from plaudit.runs.files import Lines, jsonable, merge_json, read_json, read_lines, write_lines


def test_a_torn_last_line_is_ignored_by_readers_and_cut_by_the_next_writer(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"step": 1}\n{"step": 2, "lo')
    assert read_lines(path) == [{"step": 1}]
    lines = Lines(path)
    lines.add({"step": 2})
    lines.close()
    assert read_lines(path) == [{"step": 1}, {"step": 2}]


def test_a_bad_line_in_the_middle_is_named(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"step": 1}\nnot json\n{"step": 2}\n')
    with pytest.raises(DataError, match=r"a\.jsonl:2"):
        read_lines(path)


def test_rows_with_unusual_separators_stay_on_one_line(tmp_path):
    path = tmp_path / "a.jsonl"
    row = {"response": "a\u2028b\r\nc\x85d"}
    write_lines(path, [row, row])
    assert read_lines(path) == [row, row]


def test_jsonable_takes_what_training_has():
    assert jsonable({"a": np.float32(0.5), "b": float("nan"), "c": (np.int64(3), None), "d": True}) == {
        "a": 0.5,
        "b": None,
        "c": [3.0, None],
        "d": True,
    }


def test_absent_files_are_empty_and_broken_ones_are_named(tmp_path):
    assert read_lines(tmp_path / "no.jsonl") == [] and read_json(tmp_path / "no.json") == {}
    (tmp_path / "summary.json").write_text("{")
    with pytest.raises(DataError, match=r"summary\.json"):
        merge_json(tmp_path / "summary.json", {"a": 1})
