"""Rows of a run that no run writes: the file, the line and the cure are named, and a sound run's failure is a bug."""

import json

import pytest
from tests.evaluation.conftest import make_quickstart

from plaudit.errors import DataError
from plaudit.evaluation import kinds
from plaudit.evaluation.report import write_report
from plaudit.runs.reading import naming_odd_rows

ODD = [{}, {"a": [[]]}, {"step": {}}, {"step": 1, "prompt_id": []}, {"step": 1, "reward": "x"}]


@pytest.mark.parametrize("row", ODD)
@pytest.mark.parametrize("alone", [True, False])
def test_a_row_of_an_odd_shape_is_named_with_its_line(tmp_path, row, alone):
    run = make_quickstart(tmp_path / "story") / "ppo"
    path = run / "evaluation.jsonl"
    before = "" if alone else path.read_text()
    path.write_text(before + json.dumps(row) + "\n")
    with pytest.raises(DataError, match="not what a run writes") as caught:
        kinds.card(run)
    assert caught.value.where == f"{path}:{before.count(chr(10)) + 1}" and "delete the line" in caught.value.cure


@pytest.mark.parametrize("row", [{"step": 1, "event": 7}, {"event": {}, "time": "x"}])
def test_an_odd_event_is_named_or_shown(tmp_path, row):
    run = make_quickstart(tmp_path / "story") / "ppo"
    path = run / "events.jsonl"
    path.write_text(json.dumps(row) + "\n" + path.read_text())
    try:
        write_report(run)
    except DataError as error:
        assert error.where == f"{path}:1"


def test_where_all_rows_are_sound_a_failure_stays_what_it_is(tmp_path):
    run = make_quickstart(tmp_path / "story") / "ppo"
    with pytest.raises(KeyError), naming_odd_rows(run):
        raise KeyError("nothing of the rows")
