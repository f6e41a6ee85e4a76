import ast
import contextlib
import json
from pathlib import Path

import pytest

import plaudit
from plaudit.config.sections import LogSection
from plaudit.errors import Stopped
from plaudit.runs.files import Lines, read_lines
from plaudit.runs.recorder import Recorder

SILENT = LogSection(tensorboard=False, progress=False)


def events(run):
    return read_lines(run / "events.jsonl")


def test_a_run_leaves_four_files(tmp_path):
    run = tmp_path / "runs" / "a"
    with Recorder(run, command="ppo", log=SILENT) as recorder:
        recorder.metrics(1, {"reward/mean": 0.5, "loss": float("nan")})
        recorder.sample(1, {"prompt": "Hi", "response": "Grüße\n"})
        recorder.event("saved", step=1)
        recorder.summary({"reward_mean": 0.5})
        # On disk before the run is over: a reader, or a crash, sees everything so far.
        assert len(read_lines(run / "metrics.jsonl")) == 1
    row = read_lines(run / "metrics.jsonl")[0]
    assert row["step"] == 1 and row["reward/mean"] == 0.5 and row["loss"] is None
    assert row["time"] > 1.6e9
    assert read_lines(run / "samples.jsonl") == [{"step": 1, "prompt": "Hi", "response": "Grüße\n"}]
    assert [event["event"] for event in events(run)] == ["started", "saved", "stopped"]
    assert json.loads((run / "summary.json").read_text()) == {"command": "ppo", "reward_mean": 0.5}


def test_summary_merges_and_newer_wins(tmp_path):
    with Recorder(tmp_path, command="sft", log=SILENT) as recorder:
        recorder.summary({"a": 1, "b": [1, 2]})
        assert recorder.summary({"a": 2}) == {"command": "sft", "a": 2, "b": [1, 2]}
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (None, "finished"),
        (Stopped("SIGTERM at step 3"), "STOPPED: SIGTERM at step 3"),
        (ValueError("bad"), "ValueError: bad"),
    ],
)
def test_the_reason_of_the_end_is_recorded_once(tmp_path, error, reason):
    try:
        with Recorder(tmp_path, command="sft", log=SILENT) as recorder:
            if error:
                raise error
            recorder.close()
    except (Stopped, ValueError):
        pass
    assert [event["reason"] for event in events(tmp_path) if event["event"] == "stopped"] == [reason]


def test_a_resumed_run_goes_on_behind_its_checkpoint(tmp_path):
    with Recorder(tmp_path, command="sft", log=SILENT) as recorder:
        for step in (1, 2, 3):
            recorder.metrics(step, {"loss": float(step)})
            recorder.sample(step, {"prompt": "p", "response": "r"})
    with Recorder(tmp_path, command="sft", log=SILENT) as recorder:
        assert recorder.rewind(2) == 2
        recorder.metrics(3, {"loss": 30.0})
    assert [(row["step"], row["loss"]) for row in read_lines(tmp_path / "metrics.jsonl")] == [
        (1, 1.0),
        (2, 2.0),
        (3, 30.0),
    ]
    assert [row["step"] for row in read_lines(tmp_path / "samples.jsonl")] == [1, 2]


def test_evaluations_are_recorded_again_too(tmp_path):
    def evaluate(step):
        with contextlib.closing(Lines(tmp_path / "evaluation.jsonl")) as lines:
            for prompt in ("a", "b"):
                lines.add({"step": step, "prompt_id": prompt})

    with Recorder(tmp_path, command="ppo", log=SILENT) as recorder:
        assert recorder.rewind(0) == 0
        assert not (tmp_path / "evaluation.jsonl").exists(), "not every run has one"
        for step in (0, 2, 4):
            evaluate(step)
        with (tmp_path / "evaluation.jsonl").open("a") as file:
            file.write('{"step": 6, "promp')  # kill -9 in the middle of a line
        assert recorder.rewind(2) == 2
        evaluate(4)
    rows = read_lines(tmp_path / "evaluation.jsonl")
    assert [(row["step"], row["prompt_id"]) for row in rows] == [(s, p) for s in (0, 2, 4) for p in "ab"]


def test_a_run_that_begins_anew_says_so_where_there_was_one(tmp_path):
    for times in (0, 1):
        with Recorder(tmp_path, command="ppo", log=SILENT) as recorder:
            recorder.rewind(-1)
        assert [row["event"] for row in events(tmp_path)].count("started over") == times


def test_a_resumed_run_is_compared_with_the_start_of_the_run(tmp_path):
    with Recorder(tmp_path, command="ppo", log=SILENT) as recorder:
        for step, value in ((1, 0.25), (2, 0.5), (3, 0.75)):
            recorder.metrics(step, {"reward/mean": value, "late": value if step > 1 else float("nan")})
    with Recorder(tmp_path, command="ppo", log=SILENT) as recorder:
        recorder.trackers["spy"] = spy = Spy()
        recorder.rewind(2)
        recorder.start({"eval/gold_mean": 0.1, "eval/reward_mean": float("nan")})
    assert [call[1] for call in spy.seen if call[0] == "start"] == [
        {"reward/mean": 0.25, "late": 0.5}, {"eval/gold_mean": 0.1},
    ]  # fmt: skip


def test_every_alarm_has_a_step_a_kind_and_a_message(tmp_path):
    """Programs read these three, so there is one place that writes the event, and no way to leave one out."""
    with Recorder(tmp_path, command="ppo", log=SILENT) as recorder:
        recorder.alarm(7, "stale", "old weights")
        recorder.alarm(8, "length", "twice as long", is_early=True)
    alarm, early = [row for row in events(tmp_path) if row["event"] == "alarm"]
    assert early["early"] is True
    assert alarm == {"time": alarm["time"], "event": "alarm", "step": 7, "kind": "stale", "message": "old weights"}

    def writes_an_alarm(call):
        named = isinstance(call.func, ast.Attribute) and call.func.attr == "event" and call.args
        return named and isinstance(call.args[0], ast.Constant) and call.args[0].value == "alarm"

    source = Path(plaudit.__file__).parent
    places = [
        path.relative_to(source).as_posix()
        for path in sorted(source.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and writes_an_alarm(node)
    ]
    assert places == ["runs/recorder.py"]


class Spy:
    """A tracker that notes what it is told, and raises in the calls of ``fails``."""

    def __init__(self, *fails):
        self.fails, self.seen = fails, []

    def _note(self, call, *arguments):
        self.seen.append((call, *arguments))
        if call in self.fails:
            raise OSError("no route to host")

    def expect(self, total, unit):
        self._note("expect", total, unit)

    def metrics(self, step, values):
        self._note("metrics", step, dict(values))

    def start(self, values):
        self._note("start", dict(values))

    def sample(self, step, fields):
        self._note("sample", step, dict(fields))

    def event(self, kind, fields):
        self._note("event", kind)

    def rewind(self, step):
        self._note("rewind", step)
        return 0

    def close(self):
        self._note("close")


def test_every_tracker_is_told_everything_and_closed_once(tmp_path):
    recorder = Recorder(tmp_path, command="ppo", log=SILENT)
    recorder.trackers["spy"] = spy = Spy()
    recorder.expect(7, "iteration")
    recorder.metrics(1, {"a": 1.0, "b": float("inf")})
    recorder.sample(1, {"prompt": "p", "response": "r"})
    recorder.rewind(0)
    recorder.close()
    recorder.close()
    assert spy.seen == [
        ("expect", 7, "iteration"),
        ("metrics", 1, {"a": 1.0, "b": None}),
        ("sample", 1, {"prompt": "p", "response": "r"}),
        ("rewind", 0),
        ("start", {}),
        ("event", "stopped"),
        ("close",),
    ]


@pytest.mark.parametrize("call", ["metrics", "sample", "event", "rewind", "start", "expect", "close"])
def test_a_tracker_that_raises_is_left_out_and_the_run_goes_on(tmp_path, call):
    with Recorder(tmp_path, command="ppo", log=SILENT) as recorder:
        recorder.trackers |= {"broken": (broken := Spy(call)), "sound": (sound := Spy())}
        for step in (1, 2):
            recorder.expect(2, "iteration")
            recorder.metrics(step, {"a": 1.0})
            recorder.sample(step, {"prompt": "p", "response": "r"})
            recorder.event("saved", step=step)
            recorder.rewind(9)
    # Called once and not again; the tracker beside it and the files have everything.
    assert [name for name, *_ in broken.seen].count(call) == 1
    assert [seen[1] for seen in sound.seen if seen[0] == "metrics"] == [1, 2]
    assert [row["step"] for row in read_lines(tmp_path / "metrics.jsonl")] == [1, 2]
    failed = [event for event in events(tmp_path) if event["event"] == "tracker failed"]
    assert [event["tracker"] for event in failed] == ["broken"]
    assert "OSError: no route to host" in failed[0]["message"]
    assert events(tmp_path)[-1]["event"] == "stopped", "the last event is the reason of the end"
    assert ("event", "tracker failed") in sound.seen


def test_a_tracker_that_cannot_be_opened_is_left_out(tmp_path):
    (tmp_path / "tensorboard").write_text("a file where the folder should be")
    pytest.importorskip("tensorboard", reason="pip install 'plaudit[tensorboard]'")
    with Recorder(tmp_path, command="sft", log=LogSection(progress=False)) as recorder:
        recorder.metrics(1, {"loss": 1.0})
    assert [e["tracker"] for e in events(tmp_path) if e["event"] == "tracker failed"] == ["tensorboard"]
    assert len(read_lines(tmp_path / "metrics.jsonl")) == 1


def test_a_stop_that_arrives_in_a_tracker_is_a_stop(tmp_path):
    class Interrupted(Spy):
        def metrics(self, step, values):
            raise Stopped("SIGTERM")

    with pytest.raises(Stopped), Recorder(tmp_path, command="sft", log=SILENT) as recorder:
        recorder.trackers["slow"] = Interrupted()
        recorder.metrics(1, {"loss": 1.0})
    assert [event["event"] for event in events(tmp_path)] == ["started", "stopped"]


def test_an_error_of_the_files_ends_the_run(tmp_path, monkeypatch):
    """Without its files a run can be neither judged nor resumed."""
    with pytest.raises(OSError, match="No space"), Recorder(tmp_path, command="sft", log=SILENT) as recorder:
        monkeypatch.setattr(
            Lines, "add", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device"))
        )
        recorder.metrics(1, {"loss": 1.0})
