"""Lists and objects that were stored as text: JSON, or what Python and numpy print. Nothing is ever executed."""

# Tables have no lists, so programs write one into a cell as text, each in its own way: `json.dumps`, `str(list)`, or
# `str(numpy.array)`, which puts no commas between the items. A model that is trained on such a text learns brackets.

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

LONGEST = 4_000_000
"""Longer texts are not read as what Python prints: its parser takes about a hundred times the memory of the text."""
DEEPEST = 50

_BEGINS = re.compile(r"\s*(?:array\(|\()*\s*[\[{]")
_SPEAKER = re.compile(r"""[\[{(,]\s*\\?["']?(?:role|from)\\?["']?\s*[:=]""")
_WORDS = re.compile(r"""[{(,]\s*\\?["']?(?:content|value|parts|tool_calls)\\?["']?\s*[:=]""")
_QUOTED = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""", re.DOTALL)
_WRAPPER = re.compile(r"(?:np\.|numpy\.)?(?:array|str_|bool_?|(?:float|int|uint)\d*)\(")
_SKIPPED = re.compile(r",\s*(?:dtype=[^,)]+|shape=\([\d, ]*\))\s*(?=[,)])|\s+")
_CLOSERS = {"[": "]", "{": "}", "(": ")"}
_SCALAR = re.compile(r"[^\s,\[\]{}()'\":]+")


def structure_in(text: str) -> Any:
    """The list or object that a text holds, ``None`` if it holds none.

    >>> structure_in('[{"a": null}]'), structure_in("{'a': None}")
    ([{'a': None}], {'a': None})
    >>> structure_in("array(['a b', 'c'], dtype=object)"), structure_in("['a b' 'c']"), structure_in("[2 1]")
    (['a b', 'c'], ['a b', 'c'], [2, 1])
    >>> structure_in("[see below]") is structure_in("a text") is None
    True
    """
    if not _BEGINS.match(text) and not text.startswith(('"[', '"{')):
        return None
    try:
        value = json.loads(text)
        if isinstance(value, str):  # JSON that was written as JSON again
            value = json.loads(value)
    except (ValueError, RecursionError):
        value = _printed(text)
    return value if isinstance(value, (list, dict)) else None


def _printed(text: str) -> Any:
    """What Python or numpy has printed."""
    if len(text) > LONGEST:
        return None
    literal = _as_literal(text)
    if literal is None:
        return None
    try:
        value = ast.literal_eval(literal)
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        return None
    return list(value) if isinstance(value, tuple) else value


def _as_literal(text: str) -> str | None:
    """The text as a Python literal: without `array(...)`, and with a comma between any two items; ``None`` if none."""
    out: list[str] = []
    closers: list[tuple[str, str]] = []  # the end of each open bracket, and what is written for it
    follows_value = False
    for token in _tokens(text.strip()):
        wraps, opens, closes = token.endswith("(") and token != "(", token in _CLOSERS, token in _CLOSERS.values()
        # Python joins two texts that stand side by side; here they are two items of a list.
        if follows_value and not closes and token not in (",", ":"):
            out.append(",")
        if (closes and token != (closers or [("", "")])[-1][0]) or token == "..." or len(closers) > DEEPEST:
            return None
        if opens or wraps:
            closers.append((_CLOSERS[token],) * 2 if opens else (")", ""))
        out.append(closers.pop()[1] if closes else "" if wraps else token)
        follows_value = not (opens or wraps) and token not in (",", ":")
    return None if closers else "".join(out)


def _tokens(text: str) -> Iterator[str]:
    position = 0
    while position < len(text):
        patterns = (_QUOTED, _SKIPPED, _WRAPPER, _SCALAR)
        match = next((m for pattern in patterns if (m := pattern.match(text, position))), None)
        token = match.group() if match else text[position]
        position += len(token)
        if not match or match.re is not _SKIPPED:
            yield token


def turns_in(value: Any) -> list[Any] | None:
    """The turns, if a value is a list of messages, one message, or an object with nothing but `messages`.

    >>> turns_in([{"role": "user", "content": "Hi"}])
    [{'role': 'user', 'content': 'Hi'}]
    >>> turns_in([{"name": "Ada"}]) is turns_in([]) is None
    True
    """
    if isinstance(value, Mapping) and len(value) == 1 and next(iter(value)) in ("messages", "conversations"):
        value = next(iter(value.values()))
    turns = [value] if isinstance(value, Mapping) else value
    if not isinstance(turns, list) or not turns:
        return None
    if not all(isinstance(turn, Mapping) and ("role" in turn or "from" in turn) for turn in turns):
        return None
    # Other objects have a role as well; a message says something.
    return turns if any(key in turn for turn in turns for key in ("content", "value", "tool_calls")) else None


def looks_like_turns(text: str) -> bool:
    """Whether a text was meant to be a list of messages, also where it cannot be read as one.

    >>> looks_like_turns("[{'role': 'user', 'content': 'Hi"), looks_like_turns("[Message(role='user', content='')]")
    (True, True)
    >>> looks_like_turns('[{"role": "admin"}]'), looks_like_turns('{"content": "x"}')
    (False, False)
    """
    start = text[:2000]
    return bool(start[:1] in '[{("' or _BEGINS.match(start) or start.startswith("array(")) and bool(
        _SPEAKER.search(start) and _WORDS.search(start)
    )
