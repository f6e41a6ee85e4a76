"""Held-out responses spoiled in known ways, and what the reward model says of them: spoiled.jsonl.

A model that reads responses scores one lower after another prompt, with its tokens in another order, or with half of it
missing. What it does not notice, or even likes, is what a policy will do to please it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from plaudit.data.chat import Encoded
from plaudit.records import Preference, Ranking, Rating
from plaudit.runs.files import Row
from plaudit.runtime import ScoringRuntime
from plaudit.stages.encode import Rows, prompt_id
from plaudit.stages.reward.scores import raw_scores

MOST = 128
"""Prompts whose response is spoiled: seven forwards each, and the interval of a share is 9 points to either side."""
SUFFIX = " I hope this helps!"


@dataclass(frozen=True, slots=True)
class Parts:
    """The tokens of a response: its words, and what the format puts before and after them."""

    before: list[int]
    """The prompt, and separators behind it."""
    words: list[int]
    after: list[int]
    """The end token."""

    @classmethod
    def of(cls, row: Encoded, special: frozenset[int]) -> Parts | None:
        """None where the response has several turns: its tokens are not one text."""
        response = row.ids[row.prompt_length :]
        inner = [i for i, token in enumerate(response) if token not in special]
        if not inner or inner[-1] - inner[0] + 1 != len(inner):
            return None
        first, last = inner[0], inner[-1] + 1
        return cls(row.ids[: row.prompt_length] + response[:first], response[first:last], response[last:])


def spoil(parts: Parts, key: str, suffix: Sequence[int], stops: frozenset[int]) -> dict[str, list[int]]:
    """The tokens of the row, spoiled in each way that changes it.

    Args:
        parts: of the row.
        key: seeds the order of the shuffled tokens.
        suffix: tokens of a friendly sentence that adds nothing.
        stops: tokens that are a full stop.

    >>> found = spoil(Parts([1], [5, 6, 7, 8], [2]), "key", [9], frozenset())
    >>> found["truncated"], found["doubled"], found["suffix"], found["unended"]
    ([1, 5, 6, 2], [1, 5, 6, 7, 8, 5, 6, 7, 8, 2], [1, 5, 6, 7, 8, 9, 2], [1, 5, 6, 7, 8])
    """
    before, words, after = parts.before, parts.words, parts.after
    mixed = list(words)
    random.Random(f"shuffled/{key}").shuffle(mixed)
    # An end token that the model has always seen is missed; where the format has none, the full stop is all there is.
    open_end = words if after else words[:-1] if words[-1] in stops else words
    found = {
        "shuffled": before + mixed + after,
        "truncated": before + words[: len(words) // 2] + after,
        "doubled": before + words + words + after,
        "suffix": before + words + list(suffix) + after,
        "unended": before + open_end,
    }
    whole = before + words + after
    return {way: ids for way, ids in found.items() if ids != whole and len(ids) > len(before)}


def spoiled_lines(model: ScoringRuntime, rows: Rows, max_length: int) -> list[Row]:
    """One row a prompt and way: ``{"prompt_id", "how", "own_score", "score", "other_score"}``.

    ``own_score`` is that of the best held-out response to the prompt, ``score`` that of the same response spoiled, and
    ``other_score`` that of the worst one as it is (None where there is one response only). Scores are raw.
    """
    found = _by_prompt(rows)
    names, pairs = list(found), list(found.values())
    copies = [_copies(i, names, pairs, model.format.tokenizer, max_length) for i in range(len(names))]
    wanted: list[Encoded] = []
    for (own, other), each in zip(pairs, copies, strict=True):
        wanted += [own, *([other] if other else []), *each.values()]
    flat = iter(raw_scores(model.scorer, wanted, model.format.pad_id))
    lines: list[Row] = []
    for name, (_, other), each in zip(names, pairs, copies, strict=True):
        own_score = next(flat)
        other_score = next(flat) if other else None
        lines += [
            {"prompt_id": name, "how": way, "own_score": own_score, "score": next(flat), "other_score": other_score}
            for way in each
        ]
    return lines


def _by_prompt(rows: Rows) -> dict[str, tuple[Encoded, Encoded | None]]:
    """The best and the worst response to each prompt, the second None where nobody found one worse."""
    rated: dict[str, list[tuple[float, Encoded]]] = {}
    for record, encoded in zip(rows.records, rows.encoded, strict=True):
        if record.prompt and (prompt_id(record) in rated or len(rated) < MOST):
            rated.setdefault(prompt_id(record), []).extend(zip(_qualities(record), encoded, strict=True))
    two = {name: (max(each, key=_quality), min(each, key=_quality)) for name, each in rated.items()}
    # A response that is labelled as bad is no better for being read.
    return {
        name: (best[1], worst[1] if best[0] > worst[0] else None)
        for name, (best, worst) in two.items()
        if best[0] > 0
    }


def _quality(response: tuple[float, Encoded]) -> float:
    return response[0]


def _qualities(record: Any) -> list[float]:
    """How good each response is, above 0 except where it is labelled as bad."""
    if isinstance(record, Ranking):
        return [1 / rank for rank in record.ranks]
    if isinstance(record, Preference):
        return [2.0, 1.0]
    assert isinstance(record, Rating), "what a reward model learns from"
    return [record.reward]


def _copies(
    index: int, names: Sequence[str], pairs: Sequence[tuple[Encoded, Any]], tokenizer: Any, max_length: int
) -> dict[str, Encoded]:
    """The best response to a prompt, spoiled in each way. What does not fit into ``max_length`` is left out."""
    # Nothing is cut to make it fit: what a shorter prompt changes would be taken for what spoiling the response does.
    row = pairs[index][0]
    parts = Parts.of(row, frozenset(tokenizer.all_special_ids))
    found: dict[str, Encoded] = {}
    if parts is not None:
        suffix, *points = (tokenizer(t, add_special_tokens=False)["input_ids"] for t in (SUFFIX, ".", "a."))
        stops = frozenset(ids[-1] for ids in points if ids)
        spoiled = spoil(parts, names[index], suffix, stops)
        found = {way: _row(ids, row.prompt_length, row.opening) for way, ids in spoiled.items()}
    response = row.ids[row.prompt_length :]
    # Each name stands for a prompt of its own. The next one that leaves room for the response is taken.
    others = (pairs[(index + step) % len(pairs)][0] for step in range(1, len(pairs)))
    other = next((one for one in others if one.prompt_length + len(response) <= max_length), None)
    if other is not None:
        ids = other.ids[: other.prompt_length] + response
        found["swapped"] = _row(ids, other.prompt_length, other.opening)
    return {way: each for way, each in found.items() if len(each) <= max_length}


def _row(ids: list[int], prompt_length: int, opening: int) -> Encoded:
    mask = [False] * prompt_length + [True] * (len(ids) - prompt_length)
    return Encoded(ids, mask, prompt_length, opening)
