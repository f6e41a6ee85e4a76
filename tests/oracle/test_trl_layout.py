"""What `data convert --layout trl` writes is taken by TRL's own functions as one of its dataset types."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from plaudit.data.write import write_records
from plaudit.models.tiny import tiny_tokenizer
from plaudit.records import Demonstration, Judgement, Message, Preference, Prompt, Ranking, Rating, Record

trl = pytest.importorskip("trl.data_utils", reason="pip install 'plaudit[oracle]'")

TOOL = {"type": "function", "function": {"name": "f", "description": "", "parameters": {"type": "object"}}}
CALL = {"type": "function", "function": {"name": "f", "arguments": {}}}
CHAT = (Message("system", "s"), Message("user", "q", tools=(TOOL,)))
TEMPLATE = (
    "{% for t in tools or [] %}<{{ t.function.name }}>{% endfor %}"
    "{% for m in messages %}{{ m.role }}:{{ m.content }}{% for c in m.tool_calls or [] %}{{ c.function.name }}"
    "{% endfor %};{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
)


@pytest.mark.parametrize(
    ("record", "names"),
    [
        (Prompt("1", CHAT, "4"), {"prompt"}),
        (Demonstration("1", CHAT, "a"), {"prompt", "completion"}),
        (Preference("1", CHAT, (Message("assistant", "", tool_calls=(CALL,)),), "b"), {"prompt", "chosen", "rejected"}),
        (Judgement("1", CHAT, "a", "b", 1), {"prompt", "chosen", "rejected"}),
        (Ranking("1", CHAT, ("a", "b"), (2, 1)), {"prompt", "chosen", "rejected"}),
        (Rating("1", CHAT, "a", 0.0), {"prompt", "completion", "label"}),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Record) else "",
)
def test_trl_renders_what_was_written(record: Record, names: set[str], tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    write_records([record], path, "trl")
    row = json.loads(path.read_text(encoding="utf-8"))
    tokenizer = tiny_tokenizer("a b q s")
    tokenizer.chat_template = TEMPLATE
    assert trl.is_conversational(row)
    rendered = trl.maybe_apply_chat_template(row, tokenizer, tools=row["tools"])
    assert names <= rendered.keys()
    assert rendered["prompt"] == "<f>system:s;user:q;assistant:"
    assert rendered.get("chosen", "f;") in ("f;", "b;")
