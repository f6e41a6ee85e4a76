"""Stores on SQLite and, where a server is at hand, on PostgreSQL; an app with people of every role."""

import contextlib
import os
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the annotation app's packages: pip install 'plaudit[annotate]'")
pytest.importorskip("httpx", reason="the annotation app's tests: pip install 'plaudit[annotate-test]'")

import httpx
from annotating import DESKTOP, POSTGRES, Served, Team, Unlimited, free_port, make_team, postgres_bin

from plaudit.preferences.store.engine import Store

PLAYWRIGHT = "browser tests need Playwright: pip install 'plaudit[annotate-test]'"
CHROMIUM = "browser tests need Chromium: apt-get install chromium, or playwright install chromium"


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a PostgreSQL server of our own, without a database name."""
    bin_dir = postgres_bin()
    if bin_dir is None:
        pytest.skip(POSTGRES)
    user = "postgres" if os.geteuid() == 0 else None
    home = Path("/tmp") / f"plaudit-pg-{uuid.uuid4().hex[:8]}"
    home.mkdir(mode=0o700)
    port = free_port()
    if user:
        shutil.chown(home, user)
    run = {"user": user, "check": True, "capture_output": True, "cwd": "/tmp"}
    try:
        subprocess.run([bin_dir / "initdb", "-D", home / "data", "-U", "postgres", "-A", "trust"], **run)
        options = (
            f"-p {port} -k {home} -c listen_addresses=127.0.0.1 -c fsync=off"  # nothing here outlives it
        )
        start = [bin_dir / "pg_ctl", "-D", home / "data", "-o", options, "-l", home / "log", "-w", "start"]
        subprocess.run(start, user=user, check=True, stdout=subprocess.DEVNULL, cwd="/tmp")
    except (OSError, subprocess.CalledProcessError, PermissionError) as error:
        shutil.rmtree(home, ignore_errors=True)
        pytest.skip(f"{POSTGRES} ({error})")
    yield f"postgresql://postgres@127.0.0.1:{port}"
    subprocess.run([bin_dir / "pg_ctl", "-D", home / "data", "-m", "immediate", "stop"], **run)
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def template(postgres: str) -> str:
    """The name of a database with tables, which the others are copied from: quicker than migrating each."""
    import psycopg

    with psycopg.connect(f"{postgres}/postgres", autocommit=True) as conn:
        conn.execute("CREATE DATABASE filled")
    Store.open(f"{postgres}/filled").close()
    return "filled"


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Where an empty database of each kind is."""
    if request.param == "sqlite":
        yield str(tmp_path / "store.db")
        return
    import psycopg

    server, template = request.getfixturevalue("postgres"), request.getfixturevalue("template")
    name = f"t{uuid.uuid4().hex[:12]}"
    with psycopg.connect(f"{server}/postgres", autocommit=True) as conn:
        conn.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    yield f"{server}/{name}"
    with psycopg.connect(f"{server}/postgres", autocommit=True) as conn:
        conn.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def store(database: str) -> Iterator[Store]:
    opened = Store.open(database)
    yield opened
    opened.close()


@pytest.fixture
def sqlite_store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path / "store.db")
    yield opened
    opened.close()


@pytest.fixture
def team(store: Store) -> Team:
    return make_team(store)


@pytest.fixture
def served(team: Team) -> Iterator[Served]:
    with Served(team.store, limiter=Unlimited()) as running:
        yield running


@pytest.fixture
def as_person(served: Served, team: Team) -> Iterator[Callable[[str], httpx.Client]]:
    """A logged-in client that adds the CSRF token to what it posts."""
    with contextlib.ExitStack() as stack:

        def client(who: str) -> httpx.Client:
            cookies, headers = team.cookies(who), {}
            if who in team.sessions:
                headers = {"x-csrf-token": team.csrf(who)}
            return stack.enter_context(served.client(cookies=cookies, headers=headers))

        yield client


# Browsers


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason=PLAYWRIGHT)
    with sync_api.sync_playwright() as playwright:
        own = Path(playwright.chromium.executable_path)
        found = str(own) if own.exists() else shutil.which("chromium") or shutil.which("google-chrome")
        if not found:
            pytest.skip(CHROMIUM)
        browser = playwright.chromium.launch(
            executable_path=found, args=["--no-sandbox"] if os.geteuid() == 0 else []
        )
        yield browser
        browser.close()


@pytest.fixture
def local(sqlite_store: Store) -> Iterator[Served]:
    with Served(sqlite_store, auth=False, limiter=Unlimited()) as running:
        yield running


def known(message: str) -> bool:
    """What the browser and htmx say of a refused or lost request; some tests provoke them."""
    said = ("status of 4", "Response Status Error Code 4", "ERR_INTERNET_DISCONNECTED", "htmx:")
    return any(text in message for text in said)


@pytest.fixture
def visit(chromium: Any, local: Served) -> Iterator[Callable[..., Any]]:
    """Open a page of the local app; a fault on the console or in a script fails the test."""
    contexts, faults = [], []

    def open_page(path: str, size: dict[str, int] = DESKTOP, **options: Any) -> Any:
        context = chromium.new_context(viewport=size, reduced_motion="reduce", **options)
        context.set_default_timeout(300_000)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: None if known(str(error)) else faults.append(str(error)))
        page.on(
            "console",
            lambda m: faults.append(m.text) if m.type == "error" and not known(m.text) else None,
        )
        page.goto(local.url + path)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert faults == []
