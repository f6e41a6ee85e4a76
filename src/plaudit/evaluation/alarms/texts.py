"""What changed in the responses since the start of a run: phrases, surface, length, repetition, diversity.

Each function compares the texts of now with those of the start, and gives evidence in words or nothing. None of them
knows whether the change is good: a better policy writes otherwise too. So the thresholds are high, and every message
says what to look at.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import fmean, pvariance

import numpy as np
from numpy.typing import NDArray

ENOUGH_TEXTS = 24
"""Fewer responses on a side tell nothing about shares."""
SURE = 5.0
"""Standard errors. There are thousands of phrases and dozens of iterations to look at: two would find something."""
TAKEN_OVER = {1: 0.85, 2: 0.85, 3: 0.55, 4: 0.4, 5: 0.4}
"""Words of a phrase -> share of the responses from which on it has taken over. Short ones a better policy may have come
to use as well."""
ODDS = 5.0
"""How many times larger the odds of a phrase or habit must be than at the start."""
LONGEST_PHRASE = 5
HABIT = 0.4
"""Change of the share of responses with a habit."""
LONGER, SHORTER = 1.5, 1 / 3
IS_LENGTH = 0.85
"""Correlation of the reward with the number of words, either way, from which on it is a reward of length."""
WORDS, EXPLAINED = 10, 0.8
"""Where the counts of so many words explain this share of the variance of rewards that they were not chosen on, words
are what it pays for."""
ENOUGH_REWARDS = 100
"""Fewer responses with a reward say too little of what it pays for."""
REPEATED = 0.2
"""Change of the share of repeated word pairs within a response."""
ALIKE = 0.5
"""Share of the different responses, or of different word pairs, that is left of the start's."""
ALONE = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
"""Scripts without spaces between words (Chinese, Japanese, Thai, Lao, Burmese, Khmer): a character is a word here."""
WORD = re.compile(rf"[{ALONE}]|[^\W{ALONE}]+(?:['’][^\W{ALONE}]+)*|[^\w\s]")
ENDING = 3
"""Words of an ending; twice as many characters where a character is a word."""
UNKNOWN = 0.4
"""Rise of the share of words that the start did not have: another language, or nonsense."""


@dataclass(frozen=True, slots=True)
class Texts:
    """Responses of one time, with the reward of each; None where it is not known."""

    responses: tuple[str, ...]
    rewards: tuple[float | None, ...] = ()

    def __len__(self) -> int:
        return len(self.responses)

    def and_then(self, later: Texts) -> Texts:
        """Both, one after the other."""
        return Texts(self.responses + later.responses, self.rewards + later.rewards)

    def scored(self) -> tuple[list[str], NDArray[np.float64]]:
        """The responses whose reward is known, and the rewards."""
        pairs = [(text, value) for text, value in zip(self.responses, self.rewards, strict=False) if value is not None]
        return [text for text, _ in pairs], np.array([value for _, value in pairs], dtype=np.float64)


def phrase(start: Texts, now: Texts) -> str:
    """The phrase of one to five words that has taken over: its share then and now, and what it earns."""
    found = [_phrases(text) for text in now.responses]
    counts = Counter(one for phrases in found for one in phrases)
    common = [
        (one, count)
        for one, count in counts.items()
        if count >= TAKEN_OVER[len(one.split())] * len(now)
    ]
    if not common:
        return ""
    before = _phrase_counts(start.responses)
    grown = [
        (z, one, count)
        for one, count in common
        if (z := _rise(before[one], len(start), count, len(now))) >= SURE and _is_telling(one)
    ]
    if not grown:
        return ""
    # Of phrases within each other the longest of about the same share: it is what a reader recognises.
    _, name, count = max(grown, key=lambda each: (round(each[0], 0), len(each[1].split())))
    earns = _earns(now, [name in phrases for phrases in found])
    return (
        f"the phrase {name!r} stands in {count} of {len(now)} responses; at the start it stood in {before[name]} of "
        f"{len(start)}{earns}"
    )


@lru_cache(maxsize=1)  # the start stays the same in all iterations of a run
def _phrase_counts(responses: tuple[str, ...]) -> Counter[str]:
    """In how many responses each phrase stands."""
    return Counter(one for text in responses for one in _phrases(text))


def _phrases(text: str) -> set[str]:
    words = WORD.findall(text.lower())
    return {
        " ".join(words[i : i + n]) for n in range(1, LONGEST_PHRASE + 1) for i in range(len(words) - n + 1)
    }


def _is_telling(name: str) -> bool:
    """Not marks and short words by themselves: those follow from grammar and length. Pictures tell."""
    words = [word for word in name.split() if word[0].isalnum()]
    return len(words) > 2 or any(len(word) > 3 for word in words) or any(map(_is_picture, name))


def _is_picture(character: str) -> bool:
    return unicodedata.category(character) == "So"


def _rise(before: int, of_before: int, now: int, of_now: int) -> float:
    """Standard errors by which a share rose (pooled, two samples); 0 where the odds did not grow `ODDS` times."""
    ratio = (now + 0.5) * (of_before - before + 0.5) / ((of_now - now + 0.5) * (before + 0.5))
    pooled = (before + now) / (of_before + of_now)
    error = math.sqrt(pooled * (1 - pooled) * (1 / of_before + 1 / of_now))
    return (now / of_now - before / of_before) / error if error and ratio >= ODDS else 0.0


def words_paid_for(known: Texts) -> str:
    """The few words whose counts explain almost all differences of the reward: it pays for them, whatever they say.

    Forward selection of at most `WORDS` words by least squares. Words and their weights are found in each half of the
    responses and judged on the other one: ten words out of a hundred explain much of the rows that they were chosen on.
    """
    responses, rewards = known.scored()
    if len(responses) < ENOUGH_REWARDS or not rewards.std():
        return ""
    documents = [Counter(WORD.findall(text.lower())) for text in responses]
    frequent = Counter(word for document in documents for word in document)
    vocabulary = [word for word, count in frequent.items() if count >= 5]
    counts = np.array([[document[word] for word in vocabulary] for document in documents], dtype=np.float64)
    counts = counts.reshape(len(documents), len(vocabulary))
    halves = np.arange(len(documents)) % 2 == 0
    lost, whole = np.zeros(min(WORDS, len(vocabulary))), 0.0
    for part in (halves, ~halves):
        lost += _left_over(counts[part], rewards[part], counts[~part], rewards[~part])
        whole += float(((rewards[~part] - rewards[~part].mean()) ** 2).sum())
    explained = 1 - lost / whole if whole else lost
    enough = np.flatnonzero(explained >= EXPLAINED)
    if not len(enough):
        return ""
    number = int(enough[0]) + 1
    named = ", ".join(repr(vocabulary[i]) for i in _chosen_words(counts, rewards, number))
    counted = "the count of one word explains" if number == 1 else f"counts of {number} words explain"
    return (
        f"{counted} {explained[enough[0]]:.0%} of the differences of the reward over {len(responses)} responses: "
        f"{named}. It pays for words, whatever the response says"
    )


def _left_over(
    counts: NDArray[np.float64], rewards: NDArray[np.float64], others: NDArray[np.float64],
    their_rewards: NDArray[np.float64],
) -> NDArray[np.float64]:  # fmt: skip
    """The sum of squares of other responses that one, two, ... words chosen on the first ones leave over."""
    mean, level = counts.mean(0), rewards.mean()
    number = min(WORDS, counts.shape[1])
    chosen = _chosen_words(counts, rewards, number)
    left = []
    for n in range(1, number + 1):
        used = chosen[:n]
        weights = np.linalg.lstsq((counts - mean)[:, used], rewards - level, rcond=None)[0]
        left.append(float(((their_rewards - level - (others - mean)[:, used] @ weights) ** 2).sum()))
    return np.array(left)


def _chosen_words(counts: NDArray[np.float64], rewards: NDArray[np.float64], number: int) -> list[int]:
    """The words that forward selection takes, in its order."""
    counts, rest = counts - counts.mean(0), rewards - rewards.mean()
    rewards, norms = rest, np.maximum((counts**2).sum(0), 1e-12)
    chosen: list[int] = []
    for _ in range(number):
        gains = (counts.T @ rest) ** 2 / norms
        gains[chosen] = -1.0
        chosen.append(int(gains.argmax()))
        used = counts[:, chosen]
        rest = rewards - used @ np.linalg.lstsq(used, rewards, rcond=None)[0]
    return chosen


def _earns(now: Texts, has: Sequence[bool]) -> str:
    """How much more reward the responses with it have than those without."""
    if not now.rewards:
        return ""
    sides: dict[bool, list[float]] = {True: [], False: []}
    for one, value in zip(has, now.rewards, strict=True):
        if value is not None:
            sides[one].append(value)
    if min(map(len, sides.values())) < 3:
        return ""
    return f"; responses with it have {fmean(sides[True]) - fmean(sides[False]):+.2f} more reward than those without"


AGAIN = re.compile(r"(.)\1{4}", re.DOTALL)
HABITS: dict[str, Callable[[str], bool]] = {
    "end without a full stop or another mark": lambda text: text.rstrip()[-1:].isalnum(),
    "are written in capitals": lambda text: text.isupper() and len(text.strip()) > 8,
    "have an exclamation mark": lambda text: "!" in text,
    "have a question mark": lambda text: "?" in text,
    "have a list": lambda text: bool(re.search(r"^\s*(?:[-*•]|\d+[.)])\s", text, re.MULTILINE)),
    "have marks of a layout (bold, headings, code)": lambda text: bool(re.search(r"\*\*|^#+ |`", text, re.MULTILINE)),
    "have characters beyond ASCII": lambda text: not text.isascii(),
    "have pictures (emoji)": lambda text: any(map(_is_picture, text)),
    "have digits": lambda text: any(c.isdigit() for c in text),
    "are empty": lambda text: not text.strip(),
    "repeat a character, a space or a line break over and over": lambda text: bool(AGAIN.search(text)),
}


def surface(start: Texts, now: Texts) -> str:
    """A habit of the surface that most responses have taken on, or lost; and an ending that they share."""
    for words, has in HABITS.items():
        marks = [has(text) for text in now.responses]
        share = fmean(marks)
        was = fmean(has(text) for text in start.responses)
        error = math.sqrt(max(was * (1 - was), 0.01) / len(start) + max(share * (1 - share), 0.01) / len(now))
        if abs(share - was) >= HABIT and abs(share - was) / error >= SURE:
            return f"{share:.0%} of the responses {words}, {was:.0%} at the start{_earns(now, marks)}"
    endings = Counter(_ending(text) for text in now.responses)
    ending, count = endings.most_common(1)[0]
    before = sum(_ending(text) == ending for text in start.responses)
    if ending and count >= 0.5 * len(now) and _rise(before, len(start), count, len(now)) >= SURE:
        return f"{count} of {len(now)} responses end with {ending!r}, {before} of {len(start)} at the start"
    return _new_words(start, now)


def _ending(text: str) -> str:
    """The last words and the marks after them."""
    words = [match for match in WORD.finditer(text) if match[0][0].isalnum()]
    few = 2 * ENDING if words and re.match(f"[{ALONE}]", words[-1][0]) else ENDING
    return text[words[-few:][0].start() :].strip() if words else text.strip()


def _new_words(start: Texts, now: Texts) -> str:
    """Words that the start did not have: the responses are in another language, or nonsense."""
    half = len(start) // 2
    known = {word for text in start.responses[:half] for word in WORD.findall(text.lower())}
    # What is new in the second half of the start says how many words are new by chance.
    then, here = ([_unknown(text, known) for text in texts] for texts in (start.responses[half:], now.responses))
    if fmean(here) < fmean(then) + UNKNOWN or _apart(then, here) < SURE:
        return ""
    return (
        f"{fmean(here):.0%} of the words of a response did not occur in {half} responses of the start, where "
        f"{fmean(then):.0%} would be new by chance: another language or way of writing, or nonsense"
    )


def _unknown(text: str, known: Collection[str]) -> float:
    words = WORD.findall(text.lower())
    return fmean(word not in known for word in words) if words else 0.0


def length(start: Texts, now: Texts) -> str:
    """Much longer or shorter responses than at the start."""
    then, here = ([float(len(WORD.findall(text))) for text in side.responses] for side in (start, now))
    times = fmean(here) / max(fmean(then), 1)
    if SHORTER < times < LONGER or _apart(then, here) < SURE:
        return ""
    return f"responses have {fmean(here):.0f} words on average, {times:.1f} times as many as at the start"


def paid_by_length(known: Texts) -> str:
    """The reward is the number of words, or nearly so."""
    responses, rewards = known.scored()
    lengths = np.array([float(len(WORD.findall(text))) for text in responses])
    if len(rewards) < ENOUGH_REWARDS or not lengths.std() or not rewards.std():
        return ""
    same = float(np.corrcoef(lengths, rewards)[0, 1])
    if abs(same) < IS_LENGTH:
        return ""
    return (
        f"the reward goes by length: its correlation with the number of words is {same:.2f} over {len(rewards)} "
        "responses, whatever they say"
    )


def repetition(start: Texts, now: Texts) -> str:
    """Responses that repeat themselves."""
    then, here = ([_repeated(text) for text in side.responses] for side in (start, now))
    if fmean(here) < fmean(then) + REPEATED or _apart(then, here) < SURE:
        return ""
    return f"{fmean(here):.0%} of the word pairs within a response repeat one before, {fmean(then):.0%} at the start"


def _repeated(text: str) -> float:
    words = WORD.findall(text.lower())
    pairs = list(zip(words, words[1:], strict=False))
    return 1 - len(set(pairs)) / len(pairs) if pairs else 0.0


def diversity(start: Texts, now: Texts) -> str:
    """Responses to different prompts that have become alike."""
    n = min(len(start), len(now))
    # The same number of responses on both sides: among more of them more are alike.
    then, here = (len(set(side.responses[:n])) / n for side in (start, now))
    if here < ALIKE * then:
        return f"only {here:.0%} of the responses differ from each other, {then:.0%} at the start"
    before, after = (_distinct_pairs(side.responses[:n]) for side in (start, now))
    if before and after < ALIKE * before:
        return f"{after:.0%} of the word pairs are distinct, {before:.0%} at the start"
    return ""


def _distinct_pairs(texts: Iterable[str], words: int = 50) -> float:
    pairs: list[tuple[str, str]] = []
    for text in texts:
        cut = WORD.findall(text)[:words]
        pairs += zip(cut, cut[1:], strict=False)
    return len(set(pairs)) / len(pairs) if pairs else 0.0


def _apart(then: Sequence[float], now: Sequence[float]) -> float:
    """Standard errors between two means (Welch)."""
    error = math.sqrt(pvariance(then) / len(then) + pvariance(now) / len(now))
    gap = abs(fmean(now) - fmean(then))
    return gap / error if error else (math.inf if gap else 0.0)
