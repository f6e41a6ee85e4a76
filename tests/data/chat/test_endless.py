"""A chat template is a program that comes with a model: one that does not end is stopped, and the model is named."""

import pytest

from plaudit.cli.main import main
from plaudit.data.chat.template import Template
from plaudit.errors import ModelError
from plaudit.machine import TooSlow, time_limit
from plaudit.models.files.saving import save_causal_lm
from plaudit.models.tiny import tiny_lm, tiny_tokenizer
from plaudit.records import Message

LOOP = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
ENDLESS = {
    "always": LOOP,
    "after two turns": "{% if messages | length > 2 %}" + LOOP + "{% endif %}{{ messages[-1]['content'] }}",
    "a recursive macro": "{% macro f(n) %}{{ f(n + 1) if n < 60 else '' }}{{ f(n + 1) if n < 60 else '' }}"
    "{% endmacro %}{{ f(0) }}",
}


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr("plaudit.data.chat.template.MOST_SECONDS", 0.3)


def chat(*roles):
    return [Message(role, "one") for role in roles]


@pytest.mark.parametrize("kind", ENDLESS)
def test_a_template_that_does_not_end_is_stopped_and_its_model_named(kind):
    tokenizer = tiny_tokenizer(["one two"], 32)
    tokenizer.chat_template, tokenizer.name_or_path = ENDLESS[kind], "somebody/model"
    with pytest.raises(ModelError, match=r"the chat template of somebody/model did not end within 0\.3 s") as caught:
        Template(tokenizer).write(chat("user", "assistant", "user"), open_end=True)
    assert "chat_template to never" in caught.value.cure


def test_questions_put_to_it_are_no_way_around():
    """What a template knows is found out by asking it, and a refusal is an answer; no end is not."""
    tokenizer = tiny_tokenizer(["one two"], 32)
    tokenizer.chat_template = LOOP
    for question in ("opened", "after_user", "writes_tools", "lasting_tail"):
        with pytest.raises(ModelError, match="did not end"):
            getattr(Template(tokenizer), question)


def test_a_command_says_it_in_a_few_lines(tmp_path, capsys):
    tokenizer = tiny_tokenizer(["one two"], 32)
    tokenizer.chat_template = LOOP
    save_causal_lm(tiny_lm("llama", tokenizer, hidden=16, layers=1), tmp_path / "endless", tokenizer)
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"messages": [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}]}\n' * 8)
    words = ["sft", "--model", str(tmp_path / "endless"), "--dataset", str(rows), "--out", str(tmp_path / "run")]
    assert main(words) == 78
    said = capsys.readouterr().err
    assert f"the chat template of {tmp_path / 'endless'} did not end" in said and "Traceback" not in said
    assert not (tmp_path / "run").exists()


def test_a_limit_within_another_leaves_it_its_time():
    with pytest.raises(TooSlow, match="more than 1 s"), time_limit(1.0):
        with time_limit(100.0):
            pass
        while True:
            pass
