"""From one kind of record to another: prompts, demonstrations, preferences or ratings made of other records."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from itertools import combinations

from plaudit.data.judgements import JudgedPair, judged_pairs
from plaudit.data.reading.rows import ReadLog
from plaudit.data.reading.transcripts import prompt_key
from plaudit.errors import DataError
from plaudit.records import (
    Comparison,
    Content,
    Demonstration,
    Judgement,
    Kind,
    Preference,
    Prompt,
    Ranking,
    Rating,
    Record,
)

KIND_OF: dict[type, Kind] = {
    Prompt: "prompt",
    Demonstration: "demonstration",
    Preference: "preference",
    Ranking: "ranking",
    Rating: "rating",
    Judgement: "judgement",
    Comparison: "comparison",
}


def convert(records: Sequence[Record], kind: Kind, log: ReadLog) -> list[Record]:
    """The records as records of another kind; what is left out is counted in ``log``.

    Args:
        records: all of one kind.
        kind: "prompt" is made of every kind that has prompts; "preference" of rankings (all pairs), ratings
            (same prompt, different reward) and judgements (majority); "demonstration" of what was chosen;
            "rating" of preferences (chosen 1, rejected 0).
        log: receives the counts.

    Raises:
        DataError: there is no such conversion, or nothing is left after it.
    """
    if not records or KIND_OF[type(records[0])] == kind:
        return list(records)
    have = KIND_OF[type(records[0])]
    path = _PATHS.get((have, kind))
    if path is None:
        ways = sorted(to for origin, to in _PATHS if origin == have)
        cure = f"use other data, or ask for {' or '.join([have, *ways])}"
        raise DataError(f"the data are of kind {have}, and {kind} is needed", where=log.source, cure=cure)
    if kind == "prompt":
        log.note(f"only the prompts of these {have}s are used, and nothing else of them")
    elif (have, kind) in _SAYS:
        log.note(_SAYS[have, kind])
    converted: list[Record] = list(records)
    for step in path:
        converted = step(converted, log)
    if not converted:
        why = f": {'; '.join(log.notes)}" if log.notes else ""
        cure = f"use other data: each {kind} needs rows that differ in their verdict"
        raise DataError(f"no {kind} can be made of these data{why}", where=log.source, cure=cure)
    return converted


# Each step takes records of one kind. ``Record`` is a union, so a step picks its own kind with ``isinstance``, which is
# what the type checker needs; at run time all records have the kind for which the step is registered in ``_PATHS``.


def _to_prompts(records: Sequence[Record], log: ReadLog) -> list[Record]:
    kept: dict[str, Record] = {}
    empty = 0
    for record in records:
        prompt = record.content if isinstance(record, Prompt) else record.prompt
        empty += not prompt
        if prompt:
            kept.setdefault(prompt_key(prompt), Prompt(record.id, prompt))
    log.leave_out("rows without a prompt, left out", empty)
    log.leave_out("further rows with a prompt that was there already", len(records) - empty - len(kept))
    return list(kept.values())


def _chosen(records: Sequence[Record], log: ReadLog) -> list[Record]:
    kept: dict[tuple[str, Content], Record] = {}
    for r in records:
        if isinstance(r, Preference):
            kept.setdefault((prompt_key(r.prompt), r.chosen), Demonstration(r.id, r.prompt, r.chosen))
    log.leave_out("chosen responses that were there already, left out", len(records) - len(kept))
    return list(kept.values())


def _best(records: Sequence[Record], log: ReadLog) -> list[Record]:
    rankings = [r for r in records if isinstance(r, Ranking)]
    return [Demonstration(r.id, r.prompt, r.responses[r.ranks.index(min(r.ranks))]) for r in rankings]


def _texts(records: Sequence[Record], log: ReadLog) -> list[Record]:
    """Demonstrations: the responses rated 1, where ratings are 0 or 1; or all texts of a corpus without prompts."""
    # With other ratings nobody can say from which number on a response is worth imitating, so that is an error.
    ratings = [r for r in records if isinstance(r, Rating)]
    if all(not r.prompt for r in ratings):
        log.note("labels are not used: all texts are demonstrations")
        return [Demonstration(r.id, r.prompt, r.response) for r in ratings]
    if not {r.reward for r in ratings} <= {0.0, 1.0}:
        cure = "keep the rows worth imitating and remove their reward, or ask for preferences"
        raise DataError("ratings do not say which responses to imitate", where=log.source, cure=cure)
    good = [Demonstration(r.id, r.prompt, r.response) for r in ratings if r.reward == 1.0]
    log.leave_out("responses rated 0, left out", len(ratings) - len(good))
    return list(good)


def _all_pairs(records: Sequence[Record], log: ReadLog) -> list[Record]:
    pairs: list[Record] = []
    ties = 0
    for r in records:
        if not isinstance(r, Ranking):
            continue
        for i, j in combinations(range(len(r.ranks)), 2):
            if r.ranks[i] == r.ranks[j]:
                ties += 1
                continue
            good, bad = (i, j) if r.ranks[i] < r.ranks[j] else (j, i)
            two = r.responses[good], r.responses[bad]
            pairs.append(Preference(f"{r.id}/{good}>{bad}", r.prompt, *two, category=r.category))
    log.leave_out("tied pairs of rankings, left out", ties)
    return pairs


def _rated_pairs(records: Sequence[Record], log: ReadLog) -> list[Record]:
    groups: dict[str, list[Rating]] = {}
    for r in records:
        if isinstance(r, Rating) and r.prompt:
            groups.setdefault(prompt_key(r.prompt), []).append(r)
    pairs: list[Record] = []
    equal = 0
    for group in groups.values():
        for one, other in combinations(group, 2):
            if one.reward == other.reward:
                equal += 1
                continue
            good, bad = (one, other) if one.reward > other.reward else (other, one)
            margin = good.reward - bad.reward
            two = good.response, bad.response
            pairs.append(Preference(f"{good.id}>{bad.id}", good.prompt, *two, margin, category=good.category))
    log.leave_out("pairs of equal rating, left out", equal)
    log.leave_out(
        "ratings whose prompt has no second response", sum(len(group) == 1 for group in groups.values())
    )
    return pairs


def _majorities(records: Sequence[Record], log: ReadLog) -> list[Record]:
    """Judgements of the same two responses as one preference, where one of the two has a majority.

    A tie counts half for each in the agreement.
    """
    # Margins only if somebody said "much better" at least once; else all strengths are 1 and a margin says nothing.
    judgements = [r for r in records if isinstance(r, Judgement)]
    pairs = judged_pairs(judgements)
    graded = any(abs(r.strength) == 2 or r.margin is not None for r in judgements)
    decided = [_decided(pair, graded) for pair in pairs if pair.winner and not pair.is_one_text]
    log.leave_out("pairs without a majority, left out", len(pairs) - len(decided))
    return list(decided)


def _decided(pair: JudgedPair, graded: bool) -> Preference:
    first = pair.first
    annotator = first.annotator if pair.votes == 1 and first.annotator else None
    identity = first.id.removesuffix(f"/{first.annotator}")
    margin = pair.margin if graded else None
    return Preference(identity, first.prompt, *pair.ordered, margin, pair.agreement, annotator, first.category)


def _unpaired(records: Sequence[Record], log: ReadLog) -> list[Record]:
    pairs = [r for r in records if isinstance(r, Preference)]
    both = (
        (
            Rating(f"{r.id}/chosen", r.prompt, r.chosen, 1.0, category=r.category),
            Rating(f"{r.id}/rejected", r.prompt, r.rejected, 0.0, category=r.category),
        )
        for r in pairs
    )
    return [rating for two in both for rating in two]


def _extremes(records: Sequence[Record], log: ReadLog) -> list[Record]:
    """The best responses of a ranking as rated 1, the worst as rated 0; those between are left out."""
    ratings: list[Record] = []
    between = 0
    for r in records:
        if not isinstance(r, Ranking) or min(r.ranks) == max(r.ranks):
            continue
        for i, (response, rank) in enumerate(zip(r.responses, r.ranks, strict=True)):
            if rank in (min(r.ranks), max(r.ranks)):
                best = float(rank == min(r.ranks))
                ratings.append(Rating(f"{r.id}/{i}", r.prompt, response, best, category=r.category))
            else:
                between += 1
    log.leave_out("responses ranked neither best nor worst, left out", between)
    return ratings


_Step = Callable[[Sequence[Record], ReadLog], list[Record]]
_PATHS: dict[tuple[Kind, Kind], tuple[_Step, ...]] = {
    ("demonstration", "prompt"): (_to_prompts,),
    ("preference", "prompt"): (_to_prompts,),
    ("ranking", "prompt"): (_to_prompts,),
    ("rating", "prompt"): (_to_prompts,),
    ("judgement", "prompt"): (_to_prompts,),
    ("comparison", "prompt"): (_to_prompts,),
    ("preference", "demonstration"): (_chosen,),
    ("ranking", "demonstration"): (_best,),
    ("rating", "demonstration"): (_texts,),
    ("judgement", "demonstration"): (_majorities, _chosen),
    ("ranking", "preference"): (_all_pairs,),
    ("rating", "preference"): (_rated_pairs,),
    ("judgement", "preference"): (_majorities,),
    ("preference", "rating"): (_unpaired,),
    ("judgement", "rating"): (_majorities, _unpaired),
    ("ranking", "rating"): (_extremes,),
}
_SAYS: dict[tuple[Kind, Kind], str] = {
    ("preference", "demonstration"): "the chosen response of each pair is the demonstration; nothing else is used",
    ("ranking", "demonstration"): "the best response of each ranking is the demonstration, the others are not used",
    ("judgement", "demonstration"): "the response that most prefer is the demonstration, the other is not used",
}
"""What a conversion says of what is left out."""


def number_repeated_ids(records: Sequence[Record], log: ReadLog) -> list[Record]:
    """The records with every id used once: a second "x" becomes "x#2"."""
    seen: dict[str, int] = {}
    numbered: list[Record] = []
    for record in records:
        times = seen[record.id] = seen.get(record.id, 0) + 1
        numbered.append(record if times == 1 else dataclasses.replace(record, id=f"{record.id}#{times}"))
    log.count("repeated ids, numbered (a second x is x#2)", len(records) - len(seen))
    return numbered
