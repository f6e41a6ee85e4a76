"""The file of answers: nothing is lost, nothing counted twice, and several runs may share it."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from plaudit.errors import ConfigError
from plaudit.rewards.remote.answers import Answers, Reply, Spent

REPLY = Reply('{"score": 7}', "stop", 100, 10, 0.25)


def test_a_reply_is_there_again_after_a_restart(tmp_path: Path) -> None:
    file = str(tmp_path / "new" / "answers.jsonl")
    answers = Answers(file, "reward")
    assert answers.get("k") is None and answers.spent == Spent()
    answers.add("k", "mini", REPLY)
    again = Answers(file, "reward")
    assert again.get("k") == answers.get("k") == REPLY
    assert again.spent == answers.spent == Spent(1, 110, 0.25)


def test_two_runs_see_each_others_replies(tmp_path: Path) -> None:
    one, other = (Answers(str(tmp_path / "a.jsonl"), "reward") for _ in range(2))
    one.add("k", "mini", REPLY)
    assert other.get("k") is None
    other.refresh()
    assert other.get("k") == REPLY
    other.add("l", "mini", REPLY)
    one.refresh()
    assert one.spent == other.spent == Spent(2, 220, 0.5)


def test_half_a_line_is_passed_over_and_ended(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    Answers(str(file), "reward").add("k", "mini", REPLY)
    with file.open("a") as stream:
        stream.write('{"key": "torn", "tex')
    answers = Answers(str(file), "reward")
    assert answers.get("k") == REPLY and answers.get("torn") is None
    answers.add("l", "mini", REPLY)
    again = Answers(str(file), "reward")
    assert again.get("k") == again.get("l") == REPLY and again.spent.calls == 2


NO_COST = '{"key": "k", "text": "x", "finish": "", "tokens_in": 1, "tokens_out": 1, "cost": NaN}'


@pytest.mark.parametrize(
    "line", ["null", "[]", "{}", '{"key": "k", "text": "x"}', "\xff", NO_COST, '{"key": [' * 9000]
)
def test_lines_of_something_else_are_passed_over(tmp_path: Path, line: str) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(line + "\n")
    assert Answers(str(file), "reward").spent == Spent()


def test_threads_may_write_at_the_same_time(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    answers = Answers(str(file), "reward")
    threads = [
        threading.Thread(target=lambda n=n: [answers.add(f"{n}/{i}", "mini", REPLY) for i in range(20)])
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers.spent.calls == 80 and len(file.read_text().splitlines()) == 80
    assert all(json.loads(line)["text"] == REPLY.text for line in file.read_text().splitlines())


def test_a_place_that_cannot_be_written_is_said_before_the_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be used") as caught:
        Answers(str(tmp_path), "gold")
    assert caught.value.where == "gold" and "cache = " in caught.value.cure
