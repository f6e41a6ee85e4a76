"""Checkpoints that are written beside the training, by number, by time and at SIGTERM; and a step that does not end."""

import contextlib
import errno
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from plaudit.backends.local.learner import LocalLearner
from plaudit.config.sections import CheckpointSection, ComputeSection, LogSection, OptimizerSection
from plaudit.errors import PlauditError, Stopped
from plaudit.runs.best import BestWeights
from plaudit.runs.checkpoint import load_latest, steps
from plaudit.runs.files import read_lines
from plaudit.runs.keeper import Keeper
from plaudit.runs.recorder import Recorder


class Weights:
    """A learner of one number, whose copies are written when they are allowed to be."""

    def __init__(self, copies=True):
        self.step, self.value, self.copies = 0, 0.0, copies
        self.allowed, self.threads, self.error = threading.Event(), [], None
        self.allowed.set()

    def save(self, directory):
        self._write(directory, self.value)

    def _write(self, directory, value):
        self.allowed.wait()
        self.threads.append(threading.current_thread())
        if self.error:
            raise self.error
        save_file({"value": torch.tensor([value])}, directory / "policy.safetensors")

    def snapshot(self):
        value = self.value
        return (lambda directory: self._write(directory, value)) if self.copies else None

    def restore(self, directory):
        self.value = float(load_file(directory / "policy.safetensors")["value"])


@pytest.fixture
def recorder(tmp_path):
    with Recorder(tmp_path, command="ppo", log=LogSection(trackers=())) as made:
        yield made


def keeper(recorder, learner, best=None, clock=time.monotonic, **section):
    return Keeper(recorder.run_dir, CheckpointSection(**section), {"policy": learner}, recorder, best, clock)


def saved(recorder):
    return [row["step"] for row in read_lines(recorder.run_dir / "events.jsonl") if row["event"] == "saved"]


def test_the_run_goes_on_while_its_copy_is_written(recorder):
    learner = Weights()
    kept = keeper(recorder, learner, every=1)
    learner.allowed.clear()
    learner.value = 1.0
    kept.after(1, dict)
    learner.value = 2.0  # the next step, before a byte is written
    assert steps(kept.directory) == [] and saved(recorder) == []
    learner.allowed.set()
    kept.finish()
    assert saved(recorder) == [1] and [path.name for path in steps(kept.directory)] == ["step-000001"]
    learner.restore(kept.directory / "step-000001")
    assert learner.value == 1.0, "that moment's weights, and not those of the step after"
    assert learner.threads[0] is not threading.main_thread()


def test_one_checkpoint_is_written_at_a_time_and_in_their_order(recorder):
    learner = Weights()
    kept = keeper(recorder, learner, every=1, keep=9)
    for step in range(1, 6):
        learner.value = float(step)
        kept.after(step, dict)
    kept.finish()
    assert saved(recorder) == [1, 2, 3, 4, 5] and len(steps(kept.directory)) == 5


def test_without_memory_for_a_copy_it_is_written_before_the_run_goes_on(recorder):
    learner = Weights(copies=False)
    kept = keeper(recorder, learner, every=1)
    kept.after(1, dict)
    assert saved(recorder) == [1]


@pytest.mark.parametrize("when", ["the next checkpoint", "a later step", "the end"])
def test_what_the_thread_meets_is_an_error_of_the_save(recorder, when):
    learner = Weights()
    kept = keeper(recorder, learner, every=2)
    kept.after(2, dict)
    kept.finish()
    learner.error = OSError(errno.ENOSPC, "No space left on device")
    kept.after(4, dict)
    with pytest.raises(PlauditError, match=r"step 4.*No space left on device"):
        if when == "the end":
            kept.finish()
        else:
            deadline = time.monotonic() + 600
            while time.monotonic() < deadline:
                kept.after(6 if when == "the next checkpoint" else 5, dict)
                time.sleep(0.01)
    assert saved(recorder) == [2] and [path.name for path in steps(kept.directory)] == ["step-000002"]


def test_a_checkpoint_is_due_after_ten_minutes_too(recorder):
    """By a clock that never goes back; every 100 steps, of four minutes each."""
    now = [0.0]
    kept = keeper(recorder, Weights(), clock=lambda: now[0], every=100, keep=9)
    for step in range(1, 9):
        now[0] += 240.0
        kept.after(step, dict)
    kept.finish()
    assert saved(recorder) == [3, 6], "the first step that ends 600 s after the start or the last checkpoint"
    off = keeper(recorder, Weights(), clock=lambda: now[0], every=0, every_minutes=0.0)
    now[0] += 1e6
    off.after(9, dict)
    off.finish()
    assert saved(recorder) == [3, 6]


def test_the_best_weights_that_a_checkpoint_needs_stay_while_it_is_written(recorder):
    """They become others meanwhile, and the file of before is named by no checkpoint yet."""
    best, learner = BestWeights(recorder.run_dir), Weights()
    best.keep(1, {"value": torch.zeros(1)})
    first = recorder.run_dir / best.file.name
    kept = keeper(recorder, learner, best, every=1)
    learner.allowed.clear()
    kept.after(1, dict)
    best.keep(2, {"value": torch.ones(1)})
    assert first.is_file()
    learner.allowed.set()
    kept.finish()
    assert load_latest(kept.directory, print).needs[0].name == "best/step-000001.safetensors" and first.is_file()
    kept.after(2, dict)
    kept.after(3, dict)
    kept.finish()
    assert not first.is_file(), "no checkpoint names it any more"


def test_best_weights_that_nothing_names_any_more_are_removed_when_a_run_goes_on(recorder):
    """A kill after a rotation, before the file that only the rotated checkpoint named was removed."""
    best, learner = BestWeights(recorder.run_dir), Weights()
    best.keep(2, {"value": torch.tensor([2.0])})
    first = keeper(recorder, learner, best=best)
    first.save(3, {})
    first.finish()
    left = recorder.run_dir / "best" / "step-000000.safetensors"
    left.write_bytes(b"of a checkpoint that is gone")
    again = keeper(recorder, Weights(), best=BestWeights(recorder.run_dir), resume=True)
    assert again.restore()[0] == 3
    assert [path.name for path in left.parent.iterdir()] == ["step-000002.safetensors"]


def test_a_snapshot_is_what_save_writes_of_that_moment(tmp_path):
    learner = LocalLearner(nn.Linear(3, 2), OptimizerSection(lr=0.1), ComputeSection(), total_steps=9)
    learner.module(torch.ones(1, 3)).sum().backward()
    learner.optimizer.step()
    for name in ("now", "later"):
        (tmp_path / name).mkdir()
    write = learner.snapshot()
    learner.save(tmp_path / "now")
    with torch.no_grad():
        learner.module.weight.add_(1.0)
    write(tmp_path / "later")
    one, other = ((tmp_path / name / "policy.safetensors").read_bytes() for name in ("now", "later"))
    assert one == other and b"exp_avg_sq/weight" in one


def endless():
    """A step that no `except Exception` of its own can end."""
    signal.raise_signal(signal.SIGTERM)
    while True:
        with contextlib.suppress(Exception):
            time.sleep(0.01)


def test_a_step_that_takes_too_long_after_sigterm_is_given_up(recorder):
    learner = Weights()
    kept = keeper(recorder, learner, every=1, grace=0.1)
    before = signal.getsignal(signal.SIGTERM)
    said = r"within 0\.1 s of SIGTERM and was given up; the run goes on from step-000001"
    with pytest.raises(Stopped, match=said) as caught, kept.watch():
        kept.after(1, dict)
        kept.finish()
        endless()
    assert caught.value.abandoned and caught.value.exit_code == 75 and "--grace" in caught.value.cure
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_step_that_ends_in_time_is_kept(recorder):
    learner = Weights()
    kept = keeper(recorder, learner, every=100, grace=600.0)
    with pytest.raises(Stopped, match="stopped as asked after step 7") as caught, kept.watch():
        signal.raise_signal(signal.SIGTERM)
        kept.after(7, dict)
    assert not caught.value.abandoned and saved(recorder) == [7], "it is on the disk before the run says so"


def test_the_time_goes_on_while_the_end_is_judged(recorder):
    kept = keeper(recorder, Weights(), every=100, grace=0.1)
    with pytest.raises(Stopped), kept.watch():
        signal.raise_signal(signal.SIGTERM)
        kept.after(7, dict)
    with pytest.raises(Stopped, match="given up") as caught, kept.watch("judging"):
        while True:
            time.sleep(0.01)
    assert caught.value.abandoned


def test_ctrl_c_has_no_such_limit(recorder):
    kept = keeper(recorder, Weights(), every=100, grace=0.0)
    with pytest.raises(Stopped, match="after step 7"), kept.watch():
        signal.raise_signal(signal.SIGINT)
        time.sleep(0.05)
        kept.after(7, dict)


@pytest.mark.skipif(sys.platform == "win32", reason="SIGTERM ends a process of Windows at once")
def test_what_swallows_every_exception_is_ended_with_the_code_that_says_that_it_can_go_on(tmp_path):
    code = f"""
import signal, time
from pathlib import Path
from plaudit.config.sections import CheckpointSection, LogSection
from plaudit.runs import keeper
from plaudit.runs.recorder import Recorder
keeper.LAST_SECONDS = 0.1
with Recorder(Path({str(tmp_path)!r}), command="ppo", log=LogSection(trackers=())) as recorder:
    kept = keeper.Keeper(recorder.run_dir, CheckpointSection(grace=0.1), {{}}, recorder)
    with kept.watch():
        signal.raise_signal(signal.SIGTERM)
        while True:
            try: time.sleep(3600)
            except BaseException: pass
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=900, check=False)
    assert ended.returncode == 75 and "given up; there is no checkpoint yet" in ended.stderr
    last = read_lines(tmp_path / "events.jsonl")[-1]
    assert last["event"] == "stopped" and "given up" in last["reason"]
    assert os.path.exists(tmp_path / "summary.json")
