"""What a security review found: the local user, bodies of strangers, names, invitations, files and logs."""

import contextlib
import logging
import os
import re
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy
from annotating import PASSWORD, Served, Team, Unlimited, free_port, make_project
from sqlalchemy.exc import SQLAlchemyError

from plaudit.annotate import commands
from plaudit.annotate.import_data import import_file
from plaudit.annotate.server.limits import Limiter
from plaudit.annotate.server.security import hash_password
from plaudit.annotate.server.serve import serve
from plaudit.annotate.server.settings import ServeSettings
from plaudit.errors import ConfigError, DataError
from plaudit.preferences.annotation import Choice
from plaudit.preferences.store import answers, content, people, projects
from plaudit.preferences.store.engine import Store
from plaudit.preferences.store.people import LOCAL_USER
from plaudit.preferences.store.schema import tokens
from plaudit.preferences.store.transaction import Conflict, NotFound


def test_the_local_user_is_nobody_where_people_log_in(store: Store) -> None:
    """Neither a session, nor a token, nor a password that the local user made opens anything under --auth."""
    with store.write() as conn:
        local = people.local_user(conn)
        people.set_password(conn, local.id, hash_password(PASSWORD, LOCAL_USER))
        session = {"cookie": f"plaudit_session={people.issue_token(conn, local.id, 'session')}"}
        bearer = {"authorization": f"Bearer {people.issue_token(conn, local.id, 'api')}"}
    with Served(store, auth=False, limiter=Unlimited()) as served, served.client() as client:
        assert client.get("/admin", headers=session).status_code == 200
        assert client.get("/api/v1/me", headers=bearer).status_code == 200
    with Served(store, limiter=Unlimited()) as served, served.client() as client:
        page = client.get("/login")
        csrf = page.text.partition('name="csrf" value="')[2][:64]
        form = {"name": "Local", "password": PASSWORD, "csrf": csrf}
        assert client.post("/login", data=form).status_code == 401
        assert client.get("/api/v1/me", headers=bearer).status_code == 401
        assert client.get("/admin", headers=session).headers["location"] == "/login"


def test_nobody_can_take_the_local_users_name(store: Store) -> None:
    with store.write() as conn:
        secret = people.invite(conn, "annotator")
        for name in ("local", "LOCAL", "\uff4cocal"):
            with pytest.raises(Conflict, match="taken"):
                people.join(conn, secret, name, "hash")
        assert people.join(conn, secret, "locale", "hash").name == "locale"


def test_the_local_user_does_not_count_as_the_last_admin(store: Store) -> None:
    with store.write() as conn:
        people.local_user(conn)
        ada = people.add_user(conn, "Ada", "admin")
        with pytest.raises(Conflict, match="somebody must be admin"):
            people.change_user(conn, ada.id, role="annotator", disabled=False)


def test_a_visit_in_local_mode_writes_nothing(store: Store) -> None:
    with Served(store, auth=False, limiter=Unlimited()) as served:
        for _ in range(5):
            with served.client() as client:
                page = client.get("/")
                assert page.status_code == 200 and "plaudit_visit" in page.cookies
        with served.client() as client:
            csrf = client.get("/admin").text.partition('name="csrf" value="')[2][:64]
            form = {"slug": "mine", "title": "", "task": "pairwise", "csrf": csrf}
            assert client.post("/admin/projects", data=form).status_code == 303
            client.cookies.clear()
            assert client.post("/admin/projects", data=form).status_code == 403, "the token is the visit's"
    with store.read() as conn:
        assert conn.scalar(sqlalchemy.select(sqlalchemy.func.count()).select_from(tokens)) == 0
        assert [u.name for u in people.list_users(conn)] == [LOCAL_USER]


def refusal(served: Served, cookie: str) -> bytes:
    """What is said to a large upload of which nothing but the head is sent."""
    head = (
        "POST /p/demo/import HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=x\r\n"
        f"Content-Length: {30 << 20}\r\nCookie: plaudit_session={cookie}\r\nConnection: close\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", served.port), timeout=120) as made:
        made.sendall(head.encode())
        return made.recv(4096)[:12]


def test_uploads_of_those_who_may_not_are_refused_unread(team: Team) -> None:
    with Served(team.store, limiter=Unlimited()) as served:
        assert refusal(served, "") == b"HTTP/1.1 401"
        assert refusal(served, team.sessions["reviewer"]) == b"HTTP/1.1 403"
    frozen = Limiter(clock=lambda: 0.0)
    with Served(team.store, limiter=frozen) as served:
        codes = [refusal(served, "") for _ in range(62)]
    assert codes[0] == b"HTTP/1.1 401" and codes[-1] == b"HTTP/1.1 429"


@pytest.mark.parametrize(
    "pair", [("ÄNNE", "änne"), ("Straße", "STRASSE"), ("Bob", "bob"), ("\uff22ob", "bob")]
)
def test_names_differ_by_more_than_capitals_in_every_alphabet(store: Store, pair: tuple[str, str]) -> None:
    with store.write() as conn:
        made = people.add_user(conn, pair[0], "annotator")
        found = people.find_user(conn, pair[1])
        assert found is not None and found[0] == made
        with pytest.raises(Conflict, match="taken"):
            people.add_user(conn, pair[1], "annotator")


def test_two_people_cannot_take_one_name_at_once(store: Store) -> None:
    start = threading.Barrier(4)

    def join(name: str) -> bool:
        start.wait()
        try:
            with store.write() as conn:
                people.add_user(conn, name, "annotator")
                time.sleep(0.05)  # the others look before this one commits
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(join, ("Bob", "bob", "BOB", "bOb")))
    assert sum(done) == 1


def test_people_of_an_older_database_are_still_found(sqlite_store: Store) -> None:
    """Migration 0002 on a database of 0001 in which SQLite took ÄNNE and änne for two names; 0003: a reviewer of then
    saw every project."""
    from alembic import command
    from alembic.config import Config

    from plaudit.preferences.store import engine

    config = Config()
    config.set_main_option("script_location", str(Path(engine.__file__).parent / "migrations"))
    with sqlite_store.write() as conn:
        conn.exec_driver_sql("DROP INDEX uq_users_name_key")
        conn.exec_driver_sql("ALTER TABLE users DROP COLUMN name_key")
        conn.exec_driver_sql("ALTER TABLE users DROP COLUMN everywhere")
        conn.exec_driver_sql("DROP TABLE disputes")
        conn.exec_driver_sql("ALTER TABLE projects DROP COLUMN read_up_to")
        for index in ("assignments_decided", "judgements_flagged", "judgements_skipped"):
            conn.exec_driver_sql(f"DROP INDEX ix_{index}")
        conn.exec_driver_sql("UPDATE alembic_version SET version_num = '0001'")
        for name in ("ÄNNE", "änne", "Bob"):
            role = "reviewer" if name == "Bob" else "annotator"
            conn.exec_driver_sql("INSERT INTO users (name, role, created_at) VALUES (?, ?, 0)", (name, role))
    with sqlite_store.write() as conn:
        config.attributes["connection"] = conn
        command.upgrade(config, "head")
    with sqlite_store.read() as conn:
        names = {n: found[0].name for n in ("änne", "änne 2", "BOB") if (found := people.find_user(conn, n))}
    assert names == {"änne": "ÄNNE", "änne 2": "änne", "BOB": "Bob"}
    with sqlite_store.read() as conn:
        assert [u.name for u in people.list_users(conn) if u.everywhere] == ["Bob"]


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1"])
def test_passwords_do_not_travel_in_clear_by_mistake(host: str) -> None:
    with pytest.raises(ConfigError, match="in clear"):
        ServeSettings(host=host, auth=True, public_url="http://label.example.org")
    ServeSettings(host=host, auth=True, public_url="http://label.example.org", plain_http=True)
    ServeSettings(host=host, auth=True, public_url="https://label.example.org")
    ServeSettings(public_url="http://localhost:9000")


def test_serving_without_logging_in_says_what_that_means(
    sqlite_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("uvicorn.Server.run", lambda self, sockets: [s.close() for s in sockets])
    for auth in (False, True):
        said: list[str] = []
        serve(sqlite_store, ServeSettings(port=8123, auth=auth), say=said.append)
        assert any("is its admin" in line for line in said) is not auth


def test_failures_of_the_database_keep_what_was_sent_to_themselves(
    sqlite_store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        caplog.at_level(logging.DEBUG),
        pytest.raises(SQLAlchemyError) as caught,
        sqlite_store.write() as conn,
    ):
        conn.execute(sqlalchemy.text("INSERT INTO nothing VALUES (:v)"), {"v": "a-planted-secret"})
    assert "a-planted-secret" not in str(caught.value) + caplog.text


def test_an_open_database_is_closed_to_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where = tmp_path / "old.db"
    Store.open(where).close()
    where.chmod(0o644)
    Store.open(where).close()
    assert where.stat().st_mode & 0o777 == 0o600
    where.chmod(0o640)

    def refuse(self: Path, mode: int) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "chmod", refuse)
    with pytest.raises(ConfigError, match="others may read") as caught:
        Store.open(where)
    assert "chmod 600" in str(caught.value.cure)


def test_invitations_can_be_taken_back(as_person: Any, team: Team) -> None:
    with team.store.write() as conn:
        secret = people.invite(conn, "reviewer", team.project.id, team.users["admin"].id)
        (mine,) = people.open_invitations(conn)
    assert (mine["role"], mine["slug"], mine["name"]) == ("reviewer", "demo", "admin")
    client = as_person("admin")
    assert f"/admin/invitations/{mine['id']}/end" in client.get("/admin").text
    assert client.post(f"/admin/invitations/{mine['id']}/end").status_code == 303
    assert client.post(f"/admin/invitations/{mine['id']}/end").status_code == 404
    assert client.get(f"/join/{secret}").status_code == 404


@pytest.mark.parametrize(("role", "disabled"), [("admin", True), ("reviewer", False), ("annotator", False)])
def test_invitations_of_somebody_who_is_no_admin_any_more_end(
    store: Store, role: people.UserRole, disabled: bool
) -> None:
    with store.write() as conn:
        people.add_user(conn, "Ada", "admin")
        eve = people.add_user(conn, "Eve", "admin")
        secret, other = people.invite(conn, "admin", by=eve.id), people.invite(conn, "annotator")
        people.change_user(conn, eve.id, role="admin", disabled=False)
        assert people.invitation(conn, secret).role == "admin"
        people.change_user(conn, eve.id, role=role, disabled=disabled)
        with pytest.raises(NotFound):
            people.invitation(conn, secret)
        assert people.invitation(conn, other).role == "annotator"


@pytest.mark.parametrize("key", ["", "short", "k" * 81, "a\x00" * 8])
def test_taking_back_needs_a_key_as_answers_do(store: Store, key: str) -> None:
    project = make_project(store)
    with store.write() as conn:
        user = people.add_user(conn, "Ada", "annotator")
        with pytest.raises(DataError, match="8 to 80"):
            answers.undo(conn, project, user.id, key)


def write_preferences(where: Path, n: int) -> Path:
    rows = (
        f'{{"id": "{k}", "prompt": "p{k}", "chosen": "good {k}", "rejected": "bad {k}"}}' for k in range(n)
    )
    where.write_text("\n".join(rows))
    return where


def test_where_the_chosen_response_lies_needs_the_projects_secret(
    sqlite_store: Store, tmp_path: Path
) -> None:
    source = write_preferences(tmp_path / "pairs.jsonl", 64)

    def places(slug: str) -> tuple[str, ...]:
        done = import_file(sqlite_store, source, slug=slug, gold=True)
        with sqlite_store.read() as conn:
            items = content.read_items(conn, done.project).values()
        for item in items:
            assert item.gold == Choice(-1 if str(item.responses[0].content).startswith("good") else 1)
        return tuple(str(item.responses[0].content)[:4] for item in items)

    first, second = places("first"), places("second")
    assert first != second, "drawn for each project"
    assert 16 < sum(said == "good" for said in first) < 48
    with sqlite_store.write() as conn:
        one, other = projects.get_project(conn, "first"), projects.get_project(conn, "second")
    assert 0 != one.settings.seed != other.settings.seed


def test_only_admins_see_the_seed(served: Served, team: Team) -> None:
    with served.client() as client:
        for who in ("annotator", "reviewer", "admin"):
            for path in ("/api/v1/projects/demo", "/api/v1/projects"):
                said = client.get(path, headers=team.headers(who)).json()
                settings = (said[0] if isinstance(said, list) else said)["settings"]
                assert ("seed" in settings) is (who == "admin"), (who, path)


def test_logs_hold_no_secret(tmp_path: Path) -> None:
    """The real command: what it prints while people join, log in, fail and use tokens names none of their secrets."""
    port, db = free_port(), tmp_path / "a.db"
    command = [sys.executable, "-m", "plaudit.cli.main", "annotate", "serve", "--auth", "--db", str(db)]
    env = {**os.environ, "PYTHONPATH": str(Path(commands.__file__).parents[2])}
    out = tmp_path / "out.txt"
    with out.open("wb") as log:
        server = subprocess.Popen(
            [*command, "--port", str(port)], stdout=log, stderr=subprocess.STDOUT, env=env
        )
        try:
            secrets = secrets_of_a_visit(port, out)
        finally:
            server.terminate()
            server.wait(600)
    said = out.read_text(encoding="utf-8")
    assert "/join/" in said, "the invitation of the first admin is printed, once, and has been used"
    assert len(secrets) == 4 and not [s for s in secrets if s in said]
    kept = b"".join(p.read_bytes() for p in tmp_path.glob("a.db*"))
    assert not [s for s in secrets if s.encode() in kept], "the database holds digests only"


def secrets_of_a_visit(port: int, out: Path) -> list[str]:
    """Join as the first admin, invite, make a token, and be refused with each of them in the wrong place."""
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=600, trust_env=False) as client:
        for _ in range(6000):
            link = re.search(r"/join/(\S+)", out.read_text(encoding="utf-8"))
            with contextlib.suppress(httpx.TransportError):
                if link and client.get("/login").status_code == 200:
                    break
            time.sleep(0.1)
        assert link is not None

        def post(path: str, page: str, **fields: str) -> str:
            csrf = client.get(page).text.partition('name="csrf" value="')[2][:64]
            return client.post(path, data={**fields, "csrf": csrf}).text

        post(link[0], link[0], name="Ada", password=PASSWORD)
        invitation = post("/admin/invitations", "/admin", role="reviewer").partition("/join/")[2][:43]
        token = (
            post("/account/tokens", "/account", label="t").partition('class="secret">')[2].partition("<")[0]
        )
        session = client.cookies["plaudit_session"]
        for secret in (invitation, token, session, PASSWORD):
            client.get(f"/p/{secret}")
            client.get("/api/v1/me", headers={"authorization": f"Bearer {secret}x"})
            client.post("/login", data={"name": "Ada", "password": f"{secret}x"})
            client.post("/api/v1/projects", headers={"authorization": f"Bearer {token}"}, content=secret)
    return [invitation, token, session, PASSWORD]
