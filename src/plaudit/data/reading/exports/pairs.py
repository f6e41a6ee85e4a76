"""Exports in which a row holds two responses and which of them was preferred."""

from __future__ import annotations

from typing import Any

from plaudit.data.reading.exports.item import Item, OwnRow
from plaudit.data.reading.rows import shorten

_WORDS = {
    -1: ("a", "model_a", "response_a", "left", "first", "1st"),
    1: ("b", "model_b", "response_b", "right", "second", "2nd"),
    0: ("tie", "tied", "draw", "equal", "same", "both", "both_good", "none", "neither"),
}
_STRENGTHS = {word: strength for strength, words in _WORDS.items() for word in words}
_BOTH_BAD = ("tie (bothbad)", "bothbad", "both_bad", "both bad", "tie (both bad)")


def verdict(item: Item, name: str, value: Any) -> int | None:
    """The strength that a word stands for; None, with a fault, if it is not known."""
    word = value.strip().lower() if isinstance(value, str) else ""
    if word in _BOTH_BAD:
        item.log.count("verdicts that both responses are bad, read as ties")
        return 0
    if word not in _STRENGTHS:
        item.fault(name, shorten(value), "expected which of the two won, or tie")
        return None
    return _STRENGTHS[word]


def openai_preference(item: Item) -> list[OwnRow]:
    """`input` with messages and tools, `preferred_output`, `non_preferred_output`."""
    given = item.item("input")
    row: OwnRow = {
        "prompt": given.content("messages"),
        "chosen": item.content("preferred_output"),
        "rejected": item.content("non_preferred_output"),
    }
    tools = given.take("tools")
    return [row | ({"tools": tools} if tools else {})]


def conversations(item: Item) -> list[OwnRow]:
    """`conversation_a`, `conversation_b`, `winner`; in `turn`, after how many turns of the user it was judged."""
    first, second = item.chat("conversation_a"), item.chat("conversation_b")
    turns = item.number("turn")
    if turns is not None:
        first, second = until_turn(first, int(turns)), until_turn(second, int(turns))
    at = shared_prompt(first, second)
    row: OwnRow = {
        "id": item.label("question_id", "id") or item.identity,
        "prompt": first[:at],
        "response_a": first[at:],
        "response_b": second[at:],
        "model_a": item.label("model_a"),
        "model_b": item.label("model_b"),
    }
    strength = verdict(item, "winner", item.take("winner"))
    judge = item.label("judge", "judge_hash")
    return [] if strength is None else [row | {"strength": strength, "annotator": judge}]


_ASSISTANT = ("assistant", "gpt", "bot", "model")


def is_chat(value: Any) -> bool:
    """Whether a value is a list of turns that name who speaks."""
    return isinstance(value, list) and bool(value) and all(map(_is_turn, value))


def _is_turn(value: Any) -> bool:
    return isinstance(value, dict) and ("role" in value or "from" in value)


def by_assistant(turn: Any) -> bool:
    """Whether a turn is the assistant's."""
    role = turn.get("role", turn.get("from")) if isinstance(turn, dict) else None
    return isinstance(role, str) and role.lower() in _ASSISTANT


def shared_prompt(first: list[Any], second: list[Any]) -> int:
    """How many turns two conversations share before the assistant's turn in which they part."""
    shortest = min(len(first), len(second))
    at = next((i for i in range(shortest) if first[i] != second[i]), shortest)
    # Two equal conversations, or two that part in a turn of the user, are cut before the assistant's turn before it.
    while at > 0 and not (at < shortest and by_assistant(first[at])):
        at -= 1
    return at


def until_turn(chat: list[Any], turns: int) -> list[Any]:
    """The first so many exchanges of a chat: each ends with the assistant's turns before the next user's."""
    seen = 0
    for index, turn in enumerate(chat):
        seen += not by_assistant(turn) and (index == 0 or by_assistant(chat[index - 1]))
        if seen > turns:
            return chat[:index]
    return chat
