"""Sentence patterns of the reviews, and a parser that finds out what a text says.

The parser ignores letter case and spaces before punctuation: it reads decoded tokens as well as normal text.
"""

# One list of shapes serves both directions: ``reviews.py`` fills them in, and this module compiles the same shapes to
# regular expressions. So everything that the generator writes can be parsed, and the score of a text never depends on a
# second description of the grammar that could differ from the first.

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from plaudit.demo import review_words as words

SentenceKind = Literal["opinion", "verdict", "closing", "filler", "unreadable"]

VERDICT_SHAPES = (
    "{name} is {a_verdict} {noun}",
    "It was {a_verdict} {noun}",
    "What {a_verdict} {noun}",
    "Overall, it was {verdict}",
    "All in all, I was {feeling}",
)
WARM_CLOSINGS = (
    "I would recommend it to {audience}",
    "I would happily {again}",
    "We will {again} soon",
    "You should try it",
    "Highly recommended",
)
COLD_CLOSINGS = (
    "I would not recommend it to {audience}",
    "I will never {again}",
    "You should avoid it",
    "Save your money",
)
VENUE_FILLERS = ("I went there on a {day} with my {relative}", "It was raining when we arrived")
OWNER_FILLERS = ("I got it on a {day} for my {relative}", "It was a present from my {relative}")
FILLERS = (
    "My {relative} told me about it",
    "I had heard a lot about it",
    "I am not sure what else to say",
    "There is not much more to say",
)
OPINION_SHAPES = (
    "The {singular} was {adjective}",
    "The {plural} were {adjective}",
    "{subject} {verb} the {aspect}",
    "{subject} {verb} the {aspect} and the {second}",
)

_TOKEN = re.compile(r"\w+|[^\w\s]")
_SHAPE_TOKEN = re.compile(r"\{\w+\}|\w+|[^\w\s]")
_SENTENCE = re.compile(r"[^.!?]*[.!?]|[^.!?]+$")


def an(word: str) -> str:
    """The word with its indefinite article."""
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


def _either(options: tuple[str, ...] | dict[str, float]) -> str:
    # The longest first, so that the first alternative that matches is the right one and nothing is tried twice.
    return "|".join(sorted((option.lower() for option in options), key=len, reverse=True))


_ASPECTS = tuple(words.FAMILY_OF)
_ADJECTIVES = {adjective: 0.0 for levels in words.ADJECTIVE_LEVELS.values() for adjective in levels}
_ADJECTIVE = f"(?:(?P<intensifier>{_either(words.INTENSIFIERS)}) )?(?P<adjective>{_either(_ADJECTIVES)})"
_SLOTS = {
    "name": f"(?P<name>{_either(words.NAMES)})",
    "noun": f"(?P<noun>{_either(tuple(words.THING_BY_NOUN))})",
    "verdict": f"(?P<verdict>{_either(words.VERDICTS)})",
    "a_verdict": f"(?P<a_verdict>{_either(tuple(an(v) for v in words.VERDICTS))})",
    "feeling": f"(?P<feeling>{_either(words.FEELINGS)})",
    "audience": f"(?:{_either(words.AUDIENCES)})",
    "again": f"(?P<again>{_either(tuple(thing.again for thing in words.THINGS))})",
    "day": f"(?:{_either(words.DAYS)})",
    "relative": f"(?:{_either(words.RELATIVES)})",
    "singular": f"(?P<aspect>{_either(tuple(a for a in _ASPECTS if a not in words.PLURALS))})",
    "plural": f"(?P<aspect>{_either(words.PLURALS)})",
    "aspect": f"(?P<aspect>{_either(_ASPECTS)})",
    "second": f"(?P<second>{_either(_ASPECTS)})",
    "adjective": _ADJECTIVE,
    "subject": f"(?:i|we|my (?:{_either(words.RELATIVES)}))",
    "verb": f"(?P<verb>{_either(words.VERBS)})",
}


def _compile(shapes: tuple[str, ...]) -> tuple[re.Pattern[str], ...]:
    def piece(token: str) -> str:
        return _SLOTS[token[1:-1]] if token.startswith("{") else re.escape(token.lower())

    return tuple(
        re.compile(" ".join(piece(token) for token in _SHAPE_TOKEN.findall(shape))) for shape in shapes
    )


_OPINIONS = _compile(OPINION_SHAPES)
_VERDICTS = _compile(VERDICT_SHAPES)
_WARM, _COLD = _compile(WARM_CLOSINGS), _compile(COLD_CLOSINGS)
_FILLERS = _compile(VENUE_FILLERS + OWNER_FILLERS + FILLERS)
_CONNECTOR = re.compile(r" (?:and|but) ")


@dataclass(frozen=True, slots=True)
class Opinion:
    """An opinion on one aspect: ``level`` from -1 (blame) to 1 (praise), and the ``word`` that expresses it."""

    aspect: str
    level: float
    word: str


@dataclass(frozen=True, slots=True)
class Sentence:
    """One parsed sentence.

    Args:
        text: its words in lower case, separated by single spaces, without the final mark.
        level: of a verdict or a closing, from -1 to 1.
        finished: it ends with a full stop, an exclamation mark or a question mark.
        noun, name, again: the thing, the name and the closing phrase that it mentions, if any.
    """

    text: str
    kind: SentenceKind
    finished: bool
    level: float = 0.0
    opinions: tuple[Opinion, ...] = ()
    noun: str = ""
    name: str = ""
    again: str = ""


def tokens(text: str) -> list[str]:
    """Words and punctuation marks, cut like the whitespace pre-tokenizer of a WordLevel tokenizer does."""
    return _TOKEN.findall(text)


def read(text: str) -> list[Sentence]:
    """The sentences of a text; those that do not follow the grammar are ``unreadable``."""
    return [
        _read_sentence(" ".join(tokens(part.lower()))) for part in _SENTENCE.findall(text) if part.strip()
    ]


@lru_cache(maxsize=65536)
def _read_sentence(text: str) -> Sentence:
    finished = text[-1] in ".!?"
    body = text[:-1].rstrip() if finished else text
    opinions = _read_opinions(body)
    if opinions:
        return Sentence(body, "opinion", finished, opinions=opinions)
    for pattern in _VERDICTS:
        if match := pattern.fullmatch(body):
            return _verdict(body, finished, match.groupdict())
    for level, patterns in ((1.0, _WARM), (-1.0, _COLD)):
        for pattern in patterns:
            if match := pattern.fullmatch(body):
                return Sentence(body, "closing", finished, level, again=match.groupdict().get("again") or "")
    filler = any(pattern.fullmatch(body) for pattern in _FILLERS)
    return Sentence(body, "filler" if filler else "unreadable", finished)


def _verdict(body: str, finished: bool, slots: dict[str, str]) -> Sentence:
    if "feeling" in slots:
        return Sentence(body, "verdict", finished, words.FEELINGS[slots["feeling"]])
    verdict = slots.get("verdict") or slots["a_verdict"].split()[1]
    noun, name = slots.get("noun", ""), slots.get("name", "")
    return Sentence(body, "verdict", finished, words.VERDICTS[verdict], noun=noun, name=name)


def _read_opinions(body: str) -> tuple[Opinion, ...]:
    """The opinions of one clause, or of two joined by "and" or "but"; none if it is anything else."""
    if single := _read_clause(body):
        return single
    # "and" also joins two aspects inside a clause ("I loved the room and the pool"), so every place is tried.
    for joint in _CONNECTOR.finditer(body):
        left, right = _read_clause(body[: joint.start()]), _read_clause(body[joint.end() :])
        if left and right:
            return left + right
    return ()


def _read_clause(clause: str) -> tuple[Opinion, ...]:
    for pattern in _OPINIONS:
        match = pattern.fullmatch(clause)
        if not match:
            continue
        slots = match.groupdict()
        if "verb" in slots:
            aspects = [slots["aspect"], *([slots["second"]] if slots.get("second") else [])]
            return tuple(Opinion(aspect, words.VERBS[slots["verb"]], slots["verb"]) for aspect in aspects)
        levels = words.ADJECTIVE_LEVELS[words.FAMILY_OF[slots["aspect"]]]
        if slots["adjective"] not in levels:  # "the soup was gripping": grammatical, but it makes no sense
            return ()
        strength = words.INTENSIFIERS.get(slots["intensifier"] or "", 1.0)
        level = max(-1.0, min(1.0, levels[slots["adjective"]] * strength))
        return (Opinion(slots["aspect"], level, slots["adjective"]),)
    return ()
