"""PostgreSQL lets many write at once; answers and leases are written one after another, as on SQLite."""

from __future__ import annotations

from sqlalchemy import Connection, func, select

HISTORY_LOCK = 0x9A0D17
"""Of PostgreSQL's advisory locks; any constant."""
_LOCK = select(func.pg_advisory_xact_lock(HISTORY_LOCK))


def take_turn(conn: Connection) -> None:
    """Be the only one, until the transaction ends, who gives or answers items; asked for before any other lock.

    Row numbers are revisions: they must appear in order, or a smaller one could turn up after an export. A double click
    must not lease two items. And who waits for this alone never waits in a circle. Asked for again it costs nothing.
    """
    transaction = conn.get_transaction()
    if conn.dialect.name != "postgresql" or conn.info.get("turn") is transaction:
        return
    conn.execute(_LOCK)
    conn.info["turn"] = transaction
