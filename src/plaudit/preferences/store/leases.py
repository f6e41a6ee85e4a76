"""Which item to show a person next. A lease reserves it for them, so that nobody else spends time on the same answer.

An item has ``annotators_per_item`` *places*; ``items.taken`` counts those that are leased or done in round 0. Gold
items and repeats need no place. The choice of an item is a function of (seed, person, number of answers), so that it
can be reproduced.
"""

# The life of a lease. Showing an item writes an assignment in the state "leased" with a time at which it expires, and
# takes one of the item's places. An answer makes it "done", a skip "skipped" (and frees the place).
#
# Why it expires: people close the browser and do not come back. Without an end their places would stay taken and the
# item would never get all its answers. There is no timer: expired leases are freed by the next person who asks for an
# item, which is the first moment at which it makes a difference.
#
# Why showing the item again renews it: somebody who reads a long text for an hour, and reloads the page, is still at
# work. And an answer that comes after the lease expired is accepted as long as the item has a place left.
#
# Why ``taken`` is a column and not counted each time: it can be raised by an UPDATE with the limit in its WHERE, which
# the database runs as one step. Counting first and inserting afterwards would let two people take the last place.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import Connection, Select, Update, and_, bindparam, exists, func, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from plaudit.preferences.annotation import Item
from plaudit.preferences.store.content import get_item, item_of, uniform
from plaudit.preferences.store.projects import Project
from plaudit.preferences.store.schema import assignments, items
from plaudit.preferences.store.transaction import NotFound, lock_history

REPEAT_AFTER = 10
"""Answers of a person between an item and its repetition, at least."""
ADJUDICATION = -1
"""The round of a reviewer's verdict."""
HELD = ("leased", "done", "skipped")
"""States of an assignment whose item is not shown to the same person again; an expired one is."""


@dataclass(frozen=True, slots=True)
class Work:
    """An assignment: one item shown to one person."""

    id: int
    """Number of the assignment."""
    item_id: int
    item: Item
    order: tuple[int, ...]
    round: int
    state: str
    shown_at: float


# Statements are built once, because SQLAlchemy needs longer to build one than SQLite to run it. ``b_...`` are their
# parameters. Several questions are put into one statement where that is possible: the cost is mostly for each
# statement, and while one person's job runs all others wait.
_MINE = and_(assignments.c.project_id == bindparam("b_project"), assignments.c.user_id == bindparam("b_user"))
_CURRENT = (
    select(assignments.c.id)
    .where(_MINE, assignments.c.state == "leased", assignments.c.round >= 0)
    .order_by(assignments.c.shown_at.desc())
    .limit(1)
)
_ANSWERED = select(func.count()).where(
    _MINE, or_(assignments.c.state == "done", assignments.c.state == "skipped")
)
_OVERDUE = (assignments.c.state == "leased") & (assignments.c.expires_at < bindparam("b_now"))
_STATE = select(
    _CURRENT.scalar_subquery().label("current"),
    _ANSWERED.scalar_subquery().label("answered"),
    exists().where(_OVERDUE).label("overdue"),
)
_EXTEND = (
    update(assignments).where(assignments.c.id == bindparam("b_id")).values(expires_at=bindparam("b_until"))
)
_EXPIRE = (
    update(assignments)
    .where(_OVERDUE)
    .values(state="expired")
    .returning(assignments.c.item_id, assignments.c.round)
)
_RELEASE = (
    update(assignments)
    .where(_MINE, assignments.c.state == "leased", assignments.c.round >= 0)
    .values(state="expired")
    .returning(assignments.c.item_id, assignments.c.round)
)
_TAKE = (
    update(items)
    .where(items.c.id == bindparam("b_item"), items.c.is_gold == 0, items.c.taken < bindparam("b_places"))
    .values(taken=items.c.taken + 1)
)
# ``taken > 0``: a place that was freed twice by a fault must not make the count negative, which would let more people
# answer the item than the project asked for.
_FREE = (
    update(items)
    .where(items.c.id == bindparam("b_item"), items.c.is_gold == 0, items.c.taken > 0)
    .values(taken=items.c.taken - 1)
)
_BY: dict[str, tuple[Any, ...]] = {
    "least-annotated": (items.c.taken,),
    "priority": (items.c.priority.desc(),),
}
_WORK = select(assignments).where(assignments.c.id == bindparam("b_id"), _MINE)


@cache
def _assigning(dialect: str) -> Any:
    """The statement that writes a new assignment, or leases again one that expired or was skipped before."""
    # One assignment for each (item, person, round), so that all answers of a person to an item form one chain of
    # corrections. ON CONFLICT is spelt by each dialect's own ``insert``.
    new = (postgresql if dialect == "postgresql" else sqlite).insert(assignments)
    again = {name: new.excluded[name] for name in ("state", "shown_at", "expires_at", "order")}
    return new.on_conflict_do_update(index_elements=["item_id", "user_id", "round"], set_=again).returning(
        assignments.c.id
    )


def lease(conn: Connection, project: Project, user_id: int, now: float) -> Work | None:
    """The item that a person has leased, with its lease renewed, or else a new one; None when nothing is left to ask.

    Args:
        conn: a writing transaction.
        project: which project.
        user_id: the person.
        now: Unix time in seconds.
    """
    # The lock comes before the first statement: on PostgreSQL two requests of the same person would otherwise both see
    # "no current lease" and lease two items.
    lock_history(conn)
    parameters = {"b_project": project.id, "b_user": user_id, "b_now": now}
    state = conn.execute(_STATE, parameters).one()
    if state.overdue:
        release_expired(conn, now)
        state = conn.execute(_STATE, parameters).one()  # the person's own lease may be among the expired
    if state.current is not None:
        conn.execute(_EXTEND, {"b_id": state.current, "b_until": now + project.settings.lease_seconds})
        return get_work(conn, project, state.current, user_id)
    if project.closed:
        return None
    picked = _pick(conn, project, user_id, int(state.answered))
    if picked is None:
        return None
    item_id, item, round_number = picked
    return _assign(conn, project, user_id, (item_id, item), round_number, now)


def _pick(conn: Connection, project: Project, user_id: int, n: int) -> tuple[int, Item, int] | None:
    """Row number of the next item, the item, and the round it is asked in. The place of an ordinary item is taken."""
    # One draw decides between gold, repeated and ordinary items. It depends on the number of the person's answers, so
    # that loading the page again cannot change the kind, and a person cannot refuse gold items by reloading.
    settings, seed = project.settings, project.settings.seed
    draw = uniform("next", seed, user_id, n)
    if draw < settings.gold_share and (gold := _gold(conn, project, user_id, n)) is not None:
        return gold, get_item(conn, project, gold), 0
    if settings.gold_share <= draw < settings.gold_share + settings.repeat_share:
        repeat = _repeat(conn, project, user_id, n)
        if repeat is not None:
            return repeat, get_item(conn, project, repeat), 1
    row = _ordinary(conn, project, user_id, n)
    return None if row is None else (row.id, item_of(conn, row), 0)


def _ordinary(conn: Connection, project: Project, user_id: int, n: int) -> Any | None:
    """The row of an item that had a place left, which is now taken for this person."""
    settings = project.settings
    parameters: dict[str, Any] = {"b_project": project.id, "b_user": user_id}
    parameters["b_places"] = settings.annotators_per_item
    if settings.strategy != "random":
        return conn.execute(_taking(settings.strategy), parameters).one_or_none()
    # Random without sorting all items: every item has a fixed random number (``shuffle``), indexed. Take the first free
    # one from a random point on, or from the start if there is none behind that point.
    parameters["b_start"] = uniform("item", settings.seed, user_id, n)
    row = conn.execute(_taking("from"), parameters).one_or_none()
    return row if row is not None else conn.execute(_taking("before"), parameters).one_or_none()


def _gold(conn: Connection, project: Project, user_id: int, n: int) -> int | None:
    """The first gold item from a random point of the shuffled order on, or from its start."""
    start = uniform("gold", project.settings.seed, user_id, n)
    parameters = {"b_project": project.id, "b_user": user_id, "b_start": start}
    item_id: int | None = conn.scalar(_free("gold from"), parameters)
    return item_id if item_id is not None else conn.scalar(_free("gold before"), parameters)


@cache
def _taking(how: str) -> Update:
    """The statement that finds an item and takes one of its places."""
    # One statement, so that nobody can take the place between the search and the update. The limit stands in the outer
    # WHERE too: on PostgreSQL the subquery may have read the row before another transaction raised ``taken``.
    has_place = (items.c.id == _free(how).scalar_subquery()) & (items.c.taken < bindparam("b_places"))
    return update(items).where(has_place).values(taken=items.c.taken + 1).returning(items)


@cache
def _free(how: str) -> Select[Any]:
    """The query for one item that the person has not had and that has a place left (gold items need none).

    Args:
        how: the project's strategy, or "from" and "before" a random point; with "gold " in front for gold items.
    """
    had = exists().where(
        assignments.c.item_id == items.c.id,
        assignments.c.user_id == bindparam("b_user"),
        assignments.c.round == 0,
        or_(*(assignments.c.state == state for state in HELD)),
    )
    gold = how.startswith("gold")
    query = select(items.c.id).where(
        items.c.project_id == bindparam("b_project"), items.c.is_gold == int(gold), ~had
    )
    if not gold:
        query = query.where(items.c.taken < bindparam("b_places"))
    if how.endswith("from"):
        query = query.where(items.c.shuffle >= bindparam("b_start"))
    if how.endswith("before"):
        query = query.where(items.c.shuffle < bindparam("b_start"))
    # FOR UPDATE SKIP LOCKED (PostgreSQL only): an item whose row another transaction is changing is passed over instead
    # of waited for; there is nearly always another one.
    return (
        query.order_by(*_BY.get(how, ()), items.c.shuffle).limit(1).with_for_update(of=items, skip_locked=True)
    )


def _repeat(conn: Connection, project: Project, user_id: int, n: int) -> int | None:
    """The item that the person answered longest ago and once only; None with too few answers since."""
    # With few answers in between a person would remember the first answer, and the repeat would measure memory.
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
    item_id: int | None = conn.scalar(query.order_by(assignments.c.shown_at).limit(1))
    return item_id


def open_items(conn: Connection, project: Project, user_id: int) -> list[int]:
    """The row numbers of all items that a person could be asked about now, those first that are asked first.

    For somebody who answers many at once. `lease_item` takes the place of one of them.
    """
    had = exists().where(
        assignments.c.item_id == items.c.id,
        assignments.c.user_id == user_id,
        assignments.c.round == 0,
        assignments.c.state.in_(HELD),
    )
    has_place = or_(items.c.is_gold == 1, items.c.taken < project.settings.annotators_per_item)
    query = select(items.c.id).where(items.c.project_id == project.id, has_place, ~had)
    return list(conn.scalars(query.order_by(*_BY.get(project.settings.strategy, ()), items.c.shuffle)))


def comes_back(conn: Connection, project: Project, user_id: int) -> float | None:
    """When the first item that others hold can be asked of a person, if nobody answers it; None: there is none.

    Returns:
        Unix time in seconds.
    """
    mine = assignments.alias("mine")
    had = exists().where(
        mine.c.item_id == assignments.c.item_id,
        mine.c.user_id == user_id,
        mine.c.round == 0,
        mine.c.state.in_(HELD),
    )
    # Gold items take no place, so nobody waits for them; and nothing here may tell which they are.
    query = (
        select(func.min(assignments.c.expires_at))
        .join(items, items.c.id == assignments.c.item_id)
        .where(
            assignments.c.project_id == project.id,
            assignments.c.state == "leased",
            assignments.c.round == 0,
            items.c.is_gold == 0,
            ~had,
        )
    )
    found: float | None = conn.scalar(query)
    return found


def lease_item(conn: Connection, project: Project, user_id: int, item_id: int, now: float) -> Work | None:
    """Lease a certain item to a person for the first time; None where its places went to others."""
    lock_history(conn)
    item = get_item(conn, project, item_id)
    if item.gold is None and not take_place(conn, project, item_id):
        return None
    return _assign(conn, project, user_id, (item_id, item), 0, now)


def take_place(conn: Connection, project: Project, item_id: int) -> bool:
    """Take one of the item's places; False if none is left."""
    places = project.settings.annotators_per_item
    return conn.execute(_TAKE, {"b_item": item_id, "b_places": places}).rowcount == 1


def free_place(conn: Connection, item_id: int) -> None:
    """Free one of the item's places."""
    conn.execute(_FREE, {"b_item": item_id})


def assign(
    conn: Connection, project: Project, user_id: int, item_id: int, round_number: int, now: float
) -> Work:
    """Lease a certain item to a person, its responses in an order drawn for them."""
    return _assign(conn, project, user_id, (item_id, get_item(conn, project, item_id)), round_number, now)


def _assign(
    conn: Connection, project: Project, user_id: int, loaded: tuple[int, Item], round_number: int, now: float
) -> Work:
    item_id, item = loaded
    # The order is drawn anew for each person and round: a habit of preferring what is shown first then cancels out in
    # the votes, and can be measured.
    draws = [
        uniform("order", project.settings.seed, user_id, item_id, round_number, k)
        for k in range(len(item.responses))
    ]
    order = sorted(range(len(draws)), key=lambda k: draws[k])
    row = {
        "project_id": project.id,
        "item_id": item_id,
        "user_id": user_id,
        "round": round_number,
        "order": order,
        "state": "leased",
        "shown_at": now,
        "expires_at": now + project.settings.lease_seconds,
    }
    made = conn.execute(_assigning(conn.dialect.name), row).scalar_one()
    return Work(int(made), item_id, item, tuple(order), round_number, "leased", now)


def get_work(conn: Connection, project: Project, assignment_id: int, user_id: int) -> Work:
    """An assignment of this person in this project, or NotFound."""
    # Person and project stand in the WHERE: somebody else's assignment looks exactly like one that does not exist.
    parameters = {"b_id": assignment_id, "b_project": project.id, "b_user": user_id}
    row = conn.execute(_WORK, parameters).one_or_none()
    if row is None:
        raise NotFound("there is no such assignment of yours", cure="go to the project's next item")
    item = get_item(conn, project, row.item_id)
    return Work(row.id, row.item_id, item, tuple(row.order), row.round, row.state, row.shown_at)


def release_expired(conn: Connection, now: float) -> int:
    """End the leases whose time is over and free their places; returns how many there were."""
    return _free_places(conn, conn.execute(_EXPIRE, {"b_now": now}).all())


def release_all(conn: Connection, project: Project, user_id: int) -> int:
    """End all leases of a person in a project and free their places; returns how many there were."""
    lock_history(conn)
    return _free_places(conn, conn.execute(_RELEASE, {"b_project": project.id, "b_user": user_id}).all())


def _free_places(conn: Connection, ended: Sequence[Any]) -> int:
    for row in ended:
        if row.round == 0:  # repeats (round 1) take no place
            free_place(conn, row.item_id)
    return len(ended)
