"""The known true preference of the reviews: what a reader wants, as a sum of named rules.

A good review is warm, says a few different concrete things about the thing that the prompt names, gives a
verdict, and ends with a recommendation. It does not repeat itself, change the subject, contradict itself,
ramble, or break off.
"""

# Why so many penalties: every rule that gives points can be exploited by a policy (repeat the same praise, add words,
# list all aspects of all things). The score must have its maximum where a reader would also see the best review, or the
# quickstart would show reward hacking where it means to show learning. Each penalty has a limit, so that one fault does
# not decide everything and the scores of bad texts remain comparable.

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from plaudit.demo import review_words as words
from plaudit.demo.review_grammar import Opinion, Sentence, read, tokens
from plaudit.errors import DataError

RULES: dict[str, str] = {
    "warmth": "from -1 to 1: mean level of the opinions, the verdict counting twice",
    "detail": "0.5, 0.4, 0.3, 0.2 for the first four different aspects of the right thing",
    "verdict": "0.3 for a verdict on the whole",
    "closing": "0.4 for a closing advice as the last sentence, 0.2 elsewhere",
    "off_topic": "-0.6 for each aspect, noun, name or closing phrase of another thing; at most -1.8",
    "contradiction": "-0.7 for an aspect praised and blamed, a verdict or closing against the rest; to -1.4",
    "repetition": "of a sentence -0.8, of an aspect, verdict or closing -0.4, of a word -0.15; to -3",
    "rambling": "-0.3 for each sentence that says nothing, -0.05 for each word over 30; at most -2",
    "unreadable": "-0.8 for each sentence that is not of the grammar, -2.4 for an empty text; at most -2.4",
    "unfinished": "-0.7 when the text breaks off",
}
"""Rule -> the points that it gives. The true score is their sum."""

DETAIL_GAINS = (0.5, 0.4, 0.3, 0.2)
MAX_WORDS = 30
BEST_SCORE = 3.1
"""No text can score more: warmth 1, detail 1.4, verdict 0.3, closing 0.4."""


@dataclass(frozen=True, slots=True)
class Subject:
    """The thing that a prompt asks about, and its name."""

    thing: words.Thing
    name: str


def subject_of(prompt: str) -> Subject:
    """The thing and the name a prompt asks about.

    Raises:
        DataError: the prompt names nothing that can be reviewed.
    """
    prompt_words = [word.lower() for word in tokens(prompt)]
    nouns = [word for word in prompt_words if word in words.THING_BY_NOUN]
    if not nouns:
        raise DataError(
            f"no thing that can be reviewed is named in the prompt {prompt[:60]!r}",
            cure=f"name one of: {', '.join(words.THING_BY_NOUN)}",
        )
    names = [name for name in words.NAMES if name.lower() in prompt_words]
    return Subject(words.THING_BY_NOUN[nouns[-1]], names[0] if names else "")


def true_score(prompt: str, response: str) -> float:
    """The true score of a response: at most 3.1; over the demonstrations it has mean 0.5 and standard deviation 1.

    Raises:
        DataError: the prompt names nothing that can be reviewed.
    """
    return sum(true_score_parts(prompt, response).values())


def true_score_parts(prompt: str, response: str) -> dict[str, float]:
    """The points of each rule (see ``RULES``), whose sum is the true score.

    Raises:
        DataError: the prompt names nothing that can be reviewed.
    """
    subject = subject_of(prompt)
    sentences = read(response)
    opinions = [opinion for sentence in sentences for opinion in sentence.opinions]
    verdicts = [s for s in sentences if s.kind == "verdict"]
    closings = [s for s in sentences if s.kind == "closing"]
    on_topic = {o.aspect for o in opinions} & set(subject.thing.aspects)
    # An unfinished sentence cannot be read either; it is counted once, by the rule "unfinished". An empty text
    # counts as three unreadable sentences, or saying nothing would be better than saying something wrong.
    unreadable = sum(s.kind == "unreadable" and s.finished for s in sentences) if sentences else 3
    return {
        "warmth": _warmth(opinions, verdicts),
        "detail": sum(DETAIL_GAINS[: len(on_topic)]),
        "verdict": 0.3 if verdicts else 0.0,
        "closing": (0.4 if sentences[-1].kind == "closing" else 0.2) if closings else 0.0,
        "off_topic": -min(1.8, 0.6 * _off_topic(subject, sentences)),
        "contradiction": -min(1.4, 0.7 * _contradictions(opinions, verdicts, closings)),
        "repetition": -min(3.0, _repetition(sentences, opinions, len(verdicts), len(closings))),
        "rambling": -min(2.0, _rambling(sentences, response)),
        "unreadable": -min(2.4, 0.8 * unreadable),
        "unfinished": -0.7 if sentences and not sentences[-1].finished else 0.0,
    }


def _warmth(opinions: list[Opinion], verdicts: list[Sentence]) -> float:
    levels = [o.level for o in opinions] + 2 * [v.level for v in verdicts]
    return sum(levels) / len(levels) if levels else 0.0


def _off_topic(subject: Subject, sentences: list[Sentence]) -> int:
    aspects = {o.aspect for s in sentences for o in s.opinions} - set(subject.thing.aspects)
    nouns = {s.noun for s in sentences} - {subject.thing.noun, ""}
    names = {s.name for s in sentences} - {subject.name.lower(), ""}
    again = {s.again for s in sentences} - {subject.thing.again, ""}
    return len(aspects) + len(nouns) + len(names) + len(again)


def _contradictions(opinions: list[Opinion], verdicts: list[Sentence], closings: list[Sentence]) -> int:
    praised = {o.aspect for o in opinions if o.level > 0}
    blamed = {o.aspect for o in opinions if o.level < 0}
    count = len(praised & blamed)
    mood = sum(o.level for o in opinions) / max(1, len(opinions))
    for verdict in verdicts[:1]:
        count += verdict.level * mood < -0.2
        count += any(verdict.level * closing.level < 0 for closing in closings)
    if not verdicts:
        count += any(mood * closing.level < -0.2 for closing in closings)
    return count


def _repetition(sentences: list[Sentence], opinions: list[Opinion], verdicts: int, closings: int) -> float:
    again = sum(n - 1 for n in Counter(s.text for s in sentences).values())
    aspects = sum(n - 1 for n in Counter(o.aspect for o in opinions).values())
    # A set for each sentence: "I loved the room and the pool" is one use of "loved" about two aspects.
    word_sets = [{o.word for o in s.opinions} for s in sentences]
    repeated = sum(n - 1 for n in Counter(word for each in word_sets for word in each).values())
    return 0.8 * again + 0.4 * (aspects + max(0, verdicts - 1) + max(0, closings - 1)) + 0.15 * repeated


def _rambling(sentences: list[Sentence], response: str) -> float:
    length = len(re.findall(r"\w+", response))
    return 0.3 * sum(s.kind == "filler" for s in sentences) + 0.05 * max(0, length - MAX_WORDS)
