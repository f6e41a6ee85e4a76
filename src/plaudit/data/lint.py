"""What looks suspicious in readable data: how often, where, and what to do about it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

from plaudit.data.reading.oddities import is_blank
from plaudit.data.reading.transcripts import plain_text, prompt_key
from plaudit.records import (
    Comparison,
    Content,
    Demonstration,
    Judgement,
    Preference,
    Prompt,
    Ranking,
    Rating,
    Record,
    to_json,
)
from plaudit.statistics.intervals import wilson

MOST_EXAMPLES = 5

LEAKS = re.compile(
    r"(?:^|\n)\s*(?:Human|Assistant|User|System):"
    r"|<\|(?:im_start|im_end|user|assistant|system|eot_id|endoftext|start_header_id|end|EOT)\|>"
    r"|</?s>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>|### ?(?:Instruction|Response|Human|Assistant):"
)
"""Marks of a chat template; they belong around a response, not into it."""

GOES_ON = re.compile(
    r"\n\s*(?:Human|User):|<\|im_start\|>user|<\|user\|>|\[INST\]|<start_of_turn>user"
    r"|### ?(?:Instruction|Human):"
)
"""The beginning of a user's turn, inside a response."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One kind of problem and how often it occurs."""

    code: str
    """A stable name: "identical-responses", "conflicting-pairs", "length-bias" ..."""
    count: int
    among: int
    """How many were looked at."""
    unit: str
    """What is counted, in the plural: "rows", "pairs", "responses", "decided pairs". A row may have several."""
    examples: tuple[str, ...]
    """Ids of the first few rows."""
    advice: str
    """What it means and what to do."""
    interval: tuple[float, float] | None = None
    """95 % Wilson interval of ``share``, where it estimates a habit of the annotators."""

    @property
    def share(self) -> float:
        """``count`` as a share of ``among``."""
        return self.count / self.among


class _Pair(NamedTuple):
    """Two responses of which the first was preferred; ``tie`` if neither was."""

    id: str
    prompt: str
    better: str
    worse: str
    tie: bool = False


def lint(records: Sequence[Record]) -> list[Finding]:
    """All findings about the records, whatever their kind; an empty list if nothing is suspicious.

    Looks for identical responses, conflicting pairs, exact duplicates, empty responses, template marks
    inside responses, conversations that a response continues by itself, and for length bias and position
    bias. Both biases are always reported, with an interval, for data that can have them: how much is too much depends
    on the purpose.
    """
    pairs = [pair for record in records for pair in _pairs(record)]
    texts = [(record.id, text) for record in records for text in _responses(record)]
    findings = [
        _duplicates(records),
        _identical(pairs),
        _conflicts(pairs),
        _matching(
            texts, "empty-responses", _is_empty, "responses without words; remove them unless they are meant"
        ),
        _matching(
            texts,
            "template-leaks",
            lambda text: bool(LEAKS.search(text)),
            "responses hold marks of a chat template, which a model learns to write; cut the responses there",
        ),
        _matching(
            texts,
            "self-continued",
            lambda text: bool(GOES_ON.search(text)),
            "responses go on with the user's turn by themselves; cut them before it",
        ),
        _length_bias(pairs),
        _position_bias([r for r in records if isinstance(r, Judgement)]),
    ]
    return [finding for finding in findings if finding is not None]


def lint_split(train: Sequence[Record], heldout: Sequence[Record]) -> list[Finding]:
    """Held-out records whose prompt (or, without one, text) is in the training data as well."""
    known = {_identity(record) for record in train}
    ids = [record.id for record in heldout if _identity(record) in known]
    advice = (
        "rows whose prompt is in the other file too: where one is trained on and the other held out, that"
        " flatters every figure; split by prompt"
    )
    finding = _finding("duplicates-across-splits", ids, len(heldout), "rows", advice)
    return [finding] if finding else []


# Views of a record


def _pairs(record: Record) -> list[_Pair]:
    if isinstance(record, Preference):
        chosen, rejected = plain_text(record.chosen), plain_text(record.rejected)
        return [_Pair(record.id, prompt_key(record.prompt), chosen, rejected)]
    if isinstance(record, Judgement):
        both = [plain_text(record.response_a), plain_text(record.response_b)]
        better, worse = both if record.strength <= 0 else both[::-1]
        return [_Pair(record.id, prompt_key(record.prompt), better, worse, record.strength == 0)]
    if isinstance(record, Ranking):
        texts = [plain_text(response) for response in record.responses]
        order = sorted(range(len(texts)), key=lambda i: record.ranks[i])
        return [
            _Pair(
                record.id, prompt_key(record.prompt), texts[i], texts[j], record.ranks[i] == record.ranks[j]
            )
            for i, j in combinations(order, 2)
        ]
    return []


def _responses(record: Record) -> list[str]:
    contents: tuple[Content, ...] = ()
    if isinstance(record, (Demonstration, Rating)):
        contents = (record.response,)
    elif isinstance(record, Preference):
        contents = (record.chosen, record.rejected)
    elif isinstance(record, Judgement):
        contents = (record.response_a, record.response_b)
    elif isinstance(record, (Ranking, Comparison)):
        contents = record.responses
    return [text for content in contents for text in _own_words(content)]


def _own_words(content: Content) -> list[str]:
    """The text of a response, or of each assistant turn of it."""
    if isinstance(content, str):
        return [content]
    return [turn.text for turn in content if turn.role == "assistant"]


def _identity(record: Record) -> str:
    """The prompt of a record; without one, its responses."""
    prompt = record.content if isinstance(record, Prompt) else record.prompt
    return prompt_key(prompt) if prompt else "\0".join(_responses(record))


# Checks


def _finding(code: str, ids: Sequence[str], among: int, unit: str, advice: str) -> Finding | None:
    if not ids:
        return None
    return Finding(code, len(ids), among, unit, tuple(dict.fromkeys(ids))[:MOST_EXAMPLES], advice)


def _matching(
    texts: Sequence[tuple[str, str]], code: str, is_bad: Callable[[str], bool], advice: str
) -> Finding | None:
    return _finding(code, [identity for identity, text in texts if is_bad(text)], len(texts), "responses", advice)


def _is_empty(text: str) -> bool:
    return is_blank(text)


def _duplicates(records: Sequence[Record]) -> Finding | None:
    seen: set[str] = set()
    ids: list[str] = []
    for record in records:
        key = repr({name: value for name, value in to_json(record).items() if name != "id"})
        if key in seen:
            ids.append(record.id)
        seen.add(key)
    return _finding(
        "exact-duplicates", ids, len(records), "rows", "the same record again; remove it, or it counts twice"
    )


def _identical(pairs: Sequence[_Pair]) -> Finding | None:
    ids = [pair.id for pair in pairs if pair.better == pair.worse]
    return _finding(
        "identical-responses", ids, len(pairs), "pairs", "both responses are the same: nothing to learn; remove them"
    )


def _conflicts(pairs: Sequence[_Pair]) -> Finding | None:
    # A set of (prompt, better, worse) and a look-up of the reverse: comparing every two pairs would take a time that
    # grows with the square of their number.
    chosen = {(p.prompt, p.better, p.worse) for p in pairs if not p.tie}
    ids = [
        p.id for p in pairs if not p.tie and p.better != p.worse and (p.prompt, p.worse, p.better) in chosen
    ]
    advice = (
        "the same two responses were also judged the other way round; keep the majority, or ask once more"
    )
    return _finding("conflicting-pairs", ids, len(pairs), "pairs", advice)


def _length_bias(pairs: Sequence[_Pair]) -> Finding | None:
    decided = [p for p in pairs if not p.tie and len(p.better) != len(p.worse)]
    ids = [p.id for p in decided if len(p.better) > len(p.worse)]
    what = "the longer response (in characters) won"
    return _bias("length-bias", what, ids, len(decided), "decided pairs", "compare reward models with this baseline")


def _position_bias(judgements: Sequence[Judgement]) -> Finding | None:
    decided = [j for j in judgements if j.strength]
    ids = [j.id for j in decided if j.strength < 0]
    what = "the response shown first (a) won"
    return _bias("position-bias", what, ids, len(decided), "decided judgements", "show the two in random order")


def _bias(code: str, what: str, ids: Sequence[str], among: int, unit: str, cure: str) -> Finding | None:
    if among == 0:
        return None
    # An interval and not a threshold on the share: 60 % of 20 pairs is chance, 52 % of 50 000 is not.
    low, high = wilson(len(ids), among)
    chance = "which chance can explain" if low <= 0.5 <= high else f"which is not chance; {cure}"
    share = len(ids) / among
    advice = f"{what} in {share:.0%} of {among} {unit} (95 % interval {low:.0%} to {high:.0%}), {chance}"
    return Finding(code, len(ids), among, unit, tuple(dict.fromkeys(ids))[:MOST_EXAMPLES], advice, (low, high))
