"""Answers: every one a new row. The newest row of an assignment (its head) counts; the others stay to be read."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, bindparam, func, insert, select, text, update

from plaudit.errors import DataError
from plaudit.preferences.annotation import Answer, Skip, answer_from_json, answer_to_json, check_answer
from plaudit.preferences.store.faults import Conflict, NotFound
from plaudit.preferences.store.leases import (
    ADJUDICATION,
    Work,
    assign,
    get_work,
    give_place_back,
    lock_user,
    take_place,
)
from plaudit.preferences.store.projects import Project
from plaudit.preferences.store.schema import assignments, items, judgements

MOST_TEXT = 65_536
HISTORY_LOCK = 0x9A0D17  # any constant: PostgreSQL's advisory lock that makes row numbers commit in order


_SET_STATE = (
    update(assignments).where(assignments.c.id == bindparam("b_id")).values(state=bindparam("b_state"))
)
_HEAD = (
    select(judgements)
    .where(judgements.c.assignment_id == bindparam("b_id"))
    .order_by(judgements.c.id.desc())
    .limit(1)
)
_OF_KEY = select(judgements.c.id, judgements.c.user_id, judgements.c.assignment_id).where(
    judgements.c.key == bindparam("b_key")
)
_INSERT = insert(judgements).returning(judgements.c.id)


@dataclass(frozen=True, slots=True)
class Submission:
    """What a person sends. ``key`` is made where the answer is given, so that sending it twice stores it once."""

    key: str
    answer: Answer
    flags: tuple[str, ...] = ()
    comment: str = ""
    supersedes: int | None = None
    """The row this corrects; None for a first answer."""


@dataclass(frozen=True, slots=True)
class Head:
    """The newest row of an assignment. ``answer`` is None where it was taken back."""

    revision: int
    answer: Answer | None
    flags: tuple[str, ...]
    comment: str
    seconds: float


def submit(conn: Connection, project: Project, user_id: int, assignment_id: int, sent: Submission) -> int:
    """Store an answer; returns its row number (the same one when the same key comes again).

    Raises:
        NotFound: not an assignment of this person.
        DataError: the answer does not fit the task.
        Conflict: the place went to somebody else, or the answer was changed in another window.
    """
    lock_user(conn, user_id)
    stored = _stored(conn, sent.key, user_id, assignment_id)
    if stored is not None:
        return stored
    work = get_work(conn, project, assignment_id, user_id)
    _check(sent, work, project)
    head = get_head(conn, work.id)
    if sent.supersedes != (head.revision if head else None):
        raise Conflict(
            "the item was answered or taken back in another window",
            where=f"assignment {work.id}",
            cure="load the page again",
        )
    _hold(conn, project, work, isinstance(sent.answer, Skip))
    now = time.time()
    seconds = now - work.shown_at if work.state == "leased" or head is None else head.seconds
    state = "skipped" if isinstance(sent.answer, Skip) else "done"
    conn.execute(_SET_STATE, {"b_id": work.id, "b_state": state})
    return _append(conn, project, (work, user_id), sent, max(0.0, seconds))


def undo(conn: Connection, project: Project, user_id: int, key: str) -> Work | None:
    """Take the last answer back, as a new row, and put the item before the person again; None: nothing to take back."""
    _check_key(key)
    lock_user(conn, user_id)
    newer = judgements.alias("newer")
    standing = ~select(newer.c.id).where(newer.c.supersedes == judgements.c.id).exists()
    query = (
        select(judgements)
        .join(assignments)
        .where(
            judgements.c.project_id == project.id,
            judgements.c.user_id == user_id,
            judgements.c.answer.is_not(None),
            assignments.c.round >= 0,
            standing,
        )
    )
    last = conn.execute(query.order_by(judgements.c.id.desc()).limit(1)).one_or_none()
    if last is None:
        return None
    if conn.scalar(select(judgements.c.id).where(judgements.c.key == key)) is not None:
        return get_work(conn, project, last.assignment_id, user_id)
    work = get_work(conn, project, last.assignment_id, user_id)
    _hold(conn, project, work, skip=False)
    sent = Submission(key, Skip("taken back"), tuple(last.flags), last.comment, last.id)
    _append(conn, project, (work, user_id), sent, last.seconds, taken_back=True)
    now = time.time()
    again = {"state": "leased", "shown_at": now, "expires_at": now + project.settings.lease_seconds}
    conn.execute(update(assignments).where(assignments.c.id == work.id).values(again))
    return replace(work, state="leased", shown_at=now)


def open_adjudication(conn: Connection, project: Project, reviewer_id: int, item_id: int) -> Work:
    """The item before a reviewer, whose verdict will overrule the votes."""
    there = select(items.c.id).where(items.c.id == item_id, items.c.project_id == project.id)
    if conn.scalar(there) is None:
        raise NotFound(f"there is no item {item_id} in {project.slug}", cure="see the list of conflicts")
    mine = select(assignments.c.id).where(
        assignments.c.item_id == item_id,
        assignments.c.user_id == reviewer_id,
        assignments.c.round == ADJUDICATION,
    )
    found = conn.scalar(mine)
    if found is None:
        return assign(conn, project, reviewer_id, item_id, ADJUDICATION, time.time())
    return get_work(conn, project, found, reviewer_id)


def get_head(conn: Connection, assignment_id: int) -> Head | None:
    """The newest row of an assignment."""
    row = conn.execute(_HEAD, {"b_id": assignment_id}).one_or_none()
    if row is None:
        return None
    answer = answer_from_json(row.answer) if row.answer is not None else None
    return Head(row.id, answer, tuple(row.flags), row.comment, row.seconds)


def last_answer(conn: Connection, project: Project, user_id: int, assignment_id: int) -> Answer | None:
    """The newest answer that was not a taking back: what a form starts from."""
    query = select(judgements.c.answer).where(
        judgements.c.assignment_id == assignment_id,
        judgements.c.user_id == user_id,
        judgements.c.answer.is_not(None),
    )
    found = conn.scalar(query.order_by(judgements.c.id.desc()).limit(1))
    return None if found is None else answer_from_json(found)


def _stored(conn: Connection, key: str, user_id: int, assignment_id: int) -> int | None:
    """The row of this key, if it is the same person's answer to the same assignment."""
    _check_key(key)
    row = conn.execute(_OF_KEY, {"b_key": key}).one_or_none()
    if row is None:
        return None
    if (row.user_id, row.assignment_id) != (user_id, assignment_id):
        raise Conflict(
            "the key belongs to another answer", where="key", cure="make a new key for each answer"
        )
    return int(row.id)


def _check_key(key: str) -> None:
    if not 8 <= len(key) <= 80 or not key.isprintable():
        raise DataError(f"a key has 8 to 80 characters, this one {len(key)}", where="key", cure="send a UUID")


def _check(sent: Submission, work: Work, project: Project) -> None:
    check_answer(sent.answer, project.task, len(work.item.responses), project.settings.axes)
    strange = sorted(set(sent.flags) - set(project.settings.flags))
    if strange:
        cure = f"one of {', '.join(project.settings.flags)}"
        raise DataError(f"there is no flag {strange[0][:40]!r}", where="flags", cure=cure)
    written = getattr(sent.answer, "text", "") or getattr(sent.answer, "reason", "")
    for name, said in (("comment", sent.comment), ("answer", written)):
        if len(said.encode("utf-8", "replace")) > MOST_TEXT:
            raise DataError(f"more than {MOST_TEXT} bytes", where=name, cure="shorten it")
    if "\x00" in sent.comment or not sent.comment.isascii() and _broken(sent.comment):
        raise DataError("characters that are no text", where="comment", cure="take them out")


def _broken(said: str) -> bool:
    return any(0xD800 <= ord(character) <= 0xDFFF for character in said)


def _hold(conn: Connection, project: Project, work: Work, skip: bool) -> None:
    """Take or give back the item's place, as the step from the old state to the new one needs."""
    takes_place = work.round == 0 and work.item.gold is None
    had = work.state in ("leased", "done")
    if not takes_place or had != skip:
        return
    if skip:
        give_place_back(conn, work.item_id)
    elif not take_place(conn, project, work.item_id):
        raise Conflict(
            "the time for this item ran out and others have answered it meanwhile",
            where=f"assignment {work.id}",
            cure="go on to the next item",
        )


def _append(
    conn: Connection,
    project: Project,
    who: tuple[Work, int],
    sent: Submission,
    seconds: float,
    *,
    taken_back: bool = False,
) -> int:
    work, user_id = who
    if conn.dialect.name == "postgresql":
        # Row numbers are revisions: they must appear in order, or a smaller one could turn up after an export.
        conn.execute(select(func.pg_advisory_xact_lock(HISTORY_LOCK)))
    row: dict[str, Any] = {
        "assignment_id": work.id,
        "project_id": project.id,
        "item_id": work.item_id,
        "user_id": user_id,
        "key": sent.key,
        "answer": None if taken_back else answer_to_json(sent.answer),
        "flags": list(sent.flags),
        "comment": sent.comment,
        "seconds": seconds,
        "guideline_version": project.guideline_version,
        "created_at": time.time(),
        "supersedes": sent.supersedes,
    }
    if conn.dialect.name == "postgresql":
        conn.execute(text("SET LOCAL synchronous_commit = on"))  # whatever the server's default
    return int(conn.execute(_INSERT, row).scalar_one())
