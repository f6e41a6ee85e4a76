"""Runs of the first release still open, report and resume.

The directories beside this file were written by that release, with a checkpoint before their end; their
models are left out.
"""

import json
import shutil
from pathlib import Path

import pytest

from plaudit.cli.main import main
from plaudit.evaluation.report import write_report

HERE = Path(__file__).parent / "first_release"
LENGTHS = {"ppo": ("iterations", 3, 2), "dapo": ("iterations", 2, 1)}
LENGTHS |= dict.fromkeys(("sft", "reward", "dpo"), ("epochs", 2, 5))
"""What a run is long in, how long it was, and the step of its checkpoint."""
COMMANDS = {"dapo": "grpo"}


@pytest.fixture
def old(tmp_path, monkeypatch):
    """A copy of the runs and of what they read, as the current directory: their paths are relative to it."""
    shutil.copytree(HERE, tmp_path / "old")
    monkeypatch.chdir(tmp_path / "old")
    return tmp_path / "old"


def rows(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("name", LENGTHS)
def test_opens_and_reports(old, name):
    page = write_report(old / name).read_text(encoding="utf-8")
    assert len(page) > 10_000
    assert "</html>" in page


@pytest.mark.parametrize("name", LENGTHS)
def test_resumes_from_its_config_and_checkpoint(old, name):
    length, was, saved = LENGTHS[name]
    run = old / name
    before = rows(run / "metrics.jsonl")
    command = [COMMANDS.get(name, name), str(run / "config.toml"), "--resume", f"--{length}", str(was + 1)]
    assert main(command) == 0

    after = rows(run / "metrics.jsonl")
    kept = [row for row in before if row["step"] <= saved]
    assert after[: len(kept)] == kept, "what the checkpoint covers stays as it was recorded"
    steps = [row["step"] for row in after if row["step"] > 0]
    trained = [row["step"] for row in before if row["step"] > 0]
    assert steps == list(range(1, len(trained) * (was + 1) // was + 1))
    resumed = [event for event in rows(run / "events.jsonl") if event["event"] == "resumed"]
    assert [event["step"] for event in resumed] == [saved]
    assert (run / "model" / "model.safetensors").is_file()


def test_a_run_whose_best_weights_are_gone_goes_on_and_says_so(old):
    run = old / "ppo"
    command = ["ppo", str(run / "config.toml"), "--resume", "--iterations"]
    assert main([*command, "5"]) == 0
    assert list((run / "best").iterdir()), "taken out of the checkpoint of the first release"
    shutil.rmtree(run / "best")
    assert main([*command, "7"]) == 0

    assert [row["step"] for row in rows(run / "metrics.jsonl")] == list(range(1, 8))
    events = rows(run / "events.jsonl")
    [alarm] = [event for event in events if event.get("kind") == "checkpoint"]
    assert alarm["step"] == 4
    assert "best weights so far are lost" in alarm["message"]
    assert [event["step"] for event in events if event["event"] == "resumed"] == [2, 4]
