"""The table of disputed items, kept up to date from the rows of the history, a part at a time.

Whether people differ on an item follows from the answers to that item alone. So the table is a function of the history
up to a row, ``projects.read_up_to``; what comes after that row is read when somebody looks, or in the background.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from plaudit.preferences.disputes import Dispute
from plaudit.preferences.disputes import disputes as disputes_of
from plaudit.preferences.store.content import numbers_of
from plaudit.preferences.store.engine import Store
from plaudit.preferences.store.history import read_annotations, revision
from plaudit.preferences.store.projects import Project
from plaudit.preferences.store.schema import DECIDED, assignments, disputes, items, judgements, projects
from plaudit.preferences.store.transaction import lock_history

ROWS_AT_ONCE = 500
"""Rows of the history of one part: few enough that nobody's answer waits for it."""


def behind(conn: Connection, project: Project) -> int:
    """How many numbers the newest row of the history is ahead of the table; 0 where it is up to date."""
    return max(0, revision(conn, project) - _read_up_to(conn, project))


def catch_up(store: Store, project: Project, parts: int = 1) -> bool:
    """Read the next parts of the history into the table; True once it is up to date."""
    return any(not _read_part(store, project) for _ in range(parts))


def _read_part(store: Store, project: Project) -> bool:
    """Read one part; False if there was nothing to read."""
    # Read in one transaction and written in another: while SQLite writes, all answers wait. What is answered in between
    # has a later number than this part, and its item is looked at again in the next one.
    with store.read() as conn:
        start = _read_up_to(conn, project)
        of_project = (judgements.c.project_id == project.id, judgements.c.id > start)
        query = select(judgements.c.id, judgements.c.item_id).where(*of_project).order_by(judgements.c.id)
        part = conn.execute(query.limit(ROWS_AT_ONCE)).all()
        if not part:
            return False
        touched = sorted({row.item_id for row in part})
        found = disputes_of(read_annotations(conn, project, items=touched))
        numbers = numbers_of(conn, project, [dispute.item for dispute in found])
    rows = [
        {"project_id": project.id, "item_id": numbers[d.item], "summary": d.summary, "agreement": d.agreement}
        for d in found
    ]
    with store.write() as conn:
        lock_history(conn)
        # Two programs may read the same part; what the second one finds here is what it would write itself.
        moved = update(projects).where(projects.c.id == project.id, projects.c.read_up_to == start)
        if conn.execute(moved.values(read_up_to=part[-1].id)).rowcount:
            conn.execute(delete(disputes).where(disputes.c.item_id.in_(touched)))
            if rows:
                conn.execute(insert(disputes), rows)
    return True


def open_disputes(conn: Connection, project: Project, most: int) -> list[tuple[int, Dispute]]:
    """The disputed items that are not gold, with their row numbers; those with the least agreement first."""
    query = (
        select(disputes.c.item_id, disputes.c.summary, disputes.c.agreement, items.c.key)
        .join(items, items.c.id == disputes.c.item_id)
        .where(disputes.c.project_id == project.id, items.c.is_gold == 0)
        .order_by(disputes.c.agreement, disputes.c.id)
        .limit(most)
    )
    return [(row.item_id, Dispute(row.key, row.summary, row.agreement)) for row in conn.execute(query)]


def count_disputes(conn: Connection, project: Project) -> int:
    """How many items are disputed."""
    # All, less those that are gold, of which there are few: looking each of the others up would cost far more.
    everything = select(func.count()).where(disputes.c.project_id == project.id)
    of_gold = (
        select(func.count())
        .select_from(items.join(disputes, disputes.c.item_id == items.c.id))
        .where(items.c.project_id == project.id, items.c.is_gold == 1)
    )
    return int(conn.scalar(everything) or 0) - int(conn.scalar(of_gold) or 0)


def count_decided(conn: Connection, project: Project) -> int:
    """How many items a reviewer has decided."""
    query = select(func.count(assignments.c.item_id.distinct())).where(
        assignments.c.project_id == project.id,
        DECIDED,
        assignments.c.state.in_(("done", "skipped")),
    )
    return int(conn.scalar(query) or 0)


def _read_up_to(conn: Connection, project: Project) -> int:
    number: Any = conn.scalar(select(projects.c.read_up_to).where(projects.c.id == project.id))
    return int(number or 0)
