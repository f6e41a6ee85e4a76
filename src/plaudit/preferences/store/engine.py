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
from plaudit.preferences.store.locks import take_turn
from plaudit.preferences.store.together import Job, JobFailed, Outcome, do, do_all, do_each

BUSY_MS = 30_000
IMMEDIATE = "plaudit_immediate"
POOL: dict[str, Any] = {"pool_size": 20, "max_overflow": 40, "hide_parameters": True}
"""Parameters are digests and answers: they must not reach a log by way of an error."""


class Store:
    """A database of annotation projects.

    ``read()`` and ``write()`` give a connection inside one transaction. What was written is on the disk when
    ``write()`` has been left: only then may it be acknowledged.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.is_sqlite = engine.dialect.name == "sqlite"
        # SQLite has one writer: waiting for a lock is fairer and cheaper than polling for the file.
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
            cause = str(getattr(error, "orig", None) or error).splitlines()[0]
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

    def read_each(self, jobs: Sequence[Job]) -> list[Outcome]:
        """Several short jobs that see one state of the database; the outcome of each, in their order."""
        with self.read() as connection:
            outcomes = [do(connection, job) for job in jobs]
        if len(jobs) > 1:  # an error of the database ends the transaction for all who come after
            for k, outcome in enumerate(outcomes):
                if isinstance(outcome.failure, DBAPIError):
                    outcomes[k] = self.read_each([jobs[k]])[0]
        return outcomes

    def write_each(self, jobs: Sequence[Job]) -> list[Outcome]:
        """Several short jobs in one transaction, so that they wait for the disk once. Each can fail alone.

        Returns:
            The outcome of each job, in their order. What did not fail is on the disk.

        Raises:
            Exception: nothing of any job was stored.
        """
        with contextlib.suppress(JobFailed), self.write() as connection:
            take_turn(connection)
            return do_all(connection, jobs)
        with self.write() as connection:  # all again, for jobs seldom fail and savepoints cost
            take_turn(connection)
            return do_each(connection, jobs)

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
        """Give all connections back."""
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
        durable = {"options": "-c synchronous_commit=on"}  # whatever the server's default
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
    """Create the file, or close it to others: it holds people's answers and hashed passwords.

    Raises:
        ConfigError: others may read it, and it is not ours to change.
        OSError: it cannot be opened.
    """
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    if os.name == "nt":
        return
    for part in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):  # SQLite's own files live and die with it
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
    connection.isolation_level = None  # the driver must not begin transactions by itself
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", f"busy_timeout={BUSY_MS}"):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Connection) -> None:
    # IMMEDIATE takes the write lock at once: a reader that becomes a writer could fail half-way.
    immediate = connection.get_execution_options().get(IMMEDIATE, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")


def _migrate(engine: Engine) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            connection = connection.execution_options(**{IMMEDIATE: True})
        with connection.begin():
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
