"""Items and their responses, in and out of the database."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import Any, NamedTuple

from sqlalchemy import Connection, bindparam, func, insert, select, update

from plaudit.errors import DataError
from plaudit.preferences.annotation import (
    RESPONSES,
    Answer,
    Brief,
    Item,
    ItemResponse,
    answer_from_json,
    answer_to_json,
    check_answer,
)
from plaudit.preferences.store.projects import Project
from plaudit.preferences.store.schema import assignments, items, responses
from plaudit.preferences.store.transaction import NotFound
from plaudit.records import content_from_json, to_json

ROWS_AT_ONCE = 500
"""Items of one INSERT: SQLite limits the number of parameters of a statement."""
Loaded = tuple[int, Item]
"""An item with its row number."""
Fingerprint = tuple[bool, str]
"""Whether an item is gold, and the digest of its texts."""


def uniform(*parts: object) -> float:
    """A number from 0 to 1 that is a function of the parts alone."""
    # A hash and not a random generator: the orders that depend on it must come out the same in every process and every
    # version of Python, as long as the database exists.
    digest = blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


class Added(NamedTuple):
    """What became of items that were to be added."""

    new: int
    same: int
    """Items that the project has under their key with the same texts."""
    changed: tuple[str, ...]
    """Keys that the project has with other texts; they are left as they are, for answers belong to the texts seen."""


def add_items(conn: Connection, project: Project, new: Iterable[Item]) -> Added:
    """Add items; those whose key is there already are left as they are.

    Raises:
        DataError: an item that does not fit the task: nothing of the call is stored.
    """
    checked = [check_item(item, project) for item in new]
    known: dict[str, int] = {}
    for start in range(0, len(checked), ROWS_AT_ONCE):
        known |= numbers_of(conn, project, [item.key for item in checked[start : start + ROWS_AT_ONCE]])
    # Of several new items with one key the first counts.
    fresh: dict[str, Item] = {}
    repeated: list[Item] = []
    for item in checked:
        if item.key in known or item.key in fresh:
            repeated.append(item)
        else:
            fresh[item.key] = item
    rows, now = list(fresh.values()), time.time()
    changed: dict[str, None] = {}
    for start in range(0, len(repeated), ROWS_AT_ONCE):
        part = repeated[start : start + ROWS_AT_ONCE]
        stored = read_items(conn, project, [known[item.key] for item in part if item.key in known])
        for item in part:
            there = stored[known[item.key]] if item.key in known else fresh[item.key]
            if digest_of(there) != digest_of(item):
                changed[item.key] = None
    for start in range(0, len(rows), ROWS_AT_ONCE):
        _insert(conn, project, rows[start : start + ROWS_AT_ONCE], now)
    other = sum(item.key in changed for item in repeated)
    return Added(len(rows), len(repeated) - other, tuple(changed))


def digest_of(item: Item) -> str:
    """A fingerprint of what annotators see of an item: its prompt and its responses, in whatever order.

    Imports shuffle responses, hence no order; who wrote them and the known answer do not count.
    """
    texts = sorted(json.dumps(to_json(response.content), sort_keys=True) for response in item.responses)
    whole = json.dumps([to_json(item.prompt), texts], sort_keys=True)
    return blake2b(whole.encode(), digest_size=8).hexdigest()


def _insert(conn: Connection, project: Project, new: Sequence[Item], now: float) -> None:
    rows = [
        {
            "project_id": project.id,
            "key": item.key,
            "prompt": to_json(item.prompt),
            "gold": answer_to_json(item.gold) if item.gold else None,
            "is_gold": int(item.gold is not None),
            "priority": item.priority,
            "shuffle": uniform("item", project.settings.seed, item.key),
            "taken": 0,
            "meta": item.meta,
            "created_at": now,
        }
        for item in new
    ]
    # sort_by_parameter_order: RETURNING alone promises no order, and the responses must find their items.
    made = conn.execute(insert(items).returning(items.c.id, sort_by_parameter_order=True), rows)
    ids = [row.id for row in made]
    response_rows = [
        {
            "item_id": item_id,
            "number": number,
            "content": to_json(response.content),
            "model": response.model,
            "provenance": response.provenance,
        }
        for item_id, item in zip(ids, new, strict=True)
        for number, response in enumerate(item.responses)
    ]
    if response_rows:
        conn.execute(insert(responses), response_rows)


def check_item(item: Item, project: Project) -> Item:
    """The item, if it fits the task of the project; a DataError says what does not fit."""
    low, high = RESPONSES[project.task]
    where = f"item {item.key[:80]!r}"
    if not item.key or len(item.key) > 400:
        raise DataError(
            "an item needs a key of 1 to 400 characters", where=where, cure="give every row an id"
        )
    if not low <= len(item.responses) <= high:
        wanted = f"{low} to {high}" if low < high else str(low)
        cure = f"a {project.task} item has {wanted} responses; see --task for other kinds"
        raise DataError(f"the item has {len(item.responses)} responses", where=where, cure=cure)
    if item.gold is not None:
        check_answer(item.gold, project.task, len(item.responses), project.settings.axes)
    return item


def read_items(conn: Connection, project: Project, ids: Sequence[int] | None = None) -> dict[int, Item]:
    """Items by row number: all of the project, or the ones named."""
    query = select(items).where(items.c.project_id == project.id).order_by(items.c.id)
    # Two queries for all items, instead of one more for each item.
    of_responses = select(responses).join(items).where(items.c.project_id == project.id)
    if ids is not None:
        query = query.where(items.c.id.in_(ids))
        of_responses = select(responses).where(responses.c.item_id.in_(ids))
    by_item: dict[int, list[ItemResponse]] = defaultdict(list)
    for row in conn.execute(of_responses.order_by(responses.c.item_id, responses.c.number)):
        by_item[row.item_id].append(ItemResponse(content_from_json(row.content), row.model, row.provenance))
    return {row.id: _item(row, tuple(by_item[row.id])) for row in conn.execute(query)}


def numbers_of(conn: Connection, project: Project, keys: Sequence[str]) -> dict[str, int]:
    """The row numbers of items by their keys."""
    query = select(items.c.key, items.c.id).where(items.c.project_id == project.id, items.c.key.in_(keys))
    return {key: int(number) for key, number in conn.execute(query)}


def gold_keys(conn: Connection, project: Project) -> frozenset[str]:
    """The keys of the gold items."""
    query = select(items.c.key).where(items.c.project_id == project.id, items.c.is_gold == 1)
    return frozenset(conn.scalars(query))


def read_briefs(conn: Connection, project: Project) -> dict[str, Brief]:
    """What statistics need to know of all items, by key, without keeping their texts."""
    return {item.key: Brief(item.gold, item.characters) for item in _each_item(conn, project)}


def fingerprints(conn: Connection, project: Project) -> dict[Fingerprint, str]:
    """The keys of all items of a project by their fingerprints."""
    return {fingerprint(item): item.key for item in _each_item(conn, project)}


def fingerprint(item: Item) -> Fingerprint:
    """What two items share that ask the same: whether they are gold, and their texts."""
    return item.gold is not None, digest_of(item)


def _each_item(conn: Connection, project: Project) -> Iterator[Item]:
    """All items; only a part of them is in memory at a time."""
    last = 0
    query = select(items.c.id).where(items.c.project_id == project.id).order_by(items.c.id).limit(ROWS_AT_ONCE)
    while ids := list(conn.scalars(query.where(items.c.id > last))):
        yield from read_items(conn, project, ids).values()
        last = ids[-1]


def page_of_items(conn: Connection, project: Project, page: int, size: int = 50) -> list[Loaded]:
    """One page of items in the order of import, with their row numbers."""
    query = select(items.c.id).where(items.c.project_id == project.id).order_by(items.c.id)
    ids = list(conn.scalars(query.offset(page * size).limit(size)))
    return list(read_items(conn, project, ids).items())


def set_priorities(conn: Connection, project: Project, priorities: Mapping[str, float]) -> int:
    """Write the priorities that active selection computed; returns how many items of the project they named."""
    statement = update(items).where(items.c.project_id == project.id, items.c.key == bindparam("of"))
    known = set(conn.scalars(select(items.c.key).where(items.c.project_id == project.id)))
    rows = [{"of": key, "to": float(value)} for key, value in priorities.items() if key in known]
    if rows:
        conn.execute(statement.values(priority=bindparam("to")), rows)
    return len(rows)


def set_gold(conn: Connection, project: Project, item_id: int, item: Item, gold: Answer | None) -> Item:
    """Make an item gold, with its known answer, or ordinary again (None)."""
    changed = check_item(replace(item, gold=gold), project)
    value = answer_to_json(gold) if gold is not None else None
    query = update(items).where(items.c.id == item_id, items.c.project_id == project.id)
    # Gold items take no places, so ``taken`` of a gold item is 0. When it becomes ordinary again the count must be that
    # of the answers it has, or it would be asked too often.
    held = select(func.count()).where(
        assignments.c.item_id == item_id,
        assignments.c.round == 0,
        assignments.c.state.in_(("leased", "done")),
    )
    taken = int(conn.scalar(held) or 0)
    conn.execute(
        query.values(gold=value, is_gold=int(gold is not None), taken=0 if gold is not None else taken)
    )
    return changed


def count_items(conn: Connection, project: Project) -> int:
    """How many items there are, gold ones included."""
    return int(conn.scalar(select(func.count()).where(items.c.project_id == project.id)) or 0)


def _item(row: Any, item_responses: tuple[ItemResponse, ...]) -> Item:
    gold = answer_from_json(row.gold) if row.gold else None
    return Item(row.key, content_from_json(row.prompt), item_responses, gold, row.priority, row.meta)


_ITEM = select(items).where(items.c.id == bindparam("b_item"), items.c.project_id == bindparam("b_project"))
_RESPONSES = select(responses).where(responses.c.item_id == bindparam("b_item")).order_by(responses.c.number)


def get_item(conn: Connection, project: Project, number: int) -> Item:
    """The item of this row number, or NotFound."""
    row = conn.execute(_ITEM, {"b_item": number, "b_project": project.id}).one_or_none()
    if row is None:
        raise NotFound(f"there is no item {number} in {project.slug}", cure="see the list of items")
    return item_of(conn, row)


def item_of(conn: Connection, row: Any) -> Item:
    """The item of a row of its table."""
    rows = conn.execute(_RESPONSES, {"b_item": row.id})
    return _item(row, tuple(ItemResponse(content_from_json(r.content), r.model, r.provenance) for r in rows))
