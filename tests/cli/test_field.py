"""`--field` and its like: which column a field is read from, in every command that reads data."""

import json
from pathlib import Path
from typing import Any

import pytest

import plaudit
from plaudit.cli.main import main
from plaudit.data.load import load_records

from .conftest import sentence, write_lines

FIELDS = ["--field", "prompt=ask", "--field", "chosen=good one", "--field", "rejected=bad one"]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [
        {"ask": sentence(i, 4), "good one": sentence(i + 1, 5), "bad one": sentence(i + 2, 5), "more": i}
        for i in range(16)
    ]
    return write_lines(tmp_path_factory.mktemp("field") / "pairs.jsonl", rows)


def test_check_and_convert(pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", str(pairs), *FIELDS]) == 0
    out = capsys.readouterr().out
    assert "16 x preference from 16 rows" in out and "fields not used: more" in out
    assert main(["data", "convert", str(pairs), str(tmp_path / "out.jsonl"), *FIELDS]) == 0
    first = load_records(str(tmp_path / "out.jsonl")).records[0]
    assert (first.prompt, first.chosen) == (sentence(0, 4), sentence(1, 5))


def test_a_reward_model_and_its_evaluation(world: Any, pairs: Path, tmp_path: Path) -> None:
    words = ["--dataset", str(pairs), *FIELDS]
    run = tmp_path / "run"
    assert main(["reward", "--model", str(world.model), *words, "--epochs", "1", "--out", str(run)]) == 0
    notes = json.loads((run / "summary.json").read_text())["notes"]
    assert any("fields not used: more" in str(note) for note in notes)
    assert main(["evaluate", "reward", str(run), *words]) == 0


def test_the_keys_of_other_trainers_and_several_files(world: Any, tmp_path: Path) -> None:
    files = [
        str(write_lines(tmp_path / f"{n}.jsonl", [{"ask": sentence(n + i, 4), "say": "good"} for i in range(8)]))
        for n in (0, 20)
    ]
    run = tmp_path / "run"
    keys = ["--input-key", "ask", "--output_key=say"]
    assert main(["sft", "--model", str(world.model), "--dataset", *files, *keys, "--out", str(run)]) == 0
    summary = json.loads((run / "summary.json").read_text())
    assert summary["train_rows"] + summary["heldout_rows"] == 16
    longer = ["--epochs", "4", "--resume", "--out", str(run)]
    assert main(["sft", "--model", str(world.model), "--dataset", ",".join(files), *keys, *longer]) == 0


def test_items_of_the_app(pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["annotate", "import", str(pairs), "--db", str(tmp_path / "a.db")]
    assert main([*words, *FIELDS]) == 0
    assert "16 items" in capsys.readouterr().out


def test_rows_from_python(world: Any, tmp_path: Path) -> None:
    rows = [{"ask": sentence(i, 4), "say": sentence(i + 1, 5)} for i in range(8)]
    fields = {"prompt": "ask", "response": "say"}
    run = plaudit.train(plaudit.SFT(), model=str(world.model), dataset=rows, fields=fields, out=str(tmp_path / "run"))
    assert run.summary["train_rows"] + run.summary["heldout_rows"] == 8


@pytest.mark.parametrize(
    ("field", "code", "says"),
    [
        ("prompt=aks", 65, "did you mean 'ask'?"),
        ("promt=ask", 78, "did you mean prompt?"),
        ("prompt", 78, "has no value"),
    ],
)
def test_what_is_not_there_is_refused(
    pairs: Path, field: str, code: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "check", str(pairs), *FIELDS[2:], "--field", field]) == code
    assert says in capsys.readouterr().err


def test_a_prompt_that_may_be_there_is_not_left_out(pairs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", str(pairs), *FIELDS[2:]]) == 65
    assert "--field prompt=ask" in capsys.readouterr().err
    assert main(["data", "check", str(pairs), *FIELDS[2:], "--field", "prompt="]) == 0
