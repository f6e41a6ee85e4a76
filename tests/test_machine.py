"""What the machine or the settings refuse is said before data are read: device, run directory, threads."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

from plaudit.cli.main import main
from plaudit.errors import ConfigError, MachineError
from plaudit.jobs.registry import COMMANDS
from plaudit.machine import check_threads, check_writable

NOWHERE = "there/is/no/such/file.jsonl"


def words(command: str, *more: str) -> list[str]:
    """A command whose data are not there: reading them would be exit code 65."""
    model = "--model" if "model" in COMMANDS[command].required else "--policy"
    reward = ["--reward", "rule:contains:x"] if "reward" in COMMANDS[command].required else []
    return [command, model, NOWHERE, *reward, "--dataset", NOWHERE, *more]


@pytest.fixture
def read_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """No directory can be written in; root may write anywhere, so permissions alone would prove nothing."""

    def refused(*args: Any, **kwargs: Any) -> None:
        raise OSError(30, os.strerror(30))

    monkeypatch.setattr(tempfile, "TemporaryFile", refused)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_training_command_looks_at_the_machine_first(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    for flags, code, says in (
        (["--device", "cuda:77"], 74, "there is no device cuda:77"),
        (["--device", "gpu"], 78, "'gpu' is no device"),
        (["--threads", "100000"], 78, "100000 threads are too many"),
        (["--threads", "0"], 78, "threads"),
        (["--threads", "-3"], 78, "threads"),
    ):
        assert main(words(command, "--out", str(run), *flags)) == code, flags
        error = capsys.readouterr().err
        assert says in error and "Traceback" not in error and not run.exists()
    (tmp_path / "file").write_text("x")
    assert main(words(command, "--out", str(tmp_path / "file" / "run"))) == 78
    assert f"{tmp_path / 'file'} is a file" in capsys.readouterr().err
    run.mkdir()
    (run / "notes.txt").write_text("mine")
    assert main(words(command, "--out", str(run))) == 78
    assert "holds files that are not a run" in capsys.readouterr().err
    assert main(words(command, "--out", str(tmp_path / "new"))) == 65, "else the data are looked at"


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("out", ["new", "auto"])
def test_an_out_that_cannot_be_written_is_the_machines_fault(
    command: str, out: str, read_only: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(words(command, "--out", out)) == 74
    error = capsys.readouterr().err
    assert "cannot write to" in error and "Read-only file system" in error and "--out" in error
    assert list(tmp_path.iterdir()) == []


def test_members_of_an_ensemble_leave_nothing_behind(tmp_path: Path) -> None:
    assert main(words("reward", "--members", "3", "--device", "cuda:77", "--out", str(tmp_path / "run"))) == 74
    assert list(tmp_path.iterdir()) == []


OTHERS = {
    "compare": lambda out: ["compare", NOWHERE, NOWHERE, "--prompts", NOWHERE, "--out", f"{out}/pairs.jsonl"],
    "compare --json": lambda out: ["compare", NOWHERE, "--json", f"{out}/standings.json"],
    "select": lambda out: ["select", NOWHERE, "--out", f"{out}/first.jsonl"],
    "convert": lambda out: ["data", "convert", NOWHERE, f"{out}/new.jsonl"],
    "quickstart": lambda out: ["quickstart", "--out", f"{out}/all"],
    "doctor": lambda out: ["doctor", "--out", f"{out}/runs"],
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_commands_look_at_their_target_first(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("x")
    assert main(OTHERS[kind](tmp_path / "file")) == 78
    assert f"{tmp_path / 'file'} is a file" in capsys.readouterr().err

    def refused(*args: Any, **kwargs: Any) -> None:
        raise PermissionError(13, os.strerror(13))

    monkeypatch.setattr(tempfile, "TemporaryFile", refused)
    assert main(OTHERS[kind](tmp_path / "new")) == 74
    assert "Permission denied" in capsys.readouterr().err and not (tmp_path / "new").exists()


def test_an_ending_that_nobody_writes_is_said_before_the_work(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", NOWHERE, NOWHERE, "--prompts", NOWHERE, "--out", "pairs.xlsx"]) == 65
    assert "unknown file type '.xlsx'" in capsys.readouterr().err


def test_places(tmp_path: Path) -> None:
    check_writable(tmp_path / "a" / "b" / "c")
    check_writable(tmp_path)
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for path, says in (
        (tmp_path / "link" / "run", "a link that leads nowhere"),
        (tmp_path / ("x" * 5000), "no usable path"),
        (tmp_path / "nul\0", "no usable path"),
    ):
        with pytest.raises(ConfigError, match=says):
            check_writable(path)
    (tmp_path / "there.jsonl").write_text("x")
    check_writable(tmp_path / "there.jsonl")


def test_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    check_threads("auto")
    check_threads(64)  # a run of a larger machine is repeated
    with pytest.raises(ConfigError, match="65 threads are too many for 2 CPUs"):
        check_threads(65)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    check_threads(1)
    with pytest.raises(ConfigError):
        check_threads(1000)


def test_the_machines_refusals_have_one_exit_code() -> None:
    assert MachineError.exit_code == 74 and MachineError.code == "SYSTEM"
