"""Several people's short jobs in one transaction, which begins, waits for the disk and ends once for all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from plaudit.errors import PlauditError

Transaction = Connection
"""A connection inside a transaction, for callers who need not know SQLAlchemy."""
Job = Callable[[Transaction], Any]
"""It may be run again where its transaction was rolled back, so all it does must be in the database."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a job: its value, or why it failed."""

    value: Any = None
    failure: Exception | None = None


class JobFailed(Exception):
    """A job of a lot raised; what it raised is the cause."""


def do(connection: Connection, job: Job) -> Outcome:
    """Run one job."""
    try:
        return Outcome(job(connection))
    except Exception as error:
        return Outcome(failure=error)


def do_all(connection: Connection, jobs: Sequence[Job]) -> list[Outcome]:
    """Run the jobs one after another.

    Raises:
        JobFailed: one of them did; the transaction must not be committed.
    """
    outcomes = []
    for job in jobs:
        outcome = do(connection, job)
        if outcome.failure is not None:
            raise JobFailed from outcome.failure
        outcomes.append(outcome)
        _must_be_open(connection)
    return outcomes


def do_each(connection: Connection, jobs: Sequence[Job]) -> list[Outcome]:
    """Run the jobs one after another, each behind a savepoint: what a failing one did is taken back.

    Raises:
        PlauditError: the database ended the transaction by itself, as SQLite does on a full disk; nothing is stored.
    """
    outcomes = []
    for job in jobs:
        connection.exec_driver_sql("SAVEPOINT one")
        outcome = do(connection, job)
        _must_be_open(connection)
        if outcome.failure is not None:
            connection.exec_driver_sql("ROLLBACK TO SAVEPOINT one")
        connection.exec_driver_sql("RELEASE SAVEPOINT one")
        outcomes.append(outcome)
    return outcomes


def _must_be_open(connection: Connection) -> None:
    """Without a transaction a commit would succeed and mean nothing. PostgreSQL's driver fails by itself."""
    driver: Any = connection.connection.dbapi_connection
    if not getattr(driver, "in_transaction", True):
        cure = "see whether its disk is full; then send it again"
        raise PlauditError("the database ended the transaction", cure=cure)
