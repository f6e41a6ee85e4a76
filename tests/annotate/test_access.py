"""Who may do what: a matrix over every route of the OpenAPI description; CSRF, headers, sessions, limits."""

import re
from typing import Any

import httpx
import pytest
from annotating import PASSWORD, Served, Team, Unlimited, make_team

from plaudit.annotate.access import needs
from plaudit.annotate.app import create_app
from plaudit.annotate.limits import Limiter
from plaudit.annotate.security import CSP
from plaudit.annotate.settings import ServeSettings
from plaudit.errors import ConfigError
from plaudit.preferences.store import people
from plaudit.preferences.store.engine import Store

WHO = ("anonymous", "annotator", "stranger", "reviewer", "admin", "disabled", "expired")
ALLOWED = {
    "public": set(WHO),
    "person": {"annotator", "stranger", "reviewer", "admin"},
    "member": {"annotator", "reviewer", "admin"},
    "reviewer": {"reviewer", "admin"},
    "admin": {"admin"},
}
VALUES = {"slug": "demo", "number": "1", "what": "preferences", "secret": "nothing"}


def routes(app: Any) -> list[tuple[str, str, str]]:
    """(method, path, access) of every operation that is published."""
    paths = app.openapi()["paths"]
    return [
        (method.upper(), path, entry.get("x-access", "MISSING"))
        for path, methods in paths.items()
        for method, entry in methods.items()
    ]


def fill(path: str) -> str:
    return re.sub(r"{(\w+)}", lambda m: VALUES[m[1]], path)


def outsiders(team: Team) -> None:
    """Two more: one who was disabled while logged in, one whose session has run out."""
    with team.store.write() as conn:
        for name in ("disabled", "expired"):
            user = people.add_user(conn, name, "admin")
            team.users[name] = user
            team.sessions[name] = people.issue_token(conn, user.id, "session")
            team.tokens[name] = people.issue_token(conn, user.id, "api", "x")
        conn.exec_driver_sql("UPDATE users SET disabled_at = 1 WHERE name = 'disabled'")
        conn.exec_driver_sql(f"UPDATE tokens SET expires_at = 1 WHERE user_id = {team.users['expired'].id}")


def call(client: httpx.Client, team: Team, who: str, method: str, path: str) -> httpx.Response:
    if path.startswith("/api/"):
        return client.request(method, fill(path), headers=team.headers(who), json={})
    client.cookies.clear()
    client.cookies.update(team.cookies(who))
    csrf = team.csrf(who) if who in team.sessions else ""
    if who in ("anonymous", "disabled", "expired"):
        client.get("/login")
        csrf = csrf_of_visit(client)
    return client.request(method, fill(path), data={"csrf": csrf} if method == "POST" else None)


def csrf_of_visit(client: httpx.Client) -> str:
    found = re.search(r'name="csrf" value="(\w+)"', client.get("/login").text)
    return found[1] if found else ""


def test_every_route_says_whom_it_lets_in(served: Served) -> None:
    found = routes(served.app)
    assert len(found) > 40
    assert [r for r in found if r[2] not in ALLOWED] == []
    from fastapi.routing import APIRoute

    def published(route: Any) -> bool:
        return not isinstance(route, APIRoute) or route.include_in_schema

    assert all(published(route) for route in served.app.routes), "a route hides from the matrix"


def test_authorisation_matrix(team: Team) -> None:
    """Every operation as everybody: let in or refused, exactly as it says of itself."""
    outsiders(team)
    wrong = []
    cells = 0
    with Served(team.store, limiter=Unlimited()) as served, served.client() as client:
        for method, path, access in routes(served.app):
            if path in ("/logout", "/account/password"):
                continue  # they end the session that the next cells need; tested below
            for who in WHO:
                said = call(client, team, who, method, path)
                is_member = "{slug}" not in path or who != "stranger"
                allowed = who in ALLOWED[access] and is_member
                refused = said.status_code in (401, 403) or said.headers.get("location") == "/login"
                hidden = said.status_code == 404 and who == "stranger" and "{slug}" in path
                cells += 1
                login = path == "/login" and method == "POST"  # 401 is its answer to a wrong password
                if (allowed == (refused or hidden) and not login) or said.status_code >= 500:
                    wrong.append((method, path, access, who, said.status_code))
    assert wrong == []
    assert cells > 280


def test_a_route_that_says_nothing_lets_nobody_in(store: Store) -> None:
    team = make_team(store)
    with Served(team.store, limiter=Unlimited()) as served:
        served.app.add_api_route("/forgotten", lambda: "secret")
        served.app.router.routes.insert(0, served.app.router.routes.pop())
        with served.client(cookies=team.cookies("admin")) as client:
            said = client.get("/forgotten")
    assert said.status_code == 403 and "secret" not in said.text


def test_every_write_needs_its_csrf_token(served: Served, team: Team) -> None:
    missed = []
    with served.client(cookies=team.cookies("admin")) as client:
        for method, path, _ in routes(served.app):
            if method == "GET" or path.startswith("/api/"):
                continue
            for sent in ({}, {"csrf": ""}, {"csrf": "0" * 64}, {"csrf": team.csrf("reviewer")}):
                said = client.request(method, fill(path), data=sent)
                if said.status_code != 403:
                    missed.append((path, sent, said.status_code))
    assert missed == []


@pytest.mark.parametrize(
    "header",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_writes_from_other_sites_are_refused_even_with_the_token(
    served: Served, team: Team, header: dict[str, str]
) -> None:
    with served.client(cookies=team.cookies("admin")) as client:
        ok = client.post(
            "/p/demo/undo", data={"csrf": team.csrf("admin"), "key": "k" * 12}, headers={"origin": served.url}
        )
        said = client.post("/p/demo/undo", data={"csrf": team.csrf("admin"), "key": "k" * 12}, headers=header)
    assert (ok.status_code, said.status_code) == (303, 403)


def test_the_api_takes_no_cookies_and_pages_take_no_tokens(served: Served, team: Team) -> None:
    with served.client() as client:
        assert client.get("/admin", headers=team.headers("admin")).headers.get("location") == "/login"
        session = {"authorization": f"Bearer {team.sessions['admin']}"}
        assert client.get("/api/v1/me", headers=session).status_code == 401
    with served.client(cookies=team.cookies("admin")) as client:
        assert client.get("/api/v1/me").status_code == 401


def test_every_answer_has_the_headers(served: Served, team: Team) -> None:
    with served.client(cookies=team.cookies("admin")) as client:
        for path in (
            "/",
            "/p/demo/work",
            "/login",
            "/nothing",
            "/static/app.css",
            "/api/v1/me",
            "/api/openapi.json",
        ):
            said = client.get(path)
            assert said.headers["content-security-policy"] == CSP, path
            assert said.headers["x-content-type-options"] == "nosniff"
            assert "server" not in said.headers
            assert ("no-store" in said.headers.get("cache-control", "")) == (not path.startswith("/static"))
    assert "unsafe" not in CSP and "default-src 'none'" in CSP


def test_pages_have_no_inline_script_or_style(as_person: Any) -> None:
    client = as_person("admin")
    for path in (
        "/",
        "/p/demo",
        "/p/demo/work",
        "/p/demo/review",
        "/p/demo/settings",
        "/admin",
        "/account",
        "/p/demo/items/1",
    ):
        page = client.get(path).text
        assert not re.search(r"<script(?![^>]*\bsrc=)|\son\w+=|\sstyle=|javascript:", page), path


def test_logging_in_and_out(served: Served, team: Team) -> None:
    with served.client() as client:
        assert client.get("/").headers["location"] == "/login"
        visit = client.cookies["plaudit_visit"]
        client.cookies.set("plaudit_session", "chosen-by-an-attacker")
        said = client.post(
            "/login", data={"name": "Reviewer", "password": PASSWORD, "csrf": csrf_of_visit(client)}
        )
        assert said.status_code == 303
        cookie = said.headers["set-cookie"]
        assert all(flag in cookie for flag in ("HttpOnly", "SameSite=Lax", "Path=/"))
        session = re.search("plaudit_session=([^;]+)", cookie)
        assert session and session[1] not in (visit, "chosen-by-an-attacker") and len(session[1]) == 43
        client.cookies.clear()
        client.cookies.set("plaudit_session", session[1])
        page = client.get("/")
        assert page.status_code == 200
        csrf = re.search(r'name="csrf" value="(\w+)"', page.text)
        assert csrf and client.post("/logout", data={"csrf": csrf[1]}).status_code == 303
        client.cookies.set("plaudit_session", session[1])
        assert client.get("/account").headers["location"] == "/login", (
            "the session has ended on the server too"
        )


def test_wrong_passwords_are_not_told_apart_and_slowed_down(team: Team) -> None:
    with Served(team.store) as served, served.client() as client:
        csrf = csrf_of_visit(client)

        def attempt(name: str) -> httpx.Response:
            return client.post("/login", data={"name": name, "password": "wrong", "csrf": csrf})

        known, unknown = attempt("admin"), attempt("nobody at all")
        assert known.status_code == unknown.status_code == 401
        assert re.sub(r"\w{64}|\w{32}", "", known.text) == re.sub(r"\w{64}|\w{32}", "", unknown.text)
        codes = [attempt("admin").status_code for _ in range(5)]
        assert codes == [401] * 4 + [429]
        assert int(attempt("admin").headers["retry-after"]) >= 1
        assert attempt("reviewer").status_code == 401, "others can still log in"


def test_an_invitation_works_once(served: Served, team: Team) -> None:
    with team.store.write() as conn:
        secret = people.invite(conn, "annotator", team.project.id)
    with served.client() as client:
        csrf = csrf_of_visit(client)
        weak = client.post(f"/join/{secret}", data={"csrf": csrf, "name": "Nia", "password": "1234567890"})
        assert weak.status_code == 422 and "guessed at once" in weak.text
        good = client.post(f"/join/{secret}", data={"csrf": csrf, "name": "Nia", "password": PASSWORD})
        assert good.status_code == 303
        assert client.get("/p/demo/work").status_code == 200
    with served.client() as client:
        assert client.get(f"/join/{secret}").status_code == 404


def test_a_new_password_ends_every_session_and_token(served: Served, team: Team) -> None:
    with served.client(cookies=team.cookies("annotator")) as client:
        form = {"csrf": team.csrf("annotator"), "old": PASSWORD, "new": "another four words here"}
        assert client.post("/account/password", data={**form, "old": "no"}).status_code == 422
        assert client.post("/account/password", data=form).status_code == 303
        assert client.get("/api/v1/me", headers=team.headers("annotator")).status_code == 401
    with served.client(cookies=team.cookies("annotator")) as client:
        assert client.get("/").headers["location"] == "/login"


def test_rate_limits_of_one_person(team: Team) -> None:
    frozen = Limiter(clock=lambda: 0.0)
    with (
        Served(team.store, limiter=frozen) as served,
        served.client(headers=team.headers("annotator")) as client,
    ):
        codes = [client.post("/api/v1/projects/demo/next").status_code for _ in range(120)]
        other = client.get("/api/v1/me", headers=team.headers("reviewer"))
    assert 429 in codes and codes[:40] == [200] * 40
    assert other.status_code == 200


def test_bodies_have_a_limit(served: Served, team: Team) -> None:
    def endless() -> Any:
        for _ in range(40):
            yield b"x" * 65_536

    with served.client(headers=team.headers("admin")) as client:
        announced = client.post("/api/v1/projects/demo/items", content=b"x" * (2 << 20))
        chunked = client.post("/api/v1/projects/demo/items", content=endless())
    assert announced.status_code == 413
    assert chunked.status_code == 413


def test_other_names_for_this_machine_are_refused(served: Served) -> None:
    with served.client() as client:
        assert client.get("/login", headers={"host": "evil.example"}).status_code == 421
        assert client.get("/login", headers={"host": f"localhost:{served.port}"}).status_code == 200


def test_locally_nobody_logs_in(store: Store) -> None:
    with Served(store, auth=False) as served, served.client() as client:
        assert client.get("/").status_code == 200
        assert "Log out" not in client.get("/").text
        assert client.post("/p/x/undo", data={"key": "k" * 10}).status_code == 403, (
            "CSRF is checked all the same"
        )
        assert client.get("/", headers={"host": "rebound.example"}).status_code == 421


@pytest.mark.parametrize(
    "options",
    [
        {"host": "0.0.0.0"},
        {"host": "0.0.0.0", "auth": True},
        {"host": "192.168.1.5"},
        {"port": 0},
        {"public_url": "ftp://x"},
    ],
)
def test_serving_openly_by_mistake_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        ServeSettings(**options)
    assert caught.value.cure


def test_behind_https_cookies_are_secure(store: Store) -> None:
    url = "https://label.example.org"
    with (
        Served(store, public_url=url) as served,
        served.client(headers={"host": "label.example.org"}) as client,
    ):
        said = client.get("/login")
    assert "Secure" in said.headers["set-cookie"] and "max-age" in said.headers["strict-transport-security"]


def test_needs_and_app_agree_on_names(store: Store) -> None:
    assert needs("member")["x-access"] == "member"
    assert create_app(store).openapi()["info"]["title"] == "Plaudit annotation"
