"""The power is cut at every operation on the disk; what a run has reported as saved is there, and the run goes on."""

import json
import os
import shutil
import traceback
from pathlib import Path

import pytest
from power_loss import CUT, LEFT, Disk, missing

from plaudit.config.sections import CheckpointSection, LogSection
from plaudit.jobs.sft import SFTJob
from plaudit.runs.directory import finished, open_run
from plaudit.runs.keeper import Keeper
from plaudit.runs.recorder import Recorder

STEPS = 3


class Counter:
    """A learner without a network: it knows its step, and writes some bytes."""

    def __init__(self):
        self.step = 0

    def save(self, directory):
        self.snapshot()(directory)

    def snapshot(self):
        now = bytes([self.step]) * 64
        return lambda directory: (directory / "policy.safetensors").write_bytes(now)

    def restore(self, directory):
        self.step = (directory / "policy.safetensors").read_bytes()[0]


def train(run):
    """A run of three steps with all files of a run; the same call goes on with it."""
    section = CheckpointSection(every=1, keep=2, resume=True)
    job = SFTJob(out=str(run), checkpoint=section)
    if finished(job):
        return
    with open_run(job) as path, Recorder(path, command="sft", log=LogSection(trackers=())) as recorder:
        learner = Counter()
        keeper = Keeper(path, section, {"policy": learner}, recorder)
        first, _ = keeper.restore()
        for step in range(first + 1, STEPS + 1):
            learner.step = step
            recorder.metrics(step, {"loss": 1 / step})
            keeper.after(step, dict)
        keeper.finish()
        (path / "model").mkdir(exist_ok=True)
        (path / "model" / "model.safetensors").write_bytes(bytes([learner.step]) * 64)
        recorder.summary({"loss": 1 / learner.step})


def with_power_cut(place, at, left):
    """Train in a process of its own whose power is cut before an operation; its exit code."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        disk = Disk(place / "here", at, place / "after", left)
        disk.install()
        train(place / "here" / "runs" / "run")
        (place / "count").write_text(str(disk.count))
        code = 0
    except BaseException:
        (place / "error").write_text(traceback.format_exc())
    finally:
        os._exit(code)


def contents(run):
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    manifest = json.loads((run / "manifest.json").read_text())
    return [(row["step"], row["loss"]) for row in rows], (run / "model" / "model.safetensors").read_bytes(), [
        path.name for path in sorted((run / "checkpoints").iterdir())
    ], manifest["finished"]  # fmt: skip


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")  # without git, which would be a process each time
    (tmp_path / "here").mkdir()
    return tmp_path


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="asks Linux which file a descriptor is")
def test_nothing_that_was_reported_is_lost_at_any_operation(place):
    assert with_power_cut(place, 0, LEFT[0]) == 0, (place / "error").read_text()
    whole, count = contents(place / "here" / "runs" / "run"), int((place / "count").read_text())
    assert whole[0] == [(step, 1 / step) for step in range(1, STEPS + 1)] and count > 60
    for at in range(1, count + 1):
        for name in ("here", "after"):
            shutil.rmtree(place / name, ignore_errors=True)
        (place / "here").mkdir()
        assert with_power_cut(place, at, LEFT[at % len(LEFT)]) == CUT
        assert missing(place / "here" / "runs" / "run", place / "after" / "runs" / "run") == "", at
        train(place / "after" / "runs" / "run")
        assert contents(place / "after" / "runs" / "run") == whole, f"operation {at} of {count}"


def test_the_disk_forgets_what_was_not_synced(place):
    """So that the test above can fail."""
    child = os.fork()
    if not child:
        disk = Disk(place / "here", 3, place / "after", LEFT[1])
        disk.install()
        (place / "here" / "a").write_text("written")
        with (place / "here" / "b").open("w") as file:
            file.write("synced")
            file.flush()
            os.fsync(file.fileno())  # the third operation: the power goes before it
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == CUT
    assert {path.name: path.read_text() for path in (place / "after").iterdir()} == {"a": "", "b": ""}
