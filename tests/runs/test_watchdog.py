"""A run that hangs: what is said of it, what is written down, and how a command goes on by itself."""

import json
import os
import subprocess
import sys
import threading
import time

import pytest

from plaudit.awaited import awaiting, beat, present
from plaudit.cli.train import RESTARTS, start_again
from plaudit.config.sections import LogSection
from plaudit.jobs.online import GRPOJob
from plaudit.models.files.saving import save_causal_lm
from plaudit.models.tiny import tiny_lm, tiny_tokenizer
from plaudit.records import Prompt, Rollout
from plaudit.rewards.function import FunctionReward
from plaudit.runs.files import read_json, read_lines
from plaudit.runs.recorder import Recorder
from plaudit.runs.watchdog import OVER, STACKS, Watchdog, leave


@pytest.fixture
def recorder(tmp_path):
    with Recorder(tmp_path, command="ppo", log=LogSection(trackers=())) as made:
        yield made


def alarms(run):
    return [row for row in read_lines(run / "events.jsonl") if row["event"] == "alarm"]


def test_what_is_awaited_is_known_by_name_from_the_inside_out():
    before = present()[0].what
    with awaiting("the rewards"):
        with awaiting("one function", 5.0):
            assert (present()[0].what, present()[0].seconds) == ("one function", 5.0)
        assert present()[0].what == "the rewards"
        moment = present()[1]
        beat()
        assert present()[1] >= moment
    assert present()[0].what == before


def test_a_run_that_hangs_is_said_once_with_what_it_waits_for_and_its_stacks(recorder):
    now = [time.monotonic()]
    dog = Watchdog(recorder, 100.0, clock=lambda: now[0])
    dog.step = 7
    with awaiting("the generator, for 32 responses"):
        now[0] = time.monotonic() + 99.0
        dog.look()
        assert alarms(recorder.run_dir) == []
        now[0] += 2.0
        dog.look()
        dog.look()
    [alarm] = alarms(recorder.run_dir)
    assert (alarm["kind"], alarm["step"]) == ("stuck", 7)
    assert "for 101 s: the run waits for the generator, for 32 responses; what each thread" in alarm["message"]
    text = (recorder.run_dir / STACKS).read_text()
    assert "test_a_run_that_hangs_is_said_once" in text and "waiting for the generator" in text
    now[0] = time.monotonic()
    dog.look()  # it has gone on
    now[0] += 101.0
    dog.look()
    assert len(alarms(recorder.run_dir)) == 2


def test_what_has_a_limit_of_its_own_is_late_by_that(recorder):
    now = [time.monotonic()]
    dog = Watchdog(recorder, 1e6, clock=lambda: now[0])
    with awaiting("the reward function mine", 60.0):
        now[0] = time.monotonic() + 59.0 + OVER
        dog.look()
        assert alarms(recorder.run_dir) == []
        now[0] += 2.0
        dog.look()
    assert "mine, which should take 60 s at most" in alarms(recorder.run_dir)[0]["message"]


def test_a_function_in_this_process_is_awaited_by_its_name_and_prompt():
    seen = []

    def mine(prompt, response):
        seen.append(present()[0])
        return 1.0

    rollout = Rollout.single(Prompt("p7", "say"), 0, (1,), (2,), (0.0,), "x", "stop")
    FunctionReward(mine, timeout=5.0)([rollout])
    assert seen[0].what == "the reward function mine, asked about the prompt 'p7'" and seen[0].seconds == 5.0


def test_it_leaves_the_process_only_where_that_is_its_own(recorder):
    left, now = [], [time.monotonic()]
    token = leave.set(lambda run, what: left.append((run, what)))
    try:
        own = Watchdog(recorder, 10.0, clock=lambda: now[0])
    finally:
        leave.reset(token)
    of_a_user = Watchdog(recorder, 10.0, clock=lambda: now[0])
    with awaiting("the disk"):
        now[0] = time.monotonic() + 11.0
        of_a_user.look()
        assert left == []
        own.look()
    assert left == [(recorder.run_dir, "the disk")]


def test_nobody_watches_at_0_and_a_thread_ends_with_the_run(recorder):
    before = threading.active_count()
    with Watchdog(recorder, 0.0).watching():
        assert threading.active_count() == before
    with Watchdog(recorder, 100.0).watching():
        names = [thread.name for thread in threading.enumerate()]
    assert "watchdog" in names


class Left(BaseException):
    """In place of the end of this process."""


def test_a_command_starts_again_and_gives_up_where_it_hangs_for_ever(tmp_path, monkeypatch, capsys):
    started = []

    def execve(program, words, environment):
        started.append((words, environment[RESTARTS]))
        raise Left

    def ended(code):
        raise Left(code)

    monkeypatch.setattr(os, "execve", execve)
    job, words = GRPOJob(), ["grpo", "my.toml", "--overwrite", "--lr", "0.1"]
    monkeypatch.delenv(RESTARTS, raising=False)
    for expected in ("the start:1", "the start:2", "the start:3"):
        with pytest.raises(Left):
            start_again(words, job, tmp_path, "the environment")
        assert started[-1][1] == expected
        monkeypatch.setenv(RESTARTS, expected)
    said = ["grpo", "my.toml", "--lr", "0.1", "--out", str(tmp_path), "--resume"]
    assert started[-1][0] == [sys.executable, "-m", "plaudit.cli.main", *said]
    with pytest.raises(Left) as caught:
        start_again(words, job, tmp_path, "the environment", end=ended)
    assert caught.value.args == (70,)
    assert "has hung 4 times after the start, waiting for the environment" in capsys.readouterr().err
    (tmp_path / "checkpoints" / "step-000005").mkdir(parents=True)
    with pytest.raises(Left):  # a new checkpoint: it counts anew
        start_again([*words, "--out", "mine"], job.model_copy(update={"out": "mine"}), tmp_path, "the environment")
    assert started[-1][1] == "step-000005:1" and started[-1][0][-3:] == ["--out", "mine", "--resume"]


HANGS = """
import os, time

class Hangs:
    max_turns, stop, calls = 2, (), 0

    def reply(self, rollout):
        Hangs.calls += 1
        if Hangs.calls > 6 and not os.path.exists("hung"):
            open("hung", "w").close()
            while True:
                try: time.sleep(3600)
                except BaseException: pass
        return "one"
"""


@pytest.mark.skipif(sys.platform == "win32", reason="a process of Windows cannot become another")
def test_a_command_that_hangs_goes_on_by_itself_and_comes_to_its_end(tmp_path):
    """An environment in this process that swallows every exception, the first time that it is asked so often."""
    tokenizer = tiny_tokenizer(["one two three"], 32)
    save_causal_lm(tiny_lm("llama", tokenizer, hidden=16, layers=1), tmp_path / "lm", tokenizer)
    rows = [json.dumps({"prompt": "one " * n + "two"}) for n in range(1, 13)]
    (tmp_path / "prompts.jsonl").write_text("\n".join(rows) + "\n")
    (tmp_path / "world.py").write_text(HANGS)
    command = [
        *(sys.executable, "-m", "plaudit.cli.main", "grpo", "--policy", "lm", "--dataset", "prompts.jsonl"),
        *("--reward", "rule:length:4", "--environment", "world.py:Hangs", "--iterations", "6", "--every", "1"),
        *("--prompts-per-iteration", "2", "--group-size", "2", "--max-new-tokens", "16", "--eval-every", "0"),
        *("--eval-prompts", "2", "--stuck-minutes", "0.25", "--out", "run"),
    ]  # fmt: skip
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=1800, check=False)
    assert (tmp_path / "hung").exists(), ended.stderr
    assert ended.returncode == 0, ended.stderr
    assert "waiting for the reply of the environment Hangs; it starts again from" in ended.stderr
    run = tmp_path / "run"
    assert read_json(run / "summary.json")["ended"] == "finished"
    assert [row["step"] for row in read_lines(run / "metrics.jsonl")] == [1, 2, 3, 4, 5, 6]
    assert "stuck" in [alarm["kind"] for alarm in alarms(run)] and "reply" in (run / STACKS).read_text()
