"""How a policy writes, against its start: repetition, diversity, and the phrases that it has come to use more.

None of these figures says whether the change is good. A better policy writes otherwise too; what to look at is a phrase
that stands in most responses, or a diversity that is gone.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from plaudit.evaluation.alarms.texts import WORD
from plaudit.evaluation.responses.compared import compared, known
from plaudit.runs.files import Row
from plaudit.statistics.log_odds import log_odds, surely

LONGEST_PHRASE = 4
SEEN, SEEN_SHARE = 3.0, 0.1
"""Prompts, and share of all prompts, whose responses must have a phrase for it to be looked at. The more phrases are
looked at, the more it takes to be sure of one, and what few responses have is no habit."""
SHOWN = 10
SHARED = 0.8
"""A phrase within another one is the same finding where it has at least so much of its count."""
FIRST_WORDS = 50
"""Words of a response that count for its diversity: longer texts repeat more, whatever their quality."""


def wording(before: Sequence[Row], after: Sequence[Row]) -> Row:
    """Endings, repetition, likeness of responses to one prompt, and phrases, of rows of evaluation.jsonl.

    Returns:
        ``eos_rate``, ``repetition`` (share of the word pairs within a response that repeat one before) and
        ``self_bleu`` (likeness of the responses to one prompt, where there are several), each with its level before,
        its change and their intervals; ``phrases``, ``phrases_tested``.
    """
    values = compared("eos_rate", before, after, _ended, counted=True)
    values |= compared("repetition", before, after, lambda row: repeated(_text(row)))
    was, now = _with_likeness(before), _with_likeness(after)
    if all(any(row["likeness"] is not None for row in rows) for rows in (was, now)):
        values |= compared("self_bleu", was, now, lambda row: row["likeness"])
    phrases, tested = overused(_by_prompt(before), _by_prompt(after))
    listed = [
        {"phrase": each.words, "before": each.before, "now": each.now, "log_odds": each.log_odds, "z": each.z,
         "sure": each.sure}
        for each in phrases
    ]  # fmt: skip
    return values | {"phrases": listed, "phrases_tested": tested}


def _text(row: Row) -> str:
    return str(row.get("response", ""))


def _ended(row: Row) -> float | None:
    reason = row.get("finish_reason")
    return float(reason == "stop") if reason else None


def _by_prompt(rows: Sequence[Row]) -> dict[str, list[str]]:
    texts: dict[str, list[str]] = {}
    for row in rows:
        texts.setdefault(str(row.get("prompt_id")), []).append(_text(row))
    return texts


def repeated(text: str) -> float | None:
    """Share of the word pairs of a text that repeat one before; None for a text without two words.

    >>> repeated("so good so good so good"), repeated("one two three")
    (0.6, 0.0)
    """
    words = WORD.findall(text.lower())
    pairs = list(zip(words, words[1:], strict=False))
    return 1 - len(set(pairs)) / len(pairs) if pairs else None


def _with_likeness(rows: Sequence[Row]) -> list[Row]:
    """Each row with its self-BLEU among the responses to its prompt."""
    texts: dict[str, list[list[str]]] = {}
    places = []
    for row in rows:
        group = texts.setdefault(str(row.get("prompt_id")), [])
        places.append(len(group))
        group.append(WORD.findall(_text(row).lower())[:FIRST_WORDS])
    return [
        {"prompt_id": row.get("prompt_id"), "likeness": self_bleu(texts[str(row.get("prompt_id"))], place)}
        for row, place in zip(rows, places, strict=True)
    ]


def self_bleu(responses: Sequence[Sequence[str]], index: int) -> float | None:
    """BLEU-4 of one response against the others to its prompt (Zhu et al. 2018, "Texygen").

    Args:
        responses: their words.
        index: of the one that is compared.

    Returns:
        From 0 (nothing in common) to 1 (the same as another one); None without others, or without a word.

    >>> self_bleu([["a", "b"], ["a", "b"]], 0), self_bleu([["a"], ["b"]], 0)
    (1.0, 0.0)
    """
    one, others = responses[index], [each for i, each in enumerate(responses) if i != index]
    if not one or not others:
        return None
    logs = []
    for n in range(1, min(4, len(one)) + 1):
        own = Counter(_grams(one, n))
        most = [Counter(_grams(other, n)) for other in others]
        matched = sum(min(count, max(each[gram] for each in most)) for gram, count in own.items())
        if not matched and n == 1:
            return 0.0
        # From pairs on each count is raised by 1 (Lin and Och 2004), so that a single missing length of grams does not
        # make the whole figure 0.
        logs.append(math.log((matched + (n > 1)) / (own.total() + (n > 1))))
    nearest = min((abs(len(other) - len(one)), len(other)) for other in others)[1]
    brevity = min(0.0, 1 - nearest / len(one))
    return math.exp(brevity + sum(logs) / len(logs))


def _grams(words: Sequence[str], n: int) -> Iterable[tuple[str, ...]]:
    return (tuple(words[i : i + n]) for i in range(len(words) - n + 1))


@dataclass(frozen=True, slots=True)
class Phrase:
    """A phrase that the trained policy uses more than its start."""

    words: str
    before: float
    """Share of the responses that have it, averaged over prompts."""
    now: float
    log_odds: float
    z: float
    sure: bool = False
    """Whether the z-score is beyond what the largest of all phrases that were looked at reaches by chance."""


def overused(before: dict[str, list[str]], after: dict[str, list[str]]) -> tuple[list[Phrase], int]:
    """The phrases of one to four words with the highest z-scores, and how many were looked at.

    A response counts once for a phrase however often it says it, and a prompt counts once however many responses it
    has: its count is the share of its responses that have the phrase. So counts are of prompts, which are independent,
    and z-scores hold for prompts. Phrases of each length are compared among themselves.

    Args:
        before, after: prompt -> its responses by the start, and by the trained policy; neither is empty.
    """
    found: list[Phrase] = []
    tested = 0
    for n in range(1, LONGEST_PHRASE + 1):
        old, new = _counts(before, n), _counts(after, n)
        names = sorted({*old, *new})
        then, now = (np.array([side.get(name, 0.0) for name in names]) for side in (old, new))
        ratio, z = log_odds(now, then)
        seen = [i for i in range(len(names)) if now[i] >= max(SEEN, SEEN_SHARE * len(after))]
        tested += len(seen)
        found += [
            Phrase(names[i], float(then[i]) / len(before), float(now[i]) / len(after), float(ratio[i]), float(z[i]))
            for i in seen
            # By their odds alone, phrases that every response has would rise where responses became shorter.
            if z[i] > 0 and now[i] / len(after) > then[i] / len(before)
        ]
    limit = surely(tested)
    return _apart([replace(each, sure=each.z > limit) for each in found])[:SHOWN], tested


def _apart(found: Sequence[Phrase]) -> list[Phrase]:
    """The highest z-scores first; of phrases within each other that about as many responses have, the longest.

    It is what a reader recognises. One that chance may explain does not stand for a shorter one that is sure.
    """
    kept: list[Phrase] = []
    for each in sorted(found, key=lambda each: (-len(each.words.split()), -each.z, each.words)):
        if not any(_within(each, other) and other.sure >= each.sure for other in kept):
            kept.append(each)
    return sorted(kept, key=lambda each: (-each.z, each.words))


def _counts(texts: dict[str, list[str]], n: int) -> dict[str, float]:
    """For each phrase of ``n`` words the sum over prompts of the share of responses that have it."""
    counts: dict[str, float] = {}
    for responses in texts.values():
        for response in responses:
            words = WORD.findall(response.lower())
            for gram in {" ".join(words[i : i + n]) for i in range(len(words) - n + 1)}:
                counts[gram] = counts.get(gram, 0.0) + 1 / len(responses)
    return counts


def _within(one: Phrase, longer: Phrase) -> bool:
    return f" {one.words} " in f" {longer.words} " and longer.now >= SHARED * one.now


def distinct(texts: Sequence[str], n: int, words: int = FIRST_WORDS) -> float:
    """Distinct n-grams over all n-grams of the texts, each cut to ``words`` words; NaN without any.

    >>> distinct(["a b a b"], 1), round(distinct(["a b a b"], 2), 3)
    (0.5, 0.667)
    """
    # Cut to one length, texts before and after can be compared.
    grams: list[tuple[str, ...]] = []
    for text in texts:
        grams += _grams(text.split()[:words], n)
    return len(set(grams)) / len(grams) if grams else math.nan


def diversity(rows: Sequence[Row]) -> Row:
    """``distinct_1``, ``distinct_2`` and the share of responses that differ from each other, of one side."""
    texts = [_text(row) for row in rows]
    values: Row = {f"distinct_{n}": known(distinct(texts, n)) for n in (1, 2)}
    return values | {"distinct_responses": len(set(texts)) / len(texts)}
