"""What was served comes into the annotation app, and goes out as training data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from plaudit.cli.main import main
from plaudit.data.load import load_records
from plaudit.data.served import Said, Store
from plaudit.records import Demonstration, Message, Preference, Rating

ASK = (Message("user", "ask"),)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Two responses to one prompt, one judged up, one down and edited; one to another."""
    store = Store(tmp_path / "feedback.jsonl")
    for response, verdict, value, name in (
        ("one", "thumb", "up", "1"), ("two", "thumb", "down", "2"), ("two", "edit", "better", "2"),
        ("three", "rating", 4, "3"),
    ):  # fmt: skip
        prompt = ASK if name != "3" else (Message("user", "another"),)
        store.add(Said(prompt, (response,), verdict, value, name, 0, "Ann", ("m",), {"seed": 3}))
    store.close()
    return store.path


@pytest.mark.parametrize(
    ("words", "task", "count"),
    [
        ([], "ranking", 1),
        (["--task", "pairwise"], "pairwise", 3),
        (["--task", "thumbs"], "thumbs", 3),
        (["--task", "demonstration"], "demonstration", 2),
    ],
)
def test_what_was_served_becomes_items(
    file: Path, tmp_path: Path, capsys: Any, words: list[str], task: str, count: int
) -> None:
    assert main(["annotate", "import", str(file), "--from", "served", "--db", str(tmp_path / "a.db"), *words]) == 0
    said = capsys.readouterr().out
    assert f"{count} items for feedback ({task})" in said and "lines of a feedback store" in said
    assert main(["annotate", "import", str(file), "--from", "served", "--db", str(tmp_path / "a.db"), *words]) == 0
    assert f"0 items for feedback ({task}), {count} were in it already" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("what", "records"),
    [
        ("kto", {("one", 1.0), ("two", 0.0)}),
        ("ratings", {("three", 4.0)}),
        ("demonstrations", {("better",)}),
        ("preferences", {("better", "two"), ("one", "two")}),
    ],
)
def test_feedback_becomes_training_data_that_says_where_it_comes_from(
    file: Path, tmp_path: Path, what: str, records: Any
) -> None:
    out = tmp_path / "out.jsonl"
    assert main(["annotate", "export", str(file), str(out), "--from", "served", "--what", what]) == 0
    found = set()
    for one in load_records(out).records:
        if isinstance(one, Rating):
            found.add((one.response, one.reward))
        elif isinstance(one, Demonstration):
            found.add((one.response,))
        elif isinstance(one, Preference):
            found.add((one.chosen, one.rejected))
    assert found == records
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert all(row["provenance"]["source"] == "served" and row["provenance"]["seed"] == 3 for row in rows)


def test_what_the_file_cannot_give_is_said(file: Path, tmp_path: Path, capsys: Any) -> None:
    out = str(tmp_path / "out.jsonl")
    assert main(["annotate", "export", str(file), out, "--from", "served", "--what", "rankings"]) == 78
    assert "gives no rankings" in capsys.readouterr().err
    lonely = tmp_path / "lonely.jsonl"
    lonely.write_text(json.dumps({"prompt": "a", "response": "b", "finish_reason": "stop"}) + "\n")
    assert main(["annotate", "export", str(lonely), out, "--from", "served"]) == 65
    assert "no preferences can be made" in capsys.readouterr().err
    command = ["annotate", "import", str(lonely), "--from", "served", "--db", str(tmp_path / "a.db")]
    assert main([*command, "--task", "pairwise"]) == 65
    assert "--task: rating, thumbs, demonstration" in capsys.readouterr().err
