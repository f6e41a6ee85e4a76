"""What to ask next, and of whom: leases keep two people from doing the same work.

``items.taken`` counts the assignments of round 0 that are leased or done. It never exceeds ``annotators_per_item``:
it is raised by an UPDATE that says so in its WHERE, in the same transaction as the assignment. Gold items and repeats
take no place. Choices are functions of (seed, person, number of answers), so they can be told again.
"""

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


# Statements are built once: building one costs more than running it. ``b_...`` are their parameters. Few statements do
# much each, because what one costs is the way to it, and every annotator waits while another writes.
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
_STANDING = select(
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
_LET_GO = (
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
_GIVE_BACK = (
    update(items)
    .where(items.c.id == bindparam("b_item"), items.c.is_gold == 0, items.c.taken > 0)
    .values(taken=items.c.taken - 1)
)
_WORK = select(assignments).where(assignments.c.id == bindparam("b_id"), _MINE)


@cache
def _assigning(dialect: str) -> Any:
    """A new assignment, or the one that ran out or was skipped before, again."""
    new = (postgresql if dialect == "postgresql" else sqlite).insert(assignments)
    again = {name: new.excluded[name] for name in ("state", "shown_at", "expires_at", "order")}
    return new.on_conflict_do_update(index_elements=["item_id", "user_id", "round"], set_=again).returning(
        assignments.c.id
    )


def lease(conn: Connection, project: Project, user_id: int, now: float) -> Work | None:
    """The item a person is working on, or else a new one for them; None when there is nothing left to ask."""
    lock_history(conn)
    asked = {"b_project": project.id, "b_user": user_id, "b_now": now}
    standing = conn.execute(_STANDING, asked).one()
    if standing.overdue:
        release_expired(conn, now)
        standing = conn.execute(_STANDING, asked).one()
    if standing.current is not None:
        conn.execute(_EXTEND, {"b_id": standing.current, "b_until": now + project.settings.lease_seconds})
        return get_work(conn, project, standing.current, user_id)
    if project.closed:
        return None
    picked = _pick(conn, project, user_id, int(standing.answered))
    if picked is None:
        return None
    item_id, item, turn = picked
    return _put_before(conn, project, user_id, (item_id, item), turn, now)


def _pick(conn: Connection, project: Project, user_id: int, n: int) -> tuple[int, Item, int] | None:
    """Row number of the next item, the item, and the round it is asked in. An ordinary item's place is taken."""
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
    """The row of an item that has a place left, which is this person's from now on."""
    settings = project.settings
    given: dict[str, Any] = {"b_project": project.id, "b_user": user_id}
    given["b_places"] = settings.annotators_per_item
    if settings.strategy != "random":
        return conn.execute(_taking(settings.strategy), given).one_or_none()
    given["b_start"] = uniform("item", settings.seed, user_id, n)
    found = conn.execute(_taking("from"), given).one_or_none()
    return found if found is not None else conn.execute(_taking("before"), given).one_or_none()


def _gold(conn: Connection, project: Project, user_id: int, n: int) -> int | None:
    """The first gold item from a place in the shuffled order on, going round."""
    start = uniform("gold", project.settings.seed, user_id, n)
    given = {"b_project": project.id, "b_user": user_id, "b_start": start}
    found: int | None = conn.scalar(_free("gold from"), given)
    return found if found is not None else conn.scalar(_free("gold before"), given)


@cache
def _taking(how: str) -> Update:
    """Find an item and take one of its places, in one statement: nobody comes between."""
    found = (items.c.id == _free(how).scalar_subquery()) & (items.c.taken < bindparam("b_places"))
    return update(items).where(found).values(taken=items.c.taken + 1).returning(items)


@cache
def _free(how: str) -> Select[Any]:
    """One item that the person has not had and that has a place left (gold items need none)."""
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
    by: dict[str, list[Any]] = {"least-annotated": [items.c.taken], "priority": [items.c.priority.desc()]}
    return (
        query.order_by(*by.get(how, []), items.c.shuffle).limit(1).with_for_update(of=items, skip_locked=True)
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


def take_place(conn: Connection, project: Project, item_id: int) -> bool:
    """One of the item's places, if one is left."""
    places = project.settings.annotators_per_item
    return conn.execute(_TAKE, {"b_item": item_id, "b_places": places}).rowcount == 1


def give_place_back(conn: Connection, item_id: int) -> None:
    """Free one of the item's places."""
    conn.execute(_GIVE_BACK, {"b_item": item_id})


def assign(conn: Connection, project: Project, user_id: int, item_id: int, turn: int, now: float) -> Work:
    """Put an item before a person, its responses in an order drawn for them."""
    return _put_before(conn, project, user_id, (item_id, get_item(conn, project, item_id)), turn, now)


def _put_before(
    conn: Connection, project: Project, user_id: int, loaded: tuple[int, Item], turn: int, now: float
) -> Work:
    item_id, item = loaded
    draws = [
        uniform("order", project.settings.seed, user_id, item_id, turn, k) for k in range(len(item.responses))
    ]
    order = sorted(range(len(draws)), key=lambda k: draws[k])
    row = {
        "project_id": project.id,
        "item_id": item_id,
        "user_id": user_id,
        "round": turn,
        "order": order,
        "state": "leased",
        "shown_at": now,
        "expires_at": now + project.settings.lease_seconds,
    }
    made = conn.execute(_assigning(conn.dialect.name), row).scalar_one()
    return Work(int(made), item_id, item, tuple(order), turn, "leased", now)


def get_work(conn: Connection, project: Project, assignment_id: int, user_id: int) -> Work:
    """An assignment of this person in this project, or NotFound."""
    given = {"b_id": assignment_id, "b_project": project.id, "b_user": user_id}
    row = conn.execute(_WORK, given).one_or_none()
    if row is None:
        raise NotFound("there is no such assignment of yours", cure="go to the project's next item")
    item = get_item(conn, project, row.item_id)
    return Work(row.id, row.item_id, item, tuple(row.order), row.round, row.state, row.shown_at)


def release_expired(conn: Connection, now: float) -> int:
    """Give the places of leases that ran out back; returns how many ran out."""
    return _free_places(conn, conn.execute(_EXPIRE, {"b_now": now}).all())


def let_go(conn: Connection, project: Project, user_id: int) -> int:
    """Give the places of what a person was shown and has not answered back; returns how many they held."""
    lock_history(conn)
    return _free_places(conn, conn.execute(_LET_GO, {"b_project": project.id, "b_user": user_id}).all())


def _free_places(conn: Connection, gone: Sequence[Any]) -> int:
    for row in gone:
        if row.round == 0:
            give_place_back(conn, row.item_id)
    return len(gone)
