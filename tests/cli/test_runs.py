"""`plaudit runs` and `plaudit completion`."""

import json
import shutil
import subprocess

import pytest

from plaudit.cli.main import COMMANDS, main
from plaudit.runs.recorder import Recorder


def made(path, command, figures, lr):
    with Recorder(path, command=command) as recorder:
        recorder.metrics(1, {"loss": 1.0})
        recorder.summary(figures)
    (path / "config.toml").write_text(f"seed = 0 # default\n[optimizer]\nlr = {lr} # flag\n", encoding="utf-8")


@pytest.fixture
def folder(tmp_path):
    made(tmp_path / "runs" / "a", "ppo", {"verdict": "better", "kl": 4.25, "win_rate": 0.75}, 0.001)
    made(tmp_path / "runs" / "deep" / "b", "ppo", {"verdict": "worse", "kl": 9.0}, 0.01)
    return tmp_path / "runs"


def test_runs_are_listed_with_how_they_ended_and_their_figures(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder.parent)
    assert main(["runs"]) == 0
    shown = capsys.readouterr().out
    assert "ppo         runs/a\n" in shown and "better  win_rate 0.75  kl 4.25" in shown
    assert "runs/deep/b\n" in shown and "worse  kl 9" in shown and "plaudit report runs/" in shown


def test_rows_as_json(folder, capsys):
    assert main(["runs", str(folder), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    by_run = {row["run"]: row for row in rows}
    assert by_run[str(folder / "a")]["figures"] == {"win_rate": 0.75, "kl": 4.25}
    assert by_run[str(folder / "deep" / "b")]["state"] == "worse"


def test_runs_side_by_side_with_the_settings_that_differ(folder, capsys):
    assert main(["runs", str(folder / "a"), str(folder / "deep" / "b")]) == 0
    lines = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines()}
    assert lines["state"] == ["better", "worse"] and lines["kl"] == ["4.25", "9"]
    assert lines["win_rate"] == ["0.75", "-"] and lines["optimizer.lr"] == ["0.001", "0.01"]
    assert "seed" not in lines


def test_a_run_that_cannot_be_read_says_why_and_the_others_are_listed(folder, capsys):
    (folder / "a" / "summary.json").write_text("{", encoding="utf-8")
    assert main(["runs", str(folder), "--json"]) == 0
    rows = {row["run"]: row for row in json.loads(capsys.readouterr().out)}
    assert "JSON" in rows[str(folder / "a")]["state"] and rows[str(folder / "deep" / "b")]["state"] == "worse"


def test_a_directory_without_runs_is_an_error(tmp_path, capsys):
    assert main(["runs", str(tmp_path)]) == 65
    assert "there is no run here" in capsys.readouterr().err


def test_bash_completes_commands_and_flags(tmp_path, capsys):
    assert main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    if shutil.which("bash") is None:
        pytest.skip("bash is not installed")
    ask = "COMP_WORDS=({words}); COMP_CWORD={at}; _plaudit; echo ${{COMPREPLY[@]}}"
    for words, at, expected in (("plaudit gr", 1, "grpo"), ("plaudit ppo --kl-c", 2, "--kl-coef")):
        text = f"{script}\n{ask.format(words=words, at=at)}"
        found = subprocess.run(["bash", "-c", text], capture_output=True, text=True, check=True).stdout
        assert expected in found.split()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_command_is_in_the_script(shell, capsys):
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(name in script for name in COMMANDS) and "prompts-per-iteration" in script
