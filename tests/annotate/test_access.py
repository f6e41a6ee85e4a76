"""Who may do what: a matrix over every route of the OpenAPI description; CSRF, headers, sessions, limits."""

import re
from typing import Any

import httpx
import pytest
from annotating import OUTSIDE, PASSWORD, ROLES, Served, Team, Unlimited, make_team

from plaudit.annotate.server.access import needs
from plaudit.annotate.server.app import create_app
from plaudit.annotate.server.limits import LOGIN_ACCOUNT, Limiter
from plaudit.annotate.server.security import CSP
from plaudit.annotate.server.serve import server_config
from plaudit.annotate.server.settings import ServeSettings
from plaudit.errors import ConfigError
from plaudit.preferences.store import content, history, people, projects
from plaudit.preferences.store.engine import Store

WHO = ("anonymous", *ROLES, "disabled", "expired")
REVIEWERS = {"reviewer", "guest", "overseer", "admin"}
ALLOWED = {
    "public": set(WHO),
    "person": {"annotator", "stranger", *REVIEWERS},
    "member": {"annotator", *REVIEWERS},
    "reviewer": REVIEWERS,
    "admin": {"admin"},
}
"""Of these, whoever is of another project (``OUTSIDE``) is told that there is none of that name."""
REMOVALS = ("/admin/people/{number}/projects/{slug}/remove", "/api/v1/projects/{slug}/members/{number}")
VALUES = {"slug": "demo", "number": "1", "what": "preferences", "secret": "nothing", "place": "prompt"}


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


def join_again(team: Team) -> None:
    with team.store.write() as conn:
        projects.add_member(conn, team.project.id, team.users["annotator"].id)


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
                if path in REMOVALS:  # person 1, whom the next cells need
                    join_again(team)
                is_member = "{slug}" not in path or who not in OUTSIDE
                allowed = who in ALLOWED[access] and is_member
                refused = said.status_code in (401, 403) or said.headers.get("location") == "/login"
                hidden = said.status_code == 404 and who in OUTSIDE and "{slug}" in path
                cells += 1
                login = path == "/login" and method == "POST"  # 401 is its answer to a wrong password
                if (allowed == (refused or hidden) and not login) or said.status_code >= 500:
                    wrong.append((method, path, access, who, said.status_code))
    assert wrong == []
    assert cells > 400


PAGES = ("", "/work", "/review", "/conflicts", "/items", "/items/1", "/compare", "/export/judgements.jsonl")


def test_a_reviewer_of_one_project_sees_nothing_of_another(as_person: Any, team: Team) -> None:
    """Pages, API, and the numbers of the other project's items and assignments under the own project's name."""
    annotator, guest = as_person("annotator"), as_person("guest")
    assert annotator.get("/p/demo/work").status_code == 200, "assignment 1 is of demo"
    assert {guest.get(f"/p/demo{page}").status_code for page in PAGES} == {404}
    assert {guest.get(f"/p/other{page}").status_code for page in PAGES[:5]} == {200}
    assert "demo" not in guest.get("/").text + guest.get("/account").text
    for path in ("a/1", "items/1", "conflicts/1"):
        assert guest.get(f"/p/other/{path}").status_code == 404, path
    for path, field in (("a/1", {"choice": "1"}), ("items/1/gold", {"revision": "1"})):
        said = guest.post(f"/p/other/{path}", data={"key": "k" * 12, **field})
        assert said.status_code == 404, path
    token = team.headers("guest")
    assert [p["slug"] for p in guest.get("/api/v1/projects", headers=token).json()] == ["other"]
    assert guest.get("/api/v1/projects/demo/judgements", headers=token).status_code == 404
    assert guest.get("/api/v1/projects/other/judgements", headers=token).json() == []
    with team.store.read() as conn:
        assert history.revision(conn, team.project) == 0
        assert not content.get_item(conn, team.project, 5).gold


def test_an_invitation_gives_what_it_says(served: Served, team: Team) -> None:
    """(role, project) of the invitation, and how demo, other and the list of projects answer afterwards."""
    for k, (role, where, codes, words) in enumerate(
        (
            ("annotator", team.project.id, (200, 404), "annotator</strong> of <strong>demo"),
            ("reviewer", team.project.id, (200, 404), "reviewer</strong> of <strong>demo"),
            ("reviewer", None, (200, 200), "reviewer</strong> of all projects"),
            ("annotator", None, (404, 404), "annotator</strong>. Choose"),
        )
    ):
        with team.store.write() as conn:
            secret = people.invite(conn, role, where)  # type: ignore[arg-type]
        with served.client() as client:
            csrf = csrf_of_visit(client)
            assert words in client.get(f"/join/{secret}").text
            form = {"csrf": csrf, "name": f"new {k}", "password": PASSWORD}
            assert client.post(f"/join/{secret}", data=form).status_code == 303
            assert tuple(client.get(f"/p/{slug}").status_code for slug in ("demo", "other")) == codes
            quality = client.get("/p/other/review").status_code
            assert quality == (403 if role == "annotator" else codes[1])


def no_gold(team: Team) -> None:
    """Every item takes a place."""
    settings = projects.settings_from({"gold_share": 0}, team.project.settings)
    with team.store.write() as conn:
        projects.change_project(conn, team.project, title="demo", settings=settings, closed=False)


@pytest.mark.parametrize("way", ["page", "api"])
def test_somebody_is_removed_from_a_project(as_person: Any, team: Team, way: str) -> None:
    """Their answers stay, what they held goes to others, they see the project no more, and the log says so."""
    annotator, admin = as_person("annotator"), as_person("admin")
    no_gold(team)
    sent = {"key": "k" * 12, "answer": {"type": "choice", "strength": 1}, "next": True}
    first = annotator.post("/api/v1/projects/demo/next", headers=team.headers("annotator")).json()["work"]
    path = f"/api/v1/projects/demo/assignments/{first['assignment']}/answer"
    held = annotator.post(path, json=sent, headers=team.headers("annotator")).json()["work"]
    number, token = team.users["annotator"].id, team.headers("admin")
    listed = admin.get("/api/v1/projects/demo/members", headers=token).json()
    assert [p["number"] for p in listed if p["name"] == "annotator"] == [number]
    paths = {
        "page": ("POST", f"/admin/people/{number}/projects/demo/remove", {}),
        "api": ("DELETE", f"/api/v1/projects/demo/members/{number}", token),
    }
    method, where, headers = paths[way]
    if way == "page":
        assert f'action="{where}"' in admin.get("/admin").text
    assert admin.request(method, where, headers=headers).status_code in (204, 303)
    assert admin.request(method, where, headers=headers).status_code == 404, "there is nobody to remove now"
    for page in ("/p/demo", "/p/demo/work", f"/p/demo/a/{held['assignment']}"):
        assert annotator.get(page).status_code == 404
    again = {**sent, "key": "m" * 12}
    late = f"/api/v1/projects/demo/assignments/{held['assignment']}/answer"
    assert annotator.post(late, json=again, headers=team.headers("annotator")).status_code == 404
    log = admin.get("/admin/audit").text
    assert "removed from project" in log and "<td>annotator<" in log and "items freed: 1" in log
    with team.store.read() as conn:
        assert [a.annotator for a in history.read_annotations(conn, team.project)] == ["annotator"]
        taken = conn.exec_driver_sql("SELECT sum(taken) FROM items WHERE project_id = 1").scalar()
    assert taken == 1, "the place of the item that was only shown is free again"


def test_removing_a_reviewer_never_shows_them_more(as_person: Any, team: Team) -> None:
    guest, admin = as_person("guest"), as_person("admin")
    number = team.users["guest"].id
    assert admin.post(f"/admin/people/{number}/projects/other/remove").status_code == 303
    assert [guest.get(f"/p/{slug}").status_code for slug in ("demo", "other")] == [404, 404]
    assert "Nobody has added you" in guest.get("/").text
    form = {"role": "reviewer", "everywhere": "1"}
    assert admin.post(f"/admin/people/{number}", data=form).status_code == 303
    assert [guest.get(f"/p/{slug}/review").status_code for slug in ("demo", "other")] == [200, 200]
    assert admin.post(f"/admin/people/{number}", data={"role": "annotator", "everywhere": "1"})
    assert admin.post(f"/admin/people/{number}", data={"role": "reviewer"}).status_code == 303
    assert guest.get("/p/demo/review").status_code == 404, "a role given back brings no more than was asked"


@pytest.mark.parametrize("way", ["page", "api"])
def test_who_is_no_reviewer_any_more_decides_nothing(as_person: Any, team: Team, way: str) -> None:
    """Of the same project still, with an item open that was theirs to decide."""
    reviewer, token = as_person("reviewer"), team.headers("reviewer")
    page = reviewer.get("/p/demo/conflicts/1").text
    found = re.search(r'action="/p/demo/a/(\d+)"', page)
    assert found
    key, paths = "k" * 12, (f"/p/demo/a/{found[1]}", f"/api/v1/projects/demo/assignments/{found[1]}/answer")

    def decide() -> int:
        if way == "page":
            return int(reviewer.post(paths[0], data={"key": key, "choice": "1"}).status_code)
        sent = {"key": key, "answer": {"type": "choice", "strength": 1}}
        return int(reviewer.post(paths[1], json=sent, headers=token).status_code)

    number = team.users["reviewer"].id
    assert as_person("admin").post(f"/admin/people/{number}", data={"role": "annotator"}).status_code == 303
    assert decide() == 404
    assert as_person("admin").post(f"/admin/people/{number}", data={"role": "reviewer"}).status_code == 303
    assert decide() in (200, 303)
    with team.store.read() as conn:
        assert [a.adjudicated for a in history.read_annotations(conn, team.project)] == [True]


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
            "/docs/api",
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
        "/docs/api",
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
        page = client.get("/p/demo")
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


def test_wrong_passwords_from_everywhere_do_not_lock_an_account(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr("plaudit.annotate.pages.account.sleep", sleep)
    limiter = Limiter(clock=lambda: 0.0)
    with Served(team.store, limiter=limiter) as served, served.client() as client:
        for _ in range(60):  # as many addresses would
            limiter.wait(LOGIN_ACCOUNT, people.name_key("admin"))
        form = {"name": "admin", "password": PASSWORD, "csrf": csrf_of_visit(client)}
        assert client.post("/login", data=form).status_code == 303
    assert waited == [3.0]


def test_a_forged_address_does_not_count_without_a_named_proxy(team: Team) -> None:
    unnamed = server_config(create_app(team.store, ServeSettings()), ServeSettings(public_url="https://a.example"))
    assert unnamed.proxy_headers is False
    named = ServeSettings(auth=True, public_url="https://a.example", proxy="127.0.0.1")
    config = server_config(create_app(team.store, named), named)
    assert (config.proxy_headers, config.forwarded_allow_ips) == (True, "127.0.0.1")
    with pytest.raises(ConfigError, match="the proxy is"):
        ServeSettings(proxy="*")


def test_the_api_shows_annotators_no_figure_that_tells_gold(served: Served, team: Team) -> None:
    with served.client() as client:
        ours = client.get("/api/v1/projects/demo", headers=team.headers("annotator")).json()
        theirs = client.get("/api/v1/projects/demo", headers=team.headers("reviewer")).json()
    assert not {"progress", "revision"} & set(ours) and ours["mine"] == {"done": 0, "skipped": 0}
    assert theirs["progress"]["gold"] == 2 and "revision" in theirs


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
