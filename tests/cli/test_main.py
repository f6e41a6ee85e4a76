"""Exit codes and messages of the front door."""

from __future__ import annotations

import errno
import sys
import types
from pathlib import Path

import pytest

from plaudit.cli import main as front
from plaudit.cli.main import explain
from plaudit.errors import DataError, MachineError, Stopped


@pytest.fixture(autouse=True)
def keep_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front.signal, "signal", lambda *a: None)


def command(monkeypatch: pytest.MonkeyPatch, failure: BaseException | None) -> None:
    """A command named ``toy`` that fails in the given way."""

    def run(name: str, argv: list[str]) -> int:
        if failure is not None:
            raise failure
        print(name, *argv)
        return 0

    module = types.ModuleType("plaudit.cli.toy")
    module.run = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "plaudit.cli.toy", module)
    monkeypatch.setitem(front.COMMANDS, "toy", ("toy", "a toy"))


def test_help_lists_every_command_and_each_has_a_module(capsys: pytest.CaptureFixture[str]) -> None:
    assert front.main(["--help"]) == front.main([]) == 0
    text = capsys.readouterr().out
    folder = Path(front.__file__).parent
    for name, (module, about) in front.COMMANDS.items():
        assert f"{name} " in text and about in text
        assert (folder / f"{module.replace('.', '/')}.py").is_file()


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert front.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("plaudit 0.")


def test_success(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    command(monkeypatch, None)
    assert front.main(["toy", "a", "--debug"]) == 0
    assert capsys.readouterr().out == "toy a\n"


def test_unknown_command_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert front.main(["rewrad"]) == 78
    assert "did you mean `plaudit reward`?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("failure", "code", "says"),
    [
        (DataError("row 3 is bad", where="a.jsonl:3", cure="mend it"), 65, "DATA: row 3 is bad"),
        (Stopped("asked to stop"), 75, "STOPPED"),
        (KeyboardInterrupt(), 75, "run the command again"),
        (ZeroDivisionError("division by zero"), 70, "--debug"),
        (MemoryError(), 74, "--tokens-per-microbatch"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 1 bytes"), 74, "--tokens-per"),
        (PermissionError(13, "Permission denied", "/x"), 74, "where: /x"),
        (OSError(errno.ENOSPC, "No space left on device"), 74, "No space left on device"),
        (OSError(errno.EIO, "Input/output error"), 74, "free space"),
        (RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"), 74, "os error 28"),
        (RuntimeError("shapes cannot be multiplied"), 70, "--debug"),
        (MachineError("no device", cure="another"), 74, "SYSTEM: no device"),
        (SystemExit(0), 0, ""),
    ],
)
def test_failures(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    failure: BaseException,
    code: int,
    says: str,
) -> None:
    command(monkeypatch, failure)
    assert front.main(["toy"]) == code
    text = capsys.readouterr().err
    assert says in text and "Traceback" not in text
    assert len(text.splitlines()) <= 4


def test_debug_shows_the_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command(monkeypatch, ZeroDivisionError("division by zero"))
    assert front.main(["--debug", "toy"]) == 70
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_a_bug_says_where() -> None:
    try:
        _ = 1 / 0
    except ZeroDivisionError as error:
        found = explain(error)
    assert found.where.startswith("test_main.py:") and "ZeroDivisionError" in found.what


def test_only_what_can_be_resumed_is_said_to_be() -> None:
    assert "--resume" in explain(KeyboardInterrupt()).cure and "--resume" in explain(Stopped("asked")).cure
    assert explain(Stopped("asked"), "run it again").cure == "run it again"
    assert explain(Stopped("asked", cure="mine"), "run it again").cure == "mine"


def test_sigterm_is_a_clean_stop() -> None:
    with pytest.raises(Stopped):
        front._stop(15, None)
    assert Stopped.exit_code == 75
