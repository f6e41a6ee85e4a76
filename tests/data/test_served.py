"""What people said of served responses becomes records, worked out by hand; the file survives what happens to it."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from plaudit.data.served import Said, Store, read_served, records_of
from plaudit.errors import DataError, MachineError
from plaudit.records import Comparison, Demonstration, Message, Preference, Rating

ASK = (Message("user", "ask"),)


def said(
    response: str, verdict: str = "", value: Any = None, *, id: str = "", user: str = "", prompt: Any = ASK
) -> Said:
    return Said(prompt, (response,), verdict, value, id, 0, user, ("m",), {"seed": 3})


@pytest.fixture
def kept(tmp_path: Path) -> Any:
    """Writes lines, and reads them."""

    def write(*lines: Said) -> list[Said]:
        (tmp_path / "feedback.jsonl").unlink(missing_ok=True)
        store = Store(tmp_path / "feedback.jsonl")
        for line in lines:
            store.add(line)
        store.close()
        return read_served([store.path])

    return write


def records(lines: list[Said], what: Any) -> list[Any]:
    return [record for record, _ in records_of(lines, what)]


def test_what_is_written_is_read_again(kept: Any) -> None:
    choice = Said("text", ("a", "b"), "chosen", None, "c", 1, "u", ("m", "n"))
    lines = [said("a", "thumb", "up", id="1"), said("b"), said("a", "rating", 4.5, id="1"), choice]
    assert kept(*lines) == lines


def test_the_last_word_of_a_user_counts(kept: Any) -> None:
    lines = kept(
        said("a", "thumb", "up", id="1", user="Ann"), said("a", "thumb", "up", id="1", user="Bo"),
        said("a", "thumb", "down", id="1", user="Ann"), said("a", "rating", 3, id="1", user="Ann"),
    )  # fmt: skip
    assert [(line.user, line.verdict, line.value) for line in lines] == [
        ("Bo", "thumb", "up"), ("Ann", "thumb", "down"), ("Ann", "rating", 3),
    ]  # fmt: skip


def test_thumbs_ratings_and_edits_become_what_each_method_learns_from(kept: Any) -> None:
    lines = kept(
        said("a", "thumb", "up", id="1"), said("b", "thumb", "down", id="2"), said("a", "rating", 8, id="1"),
        said("b", "edit", "better", id="2"), said("c"),
    )  # fmt: skip
    assert records(lines, "kto") == [Rating("1-0", ASK, "a", 1.0), Rating("2-0", ASK, "b", 0.0)]
    assert records(lines, "ratings") == [Rating("1-0", ASK, "a", 8.0)]
    assert records(lines, "demonstrations") == [Demonstration("2-0", ASK, "better")]
    assert [(one.chosen, one.rejected) for one in records(lines, "preferences")] == [("better", "b"), ("a", "b")]
    (pairs,) = records(lines, "comparisons")
    assert isinstance(pairs, Comparison) and pairs.responses == ("a", "b", "better", "c")
    assert pairs.provenance[2]["edited"] and pairs.provenance[0] == {
        "source": "served", "id": "1", "verdict": "thumb", "model": "m", "seed": 3,
    }  # fmt: skip


def test_each_record_says_where_it_comes_from(kept: Any) -> None:
    ((_, origin),) = records_of(kept(said("a", "thumb", "up", id="1", user="Ann")), "kto")
    assert origin == {"source": "served", "id": "1", "user": "Ann", "verdict": "thumb", "model": "m", "seed": 3}


def test_a_choice_is_a_preference_and_a_tie_is_none(kept: Any) -> None:
    one = Said(ASK, ("a", "b"), "chosen", 0, "1", 0, "", ("m", "n"))
    tie = Said(ASK, ("a", "c"), "chosen", None, "2", 0, "", ("m", "n"))
    lines = kept(one, tie)
    (found,) = records(lines, "preferences")
    assert isinstance(found, Preference) and (found.chosen, found.rejected) == ("a", "b")
    assert records(kept(one), "comparisons") == [], "what was compared is no candidate"


def test_what_people_disagree_on_gives_no_pair(kept: Any) -> None:
    lines = kept(
        said("a", "thumb", "up", id="1", user="Ann"), said("a", "thumb", "down", id="1", user="Bo"),
        said("b", "thumb", "down", id="2"),
    )  # fmt: skip
    assert records(lines, "preferences") == []


def test_responses_to_different_prompts_are_not_compared(kept: Any) -> None:
    lines = kept(said("a", "thumb", "up"), said("b", "thumb", "down", prompt="other"))
    assert records(lines, "preferences") == [] and records(lines, "comparisons") == []


def test_every_text_is_redacted_before_it_is_written(tmp_path: Path) -> None:
    store = Store(tmp_path / "f.jsonl", lambda text: text.replace("Ann", "X"))
    prompt = (Message("user", "I am Ann"),)
    store.add(said("Hello Ann", "edit", "Dear Ann", prompt=prompt), comment="Ann again")
    assert "Ann" not in store.path.read_text() and store.path.read_text().count("X") == 4


@pytest.mark.parametrize("result", [None, 3])
def test_a_redaction_that_returns_no_text_writes_nothing(tmp_path: Path, result: Any) -> None:
    store = Store(tmp_path / "f.jsonl", lambda text: result)
    with pytest.raises(DataError, match="redaction failed"):
        store.add(said("a"))
    assert store.path.read_text() == ""


def test_lines_of_several_writers_do_not_mix(tmp_path: Path) -> None:
    stores = [Store(tmp_path / "f.jsonl") for _ in range(4)]
    threads = [
        threading.Thread(target=lambda store=store: [store.add(said("word " * 500)) for _ in range(20)])
        for store in stores
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read_served([stores[0].path])) == 80


def test_a_line_that_a_crash_cut_off_does_not_take_the_next_with_it(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    path.write_text('{"prompt": "a", "resp')
    Store(path).add(said("b"))
    assert len(path.read_text().splitlines()) == 2
    with pytest.raises(DataError) as failure:
        read_served([path])
    assert failure.value.where == f"{path}:1" and "remove the line" in failure.value.cure


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"prompt": "a"}, "it has no 'response'"),
        ({"prompt": "a", "response": "b", "thumb": "left"}, "give up or down"),
        ({"prompt": "a", "response": "b", "rating": "much"}, "give a number"),
        ({"prompt": "a", "response": "b", "rating": True}, "give a number"),
        ({"prompt": "a", "response": "b", "rating": 1e300}, "give a number"),
        ({"prompt": "a", "response": "b", "edit": " "}, "edit is empty"),
        ({"prompt": "a", "responses": ["b", "c"], "chosen": 2}, "chosen is 2 of 2"),
        ({"prompt": "a", "response": "b", "thumb": "up", "rating": 3}, "not thumb and rating"),
        ([1], "no line of a feedback store"),
        ({"prompt": [{"role": "user"}], "response": "b"}, "no line of a feedback store"),
    ],
)
def test_what_is_no_line_is_said_with_its_place(tmp_path: Path, row: Any, words: str) -> None:
    path = tmp_path / "f.jsonl"
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(DataError) as failure:
        read_served([path])
    assert words in failure.value.what and failure.value.where == f"{path}:1"


def test_a_store_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match="cannot write"):
        Store(tmp_path / "file" / "f.jsonl")
