"""`--json`: one object on stdout, all else on stderr."""

import json

import pytest

from plaudit.cli import main as front
from plaudit.cli.parser import answer, show
from plaudit.errors import Ended


def toy(monkeypatch, run):
    module = type("Toy", (), {"run": staticmethod(run)})
    monkeypatch.setitem(front.COMMANDS, "toy", ("toy", "a toy"))
    monkeypatch.setattr(front, "AS_JSON", ("toy",))
    monkeypatch.setattr(front.importlib, "import_module", lambda name: module)


def test_figures_go_to_stdout_and_words_to_stderr(monkeypatch, capsys):
    def run(command, argv):
        show("words")
        answer({"kl": float("nan")})
        answer({"kl": 1.5, "bad": float("nan")})
        return 0 if argv == ["x"] else 1

    toy(monkeypatch, run)
    assert front.main(["toy", "x", "--json"]) == 0
    seen = capsys.readouterr()
    assert json.loads(seen.out) == {"kl": 1.5, "bad": None} and seen.err == "words\n"
    assert front.main(["toy", "x"]) == 0
    assert capsys.readouterr().out == "words\n"


def test_a_run_that_a_limit_ends_has_its_figures(monkeypatch, capsys):
    def run(command, argv):
        answer({"kl": 30.0})
        raise Ended("the KL is above the limit", how="limit", kind="kl_limit")

    toy(monkeypatch, run)
    assert front.main(["toy", "--json"]) == 3
    assert json.loads(capsys.readouterr().out) == {"kl": 30.0}


def test_data_check_as_json(tmp_path, capsys):
    (tmp_path / "good.jsonl").write_text('{"prompt": "Hi", "chosen": "Yes", "rejected": "No"}\n', encoding="utf-8")
    (tmp_path / "bad.jsonl").write_text('{"prompt": 1}\n', encoding="utf-8")
    assert front.main(["data", "check", str(tmp_path / "good.jsonl"), str(tmp_path / "bad.jsonl"), "--json"]) == 65
    good, bad = json.loads(capsys.readouterr().out)["files"]
    assert (good["records"], good["kind"]) == (1, "preference") and "findings" in good
    assert bad["cure"] and bad["error"]


@pytest.mark.parametrize("command", front.AS_JSON)
def test_commands_that_print_figures_know_the_flag(command):
    assert command in front.COMMANDS
