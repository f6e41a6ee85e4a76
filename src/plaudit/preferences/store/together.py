"""Several people's short writes in one transaction, which waits for the disk once; each behind its own savepoint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from plaudit.errors import PlauditError

Transaction = Connection
"""A connection inside a transaction, for callers who need not know SQLAlchemy."""
Job = Callable[[Transaction], Any]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a job: its value, or why it failed."""

    value: Any = None
    failure: Exception | None = None


def do_each(connection: Connection, jobs: Sequence[Job], *, savepoints: bool = True) -> list[Outcome]:
    """Run the jobs one after another; what a failing one did is taken back.

    Args:
        connection: in a transaction.
        jobs: what is to be done.
        savepoints: not needed where a failure neither leaves anything behind nor ends the transaction.

    Raises:
        PlauditError: the database ended the transaction by itself, as SQLite does on a full disk; nothing is stored.
    """
    do = _do_behind_savepoint if savepoints else _do
    outcomes = [do(connection, job) for job in jobs]
    driver: Any = connection.connection.dbapi_connection
    # Without a transaction a commit would succeed and mean nothing.
    if not getattr(driver, "in_transaction", True):
        cure = "see whether its disk is full; then send it again"
        raise PlauditError("the database ended the transaction", cure=cure)
    return outcomes


def _do(connection: Connection, job: Job) -> Outcome:
    try:
        return Outcome(job(connection))
    except Exception as error:
        return Outcome(failure=error)


def _do_behind_savepoint(connection: Connection, job: Job) -> Outcome:
    connection.exec_driver_sql("SAVEPOINT one")
    outcome = _do(connection, job)
    if outcome.failure is not None:
        connection.exec_driver_sql(
            "ROLLBACK TO SAVEPOINT one"
        )  # fails where the transaction is gone: so do all
    connection.exec_driver_sql("RELEASE SAVEPOINT one")
    return outcome
