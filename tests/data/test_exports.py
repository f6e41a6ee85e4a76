"""Exports of other tools and public layouts: what each becomes, written out by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from plaudit.data.load import Loaded, load_records
from plaudit.records import Judgement, Message, Preference


def read(tmp_path: Path, *rows: dict[str, Any]) -> Loaded:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return load_records(str(path))


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def test_openai_preferences(tmp_path: Path) -> None:
    row = {
        "input": {"messages": [turn("user", "Q")], "tools": [], "parallel_tool_calls": True},
        "preferred_output": [turn("assistant", "good")],
        "non_preferred_output": [turn("assistant", "bad")],
    }
    loaded = read(tmp_path, row)
    assert loaded.records == (Preference("rows-1", (Message("user", "Q"),), "good", "bad"),)
    assert loaded.format == "OpenAI preferences as preferences (messages), JSONL"
    assert loaded.unused == ("input.parallel_tool_calls",)


def battle(winner: str, **more: Any) -> dict[str, Any]:
    sides = {
        f"conversation_{x}": [turn("user", "Q"), turn("assistant", answer)]
        for x, answer in (("a", "one"), ("b", "two"))
    }
    return {"question_id": "q", "model_a": "x", "model_b": "y", "winner": winner, **sides, **more}


def test_arena_battles(tmp_path: Path) -> None:
    words = ("model_a", "model_b", "tie", "tie (bothbad)")
    loaded = read(tmp_path, *(battle(w, question_id=w, judge="j", tstamp=1.0) for w in words))
    prompt = (Message("user", "Q"),)
    assert loaded.records == tuple(
        Judgement(word, prompt, "one", "two", strength, "x", "y", "j")
        for word, strength in zip(words, (-1, 1, 0, 0), strict=True)
    )
    assert loaded.unused == ("tstamp",)
    assert "1 verdicts that both responses are bad, read as ties" in loaded.notes
