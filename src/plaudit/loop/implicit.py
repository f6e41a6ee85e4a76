"""Implicit feedback of a served model (thumbs, ratings, clicks) as preferences, by a rule that is stated here.

A row of JSONL is one event: ``prompt``, ``response`` and ``thumb`` (1 or 0, true or false, "up" or "down"), or
``prompt``, ``response`` and ``rating`` (a number), or ``prompt``, ``responses`` as they were shown from the top, and
``clicked`` (the index of the one that was chosen). ``user`` may say who it was. Files of `plaudit serve` and
`plaudit chat` also hold ``edit`` (a better text) and ``chosen`` (of two that were read side by side), see
`plaudit.data.served`; of what a user says of one ``id`` in one form, the last counts. The rule:

1. A thumb is a score of 1 or 0. A rating is its place between the lowest and the highest rating that this user has
   given, from 0 to 1: people use scales differently. A user whose ratings are all the same says nothing by them.
2. Scores of the same response to the same prompt are averaged, thumbs and ratings together.
3. Two responses to a prompt whose averages differ by `GAP` or more are a preference. Its agreement is one half plus
   half of the gap: a gap of 1 is agreement 1.
4. A click is a preference of the response that was clicked over each one that was shown above it, and over none below
   it: nobody knows whether those were read (Joachims 2002, "click > skip above"). Its agreement is `CLICKED`.
5. An edit is a preference over what it was made of, a choice over what it was shown beside; their agreement is 1.
6. Where both orders of two responses are found, the one with more evidence stays; with as much for both, neither.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

from plaudit.data.reading.transcripts import plain_text
from plaudit.data.served import VERDICTS
from plaudit.errors import DataError
from plaudit.records import Content, Preference, content_from_json
from plaudit.runs.files import read_lines

GAP = 0.5
CLICKED = 0.75
"""A click says less than a judgement. A round number between chance and certainty, and no measurement."""
THUMBS = {"up": 1.0, "down": 0.0, "1": 1.0, "0": 0.0, "true": 1.0, "false": 0.0}
FORMS = '{"prompt", "response", "thumb"}, {"prompt", "response", "rating"} or {"prompt", "responses", "clicked"}'
Pair = tuple[Content, Content, Content]
"""Prompt, chosen, rejected."""


@dataclass
class Feedback:
    """What files of feedback hold.

    Attributes:
        scores: (prompt, response) -> the scores of its thumbs and ratings, from 0 to 1.
        clicks: (prompt, chosen, rejected) -> how many clicks say so.
        judged: (prompt, chosen, rejected) -> how many edits and choices say so.
        events: rows that were read, by form.
        unused: rows that say nothing, by reason.
    """

    scores: dict[tuple[Content, Content], list[float]] = field(default_factory=lambda: defaultdict(list))
    clicks: dict[Pair, int] = field(default_factory=lambda: defaultdict(int))
    judged: dict[Pair, int] = field(default_factory=lambda: defaultdict(int))
    events: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("thumb", "rating", "clicked"), 0))
    unused: dict[str, int] = field(default_factory=dict)


def read_feedback(files: Sequence[str]) -> Feedback:
    """The events of JSONL files.

    Raises:
        DataError: a file that is missing, or a row of no known form, with file and line.
    """
    found = Feedback()
    ratings: dict[str, list[tuple[Content, Content, float]]] = defaultdict(list)
    for name in files:
        if not Path(name).is_file():
            raise DataError("there is no such file", where=name, cure="name files of JSON lines, one event a line")
        for number, row in _last_words(list(enumerate(read_lines(Path(name)), 1))):
            try:
                _take(row, found, ratings)
            except (KeyError, TypeError, ValueError, IndexError) as error:
                raise DataError(
                    f"no event of a known form: {json.dumps(row, ensure_ascii=False)[:80]} ({error})",
                    where=f"{name}:{number}", cure=f"write {FORMS}",
                ) from error  # fmt: skip
    for given in ratings.values():
        low, high = min(value for *_, value in given), max(value for *_, value in given)
        if low == high:
            reason = "ratings of users whose ratings are all the same"
            found.unused[reason] = found.unused.get(reason, 0) + len(given)
            continue
        for prompt, response, value in given:
            found.scores[prompt, response].append((value - low) / (high - low))
    return found


def _last_words(rows: Sequence[tuple[int, dict[str, Any]]]) -> list[tuple[int, dict[str, Any]]]:
    """The rows without those that a later one of the same user, response and form replaces."""
    kept: dict[Any, tuple[int, dict[str, Any]]] = {}
    for number, row in rows:
        form = next((name for name in VERDICTS if name in row), "")
        own = (str(row["id"]), row.get("index", 0), str(row.get("user", "")), form) if "id" in row and form else number
        kept.pop(own, None)
        kept[own] = (number, row)
    return list(kept.values())


def _take(row: dict[str, Any], found: Feedback, ratings: dict[str, list[tuple[Content, Content, float]]]) -> None:
    prompt = content_from_json(row["prompt"])
    if "clicked" in row:
        shown, clicked = [content_from_json(one) for one in row["responses"]], int(row["clicked"])
        if not 0 <= clicked < len(shown):
            raise ValueError(f"clicked is {clicked} of {len(shown)} responses")
        found.events["clicked"] += 1
        for skipped in shown[:clicked]:
            if skipped != shown[clicked]:
                found.clicks[prompt, shown[clicked], skipped] += 1
        return
    if "chosen" in row or "edit" in row:
        form = "chosen" if "chosen" in row else "edit"
        both = [content_from_json(one) for one in (row["responses"] if form == "chosen" else [row["response"]])]
        better = row["edit"] if form == "edit" else None if row["chosen"] is None else both[row["chosen"]]
        found.events[form] = found.events.get(form, 0) + 1
        for other in both:
            if better is not None and other != better:
                found.judged[prompt, better, other] += 1
        return
    response = content_from_json(row["response"])
    if "finish_reason" in row and not row.keys() & {"thumb", "rating"}:
        reason = "responses that nobody has judged"
        found.unused[reason] = found.unused.get(reason, 0) + 1
        return
    if "thumb" in row:
        found.scores[prompt, response].append(THUMBS[str(row["thumb"]).lower()])
        found.events["thumb"] += 1
        return
    ratings[str(row.get("user", ""))].append((prompt, response, float(row["rating"])))
    found.events["rating"] += 1


def preferences_of(found: Feedback) -> list[Preference]:
    """The preferences by the rule above, in an order that does not depend on that of the events.

    Ids are hashes of prompt and responses, so the same pair has the same id in every round.
    """
    evidence: dict[Pair, tuple[float, float]] = {}
    by_prompt: dict[Content, dict[Content, float]] = defaultdict(dict)
    for (prompt, response), scores in found.scores.items():
        by_prompt[prompt][response] = fmean(scores)
    for prompt, means in by_prompt.items():
        for one, other in combinations(means, 2):
            chosen, rejected = (one, other) if means[one] > means[other] else (other, one)
            gap = means[chosen] - means[rejected]
            if gap >= GAP:
                both = len(found.scores[prompt, one]) + len(found.scores[prompt, other])
                evidence[prompt, chosen, rejected] = (both / 2, 0.5 + gap / 2)
    for pair, count in found.clicks.items():
        weight, agreement = evidence.get(pair, (0.0, CLICKED))
        evidence[pair] = (weight + count, max(agreement, CLICKED))
    for pair, count in found.judged.items():
        evidence[pair] = (evidence.get(pair, (0.0, 1.0))[0] + count, 1.0)
    return sorted(_settled(evidence), key=lambda one: one.id)


def _settled(evidence: dict[Pair, tuple[float, float]]) -> Iterable[Preference]:
    for (prompt, chosen, rejected), (weight, agreement) in evidence.items():
        against = evidence.get((prompt, rejected, chosen), (0.0, 0.0))[0]
        if weight > against:
            yield Preference(_id(prompt, chosen, rejected), prompt, chosen, rejected, agreement=agreement)


def _id(*parts: Content) -> str:
    text = "\0".join(map(plain_text, parts)).encode("utf-8", "surrogatepass")
    return f"implicit-{blake2b(text, digest_size=8).hexdigest()}"
