"""Records of any kind as items to annotate, with known answers for gold items."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

from plaudit.preferences.annotation import (
    HIGHEST,
    LOWEST,
    MOST_RESPONSES,
    Answer,
    Choice,
    Item,
    ItemResponse,
    Ranks,
    Scores,
    Task,
    Thumbs,
)
from plaudit.preferences.votes import judgement_votes
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
)
from plaudit.statistics.resampling import uniform


def items_of(
    records: Sequence[Record], task: Task, *, gold: bool = False, seed: int = 0
) -> tuple[list[Item], dict[str, int]]:
    """Records as items for a task, in their order.

    Prompts give items without responses; demonstrations one response; preferences and judgements two (judgements of
    the same two responses are one item); rankings and comparisons several. Ratings of one prompt are one item. For
    pairwise tasks, each pair of several responses is an item of its own.

    Args:
        records: all of one kind.
        task: what will be asked.
        gold: the verdicts in the records become the known answers; records without one are left out.
        seed: shuffles the responses of preferences and rankings.

    Returns:
        The items, and what was done or left out on the way, counted by reason.
    """
    notes: Counter[str] = Counter()
    items: list[Item] = []
    judged = [r for r in records if isinstance(r, Judgement)]
    if judged:
        items += _of_judgements(judged, notes)
    rated = [r for r in records if isinstance(r, Rating)]
    if rated:
        items += _of_ratings(rated, task, notes)
    items += [_shuffled(_item(r), r, seed) for r in records if not isinstance(r, (Judgement, Rating))]
    if task == "pairwise":
        items = [pair for item in items for pair in _pairs(item, notes)]
    if gold:
        known = [item for item in items if item.gold is not None and _fits(item.gold, task)]
        notes["rows without a known answer for this task, left out"] += len(items) - len(known)
        return known, dict(+notes)
    return [replace(item, gold=None) for item in items], dict(+notes)


def texts_of(record: Record) -> tuple[Content, ...]:
    """The prompt and the responses of a record."""
    if isinstance(record, Prompt):
        return (record.content,)
    if isinstance(record, Preference):
        return record.prompt, record.chosen, record.rejected
    if isinstance(record, Judgement):
        return record.prompt, record.response_a, record.response_b
    if isinstance(record, (Ranking, Comparison)):
        return record.prompt, *record.responses
    return record.prompt, record.response


def _item(record: Record) -> Item:
    if isinstance(record, Prompt):
        meta: dict[str, Any] = {} if record.answer is None else {"answer": record.answer}
        return Item(record.id, record.content, meta=meta)
    if isinstance(record, Demonstration):
        return Item(record.id, record.prompt, _responses((record.response,)))
    if isinstance(record, Preference):
        return Item(record.id, record.prompt, _responses((record.chosen, record.rejected)), Choice(-1))
    if isinstance(record, Ranking):
        # Records may leave ranks out (1, 3, 4); answers may not.
        places = sorted(set(record.ranks))
        dense = tuple(places.index(rank) + 1 for rank in record.ranks)
        return Item(record.id, record.prompt, _responses(record.responses), Ranks(dense))
    assert isinstance(record, Comparison), "judgements and ratings are read in groups, above"
    models = record.models or ("",) * len(record.responses)
    origins = record.provenance or ({},) * len(record.responses)
    parts = zip(record.responses, models, origins, strict=True)
    return Item(record.id, record.prompt, tuple(ItemResponse(c, m, dict(o)) for c, m, o in parts))


def _shuffled(item: Item, record: Record, seed: int) -> Item:
    """The item of a preference or a ranking with its responses in random order, and the known answer to match."""
    # Preferences have the chosen response first, and rankings often the best one. Annotators see an order of their own,
    # but reviewers see an item's responses in this one, and must not learn from it which one was preferred.
    if not isinstance(record, (Preference, Ranking)):
        return item
    order = sorted(range(len(item.responses)), key=lambda i: uniform(seed, "import", item.key, i))
    answer = item.gold
    if isinstance(answer, Ranks):
        answer = Ranks(tuple(answer.ranks[i] for i in order))
    elif isinstance(answer, Choice):
        answer = Choice(-1 if order[0] == 0 else 1)
    return Item(item.key, item.prompt, tuple(item.responses[i] for i in order), answer, meta=item.meta)


def _responses(contents: Sequence[Content]) -> tuple[ItemResponse, ...]:
    return tuple(ItemResponse(content) for content in contents)


def _of_judgements(judgements: Sequence[Judgement], notes: Counter[str]) -> list[Item]:
    """One item for each pair of responses. Its known answer is the common verdict, if all judgements agree."""
    votes, first = judgement_votes(judgements)
    sides: dict[str, set[int]] = defaultdict(set)
    strengths: dict[str, list[float]] = defaultdict(list)
    for vote in votes:
        sides[vote.item].add(vote.side)
        strengths[vote.item].append(vote.strength)
    notes["further judgements of the same two responses"] += len(judgements) - len(first)
    items = []
    for name, j in first.items():
        both = (ItemResponse(j.response_a, j.model_a), ItemResponse(j.response_b, j.model_b))
        weakest = min(strengths[name], key=abs)
        answer = Choice(int(weakest)) if len(sides[name]) == 1 else None
        key = j.id.removesuffix(f"/{j.annotator}") if j.annotator else j.id
        items.append(Item(key, j.prompt, both, answer))
    return items


def _of_ratings(ratings: Sequence[Rating], task: Task, notes: Counter[str]) -> list[Item]:
    """The rated responses of one prompt as one item, nine at most; a text without a prompt is its own item.

    A response that was rated several times is shown once; its rating is known if all its ratings are the same.
    """
    groups: dict[Content, dict[Content, list[Rating]]] = defaultdict(lambda: defaultdict(list))
    for r in ratings:
        groups[r.prompt or r.response][r.response].append(r)
    notes["further ratings of the same response"] += len(ratings) - sum(map(len, groups.values()))
    items = []
    for group in groups.values():
        rated = list(group.values())
        for start in range(0, len(rated), MOST_RESPONSES):
            part = rated[start : start + MOST_RESPONSES]
            first = [same[0] for same in part]
            agreed = all((r.reward, r.axes) == (s[0].reward, s[0].axes) for s in part for r in s)
            answer = _known_rating(first, task) if agreed else None
            items.append(Item(first[0].id, first[0].prompt, _responses([r.response for r in first]), answer))
    return items


def _known_rating(part: Sequence[Rating], task: Task) -> Answer | None:
    if task == "thumbs":
        return Thumbs(tuple(r.reward == 1 for r in part)) if {r.reward for r in part} <= {0.0, 1.0} else None
    if task == "rating":
        rows = tuple({axis: int(value) for axis, value in r.axes.items()} for r in part)
        whole = all(v == int(v) and LOWEST <= v <= HIGHEST for r in part for v in r.axes.values())
        return Scores(rows) if whole and all(rows) else None
    places = sorted({r.reward for r in part}, reverse=True)
    return Ranks(tuple(places.index(r.reward) + 1 for r in part))


def _pairs(item: Item, notes: Counter[str]) -> list[Item]:
    """Every pair of responses of an item as an item of its own."""
    ranks = item.gold.ranks if isinstance(item.gold, Ranks) else None
    if len(item.responses) == 2 and ranks is None:
        return [item]
    if len(item.responses) < 2:
        notes["rows with fewer than two responses, left out"] += 1
        return []
    pairs = []
    for i, j in combinations(range(len(item.responses)), 2):
        side = None if ranks is None else (ranks[i] > ranks[j]) - (ranks[i] < ranks[j])
        answer = None if side is None else Choice(side)
        key = item.key if len(item.responses) == 2 else f"{item.key}/{i}-{j}"
        both = (item.responses[i], item.responses[j])
        pairs.append(Item(key, item.prompt, both, answer, item.priority, item.meta))
    notes["pairs made of rows with several responses"] += len(pairs) if len(pairs) > 1 else 0
    return pairs


def _fits(answer: Answer, task: Task) -> bool:
    kind = {"pairwise": Choice, "ranking": Ranks, "rating": Scores, "thumbs": Thumbs}
    return task in kind and isinstance(answer, kind[task])
