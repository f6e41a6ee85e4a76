"""PostgreSQL lets many write at once; two things must happen one after another. SQLite has one writer anyway.

A lock lasts until the transaction ends, so it is asked for once in each: what has it is kept with the connection.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, bindparam, func, select

from plaudit.preferences.store.schema import users

HISTORY_LOCK = 0x9A0D17
"""Of PostgreSQL's advisory locks; any constant."""
_LOCK_USER = select(users.c.id).where(users.c.id == bindparam("b_user")).with_for_update()
_LOCK_HISTORY = select(func.pg_advisory_xact_lock(HISTORY_LOCK))


def lock_user(conn: Connection, user_id: int) -> None:
    """One request of a person at a time: a double click must not lease two items."""
    if _is_needed(conn, f"user {user_id}"):
        conn.execute(_LOCK_USER, {"b_user": user_id})


def hold_history(conn: Connection) -> None:
    """Row numbers are revisions: they must appear in order, or a smaller one could turn up after an export."""
    if _is_needed(conn, "history"):
        conn.execute(_LOCK_HISTORY)


def _is_needed(conn: Connection, what: str) -> bool:
    """Whether the transaction has not asked yet."""
    if conn.dialect.name != "postgresql":
        return False
    transaction: Any = conn.get_transaction()
    held: set[str] = conn.info.setdefault("held", set())
    if conn.info.get("held by") is not transaction:
        conn.info["held by"] = transaction
        held.clear()
    if what in held:
        return False
    held.add(what)
    return True


def forget_locks(conn: Connection) -> None:
    """After going back to a savepoint: what was locked behind it is free again; the history is locked before."""
    held: set[str] = conn.info.get("held", set())
    held &= {"history"}
