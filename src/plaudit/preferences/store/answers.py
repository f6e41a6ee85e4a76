"""Answers: each one is a new row. The newest row of an assignment (its *head*) counts; older ones remain readable."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, bindparam, func, insert, select, update

from plaudit.errors import DataError
from plaudit.preferences.annotation import (
    Answer,
    Choice,
    Ranks,
    Skip,
    answer_from_json,
    answer_to_json,
    check_answer,
    in_order,
    inverse,
    written_in,
)
from plaudit.preferences.store.leases import (
    ADJUDICATION,
    Work,
    assign,
    free_place,
    get_work,
    take_place,
)
from plaudit.preferences.store.projects import Project
from plaudit.preferences.store.schema import assignments, items, judgements, responses
from plaudit.preferences.store.transaction import Conflict, NotFound, lock_history

MOST_TEXT = 65_536
CORRECTION = "\n"
"""Between a client's key and the number of a correction that came with it; no client's key may contain it."""


_SET_STATE = (
    update(assignments).where(assignments.c.id == bindparam("b_id")).values(state=bindparam("b_state"))
)
_HEAD = (
    select(judgements)
    .where(judgements.c.assignment_id == bindparam("b_id"))
    .order_by(judgements.c.id.desc())
    .limit(1)
)
_OF_KEY = select(
    judgements.c.user_id, judgements.c.assignment_id, judgements.c.answer.is_(None).label("taken_back")
).where(judgements.c.key == bindparam("b_key"))
_CHAIN = (
    select(judgements.c.id, judgements.c.key, judgements.c.answer, judgements.c.flags, judgements.c.comment)
    .where(judgements.c.assignment_id == bindparam("b_id"))
    .order_by(judgements.c.id)
)
_INSERT = insert(judgements).returning(judgements.c.id)
# Everything that storing an answer must know, in one statement: other people's answers wait while this one is stored.
_FACTS = (
    select(
        assignments.c.id,
        assignments.c.item_id,
        assignments.c.round,
        assignments.c.state,
        assignments.c.shown_at,
        assignments.c.order,
        items.c.is_gold,
        select(func.count())
        .where(responses.c.item_id == assignments.c.item_id)
        .scalar_subquery()
        .label("n_responses"),
        select(func.max(judgements.c.id))
        .where(judgements.c.assignment_id == assignments.c.id)
        .scalar_subquery()
        .label("head"),
        select(func.count())
        .where(judgements.c.key == bindparam("b_key"))
        .scalar_subquery()
        .label("key_is_known"),
    )
    .join(items, items.c.id == assignments.c.item_id)
    .where(
        assignments.c.id == bindparam("b_id"),
        assignments.c.project_id == bindparam("b_project"),
        assignments.c.user_id == bindparam("b_user"),
    )
)

@dataclass(frozen=True, slots=True)
class Submission:
    """What a person sends. ``key`` is made by the client, so that the same answer sent twice is stored once."""

    key: str
    answer: Answer
    flags: tuple[str, ...] = ()
    comment: str = ""
    supersedes: int | None = None
    """The row this corrects; None for a first answer."""
    guidelines: int | None = None
    """The version that was shown; None, or a version that does not exist: the newest."""
    as_seen: bool = False
    """Whether the answer names responses by their place on the page, and not by their index in the item."""


@dataclass(frozen=True, slots=True)
class _Place:
    """The part of an assignment that is needed to store its answers."""

    id: int
    item_id: int
    round: int
    state: str
    is_gold: bool


@dataclass(frozen=True, slots=True)
class Head:
    """The newest row of an assignment. ``answer`` is None where it was taken back."""

    revision: int
    answer: Answer | None
    flags: tuple[str, ...]
    comment: str
    seconds: float


def submit(
    conn: Connection,
    project: Project,
    user_id: int,
    assignment_id: int,
    sent: Submission,
    *,
    decides: bool = False,
) -> int:
    """Store an answer; returns its row number (the same one when the same key comes again with the same answer).

    A person who got no reply may have changed the answer before sending it again. So another answer with the key of the
    newest one is stored as its correction.

    Args:
        conn: a writing transaction.
        project: which project.
        user_id: the person.
        assignment_id: number of the assignment.
        sent: the answer.
        decides: whether the person may give verdicts, which overrule the votes.

    Raises:
        NotFound: not an assignment of this person, or a verdict of somebody who is no reviewer any more.
        DataError: the answer does not fit the task.
        Conflict: the place went to somebody else, the answer was changed in another window, or the key is another's.
    """
    _check_key(sent.key)
    lock_history(conn)
    parameters = {"b_id": assignment_id, "b_project": project.id, "b_user": user_id, "b_key": sent.key}
    facts = conn.execute(_FACTS, parameters).one_or_none()
    # ``decides`` is asked here and not when the page was shown: a reviewer may have lost the role since.
    if facts is None or (facts.round == ADJUDICATION and not decides):
        raise NotFound("there is no such assignment of yours", cure="go to the project's next item")
    seen = sent
    if sent.as_seen:
        sent = replace(sent, answer=in_order(sent.answer, inverse(facts.order)))
    # Before any other check: a client that did not get the reply sends the same answer again, and must hear that it is
    # stored, not that "the item was answered in another window" (by itself).
    if facts.key_is_known:
        again = _sent_again(conn, sent, user_id, assignment_id)
        if isinstance(again, int):
            return again
        sent = again
    # As it was seen: what an error says of a response must not tell its index, by which its author could be known.
    _check(seen, facts.n_responses, project)
    # The client names the row that it saw as the newest. If another window has added one since, this answer would
    # silently replace one that its author never saw.
    if sent.supersedes != facts.head:
        raise Conflict(
            "the item was answered or taken back in another window",
            where=f"assignment {facts.id}",
            cure="load the page again",
        )
    _check_edit(conn, project, facts.id, sent.answer)
    place = _Place(facts.id, facts.item_id, facts.round, facts.state, bool(facts.is_gold))
    _update_place(conn, project, place, isinstance(sent.answer, Skip))
    state = "skipped" if isinstance(sent.answer, Skip) else "done"
    conn.execute(_SET_STATE, {"b_id": facts.id, "b_state": state})
    return _append(conn, project, (place, user_id), sent, _seconds(conn, facts))


def undo(conn: Connection, project: Project, user_id: int, key: str) -> Work | None:
    """Take a person's last answer back, as a new row, and lease its item to them again; None: nothing to take back."""
    _check_key(key)
    lock_history(conn)
    known = conn.execute(_OF_KEY, {"b_key": key}).one_or_none()
    if known is not None:  # sent again: show the same item, do not take back the answer before it as well
        _check_owner(known.user_id == user_id and known.taken_back)
        return get_work(conn, project, known.assignment_id, user_id)
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
    work = get_work(conn, project, last.assignment_id, user_id)
    place = _Place(work.id, work.item_id, work.round, work.state, work.item.gold is not None)
    _update_place(conn, project, place, skip=False)
    sent = Submission(key, Skip("taken back"), tuple(last.flags), last.comment, last.id)
    _append(conn, project, (place, user_id), sent, last.seconds, taken_back=True)
    now = time.time()
    again = {"state": "leased", "shown_at": now, "expires_at": now + project.settings.lease_seconds}
    conn.execute(update(assignments).where(assignments.c.id == work.id).values(again))
    return replace(work, state="leased", shown_at=now)


def open_adjudication(conn: Connection, project: Project, reviewer_id: int, item_id: int) -> Work:
    """An assignment in which a reviewer gives the verdict on an item; it overrules the votes."""
    lock_history(conn)
    query = select(items.c.id).where(items.c.id == item_id, items.c.project_id == project.id)
    if conn.scalar(query) is None:
        raise NotFound(f"there is no item {item_id} in {project.slug}", cure="see the list of conflicts")
    mine = select(assignments.c.id).where(
        assignments.c.item_id == item_id,
        assignments.c.user_id == reviewer_id,
        assignments.c.round == ADJUDICATION,
    )
    existing = conn.scalar(mine)
    if existing is None:
        return assign(conn, project, reviewer_id, item_id, ADJUDICATION, time.time())
    return get_work(conn, project, existing, reviewer_id)


def get_head(conn: Connection, assignment_id: int) -> Head | None:
    """The newest row of an assignment."""
    row = conn.execute(_HEAD, {"b_id": assignment_id}).one_or_none()
    if row is None:
        return None
    answer = answer_from_json(row.answer) if row.answer is not None else None
    return Head(row.id, answer, tuple(row.flags), row.comment, row.seconds)


def last_answer(conn: Connection, project: Project, user_id: int, assignment_id: int) -> Answer | None:
    """The newest answer of an assignment, rows that took one back left aside: what a form starts from."""
    query = select(judgements.c.answer).where(
        judgements.c.assignment_id == assignment_id,
        judgements.c.user_id == user_id,
        judgements.c.answer.is_not(None),
    )
    newest = conn.scalar(query.order_by(judgements.c.id.desc()).limit(1))
    return None if newest is None else answer_from_json(newest)


def _sent_again(conn: Connection, sent: Submission, user_id: int, assignment_id: int) -> int | Submission:
    """What a key that is known means: the row that is stored already, or a correction of the newest row.

    Raises:
        Conflict: the key is another person's, another assignment's or that of taking an answer back, or the answer that
            comes is not the newest one of this key and may be a late copy.
    """
    owner = conn.execute(_OF_KEY, {"b_key": sent.key}).one()
    _check_owner((owner.user_id, owner.assignment_id) == (user_id, assignment_id) and not owner.taken_back)
    chain = conn.execute(_CHAIN, {"b_id": assignment_id}).all()
    # The rows that came with this key: the first has the key itself, corrections have it with a number.
    own = [row for row in chain if row.key.partition(CORRECTION)[0] == sent.key]
    body = (answer_to_json(sent.answer), list(sent.flags), sent.comment)
    equal = [row.id for row in own if (row.answer, row.flags, row.comment) == body]
    newest = chain[-1]
    if equal and (newest.id in equal or newest is not own[-1]):
        return int(equal[-1])
    # An older answer that comes again may be meant, or it may be a copy that was long under way. It is not guessed.
    if equal or newest is not own[-1]:
        raise Conflict(
            "another answer is stored for this item, and this one is not",
            where=f"assignment {assignment_id}",
            cure="load the page again, and correct the stored answer if it is not what you mean",
        )
    return replace(sent, key=f"{sent.key}{CORRECTION}{len(own)}", supersedes=newest.id)


def _check_owner(is_theirs: bool) -> None:
    if not is_theirs:
        cure = "make a new key for each answer"
        raise Conflict("the key belongs to another answer", where="key", cure=cure)


def _check_key(key: str) -> None:
    if not 8 <= len(key) <= 80 or not key.isprintable():
        raise DataError(f"a key has 8 to 80 characters, this one {len(key)}", where="key", cure="send a UUID")


def _seconds(conn: Connection, facts: Any) -> float:
    """From the moment the item was shown to the answer; a correction keeps the time of what it corrects."""
    # A correction may come a day later; its time would say nothing about how long the person took to judge.
    head = get_head(conn, facts.id) if facts.head is not None and facts.state != "leased" else None
    return max(0.0, time.time() - facts.shown_at) if head is None else head.seconds


def _check(sent: Submission, n_responses: int, project: Project) -> None:
    check_answer(sent.answer, project.task, n_responses, project.settings.axes)
    unknown = sorted(set(sent.flags) - set(project.settings.flags))
    if unknown:
        cure = f"one of {', '.join(project.settings.flags)}"
        raise DataError(f"there is no flag {unknown[0][:40]!r}", where="flags", cure=cure)
    for name, text in (("comment", sent.comment), ("answer", _text_of(sent.answer))):
        if len(text.encode("utf-8", "replace")) > MOST_TEXT:
            raise DataError(f"more than {MOST_TEXT} bytes", where=name, cure="shorten it")
    # NUL and halves of surrogate pairs are legal in JSON strings, but PostgreSQL stores neither in a text column. The
    # answer itself is stored as escaped JSON and keeps them.
    if "\x00" in sent.comment or not sent.comment.isascii() and _has_surrogates(sent.comment):
        raise DataError("characters that are no text", where="comment", cure="take them out")


def _text_of(answer: Answer) -> str:
    """The free text of an answer; empty if it has none."""
    if isinstance(answer, Skip):
        return answer.reason
    written = written_in(answer)
    return written.text if written else ""


def _check_edit(conn: Connection, project: Project, assignment_id: int, answer: Answer) -> None:
    """Refuse an edit in a project that does not ask for edits, unless the answer that is corrected had one already."""
    edit = answer.edit if isinstance(answer, (Choice, Ranks)) else None
    if project.settings.edit_best or edit is None:
        return
    before = conn.execute(_HEAD, {"b_id": assignment_id}).one_or_none()
    if before is None or not (before.answer or {}).get("edit"):
        cure = "leave it out; an admin can ask for edits in the settings of the project"
        raise DataError("this project does not ask for edits", where="answer.edit", cure=cure)


def _has_surrogates(text: str) -> bool:
    return any(0xD800 <= ord(character) <= 0xDFFF for character in text)


def _update_place(conn: Connection, project: Project, place: _Place, skip: bool) -> None:
    """Take or free the item's place, as the change from the old state of the assignment to the new one needs."""
    # Only two changes matter: from a state with a place (leased, done) to skipped, which frees it; and from one without
    # (expired, skipped) to done, which needs one. The second fails when others have answered the item meanwhile.
    takes_place = place.round == 0 and not place.is_gold
    had = place.state in ("leased", "done")
    if not takes_place or had != skip:
        return
    if skip:
        free_place(conn, place.item_id)
    elif not take_place(conn, project, place.item_id):
        raise Conflict(
            "the time for this item ran out and others have answered it meanwhile",
            where=f"assignment {place.id}",
            cure="go on to the next item",
        )


def _append(
    conn: Connection,
    project: Project,
    who: tuple[_Place, int],
    sent: Submission,
    seconds: float,
    *,
    taken_back: bool = False,
) -> int:
    place, user_id = who
    newest = project.guideline_version
    row: dict[str, Any] = {
        "assignment_id": place.id,
        "project_id": project.id,
        "item_id": place.item_id,
        "user_id": user_id,
        "key": sent.key,
        "answer": None if taken_back else answer_to_json(sent.answer),
        "flags": list(sent.flags),
        "comment": sent.comment,
        "seconds": seconds,
        "guideline_version": sent.guidelines if 1 <= (sent.guidelines or 0) <= newest else newest,
        "created_at": time.time(),
        "supersedes": sent.supersedes,
    }
    return int(conn.execute(_INSERT, row).scalar_one())
