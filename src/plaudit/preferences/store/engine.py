"""Opening the database: SQLite by default, PostgreSQL by URL; migrations are applied on opening."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, OperationalError

from plaudit.errors import ConfigError
from plaudit.preferences.store.transaction import (
    Job,
    JobFailed,
    Outcome,
    lock_history,
    run_all,
    run_job,
    run_with_savepoints,
)

BUSY_MS = 30_000
IMMEDIATE = "plaudit_immediate"
# hide_parameters: the parameters of statements are digests of secrets and people's answers, and SQLAlchemy would put
# them into the text of its errors, which end in logs.
POOL: dict[str, Any] = {"pool_size": 20, "max_overflow": 40, "hide_parameters": True}


class Store:
    """A database of annotation projects.

    ``read()`` and ``write()`` give a connection inside one transaction. What was written is on the disk when the
    ``with`` block of ``write()`` ends: only then may a request be told that it is stored.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.is_sqlite = engine.dialect.name == "sqlite"
        # SQLite allows one writer. Threads of this process wait for a lock: SQLite's own waiting (busy_timeout) polls
        # with growing pauses, which is slow and can let one thread wait far longer than the others. The busy_timeout
        # remains for other processes, such as `plaudit annotate import` beside a running server.
        self._writer: contextlib.AbstractContextManager[Any] = (
            threading.Lock() if self.is_sqlite else contextlib.nullcontext()
        )

    @classmethod
    def open(cls, where: str | Path) -> Store:
        """Open or create the database and bring its tables up to date.

        Args:
            where: a file name (SQLite) or a URL such as ``postgresql://user@host/name``.

        Raises:
            ConfigError: no such kind of database, its driver is missing, or it cannot be reached.
        """
        url = database_url(where)
        try:
            engine = _engine(url)
            _migrate(engine)
        except (ArgumentError, NoSuchModuleError, ModuleNotFoundError, OperationalError) as error:
            # SQLAlchemy's own text holds the statement and a link; the driver's error alone names the cause.
            origin = error.orig if isinstance(error, DBAPIError) and error.orig else error
            cause = str(origin).splitlines()[0]
            cure = "a file name, or postgresql://USER@HOST/NAME with `pip install 'plaudit[annotate]'`; is it running?"
            shown = sqlalchemy.make_url(url).render_as_string(hide_password=True) if "://" in url else url
            raise ConfigError(f"cannot open the database: {cause}", where=shown, cure=cure) from error
        return cls(engine)

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection that sees one state of the database."""
        with self.engine.connect() as connection, connection.begin():
            yield connection

    @contextlib.contextmanager
    def write(self) -> Iterator[Connection]:
        """A connection inside a writing transaction: committed at the end, rolled back on an exception."""
        with self._writer, self.engine.connect() as connection:
            if self.is_sqlite:
                connection = connection.execution_options(**{IMMEDIATE: True})
            with connection.begin():
                yield connection

    def read_batch(self, jobs: Sequence[Job]) -> list[Outcome]:
        """Several short jobs that see one state of the database; the outcome of each, in their order."""
        with self.read() as connection:
            outcomes = [run_job(connection, job) for job in jobs]
        if len(jobs) > 1:
            # PostgreSQL refuses every further statement of a transaction after one error, so the jobs behind a failing
            # one failed for nothing. Each of them gets a transaction of its own.
            for k, outcome in enumerate(outcomes):
                if isinstance(outcome.failure, DBAPIError):
                    outcomes[k] = self.read_batch([jobs[k]])[0]
        return outcomes

    def write_batch(self, jobs: Sequence[Job]) -> list[Outcome]:
        """Several short jobs in one transaction, so that they wait for the disk once. Each can fail alone.

        Returns:
            The outcome of each job, in their order. What did not fail is on the disk.

        Raises:
            Exception: the commit failed; nothing of any job was stored.
        """
        # First without savepoints, which would cost two more statements for each job. Jobs seldom fail; when one does,
        # the whole batch is rolled back and run again, then with savepoints, so that only the failing job is undone.
        with contextlib.suppress(JobFailed), self.write() as connection:
            lock_history(connection)
            return run_all(connection, jobs)
        with self.write() as connection:
            lock_history(connection)
            return run_with_savepoints(connection, jobs)

    def backup(self, target: Path) -> None:
        """A consistent copy of a SQLite database while it is being written to.

        Raises:
            ConfigError: the database is PostgreSQL, which brings its own tools, or ``target`` exists.
        """
        if not self.is_sqlite:
            cure = "use pg_dump, which copies a running PostgreSQL consistently"
            raise ConfigError("only SQLite databases are copied", where=str(self.engine.url), cure=cure)
        if target.exists():
            raise ConfigError("the file exists", where=str(target), cure="choose another name")
        # Copying the file byte by byte while it is written to would mix two states, and would miss the WAL beside it.
        # SQLite's backup API copies one state. The copy gets its name only after it was checked.
        partial = target.with_name(f".{target.name}.partial")
        _private_file(partial)
        with contextlib.closing(sqlite3.connect(partial)) as copy:
            with contextlib.closing(sqlite3.connect(str(self.engine.url.database))) as original:
                original.backup(copy)
            verdict = copy.execute("PRAGMA integrity_check").fetchone()[0]
        if verdict != "ok":
            raise ConfigError(f"the copy is damaged: {verdict}", where=str(partial), cure="check the disk")
        os.replace(partial, target)

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def database_url(where: str | Path) -> str:
    """A file name as a SQLite URL; a PostgreSQL URL with the driver that is used."""
    text = str(where)
    if "://" not in text:
        return f"sqlite:///{text}"
    for plain in ("postgresql://", "postgres://"):
        if text.startswith(plain):
            return "postgresql+psycopg://" + text.removeprefix(plain)
    return text


def _engine(url: str) -> Engine:
    parsed = sqlalchemy.make_url(url)
    kind = parsed.get_backend_name()
    if kind not in ("sqlite", "postgresql"):
        raise ConfigError(
            f"the database {kind!r} is not supported",
            where=url.split("@")[-1],
            cure="use a file name (SQLite) or a postgresql:// URL",
        )
    if kind == "postgresql":
        # Some servers are set up with synchronous_commit=off: COMMIT then returns before the data are on the disk, and
        # an acknowledged answer could be lost in a power failure.
        durable = {"options": "-c synchronous_commit=on"}
        return sqlalchemy.create_engine(parsed, **POOL, pool_pre_ping=True, connect_args=durable)
    if not parsed.database or parsed.database == ":memory:":
        raise ConfigError("a database in memory loses its answers", where=url, cure="give a file name")
    try:
        _private_file(Path(parsed.database))
    except OSError as error:
        cure = "choose a directory that exists and can be written to"
        raise ConfigError(
            f"cannot create the database: {error.strerror}", where=parsed.database, cure=cure
        ) from error
    engine = sqlalchemy.create_engine(parsed, **POOL)
    event.listen(engine, "connect", _prepare)
    event.listen(engine, "begin", _begin)
    return engine


def _private_file(path: Path) -> None:
    """Create the file so that only its owner can read it, or take other users' rights to it away.

    Raises:
        ConfigError: other users may read it, and it belongs to somebody else.
        OSError: it cannot be opened.
    """
    # The database holds people's answers and hashed passwords. The mode is given at creation: a chmod afterwards would
    # leave a moment in which another user could open the file.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    if os.name == "nt":
        return
    # SQLite keeps the newest pages in two files beside the database; they hold the same secrets.
    for part in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
        with contextlib.suppress(FileNotFoundError):
            _close_to_others(part)


def _close_to_others(path: Path) -> None:
    mode = stat.S_IMODE(path.stat().st_mode)
    if not mode & 0o077:
        return
    try:
        path.chmod(mode & 0o700)
    except PermissionError as error:
        cure = f"let its owner run chmod 600 {path}"
        raise ConfigError(
            f"others may read the database (mode {mode:03o})", where=str(path), cure=cure
        ) from error


def _prepare(connection: Any, record: Any) -> None:
    # Python's driver begins transactions by itself, with BEGIN instead of BEGIN IMMEDIATE, and only before some
    # statements. With isolation_level None it leaves that to ``_begin`` below.
    connection.isolation_level = None
    # WAL: readers go on while somebody writes. FULL: every commit is flushed to the disk (fsync); with NORMAL, which is
    # usual with WAL, the last commits before a power failure can be lost.
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", f"busy_timeout={BUSY_MS}"):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Connection) -> None:
    # IMMEDIATE takes the write lock at the start. A transaction that begins as a reader and writes later fails with
    # "database is locked", without waiting, if somebody else has written since its first read.
    immediate = connection.get_execution_options().get(IMMEDIATE, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")


def _migrate(engine: Engine) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    with engine.connect() as connection:
        # All migrations run in one transaction: a program that is killed half-way leaves the old tables. On SQLite it
        # is a writing one from the start, so of two programs that open a new file at once the second one waits, and
        # then finds nothing to do.
        if engine.dialect.name == "sqlite":
            connection = connection.execution_options(**{IMMEDIATE: True})
        with connection.begin():
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
