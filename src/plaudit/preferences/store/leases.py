"""What to ask next, and of whom: leases keep two people from doing the same work.

``items.taken`` counts the assignments of round 0 that are leased or done. It never exceeds ``annotators_per_item``:
it is raised by an UPDATE that says so in its WHERE, in the same transaction as the assignment. Gold items and repeats
take no place. Choices are functions of (seed, person, number of answers), so they can be told again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Select, and_, exists, func, insert, select, update

from plaudit.preferences.annotation import Item
from plaudit.preferences.store.content import read_items, uniform
from plaudit.preferences.store.faults import NotFound
from plaudit.preferences.store.projects import Project
from plaudit.preferences.store.schema import assignments, items, users

REPEAT_AFTER = 10
"""So many other answers lie between an item and its repetition."""
ADJUDICATION = -1
HELD = ("leased", "done", "skipped")


@dataclass(frozen=True, slots=True)
class Work:
    """One item in front of one person."""

    id: int
    """Of the assignment."""
    item_id: int
    item: Item
    order: tuple[int, ...]
    round: int
    state: str
    shown_at: float


def lease(conn: Connection, project: Project, user_id: int, now: float) -> Work | None:
    """The item a person is working on, or else a new one for them; None when there is nothing left to ask."""
    release_expired(conn, now)
    lock_user(conn, user_id)
    mine = and_(assignments.c.project_id == project.id, assignments.c.user_id == user_id)
    current = select(assignments.c.id).where(mine, assignments.c.state == "leased", assignments.c.round >= 0)
    found = conn.scalar(current.order_by(assignments.c.shown_at.desc()).limit(1))
    if found is not None:
        until = {"expires_at": now + project.settings.lease_seconds}
        conn.execute(update(assignments).where(assignments.c.id == found).values(until))
        return get_work(conn, project, found, user_id)
    if project.closed:
        return None
    answered = select(func.count()).where(mine, assignments.c.state.in_(("done", "skipped")))
    picked = _pick(conn, project, user_id, int(conn.scalar(answered) or 0))
    if picked is None:
        return None
    item_id, turn = picked
    return get_work(conn, project, assign(conn, project, user_id, item_id, turn, now), user_id)


def _pick(conn: Connection, project: Project, user_id: int, n: int) -> tuple[int, int] | None:
    """Row number of the next item, and the round it is asked in."""
    settings, seed = project.settings, project.settings.seed
    draw = uniform("next", seed, user_id, n)
    if draw < settings.gold_share and (gold := _gold(conn, project, user_id, n)) is not None:
        return gold, 0
    if settings.gold_share <= draw < settings.gold_share + settings.repeat_share:
        repeat = _repeat(conn, project, user_id, n)
        if repeat is not None:
            return repeat, 1
    return _ordinary(conn, project, user_id, n)


def _ordinary(conn: Connection, project: Project, user_id: int, n: int) -> tuple[int, int] | None:
    while True:
        found = _candidate(conn, project, user_id, n)
        if found is None:
            return None
        if take_place(conn, project, found):
            return found, 0


def _candidate(conn: Connection, project: Project, user_id: int, n: int) -> int | None:
    settings = project.settings
    free = _fresh(project, user_id, is_gold=0).where(items.c.taken < settings.annotators_per_item)
    if settings.strategy == "least-annotated":
        free = free.order_by(items.c.taken, items.c.shuffle)
    elif settings.strategy == "priority":
        free = free.order_by(items.c.priority.desc(), items.c.shuffle)
    else:
        return _at_random(conn, free, uniform("item", settings.seed, user_id, n))
    return conn.scalar(free.limit(1).with_for_update(of=items, skip_locked=True))


def _at_random(conn: Connection, free: Select[Any], start: float) -> int | None:
    """The first free item from ``start`` on, going round."""
    for half in (items.c.shuffle >= start, items.c.shuffle < start):
        query = free.where(half).order_by(items.c.shuffle).limit(1)
        found: int | None = conn.scalar(query.with_for_update(of=items, skip_locked=True))
        if found is not None:
            return found
    return None


def _gold(conn: Connection, project: Project, user_id: int, n: int) -> int | None:
    return _at_random(
        conn, _fresh(project, user_id, is_gold=1), uniform("gold", project.settings.seed, user_id, n)
    )


def _repeat(conn: Connection, project: Project, user_id: int, n: int) -> int | None:
    """The item answered longest ago that was asked once only, if enough lies between."""
    if n <= REPEAT_AFTER:
        return None
    again = assignments.alias("again")
    twice = exists().where(
        again.c.item_id == assignments.c.item_id, again.c.user_id == user_id, again.c.round == 1
    )
    query = select(assignments.c.item_id).where(
        assignments.c.project_id == project.id,
        assignments.c.user_id == user_id,
        assignments.c.state == "done",
        assignments.c.round == 0,
        ~twice,
    )
    found: int | None = conn.scalar(query.order_by(assignments.c.shown_at).limit(1))
    return found


def _fresh(project: Project, user_id: int, *, is_gold: int) -> Select[Any]:
    """Items that this person has not had."""
    had = exists().where(
        assignments.c.item_id == items.c.id,
        assignments.c.user_id == user_id,
        assignments.c.round == 0,
        assignments.c.state.in_(HELD),
    )
    return select(items.c.id).where(items.c.project_id == project.id, items.c.is_gold == is_gold, ~had)


def take_place(conn: Connection, project: Project, item_id: int) -> bool:
    """One of the item's places, if one is left."""
    n = project.settings.annotators_per_item
    query = update(items).where(items.c.id == item_id, items.c.is_gold == 0, items.c.taken < n)
    return conn.execute(query.values(taken=items.c.taken + 1)).rowcount == 1


def give_place_back(conn: Connection, item_id: int) -> None:
    """Free one of the item's places."""
    query = update(items).where(items.c.id == item_id, items.c.is_gold == 0, items.c.taken > 0)
    conn.execute(query.values(taken=items.c.taken - 1))


def assign(conn: Connection, project: Project, user_id: int, item_id: int, turn: int, now: float) -> int:
    """Put an item before a person, its responses in an order drawn for them; returns the assignment's id."""
    count = len(read_items(conn, project, [item_id])[item_id].responses)
    draws = {k: uniform("order", project.settings.seed, user_id, item_id, turn, k) for k in range(count)}
    row = {
        "state": "leased",
        "shown_at": now,
        "expires_at": now + project.settings.lease_seconds,
        "order": sorted(draws, key=lambda k: draws[k]),
    }
    here = and_(
        assignments.c.item_id == item_id, assignments.c.user_id == user_id, assignments.c.round == turn
    )
    before: int | None = conn.scalar(select(assignments.c.id).where(here))
    if before is not None:
        conn.execute(update(assignments).where(here).values(row))
        return before
    keys = {"project_id": project.id, "item_id": item_id, "user_id": user_id, "round": turn}
    return int(conn.execute(insert(assignments).values(keys | row).returning(assignments.c.id)).scalar_one())


def get_work(conn: Connection, project: Project, assignment_id: int, user_id: int) -> Work:
    """An assignment of this person in this project, or NotFound."""
    query = select(assignments).where(
        assignments.c.id == assignment_id,
        assignments.c.project_id == project.id,
        assignments.c.user_id == user_id,
    )
    row = conn.execute(query).one_or_none()
    if row is None:
        raise NotFound("there is no such assignment of yours", cure="go to the project's next item")
    item = read_items(conn, project, [row.item_id])[row.item_id]
    return Work(row.id, row.item_id, item, tuple(row.order), row.round, row.state, row.shown_at)


def release_expired(conn: Connection, now: float) -> int:
    """Give the places of leases that ran out back; returns how many ran out."""
    late = assignments.c.state == "leased", assignments.c.expires_at < now
    query = update(assignments).where(*late).values(state="expired")
    gone = conn.execute(query.returning(assignments.c.item_id, assignments.c.round)).all()
    for row in gone:
        if row.round == 0:
            give_place_back(conn, row.item_id)
    return len(gone)


def lock_user(conn: Connection, user_id: int) -> None:
    """One request of a person at a time: a double click must not lease two items."""
    conn.execute(select(users.c.id).where(users.c.id == user_id).with_for_update())
