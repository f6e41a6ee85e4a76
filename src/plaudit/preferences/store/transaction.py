"""What every part of the store shares: a transaction, several people's jobs in one, its lock, and two refusals.

A *job* is a function of a transaction. A *batch* is several jobs in one transaction, which waits for the disk once
and is committed once for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

from sqlalchemy import Connection, func, select

from plaudit.errors import DataError, PlauditError

Transaction = Connection
"""A connection inside a transaction, for callers who need not know SQLAlchemy."""
Job = Callable[[Transaction], Any]
"""It may be run again where its transaction was rolled back, so all it does must be in the database."""

HISTORY_LOCK = 0x9A0D17
"""The key of PostgreSQL's advisory lock; any constant that no other program on the server uses."""
_LOCK = select(func.pg_advisory_xact_lock(HISTORY_LOCK))


class NotFound(DataError):
    """There is no such project, item, assignment, person or invitation, or it does not belong to this person."""

    code = "NOT_FOUND"


class Conflict(DataError):
    """It is taken, answered, used, or was changed in the meantime."""

    code = "CONFLICT"


def lock_history(conn: Connection) -> None:
    """Let only one transaction at a time lease or answer items, until this one ends.

    SQLite has one writer anyway; on PostgreSQL this takes an advisory lock. Calling it again in the same transaction
    does nothing.
    """
    # Three reasons. Row numbers of judgements are revisions: two transactions that overlap could commit row 8 before
    # row 7, and an export "at revision 8" would change when row 7 appears. Two requests of one person (a double click)
    # must not lease two items. And because every writer takes this lock before any row lock, two writers can never
    # each hold what the other needs: there is no deadlock.
    transaction = conn.get_transaction()
    if conn.dialect.name != "postgresql" or conn.info.get("locked_by") is transaction:
        return
    conn.execute(_LOCK)
    conn.info["locked_by"] = transaction


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a job: its value, or why it failed."""

    value: Any = None
    failure: Exception | None = None


class JobFailed(Exception):
    """A job of a batch raised an exception, which is the cause of this one."""


def run_job(connection: Connection, job: Job) -> Outcome:
    """Run one job; an exception becomes its outcome."""
    try:
        return Outcome(job(connection))
    except Exception as error:
        return Outcome(failure=error)


def run_all(connection: Connection, jobs: Sequence[Job]) -> list[Outcome]:
    """Run the jobs one after another, without savepoints.

    Raises:
        JobFailed: one of them failed; the transaction must not be committed.
    """
    outcomes = []
    for job in jobs:
        outcome = run_job(connection, job)
        if outcome.failure is not None:
            raise JobFailed from outcome.failure
        outcomes.append(outcome)
        _check_open(connection)
    return outcomes


def run_with_savepoints(connection: Connection, jobs: Sequence[Job]) -> list[Outcome]:
    """Run the jobs one after another, each behind a savepoint: what a failing job did is undone.

    Raises:
        PlauditError: the database ended the transaction by itself; nothing is stored.
    """
    outcomes = []
    for job in jobs:
        connection.exec_driver_sql("SAVEPOINT one")
        outcome = run_job(connection, job)
        _check_open(connection)
        if outcome.failure is not None:
            connection.exec_driver_sql("ROLLBACK TO SAVEPOINT one")
        connection.exec_driver_sql("RELEASE SAVEPOINT one")
        outcomes.append(outcome)
    return outcomes


class _SqliteDriver(Protocol):
    in_transaction: bool


def _check_open(connection: Connection) -> None:
    """Raise a PlauditError if the database has ended the transaction by itself."""
    # SQLite rolls back by itself on a full disk or an I/O error. SQLAlchemy does not notice, and a COMMIT without a
    # transaction succeeds: answers would be acknowledged that are not stored. PostgreSQL's driver raises an error.
    if connection.dialect.name != "sqlite":
        return
    driver = cast(_SqliteDriver, connection.connection.dbapi_connection)
    if not driver.in_transaction:
        cure = "check whether its disk is full; then send it again"
        raise PlauditError("the database ended the transaction", cure=cure)
