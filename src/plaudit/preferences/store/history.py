"""Reading answers back: those of a project as they stood at a revision, one person's, or the raw rows."""

# A row counts at a revision if it is not newer than that and no row up to that revision supersedes it. Since rows are
# never changed, the same revision gives the same answers for ever, and an export can name the state it was made of.

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from sqlalchemy import Connection, Select, bindparam, func, select

from plaudit.preferences.annotation import Annotation, Skip, answer_from_json
from plaudit.preferences.store.leases import ADJUDICATION
from plaudit.preferences.store.projects import Project
from plaudit.preferences.store.schema import FLAGGED, SKIPPED, assignments, items, judgements, users


def revision(conn: Connection, project: Project) -> int:
    """The number of the newest row of a project; 0 without answers."""
    newest = select(func.max(judgements.c.id)).where(judgements.c.project_id == project.id)
    return int(conn.scalar(newest) or 0)


def has_more_rows(conn: Connection, project: Project, than: int) -> bool:
    """Whether the history of a project has more rows than so many."""
    query = select(judgements.c.id).where(judgements.c.project_id == project.id).order_by(judgements.c.id)
    return conn.scalar(query.offset(than).limit(1)) is not None


def read_annotations(
    conn: Connection,
    project: Project,
    at: int | None = None,
    user_id: int | None = None,
    items: Sequence[int] | None = None,
    since: int = 0,
    limit: int | None = None,
) -> list[Annotation]:
    """The answers that counted at a revision (None: now), in the order of their rows, with skips and gold items.

    Args:
        conn: a transaction.
        project: which project.
        at: the revision.
        user_id: only the answers of this person.
        items: only answers to items of these row numbers; what it costs depends on them alone.
        since: only answers after this row.
        limit: the first so many of them.
    """
    later = judgements.alias("later")
    replaced = select(later.c.id).where(later.c.supersedes == judgements.c.id)
    query = (_rows(project) if items is None else _rows_of(project, items)).where(judgements.c.answer.is_not(None))
    if at is not None:
        query = query.where(judgements.c.id <= at)
        replaced = replaced.where(later.c.id <= at)
    if user_id is not None:
        query = query.where(judgements.c.user_id == user_id)
    if since:
        query = query.where(judgements.c.id > since)
    if limit is not None:
        query = query.limit(limit)
    found = [_annotation(row) for row in conn.execute(query.where(~replaced.exists()))]
    return found if items is None else sorted(found, key=lambda a: a.revision)


def raw_rows(
    conn: Connection, project: Project, at: int | None = None, since: int = 0
) -> list[dict[str, Any]]:
    """Every row of the history, with corrections and with rows that take an answer back (``answer`` is None).

    Args:
        conn: a transaction.
        project: which project.
        at: no row after this revision.
        since: only rows after this revision.
    """
    query = _rows(project).where(judgements.c.id > since)
    if at is not None:
        query = query.where(judgements.c.id <= at)
    return [
        {
            "revision": row.id,
            "supersedes": row.supersedes,
            "project": project.slug,
            "item": row.item_key,
            "annotator": row.name,
            "answer": row.answer,
            "order": row.order,
            "round": row.round,
            "adjudicated": row.round == ADJUDICATION,
            "seconds": row.seconds,
            "created_at": row.created_at,
            "guideline_version": row.guideline_version,
            "flags": row.flags,
            "comment": row.comment,
        }
        for row in conn.execute(query)
    ]


def latest_of(
    conn: Connection, project: Project, user_id: int, limit: int = 50
) -> list[tuple[int, Annotation]]:
    """A person's newest answers with the ids of their assignments, newest first."""
    later = judgements.alias("later")
    replaced = select(later.c.id).where(later.c.supersedes == judgements.c.id).exists()
    query = _rows(project, newest_first=True).where(
        judgements.c.user_id == user_id, judgements.c.answer.is_not(None), assignments.c.round >= 0, ~replaced
    )
    return [(row.assignment_id, _annotation(row)) for row in conn.execute(query.limit(limit))]


Only = Literal["flagged", "skipped"]


def marked_items(
    conn: Connection, project: Project, only: Only, page: int = 0, size: int = 50
) -> tuple[list[int], int]:
    """A page of the row numbers of the items that somebody flagged or left out, and how many there are in all."""
    mark, later = {"flagged": FLAGGED, "skipped": SKIPPED}[only], judgements.alias("later")
    standing = ~select(later.c.id).where(later.c.supersedes == judgements.c.id).exists()
    marked = (
        select(judgements.c.item_id)
        .where(judgements.c.project_id == project.id, judgements.c.answer.is_not(None), mark, standing)
        .distinct()
    )
    total = conn.scalar(select(func.count()).select_from(marked.subquery()))
    found = conn.scalars(marked.order_by(judgements.c.item_id).offset(page * size).limit(size))
    return list(found), int(total or 0)


def flagged_keys(conn: Connection, project: Project, at: int) -> frozenset[str]:
    """The keys of the items that somebody had flagged at a revision."""
    later = judgements.alias("later")
    replaced = select(later.c.id).where(later.c.supersedes == judgements.c.id, later.c.id <= at).exists()
    query = (
        select(items.c.key)
        .distinct()
        .join(judgements, judgements.c.item_id == items.c.id)
        .where(judgements.c.project_id == project.id, judgements.c.id <= at, FLAGGED, judgements.c.answer.is_not(None))
    )
    return frozenset(conn.scalars(query.where(~replaced)))


_COUNTS = (
    select(assignments.c.state, func.count())
    .where(
        assignments.c.project_id == bindparam("b_project"),
        assignments.c.user_id == bindparam("b_user"),
        assignments.c.round >= 0,
    )
    .group_by(assignments.c.state)
)
"""Built once, because every page with an item runs it."""


def counts_of(conn: Connection, project: Project, user_id: int) -> dict[str, int]:
    """How many assignments of a person are in each state."""
    rows = conn.execute(_COUNTS, {"b_project": project.id, "b_user": user_id})
    return {state: int(n) for state, n in rows}


def answered(annotations: list[Annotation]) -> list[Annotation]:
    """The annotations without the skips."""
    return [a for a in annotations if not isinstance(a.answer, Skip)]


def _rows(project: Project, *, newest_first: bool = False) -> Select[Any]:
    number = judgements.c.id.desc() if newest_first else judgements.c.id
    return _JOINED.where(judgements.c.project_id == project.id).order_by(number)


def _rows_of(project: Project, item_ids: Sequence[int]) -> Select[Any]:
    # Neither the project of the judgements nor an order by their number: each would let SQLite walk through the whole
    # history of the project by the index of the two, to find the few rows of these items.
    return _JOINED.where(items.c.id.in_(item_ids), items.c.project_id == project.id)


_JOINED = (
    select(judgements, items.c.key.label("item_key"), users.c.name, assignments.c.order, assignments.c.round)
    .join(assignments, judgements.c.assignment_id == assignments.c.id)
    .join(items, assignments.c.item_id == items.c.id)
    .join(users, judgements.c.user_id == users.c.id)
)


def _annotation(row: Any) -> Annotation:
    return Annotation(
        revision=row.id,
        item=row.item_key,
        annotator=row.name,
        answer=answer_from_json(row.answer),
        order=tuple(row.order),
        round=max(0, row.round),
        adjudicated=row.round == ADJUDICATION,
        seconds=row.seconds,
        created_at=row.created_at,
        guideline_version=row.guideline_version,
        flags=tuple(row.flags),
        comment=row.comment,
    )
