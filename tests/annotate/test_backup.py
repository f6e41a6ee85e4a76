"""A backup taken while a real server is being written to: whole, and with all that was acknowledged before it began."""

import asyncio
import hashlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from annotating import free_port, postgres_bin

from plaudit.preferences.exporting import export
from plaudit.preferences.store import content, history, projects
from plaudit.preferences.store.engine import Store

ROOT = Path(__file__).parents[2]
BEFORE, AFTER = 120, 120


@pytest.fixture(scope="module")
def load() -> ModuleType:
    """benchmarks/annotate_load.py, whose annotators and server these are."""
    spec = importlib.util.spec_from_file_location("annotate_load", ROOT / "benchmarks" / "annotate_load.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def copying(database: str, tmp_path: Path) -> tuple[list[str], str]:
    """The command that copies, and where the copy is to be opened."""
    if "://" not in database:
        target = str(tmp_path / "copy.db")
        return [
            sys.executable,
            "-m",
            "plaudit.cli.main",
            "annotate",
            "backup",
            target,
            "--db",
            database,
        ], target
    found = postgres_bin()
    assert found
    return [str(found / "pg_dump"), "-d", database, "-f", str(tmp_path / "copy.sql")], f"{database}_copy"


def restore(database: str, tmp_path: Path) -> None:
    """What PostgreSQL's own tools need; SQLite's copy is a database already."""
    if "://" not in database:
        return
    found, (server, _, name) = postgres_bin(), database.rpartition("/")
    assert found
    psql = [str(found / "psql"), "-q", "-v", "ON_ERROR_STOP=1"]
    subprocess.run([*psql, "-d", f"{server}/postgres", "-c", f"CREATE DATABASE {name}_copy"], check=True)
    done = [*psql, "-d", f"{database}_copy", "-f", str(tmp_path / "copy.sql")]
    subprocess.run(done, check=True, stdout=subprocess.DEVNULL)


async def under_load(load: ModuleType, database: str, command: list[str]) -> dict[str, int]:
    """Annotators at work before, during and after the copying; what was acknowledged before it began."""
    tokens = load.prepare(database, 8, 4000, False)
    ledger = load.Ledger(4000)
    port = free_port()
    server = await load.start(database, port)
    crowd = [
        asyncio.create_task(load.Annotator(port, load.Api(port, token), ledger, 0.0).run())
        for token in tokens
    ]
    try:
        await more_than(ledger, BEFORE)
        before = dict(ledger.acknowledged)
        copy = await asyncio.create_subprocess_exec(*command, stdout=subprocess.DEVNULL)
        assert await copy.wait() == 0
        await more_than(ledger, len(ledger.acknowledged) + AFTER)
        ledger.done.set()
        await asyncio.gather(*crowd)
    finally:
        server.kill()
        server.wait()
    return before


async def more_than(ledger: Any, n: int) -> None:
    async with asyncio.timeout(600):
        while len(ledger.acknowledged) <= n:
            await asyncio.sleep(0.01)


def state(store: Store, at: int) -> tuple[list[dict[str, Any]], str]:
    """All rows up to a revision, and the SHA-256 of what is exported from them."""
    with store.read() as conn:
        project = projects.get_project(conn, "load")
        given = history.read_annotations(conn, project, at)
        items = {item.key: item for item in content.read_items(conn, project).values()}
        rows = history.raw_rows(conn, project, at)
    return rows, hashlib.sha256(export("judgements", given, items).to_jsonl()).hexdigest()


def test_a_backup_under_load_is_whole(
    database: str, tmp_path: Path, load: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src") + os.pathsep + os.environ.get("PYTHONPATH", ""))
    command, where = copying(database, tmp_path)
    before = asyncio.run(under_load(load, database, command))
    restore(database, tmp_path)
    source, copy = Store.open(database), Store.open(where)
    try:
        with copy.read() as conn:
            newest = history.revision(conn, projects.get_project(conn, "load"))
            if copy.is_sqlite:
                assert conn.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"
        with source.read() as conn:
            assert history.revision(conn, projects.get_project(conn, "load")) > newest, "more came later"
        assert len(before) > BEFORE and max(before.values()) <= newest
        assert state(copy, newest) == state(source, newest)
        assert set(before.values()) <= {row["revision"] for row in state(copy, newest)[0]}
    finally:
        source.close()
        copy.close()
