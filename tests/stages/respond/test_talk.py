"""Conversations: histories, choices between two models, what is kept of them."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import pytest

from plaudit.cli.chat import Chat
from plaudit.config.sections import SamplingSection
from plaudit.data.served import read_served
from plaudit.live import Load, Piece
from plaudit.records import Message
from plaudit.stages.respond.talk import Conversation, Talker


class Echo:
    """An engine that answers with its name and the number of its prompt's tokens, in two pieces."""

    context, vocabulary, notes = 100, 100, ()

    def __init__(self, name: str) -> None:
        self.name = name

    def submit(self, request: Any, listener: Any) -> Any:
        listener(Piece(1, 0.0, self.name))
        listener(Piece(1, 0.0, f" {len(request.ids)}", finish="stop"))
        return self

    def cancel(self) -> None:
        pass

    def load(self) -> Load:
        return Load(0, 0, 1, 0, 0)

    def token_text(self, token: int) -> str:
        return ""

    def close(self, seconds: float = 0.0) -> None:
        pass


class Counting:
    """A chat format whose prompts have one token for each turn."""

    uses_template = True

    def prompt_ids(self, content: Any) -> list[int]:
        return [1] * (len(content) if isinstance(content, tuple) else 40)


@pytest.fixture
def chat(tmp_path: Path) -> Any:
    """A chat with one model or two, and the file of its feedback."""

    def made(*names: str, **options: Any) -> tuple[Chat, Conversation, Path]:
        talkers = [Talker(name, Echo(name), Counting()) for name in names]  # type: ignore[arg-type]
        talk = Conversation(talkers, SamplingSection(max_new_tokens=8), **options)
        return Chat(talk, str(tmp_path / "feedback.jsonl")), talk, tmp_path / "feedback.jsonl"

    return made


def test_answers_go_to_stdout_and_the_conversation_grows(chat: Any, capsys: Any) -> None:
    one, talk, _ = chat("m", system="be short")
    for line in ("Hi", "And now?", "/new", "Hi"):
        one.take(line)
    assert capsys.readouterr().out == "m 2\nm 4\nm 2\n"
    assert talk.talkers[0].history[0] == Message("system", "be short")


def test_a_system_message_can_be_typed(chat: Any, capsys: Any) -> None:
    one, talk, _ = chat("m")
    one.take("/system Talk like a pirate.")
    one.take("Hi")
    assert talk.last[0].prompt == (Message("system", "Talk like a pirate."), Message("user", "Hi"))


def test_the_last_answer_is_judged_and_the_last_word_counts(chat: Any, capsys: Any) -> None:
    one, _, path = chat("m")
    one.take("Hi")
    assert not path.exists(), "nothing is kept until something is judged"
    for line in ("/up", "/down", "/rate 7", "/edit A better one."):
        one.take(line)
    lines = read_served([path])
    said = [(line.verdict, line.value) for line in lines]
    assert said == [("thumb", "down"), ("rating", 7.0), ("edit", "A better one.")]
    assert {(line.prompt, line.responses, line.models) for line in lines} == {
        ((Message("user", "Hi"),), ("m 1",), ("m",))
    }
    assert lines[0].provenance["draw"] == 0


def test_two_models_and_a_choice_that_both_go_on_from(chat: Any, capsys: Any) -> None:
    both, talk, path = chat("x", "y")
    both.take("Hi")
    both.take("/b")
    both.take("And?")
    both.take("/tie")
    assert capsys.readouterr().out == "x: x 1\ny: y 1\nx: x 3\ny: y 3\n"
    first, second = read_served([path])
    assert (first.verdict, first.value, first.responses, first.models) == ("chosen", 1, ("x 1", "y 1"), ("x", "y"))
    assert second.value is None and second.prompt[1] == Message("assistant", "y 1"), "both went on from y's answer"


def test_blind_answers_change_places_and_names_are_told_after_the_choice(chat: Any, capsys: Any) -> None:
    both, talk, path = chat("x", "y", blind=True, seed=3)
    places = []
    for _ in range(12):
        both.take("Hi")
        shown = capsys.readouterr()
        assert shown.out.startswith("A: ") and "\nB: " in shown.out
        places.append(talk.last[0].talker.name)
        both.take("/a")
        assert f"A was {places[-1]}" in capsys.readouterr().err
        both.take("/new")
    assert set(places) == {"x", "y"}
    lines = read_served([path])
    assert [line.models[line.value] for line in lines] == places and lines[0].provenance["blind"]


def test_different_conversations_are_not_compared(chat: Any, capsys: Any) -> None:
    both, _, path = chat("x", "y")
    for line in ("Hi", "And?", "/a"):
        both.take(line)
    assert "different conversations" in capsys.readouterr().err and not path.exists()


@pytest.mark.parametrize(
    ("names", "lines", "said"),
    [
        (("m",), ["/up"], "nothing was answered yet"),
        (("m",), ["Hi", "/rate much"], "'much' is no number"),
        (("m",), ["Hi", "/edit"], "edit is empty"),
        (("m",), ["Hi", "/a"], "there is no /a"),
        (("m",), ["/quitt"], "/help"),
        (("x", "y"), ["Hi", "/up"], "say which: a or b"),
        (("x", "y"), ["/a"], "no two answers"),
    ],
)
def test_what_cannot_be_done_is_said_and_the_chat_goes_on(
    chat: Any, capsys: Any, names: tuple[str, ...], lines: list[str], said: str
) -> None:
    one, _, path = chat(*names)
    for line in lines:
        one.take(line)
    assert said in capsys.readouterr().err and not path.exists()
    one.take("Hi")
    assert names[0] in capsys.readouterr().out


def test_a_path_is_a_message_and_no_command(chat: Any, capsys: Any) -> None:
    one, _, _ = chat("m")
    one.take("/etc/hosts is what?")
    assert capsys.readouterr().out == "m 1\n"


def test_a_conversation_that_has_become_too_long_is_said(chat: Any, capsys: Any) -> None:
    one, talk, _ = chat("m")
    talk.talkers[0].history = (Message("user", "x"),) * 120
    one.take("Hi")
    assert "/new starts over" in capsys.readouterr().err
    one.take("/new")
    one.take("Hi")
    assert capsys.readouterr().out.endswith("m 1\n")


def test_piped_lines_end_at_an_empty_one(chat: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from plaudit.cli import chat as module

    monkeypatch.setattr(sys, "stdin", io.StringIO("Hi\n\nnever\n"))
    monkeypatch.setattr(Talker, "of", lambda name: Talker(name, Echo(name), Counting()))  # type: ignore[arg-type]
    assert module.run("chat", ["m"]) == 0
