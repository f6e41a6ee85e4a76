"""What exports share: chats, the words of verdicts, and which fields hold the responses where a project names them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from plaudit.data.reading.exports.item import Item, OwnRow
from plaudit.data.reading.rows import shorten, shorten_names

MOST_RANKED = 9
"""Responses of one ranking."""

# Chats

_ASSISTANT = ("assistant", "gpt", "chatgpt", "bot", "model", "ai")


def is_chat(value: Any) -> bool:
    """Whether a value is a list of turns that name who speaks."""
    return isinstance(value, list) and bool(value) and all(map(is_turn, value))


def is_turn(value: Any) -> bool:
    """Whether a value is one turn of a chat."""
    return isinstance(value, dict) and ("role" in value or "from" in value)


def is_texts(value: Any) -> bool:
    """Whether a value is a list of texts."""
    return isinstance(value, list) and bool(value) and all(isinstance(text, str) for text in value)


def by_assistant(turn: Any) -> bool:
    """Whether a turn is the assistant's."""
    role = (turn.get("role") or turn.get("from")) if isinstance(turn, dict) else None
    return isinstance(role, str) and role.lower() in _ASSISTANT


def turn(role: str, content: str) -> dict[str, str]:
    """One turn of a chat."""
    return {"role": role, "content": content}


def shared_prompt(first: Sequence[Any], second: Sequence[Any]) -> int:
    """How many turns two conversations share before the assistant's turn in which they part."""
    shortest = min(len(first), len(second))
    at = next((i for i in range(shortest) if first[i] != second[i]), shortest)
    # Two equal conversations, or two that part in a turn of the user, are cut before the assistant's turn before it.
    while at > 0 and not (at < shortest and by_assistant(first[at])):
        at -= 1
    return at


# Verdicts


def judged(row: OwnRow, verdicts: Iterable[tuple[str, int, float | None]]) -> list[OwnRow]:
    """One row for each verdict on the same two responses: annotator, strength, and margin where there is one."""
    return [
        {
            **row,
            "id": f"{row['id']}/{annotator}" if annotator else row["id"],
            "strength": strength,
            "annotator": annotator or None,
            "margin": margin,
        }
        for annotator, strength, margin in verdicts
    ]


def graded(value: float, strong: float = 2) -> tuple[int, float]:
    """A verdict on a scale around 0 (below: the first is better) as strength, 2 from ``strong`` on, and margin.

    >>> graded(-3), graded(1), graded(0)
    ((-2, 3), (1, 1), (0, 0))
    """
    size = abs(value)
    return ((value > 0) - (value < 0)) * (2 if size >= strong else 1), size


_NOUN = r"(?:response|answer|model|output|option|completion|candidate|summary|text|reply|assistant|choice|side|chat)"
_SIGNS = re.compile(r"\[*\s*(?P<first>[AB])\s*(?P<sign>>>?|<<?|==?)\s*(?!(?P=first))[AB]\s*\]*", re.IGNORECASE)
"""Verdicts of judges: "A>B", "[[B>>A]]", "A=B"."""
_VERDICT = re.compile(
    rf"(?:the )?(?:{_NOUN} ?)?(?P<side>a|b|[0-9]|one|two|first|second|1st|2nd|left|right)(?: {_NOUN})?"
    r"(?: (?:is|was))?"
    r"(?: (?P<degree>much|far|significantly|clearly|strongly|a lot|slightly|somewhat|a bit|marginally))?"
    r"(?: (?:better|best|wins|won|winner|preferred))?"
)
_FIRST, _SECOND = ("a", "1", "one", "first", "1st", "left"), ("b", "2", "two", "second", "2nd", "right")
_STRONG = ("much", "far", "significantly", "clearly", "strongly", "a lot")
_TIES = (
    "tie", "tied", "draw", "equal", "equally good", "same", "about the same", "both", "both good", "no preference",
    "neither", "none", "no difference",
)  # fmt: skip
_BOTH_BAD = ("tie bothbad", "tie both bad", "bothbad", "both bad", "both are bad", "equally bad", "neither is good")


def normal(word: Any) -> str:
    """A name or word in lower case, with single spaces in place of other signs.

    >>> normal("Response_A"), normal("tie (bothbad)")
    ('response a', 'tie bothbad')
    """
    return " ".join(re.sub(r"[^0-9a-z]+", " ", str(word).lower()).split())


def strength_of(value: Any, sides: Sequence[str] = ()) -> int | None:
    """The strength that a word stands for, -2 to 2; None if it is not known.

    Args:
        value: "model_a", "Left is much better", "tie", or the name of one of the sides.
        sides: the names of the two fields that hold the responses.

    >>> strength_of("Response B is much better"), strength_of("both bad"), strength_of("ans2", ["ans1", "ans2"])
    (2, 0, 1)
    """
    if isinstance(value, str) and (signs := _SIGNS.fullmatch(value.strip())):
        before = -1 if signs["first"].lower() == "a" else 1
        return {">": before, "<": -before, "=": 0}[signs["sign"][0]] * len(signs["sign"])
    word = normal(value) if isinstance(value, (str, int)) and not isinstance(value, bool) else ""
    names = [normal(side) for side in sides[:2]]
    if word and word in names:
        return (-1, 1)[names.index(word)]
    if word in _TIES or word in _BOTH_BAD:
        return 0
    match = _VERDICT.fullmatch(word)
    if match is None:
        return None
    side = match["side"]
    ends = [_split_name(name)[1] for name in sides[:2]]
    # "1" is the first of answer1 and answer2, and the second of response_0 and response_1.
    numbered = side.isdigit() and len(ends) == 2 and all(end.isdigit() for end in ends)
    first, second = ((ends[0],), (ends[1],)) if numbered else (_FIRST, _SECOND)
    if side not in (*first, *second):
        return None
    size = 2 if match["degree"] in _STRONG else 1
    return -size if side in first else size


def verdict(item: Item, name: str, value: Any, sides: Sequence[str] = ()) -> int | None:
    """As ``strength_of``; a fault of the row if the word is not known."""
    strength = strength_of(value, sides)
    if strength is None:
        item.fault(name, shorten(value), "expected which of the two is better (a, b, left, right ...), or tie")
    if strength == 0 and normal(value) in _BOTH_BAD:
        item.log.count("verdicts that both responses are bad, read as ties")
    return strength


def ranked(row: OwnRow, responses: Sequence[Any], ranks: Sequence[float], item: Item) -> list[OwnRow]:
    """A ranking (1 = best, equal ranks tie) of the best nine responses, or a comparison of two as a judgement."""
    order = sorted(range(len(ranks)), key=lambda i: ranks[i])[:MOST_RANKED]
    item.log.leave_out(f"responses beyond the best {MOST_RANKED} of a ranking, left out", len(ranks) - len(order))
    if len(order) < 2:
        item.log.leave_out("rankings of fewer than two responses, left out")
        return []
    steps = sorted({ranks[i] for i in order})
    kept = sorted(order)
    dense = [steps.index(ranks[i]) + 1 for i in kept]
    return [{**row, "responses": [responses[i] for i in kept], "ranks": dense}]


# Names that a project chose

PROMPTS = ("prompt", "question", "instruction", "query", "input", "text", "problem", "user", "post", "html", "title")
RESPONSES = (
    "response", "answer", "completion", "output", "reply", "generation", "generated", "summary", "text", "result",
    "content",
)  # fmt: skip
SYSTEMS = ("system", "system_prompt")
_END = re.compile(r"(.*?)[ _\-.]*([a-i]|[0-9]|left|right|first|second|one|two)", re.IGNORECASE | re.DOTALL)
_PLACES = {
    **{letter: place for place, letter in enumerate("abcdefghi")}, "left": 0, "right": 1, "first": 0, "second": 1,
    "one": 0, "two": 1,
}  # fmt: skip
_ABOUT = {
    "id", "uuid", "lang", "language", "source", "url", "date", "time", "created", "updated", "category", "topic",
    "domain", "split", "model", "dataset", "type", "task", "difficulty", "author", "version", "license", "tag", "tags",
    "status", "name", "meta", "metadata", "comment", "note", "notes",
}  # fmt: skip
_NO_RESPONSES = ("model", "id", "score", "source", "rating", "name", "author", "policy", "tokens")


def _split_name(name: str) -> tuple[str, str]:
    """A name without its end, and the end that tells sides apart, as ("answer", "1"); ("", "") without one."""
    match = _END.fullmatch(name)
    return (match[1].lower(), match[2].lower()) if match else ("", "")


def sides_of(item: Item, leave: Sequence[str] = ()) -> list[str]:
    """The names of the fields that hold the responses to compare, in their order; none if it cannot be told.

    They are named alike but for their ends: "response_a" and "response_b", "answer1" and "answer2", "left" and "right".
    Names that the caller gave come first.
    """
    asked = [item.asked[name] for name in ("response_a", "response_b") if name in item.asked]
    if len(asked) == 2:
        return asked if all(item.has(name) for name in asked) else []
    groups: dict[str, dict[int, str]] = {}
    for name, value in item.values.items():
        stem, end = _split_name(str(name))
        is_content = isinstance(value, str) or is_chat(value)
        if end and is_content and name not in leave and not any(word in normal(stem).split() for word in _NO_RESPONSES):
            groups.setdefault(stem, {})[int(end) if end.isdigit() else _PLACES[end]] = str(name)
    whole = {s: g for s, g in groups.items() if len(g) > 1 and sorted(g) in _runs(len(g))}
    if len(whole) > 1:
        whole = {s: g for s, g in whole.items() if any(word in normal(s) for word in RESPONSES)}
    return [name for _, name in sorted(next(iter(whole.values())).items())] if len(whole) == 1 else []


def rated_sides(numbers: Mapping[str, float], sides: Sequence[str]) -> list[float] | None:
    """The number of each side where each was rated on its own, by the names of the questions; None if they do not tell.

    >>> rated_sides({"rating_2": 4, "rating_1": 3}, ["answer1", "answer2"])
    [3, 4]
    >>> rated_sides({"generations-0-rating": 3, "clear": 4}, ["generations-0", "generations-1"])
    """
    found: dict[str, list[float]] = {side: [] for side in sides}
    for question, number in numbers.items():
        about = [side for side in sides if f" {normal(side)} " in f" {normal(question)} "]
        about = about or [side for side in sides if _split_name(question)[1] == _split_name(side)[1] != ""]
        if len(about) == 1:
            found[about[0]].append(number)
    return [each[0] for each in found.values()] if all(len(each) == 1 for each in found.values()) else None


def between(ratings: Sequence[float]) -> tuple[int, float]:
    """Two ratings, higher is better, as strength and margin.

    >>> between([3, 4.5])
    (1, 1.5)
    """
    first, second = ratings
    return (second > first) - (second < first), abs(second - first)


def _runs(length: int) -> list[list[int]]:
    return [list(range(start, start + length)) for start in (0, 1)]


def name_of(item: Item, ours: str, usual: Sequence[str], leave: Sequence[str] = ()) -> str:
    """The field that holds the prompt or the response; "" if it cannot be told.

    The one that the caller gave, else the first usual name, else the only field with a text or a chat.
    """
    if item.asked.get(ours, "") in item.values:
        return item.asked[ours]
    by_name: dict[str, str] = {}
    for each in item.values:
        if item.has(each) and each not in leave:
            by_name.setdefault(normal(each), each)
    usual_one = next((by_name[normal(each)] for each in usual if normal(each) in by_name), "")
    contents = contents_of(item, leave)
    return usual_one or (contents[0] if len(contents) == 1 else "")


def contents_of(item: Item, leave: Sequence[str] = ()) -> list[str]:
    """The fields that hold a text or a chat, without those that say something about the record."""
    content = (name for name, value in item.values.items() if isinstance(value, str) or is_chat(value))
    return [name for name in content if name not in leave and not _ABOUT.intersection(normal(name).split())]


def compared(item: Item, identity: str, leave: Sequence[str] = ()) -> tuple[OwnRow, list[str]]:
    """The prompt and the names of the responses of a record whose fields a project named; a fault if it cannot be told.

    The row has `response_a` and `response_b` if there are two responses, else `responses`.
    """
    sides = sides_of(item, leave)
    if not sides:
        item.fault("responses", f"the fields {shorten_names(item.values)}", hint("prompt", "response_a", "response_b"))
        return {"id": identity}, []
    row: OwnRow = {"id": identity, "prompt": prompt_of(item, [*leave, *sides])}
    contents = [item.content(side) for side in sides]
    if len(sides) == 2:
        return {**row, "response_a": contents[0], "response_b": contents[1]}, sides
    return {**row, "responses": contents}, sides


def prompt_of(item: Item, leave: Sequence[str] = ()) -> Any:
    """The prompt of a record whose fields a project named; a system prompt becomes its first turn."""
    name = name_of(item, "prompt", PROMPTS, [*leave, *SYSTEMS])
    if not name and not contents_of(item, [*leave, *SYSTEMS]):
        item.log.count("pairs without a prompt")
        return ""
    if not name:
        item.fault("prompt", f"the fields {shorten_names(item.values)}", hint("prompt"))
        return ""
    return with_system(item.content(name), item.label(*SYSTEMS))


def hint(*names: str) -> str:
    """The cure where the names of an export do not tell which field is which."""
    return f"say which is which, as {' '.join(f'--field {name}=NAME' for name in names)}"


def models_of(item: Item) -> OwnRow:
    """Who wrote the two responses, where it is said."""
    return {f"model_{x}": item.label(f"model_{x}", f"model-{x}") for x in "ab"}


def leave_unanswered(item: Item) -> list[OwnRow]:
    """No row, counted."""
    item.log.leave_out("records that nobody answered, left out")
    return []


def with_system(prompt: Any, system: str) -> Any:
    """A prompt with its system prompt as first turn."""
    if not system:
        return prompt
    return [turn("system", system), *(prompt if isinstance(prompt, list) else [turn("user", prompt)])]


