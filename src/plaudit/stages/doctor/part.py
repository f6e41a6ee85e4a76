"""One part of an examination: figures for programs, lines for people, and what to be wary of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

WIDTH = 92
"""Columns of what is printed, its indentation included."""
INDENT = "  "


@dataclass(frozen=True, slots=True)
class Part:
    """What was found of one thing."""

    name: str
    figures: dict[str, Any] = field(default_factory=dict)
    """JSON-ready."""
    lines: Sequence[str] = ()
    warnings: Sequence[str] = ()
    """Sentences, each with its cure."""
    notes: Sequence[str] = ()
    """What is done otherwise than one might think, in sentences."""


def printable(text: str) -> str:
    r"""A text on one line, with every character that is not to be printed escaped: models write what they like.

    >>> printable("two\nlines, a bell\a and \u202e a turned text")
    'two\\nlines, a bell\\x07 and \\u202e a turned text'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def shortened(text: str, most: int = WIDTH - 8, *, end: bool = False) -> str:
    """A text made `printable` and cut to ``most`` characters: its beginning, or with ``end`` its end.

    >>> shortened("abcdef", 5), shortened("abcdef", 5, end=True)
    ('ab...', '...ef')
    """
    # Cut before it is escaped, so that a long text costs nothing, and after it, so that no line is too long.
    text = printable(text[-most:] if end else text[:most]) if len(text) > most else printable(text)
    if len(text) <= most:
        return text
    return "..." + text[3 - most :] if end else text[: most - 3] + "..."


def in_units(size: float) -> str:
    """Bytes in GB, or in MB where there are few.

    >>> in_units(1_234_000_000), in_units(12_340_000), in_units(90_000)
    ('1.23 GB', '12.3 MB', '0.09 MB')
    """
    if size >= 1e8:
        return f"{size / 1e9:.2f} GB"
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e6:.1g} MB"
