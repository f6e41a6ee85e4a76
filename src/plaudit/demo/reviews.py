"""A small artificial language of short reviews with a known true preference: prompts, demonstrations, pairs, by seed.

The quickstart trains a model in it from random weights. The demonstrations are grammatical but of mixed quality: warm,
mixed or cold; some ramble, repeat themselves or change the subject. So there is much to improve, and ``true_score``
measures exactly how much a policy has improved. Item ``i`` of a list depends on the seed and ``i`` alone: a longer list
begins with the shorter one.
"""

# Why an artificial language: a model of a million parameters can learn it in minutes on a CPU, and a formula instead of
# people says how good a text is. So the whole pipeline can be run, and its result checked, on a laptop without data.

from __future__ import annotations

import hashlib
import math
import random
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, TypeVar

from plaudit.demo import review_grammar as grammar
from plaudit.demo import review_words as words
from plaudit.demo.review_score import BEST_SCORE, RULES, Subject, subject_of, true_score, true_score_parts
from plaudit.errors import DataError
from plaudit.records import Demonstration, Prompt

__all__ = [
    "BEST_SCORE",
    "RULES",
    "Split",
    "all_prompts",
    "demonstrations",
    "entropy_bound",
    "prompts",
    "readable",
    "sample_pairs",
    "subject_of",
    "true_score",
    "true_score_parts",
    "vocabulary",
    "write_review",
]

Split = Literal["train", "heldout"]
Item = TypeVar("Item")
HELDOUT_SHARE = 0.2


class Draw:
    """Random choices, and in ``nats`` the negative log-probability of all choices made so far."""

    # Each choice uses exactly one number of the generator, computed here and not by ``random.choice``: how that
    # function uses the generator may change with the version of Python, and the texts of a seed must not.

    def __init__(self, *key: object) -> None:
        self._random = random.Random("/".join(map(str, key)))
        self.nats = 0.0

    def one(self, options: Sequence[Item]) -> Item:
        """One of the options, all equally likely."""
        self.nats += math.log(len(options))
        return options[int(self._random.random() * len(options))]

    def chance(self, p: float) -> bool:
        """True with probability ``p``."""
        hit = self._random.random() < p
        self.nats -= math.log(p if hit else 1 - p) if 0 < p < 1 else 0.0
        return hit

    def weighted(self, options: dict[Item, float]) -> Item:
        """One of the options with its weight as probability; the weights sum to 1."""
        point = self._random.random()
        chosen = next(iter(options))
        # After the loop ``chosen`` is the last option, should rounding leave the weights a little below 1.
        for option, weight in options.items():
            chosen = option
            point -= weight
            if point < 0:
                break
        self.nats -= math.log(options[chosen])
        return chosen


@lru_cache(maxsize=2)
def all_prompts(split: Split) -> tuple[Prompt, ...]:
    """Every prompt of a split, in a fixed order."""
    # A hash of the text decides the split, not the seed: runs with different seeds hold out the same prompts, and
    # can be compared.
    texts = [
        shape.format(np=_noun_phrase(thing, name), relative=relative)
        for shape in words.PROMPTS
        for thing in words.THINGS
        for name in words.NAMES
        for relative in (words.RELATIVES[:3] if "{relative}" in shape else ("",))
    ]
    keyed = sorted((hashlib.blake2b(text.encode(), digest_size=8).digest(), text) for text in texts)
    cut = round(len(keyed) * HELDOUT_SHARE)
    chosen = keyed[:cut] if split == "heldout" else keyed[cut:]
    return tuple(Prompt(f"review-{key.hex()}", text) for key, text in chosen)


def prompts(n: int, seed: int, *, split: Split = "train") -> list[Prompt]:
    """``n`` different prompts of a split, in an order that depends on the seed.

    Raises:
        DataError: the split has fewer prompts.
    """
    every = all_prompts(split)
    if n > len(every):
        raise DataError(
            f"{n} different {split} prompts are wanted, and there are {len(every)}",
            cure=f"ask for at most {len(every)}, and use them several times",
        )
    return sorted(every, key=lambda p: hashlib.blake2b(f"{seed}/{p.id}".encode(), digest_size=8).digest())[:n]


def demonstrations(n: int, seed: int, *, split: Split = "train") -> list[Demonstration]:
    """``n`` reviews of mixed quality, each for a prompt of the split drawn at random."""
    every = all_prompts(split)
    return [_demonstration(every, split, seed, index)[0] for index in range(n)]


def sample_pairs(n: int, seed: int, *, split: Split = "train") -> list[tuple[str, str, str]]:
    """``n`` times a prompt and two different responses, written like the demonstrations: (prompt, a, b)."""
    every = all_prompts(split)
    pairs = []
    for index in range(n):
        draw = Draw("pair", split, seed, index)
        prompt = _text(draw.one(every))
        first = second = write_review(prompt, draw)
        while second == first:
            second = write_review(prompt, draw)
        pairs.append((prompt, first, second))
    return pairs


def entropy_bound(n: int, seed: int) -> float:
    """Mean nats per token (end token included) of the random choices that made ``n`` demonstrations.

    It is an upper bound of the entropy of the grammar, and close to it, because few texts can be made in more than one
    way. A model that has learned the grammar reaches about this loss on held-out demonstrations, or a little less.
    """
    every = all_prompts("train")
    drawn = [_demonstration(every, "train", seed, index) for index in range(n)]
    length = sum(len(grammar.tokens(str(demonstration.response))) + 1 for demonstration, _ in drawn)
    return sum(nats for _, nats in drawn) / length


def write_review(prompt: str, draw: Draw) -> str:
    """One review for a prompt, of any quality: good, bad, off topic, or all of these."""
    # Each review has one attitude (praise), drawn first, and every opinion follows it with that probability. So most
    # reviews are consistent, some contradict themselves, and the mean quality leaves much to gain.
    subject = subject_of(prompt)
    praise = draw.weighted({0.9: 0.35, 0.5: 0.35, 0.1: 0.3})
    sentences = [_filler(subject, draw)] if draw.chance(0.25) else []
    verdict_first = draw.chance(0.25)
    if verdict_first:
        sentences.append(_verdict(subject, praise, draw))
    free = list(subject.thing.aspects)
    for _ in range(draw.weighted({1: 0.5, 2: 0.5})):
        sentences.append(_opinion(free, subject, praise, draw))
    if not verdict_first and draw.chance(0.25):
        sentences.append(_verdict(subject, praise, draw))
    if draw.chance(0.08):
        sentences.append(sentences[-1])
    if draw.chance(0.3):
        sentences.append(_closing(subject, praise, draw))
    elif draw.chance(0.15):
        sentences.append(_filler(subject, draw))
    text = " ".join(sentences)
    return text[:-1] if draw.chance(0.02) else text


def readable(text: str) -> str:
    """The text with normal spacing and capitals: ``the cake was cold .`` -> ``The cake was cold.``"""
    tidy = re.sub(r"\s+([.,!?:])", r"\1", " ".join(text.split()))
    for proper in (*words.NAMES, *words.DAYS, "I"):
        tidy = re.sub(rf"\b{proper.lower()}\b", proper, tidy)
    return re.sub(r"(?:^|(?<=[.!?] ))[a-z]", lambda letter: letter.group().upper(), tidy)


def vocabulary() -> list[str]:
    """Every word and punctuation mark, sorted, in the spellings that occur ("The" and "the" are two).

    The words stand without spaces: a tokenizer whose tokens include the space before a word must be built from texts.
    """
    texts = [_text(prompt) for prompt in all_prompts("train") + all_prompts("heldout")]
    shapes = (
        grammar.VERDICT_SHAPES
        + grammar.WARM_CLOSINGS
        + grammar.COLD_CLOSINGS
        + grammar.FILLERS
        + grammar.VENUE_FILLERS
        + grammar.OWNER_FILLERS
    )
    texts += [re.sub(r"\{\w+\}", "", shape) for shape in shapes]
    texts += [thing.again for thing in words.THINGS]
    texts += [*words.FAMILY_OF, *words.FEELINGS, *words.VERBS, *words.INTENSIFIERS, *words.VERDICTS]
    texts += [adjective for levels in words.ADJECTIVE_LEVELS.values() for adjective in levels]
    texts += [
        *words.AUDIENCES,
        *words.RELATIVES,
        *words.DAYS,
        "The the was were and but a an I we We my My . , ! ? :",
    ]
    return sorted({token for text in texts for token in grammar.tokens(text)})


def _demonstration(
    every: Sequence[Prompt], split: Split, seed: int, index: int
) -> tuple[Demonstration, float]:
    """The demonstration, and the nats of its response (the choice of the prompt is not counted)."""
    draw = Draw("demonstration", split, seed, index)
    prompt = _text(draw.one(every))
    before = draw.nats
    response = write_review(prompt, draw)
    return Demonstration(f"demonstration-{seed}-{index}", prompt, response), draw.nats - before


def _text(prompt: Prompt) -> str:
    assert isinstance(prompt.content, str), "prompts of reviews are plain text"
    return prompt.content


def _noun_phrase(thing: words.Thing, name: str) -> str:
    return f"the {thing.noun} {name}" if thing.named_after else f"the {name} {thing.noun}"


def _filler(subject: Subject, draw: Draw) -> str:
    special = grammar.VENUE_FILLERS if subject.thing.venue else grammar.OWNER_FILLERS
    shape = draw.one(special + grammar.FILLERS)
    day = draw.one(words.DAYS) if "{day}" in shape else ""
    relative = draw.one(words.RELATIVES) if "{relative}" in shape else ""
    return shape.format(day=day, relative=relative) + "."


def _verdict(subject: Subject, praise: float, draw: Draw) -> str:
    shape = draw.one([s for s in grammar.VERDICT_SHAPES if subject.name or "{name}" not in s])
    warm = draw.chance(praise)
    scale = words.FEELINGS if "{feeling}" in shape else words.VERDICTS
    word = draw.one([word for word, level in scale.items() if (level > 0) == warm])
    slots = {"verdict": word, "a_verdict": grammar.an(word), "feeling": word}
    text = shape.format(name=subject.name, noun=subject.thing.noun, **slots)
    return text + ("!" if shape.startswith("What") else ".")


def _closing(subject: Subject, praise: float, draw: Draw) -> str:
    shape = draw.one(grammar.WARM_CLOSINGS if draw.chance(praise) else grammar.COLD_CLOSINGS)
    audience = draw.one(words.AUDIENCES) if "{audience}" in shape else ""
    return shape.format(audience=audience, again=subject.thing.again) + "."


def _opinion(free: list[str], subject: Subject, praise: float, draw: Draw) -> str:
    """A sentence of one or two clauses; the aspects that it mentions are removed from ``free``."""
    if draw.chance(0.3):
        warm = draw.chance(praise)
        aspect = _aspect(free, subject, draw)
        text = f"{_person(draw)} {_verb(warm, draw)} the {aspect}"
        return text + (f" and the {_aspect(free, subject, draw)}." if draw.chance(0.3) else ".")
    first_warm = draw.chance(praise)
    first = _clause(first_warm, free, subject, draw)
    if not draw.chance(0.4):
        return f"{first}."
    second_warm = draw.chance(praise)
    second = _clause(second_warm, free, subject, draw)
    # "but" between praise and blame: the grammar has meaning, and a model that writes "and" there has not learned it.
    joint = "and" if first_warm == second_warm else "but"
    return f"{first} {joint} {second[0].lower()}{second[1:]}."


def _clause(warm: bool, free: list[str], subject: Subject, draw: Draw) -> str:
    aspect = _aspect(free, subject, draw)
    levels = words.ADJECTIVE_LEVELS[words.FAMILY_OF[aspect]]
    adjective = draw.one([word for word, level in levels.items() if (level > 0) == warm])
    intensifier = f"{draw.one(tuple(words.INTENSIFIERS))} " if draw.chance(0.25) else ""
    return f"The {aspect} {'were' if aspect in words.PLURALS else 'was'} {intensifier}{adjective}"


def _aspect(free: list[str], subject: Subject, draw: Draw) -> str:
    """A new aspect of the thing, or in one of ten cases an aspect of another thing (off topic)."""
    if draw.chance(0.1):
        other = draw.one([thing for thing in words.THINGS if thing is not subject.thing])
        return draw.one(other.aspects)
    aspect = draw.one(free)
    free.remove(aspect)
    return aspect


def _person(draw: Draw) -> str:
    who = draw.one(("I", "We", "My"))
    return f"My {draw.one(words.RELATIVES)}" if who == "My" else who


def _verb(warm: bool, draw: Draw) -> str:
    return draw.one([verb for verb, level in words.VERBS.items() if (level > 0) == warm])
