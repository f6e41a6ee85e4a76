"""Texts that are not what they look like: letters that nobody sees, or that were spoiled on their way into the file."""

# None of these is refused: each occurs in data that are sound. But somebody who trains on them should know.

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator

_CONTROL = re.compile(r"[\x01-\x08\x0b\x0e-\x1f\x7f-\x9f]")
_DIRECTION = re.compile("[\u202a-\u202e\u2066-\u2069]")
_TAGS = re.compile("(?<![\U0001f3f4\U000e0000-\U000e007f])[\U000e0000-\U000e007f]")
"""Letters without a shape. After a black flag they say of which country it is."""
_MOJIBAKE = re.compile("[\u00c2\u00c3][\u0080-\u00bf]|\u00e2\u20ac")
_UNSEEN = ("Cf", "Zs", "Zl", "Zp")
"""Unicode's names of what has no shape of its own: signs for the layout, and spaces."""

_ODDITIES = (
    (_DIRECTION, "that change the direction of writing (such as U+202E)", "people see another order than the model"),
    (_TAGS, "with invisible letters (Unicode tags)", "they can hold instructions that nobody sees: remove them"),
    (_MOJIBAKE, "that were read in a wrong encoding and saved as UTF-8", "read the source again as UTF-8"),
    (re.compile("\ufffd"), "with the sign U+FFFD, for letters that were lost", "read the source in its own encoding"),
)


def oddities(text: str) -> Iterator[tuple[str, str]]:
    """What is odd about a text, and what that means or how to mend it.

    >>> [what for what, _ in oddities("caf\u00c3\u00a9")]
    ['that were read in a wrong encoding and saved as UTF-8']
    """
    if _CONTROL.search(text):
        yield "with control characters", "remove them: they steer terminals, and say nothing to a reader"
    if text.isascii():
        return
    for pattern, what, advice in _ODDITIES:
        if pattern.search(text):
            yield what, advice


def is_blank(text: str) -> bool:
    """Whether a text has nothing to be seen in it: spaces, and marks of no width.

    >>> is_blank("\u200b \ufeff"), is_blank("a\u200b"), is_blank("")
    (True, False, True)
    """
    if not text or text.isspace():
        return True
    return not text.isascii() and all(letter.isspace() or unicodedata.category(letter) in _UNSEEN for letter in text)


def twins(texts: Iterable[str]) -> int:
    """How many texts differ from another one only in how their letters are composed.

    The letter \u00e9 can be one character, or e and an accent. Both look the same, and are other tokens.

    >>> twins(["caf\u00e9", "cafe\u0301", "tea"])
    1
    """
    written: dict[str, set[str]] = {}
    for text in texts:
        if not text.isascii():
            written.setdefault(unicodedata.normalize("NFC", text), set()).add(text)
    return sum(len(ways) - 1 for ways in written.values())
