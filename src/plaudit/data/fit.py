"""Rows to a length limit: only prompts are cut, from the left, and everything is counted."""

# Responses are never cut. A response without its end teaches a model to stop nowhere, and half a response is not
# the one that people preferred. Prompts are cut from the left, because the last turns say most about the response.
# A text loses tokens. A chat loses turns, and is written anew: cut in the middle of what its template writes, it would
# be no chat of this model any more.

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from plaudit.data.chat import Encoded
from plaudit.errors import DataError
from plaudit.records import Content, Message

OnLong = Literal["truncate_prompt", "drop", "error"]


@dataclass(frozen=True, slots=True)
class FitReport:
    """How many rows were kept, cut and left out (or pairs, which are kept or left out as a whole)."""

    kept: int
    """Rows that are used, those with a cut prompt included."""
    truncated: int
    """Rows whose prompt was cut."""
    dropped: int
    """Rows left out: too long where cutting is off, or with a response that alone is too long."""
    longest: int
    """Tokens of the longest row before cutting."""
    turns: int = 0
    """Of the rows with a cut prompt: chats without their first turns. The system's turn stays."""
    words: int = 0
    """Of the rows with a cut prompt: chats whose last turn of the user lost its first words."""

    def __str__(self) -> str:
        chats = {"without their first turns": self.turns, "with a turn of the user without its first words": self.words}
        how = ", ".join(f"{count} {what}" for what, count in chats.items() if count)
        cut = f"{self.truncated} with a cut prompt" + (f" (chats: {how})" if how else "")
        cut += f", {self.dropped} left out as too long"
        return f"{self.kept} rows kept ({cut}; the longest had {self.longest} tokens)"


def fit_length(encoded: Encoded, max_length: int, on_long: OnLong) -> Encoded | None:
    """The row if it fits; else with its prompt cut from the left, or ``None``. A response is never cut.

    Raises:
        DataError: ``on_long`` is "error" and the row does not fit.
    """
    if len(encoded) > max_length and on_long == "error":
        what = f"a row has {len(encoded)} tokens, and {max_length} are allowed"
        raise DataError(what, cure="raise max_length, or set on_long to truncate_prompt or drop")
    fitted = (_cut if on_long == "truncate_prompt" else _whole)((encoded,), max_length)
    return fitted[0] if fitted else None


Unit = tuple[Encoded, ...]
Encode = Callable[[Content], Unit]
"""The rows of a unit, given its prompt, which may be a shorter one than in the record."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """A unit after cutting, None where it is left out, and what was cut of its prompt."""

    unit: Unit | None
    cut: Literal["", "tokens", "turns", "words"] = ""
    tokens: int = 0
    """Of the longest row, before cutting."""


def fit_prompt(prompt: Content, encode: Encode, max_length: int, on_long: OnLong) -> Fitted:
    """A unit whose rows fit: whole, or with its prompt cut where ``on_long`` says so.

    Args:
        prompt: of all rows of the unit.
        encode: gives the unit.
        max_length: most tokens of a row.
        on_long: "truncate_prompt" cuts; otherwise a unit that is too long is left out.
    """
    unit = encode(prompt)
    longest = max((len(row) for row in unit), default=0)
    if longest <= max_length:
        return Fitted(unit, "", longest)
    if on_long != "truncate_prompt":
        return Fitted(None, "", longest)
    if isinstance(prompt, str) or not prompt:
        return Fitted(_cut(unit, max_length), "tokens", longest)
    return replace(_cut_chat(prompt, encode, max_length), tokens=longest)


def fit_each(
    fitted: Sequence[Fitted], max_length: int, on_long: OnLong, *, where: str = "", names: Sequence[str] = ()
) -> tuple[list[Unit | None], FitReport]:
    """The units, ``None`` where one is left out, and the counts.

    Args:
        fitted: what `fit_prompt` gave for rows that belong together: one row, or chosen and rejected of a pair. All
            rows of a unit have the same prompt, cut alike.
        max_length: most tokens of a row.
        on_long: "truncate_prompt" cuts (and leaves out what cannot be cut enough), "drop" leaves out,
            "error" stops.
        where: the source, for the error.
        names: what each unit is called in an error, such as its file and line.

    Raises:
        DataError: ``on_long`` is "error" and a row does not fit, or no row is left.
    """
    lengths = [unit.tokens for unit in fitted]
    too_long = sum(length > max_length for length in lengths)
    longest = max(lengths, default=0)
    if too_long and on_long == "error":
        at = lengths.index(longest)
        what = f"{too_long} of {len(fitted)} rows are over {max_length} tokens"
        what += f"; the longest, {names[at] if names else f'row {at + 1}'}, has {longest}"
        raise DataError(what, where=where, cure="raise max_length, or set on_long to truncate_prompt or drop")
    report = report_of(fitted)
    if fitted and not report.kept:
        what = f"all {len(fitted)} rows are too long for {max_length} tokens; the longest has {longest}"
        raise DataError(what, where=where, cure="raise max_length")
    return [unit.unit for unit in fitted], report


def report_of(fitted: Sequence[Fitted]) -> FitReport:
    """The counts of what `fit_prompt` gave."""
    kept = [unit.cut for unit in fitted if unit.unit is not None]
    return FitReport(
        kept=len(kept),
        truncated=sum(bool(cut) for cut in kept),
        dropped=len(fitted) - len(kept),
        longest=max((unit.tokens for unit in fitted), default=0),
        turns=kept.count("turns"),
        words=kept.count("words"),
    )


# Chats


def _cut_chat(turns: tuple[Message, ...], encode: Encode, max_length: int) -> Fitted:
    """The chat without its first turns, so that it begins with a turn of the user; the system's turn stays.

    If the last turn of the user and what follows it are too long alone, that turn loses its first words.
    """
    first = next((i for i, turn in enumerate(turns) if turn.role != "system"), len(turns))
    starts = [i for i in range(first, len(turns)) if turns[i].role == "user"]
    if not starts:
        return Fitted(None)
    # The later a chat begins, the shorter it is: the first start that fits is found by halving.
    low, high = 0, len(starts)
    while low < high:
        middle = (low + high) // 2
        fits = _excess(encode(_from(turns, first, starts[middle])), max_length) <= 0
        low, high = (low, middle) if fits else (middle + 1, high)
    if low < len(starts):
        return Fitted(encode(_from(turns, first, starts[low])), "turns")
    unit = _without_words(_from(turns, first, starts[-1]), encode, max_length)
    return Fitted(unit, "words")


def _from(turns: tuple[Message, ...], first: int, start: int) -> tuple[Message, ...]:
    """The chat from turn ``start`` on, after the turns of the system before ``first``; tools stay on its first turn."""
    kept = (*turns[:first], *turns[start:])
    return (replace(kept[0], tools=turns[0].tools), *kept[1:]) if turns[0].tools else kept


def _without_words(turns: tuple[Message, ...], encode: Encode, max_length: int) -> Unit | None:
    """The chat with the last turn of the user without its first words; None where nothing would be left of it."""
    at = max(i for i, turn in enumerate(turns) if turn.role == "user")
    text, gone = turns[at].content, 0
    unit = encode(turns)
    while (excess := _excess(unit, max_length)) > 0:
        # How many characters these tokens are is not known before they are cut; a few steps suffice.
        characters = (len(text) - gone) / max(len(row) for row in unit)
        gone = _next_word(text, gone + math.ceil(excess * max(characters, 1.0)))
        if gone >= len(text):
            return None
        unit = encode((*turns[:at], replace(turns[at], content=text[gone:]), *turns[at + 1 :]))
    return unit


def _next_word(text: str, at: int) -> int:
    """Where the next word begins, if it begins soon; many languages write no spaces."""
    return next((i + 1 for i in range(at, min(at + 30, len(text))) if text[i].isspace()), at)


def _excess(unit: Unit, max_length: int) -> int:
    return max(len(row) for row in unit) - max_length


# Texts


def _whole(unit: tuple[Encoded, ...], max_length: int) -> tuple[Encoded, ...] | None:
    return unit if all(len(row) <= max_length for row in unit) else None


def _cut(unit: tuple[Encoded, ...], max_length: int) -> tuple[Encoded, ...] | None:
    excess = max((len(row) - max_length for row in unit), default=0)
    if excess <= 0:
        return unit
    rows = tuple(_without(row, excess) for row in unit)
    return None if any(row is None for row in rows) else tuple(row for row in rows if row is not None)


def _without(row: Encoded, excess: int) -> Encoded | None:
    """The row without ``excess`` prompt tokens after its opening; at least one prompt token stays."""
    start = row.opening + excess
    # The cut may fall into an earlier response that is trained on as well. What is left of it would be trained on
    # without its beginning, so the cut is moved to its end.
    while start < row.prompt_length and row.mask[start - 1] and row.mask[start]:
        start += 1
    if start > row.prompt_length or (row.opening == 0 and start == row.prompt_length):
        return None
    ids = row.ids[: row.opening] + row.ids[start:]
    mask = row.mask[: row.opening] + row.mask[start:]
    return Encoded(ids, mask, row.prompt_length - (start - row.opening), row.opening)
