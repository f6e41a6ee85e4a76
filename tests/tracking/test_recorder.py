import json

import pytest

from plaudit.config.sections import LogSection
from plaudit.errors import Stopped
from plaudit.runs.files import read_lines
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


def test_sinks_get_finite_numbers_only(tmp_path):
    class Spy:
        def __init__(self):
            self.seen = []

        def expect(self, total, unit):
            self.seen.append((total, unit))

        def metrics(self, step, values):
            self.seen.append((step, dict(values)))

        def event(self, kind, fields):
            self.seen.append(kind)

        def close(self):
            self.seen.append("closed")

    recorder = Recorder(tmp_path, command="ppo", log=SILENT)
    recorder.sinks.append(spy := Spy())
    recorder.expect(7, "iteration")
    recorder.metrics(1, {"a": 1.0, "b": float("inf")})
    recorder.close()
    recorder.close()
    assert spy.seen == [(7, "iteration"), (1, {"a": 1.0}), "stopped", "closed"]
