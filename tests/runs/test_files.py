"""Files of a run that are damaged, refused by the disk, or hold what UTF-8 cannot."""

import errno
import json
import random

import pytest

from plaudit.errors import DataError, MachineError
from plaudit.runs.files import METRICS, STEP, Lines, merge_json, read_json, read_lines, write_text
from plaudit.runs.recorder import Recorder


def rows(path, *values):
    path.write_bytes(b"".join(v if isinstance(v, bytes) else json.dumps(v).encode() + b"\n" for v in values))
    return path


def test_a_line_that_is_no_utf_8_is_named(tmp_path):
    path = rows(tmp_path / "metrics.jsonl", {"step": 1}, b"\xff\xfe\n", b"[1]\n", {"step": 2})
    with pytest.raises(DataError, match="this line, and 1 other lines is not a JSON object") as caught:
        read_lines(path)
    assert caught.value.where == f"{path}:2"


def test_a_row_without_a_step_is_named_where_one_is_needed(tmp_path):
    path = rows(tmp_path / "metrics.jsonl", {"step": 1}, {"loss": 1.0}, {"step": "2"}, {"step": 3})
    assert len(read_lines(path)) == 4
    with pytest.raises(DataError, match="a JSON object with a step") as caught:
        read_lines(path, has=STEP)
    assert caught.value.where.endswith(":2")


def test_a_torn_last_line_is_left_out_and_cut(tmp_path):
    path = rows(tmp_path / "metrics.jsonl", {"step": 1}, b'{"step": 2, "lo')
    assert read_lines(path) == [{"step": 1}]
    lines = Lines(path)
    lines.add({"step": 2})
    lines.close()
    assert read_lines(path) == [{"step": 1}, {"step": 2}]


def test_what_cannot_be_read_is_moved_and_said_when_a_run_is_resumed(tmp_path):
    rows(tmp_path / METRICS, {"step": 1}, b"\xff\n", {"step": 2}, {"loss": 3}, {"step": 3})
    with Recorder(tmp_path, command="sft") as recorder:
        assert recorder.rewind(2) == 1
    assert read_lines(tmp_path / METRICS) == [{"step": 1}, {"step": 2}]
    assert (tmp_path / "metrics.jsonl.unreadable").read_bytes() == b'\xff\n{"loss": 3}\n'
    [said] = [row["message"] for row in read_lines(tmp_path / "events.jsonl") if row["event"] == "caution"]
    assert "2 lines of metrics.jsonl, the first of them line 2, could not be read" in said


@pytest.mark.parametrize(
    ("left", "has"), [([], "has none"), ([5, 6], "only those of steps 5 to 6"), ([1, 2], "only those of steps 1 to 2")]
)
def test_a_history_that_is_gone_is_said(tmp_path, left, has):
    rows(tmp_path / METRICS, *({"step": step} for step in left))
    with Recorder(tmp_path, command="sft") as recorder:
        recorder.rewind(6)
    [said] = [row["message"] for row in read_lines(tmp_path / "events.jsonl") if row["event"] == "caution"]
    assert "figures of steps 1 to 6" in said and has in said


def test_a_whole_history_is_not_doubted(tmp_path):
    rows(tmp_path / METRICS, *({"step": step} for step in range(5)))
    with Recorder(tmp_path, command="sft") as recorder:
        recorder.rewind(3)
    assert "caution" not in [row["event"] for row in read_lines(tmp_path / "events.jsonl")]


def test_rows_of_an_end_are_sampled_again_by_whoever_resumes(tmp_path):
    kept = [{"step": 0, "set": "final"}, {"step": 0, "set": "selection"}, {"step": 4, "set": "selection"}]
    ends = [{"step": 4, "set": "final"}, {"step": 4, "set": "again"}, {"step": 0, "set": "again"}]
    rows(tmp_path / "evaluation.jsonl", *kept, *ends)
    rows(tmp_path / METRICS, *({"step": step} for step in range(5)))
    with Recorder(tmp_path, command="ppo") as recorder:
        assert recorder.rewind(4) == 3
    assert read_lines(tmp_path / "evaluation.jsonl") == kept


def test_half_a_surrogate_pair_is_written_and_read_back(tmp_path):
    lines = Lines(tmp_path / "samples.jsonl")
    lines.add({"step": 1, "response": "a\ud83d", "other": "ü"})
    lines.close()
    assert read_lines(tmp_path / "samples.jsonl")[0]["response"] == "a\ud83d"
    assert merge_json(tmp_path / "summary.json", {"text": "\udc80"}) == read_json(tmp_path / "summary.json")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_a_refused_write_keeps_the_old_file_and_says_what_is_free(tmp_path, monkeypatch, number):
    path = tmp_path / "summary.json"
    write_text(path, "old")

    def refuse(descriptor):
        raise OSError(number, "no")

    monkeypatch.setattr("os.fsync", refuse)
    with pytest.raises(MachineError, match=r"could not write summary.json: no \(3 bytes needed, .* free\)") as caught:
        write_text(path, "new")
    assert caught.value.exit_code == 74 and caught.value.where == str(path)
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["summary.json"]


def test_random_bytes_in_the_files_of_a_run(tmp_path):
    """Thousands of mutants of each file: a plain error, or rows."""
    chance = random.Random(4)
    good = b"".join(json.dumps({"step": n, "loss": 0.5, "text": "ü"}).encode() + b"\n" for n in range(4))
    for _ in range(2000):
        content = bytearray(good)
        for _ in range(chance.randint(1, 6)):
            content[chance.randrange(len(content))] = chance.randrange(256)
        (tmp_path / METRICS).write_bytes(content)
        try:
            assert all(type(row["step"]) is int for row in read_lines(tmp_path / METRICS, has=STEP))
        except DataError as error:
            assert error.where and error.cure
        lines = Lines(tmp_path / METRICS)
        lines.keep(lambda row: row["step"] <= 2)
        lines.close()
        assert len(read_lines(tmp_path / METRICS, has=STEP)) <= 4
