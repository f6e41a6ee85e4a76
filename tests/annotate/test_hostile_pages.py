"""Hostile texts in every field that the app stores or says back, in real Chromium: nothing runs or is fetched."""

import html
import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import sqlalchemy
from annotating import Served, Team, Unlimited, make_team
from planting import Planted, plant, words
from test_injection import Field, fields, send

from plaudit.preferences.annotation import written_in
from plaudit.preferences.store import content, history, people, projects
from plaudit.preferences.store.engine import Store
from plaudit.preferences.store.schema import judgements, users

HERE = Path(__file__).parent
XSS: list[str] = json.loads((HERE / "xss_payloads.json").read_text(encoding="utf-8"))
SQL: list[str] = json.loads((HERE / "injections.json").read_text(encoding="utf-8"))["sql"]
EACH = 12
"""Payloads of the quick test; the slow one takes all."""
STRANGE = """
() => [...document.querySelectorAll('*')].filter(e => {
  const tag = e.tagName.toUpperCase();
  if (tag === 'SCRIPT') return !e.src.startsWith(location.origin + '/static/');
  if ('IFRAME OBJECT EMBED BASE STYLE FRAME APPLET'.split(' ').includes(tag)) return true;
  if (tag === 'META' && e.httpEquiv) return true;
  if (tag === 'IMG') return !e.src.startsWith(location.origin + '/static/');
  if (tag === 'A' && !/^(https?:|mailto:|$)/.test(e.href)) return true;
  const target = tag === 'FORM' ? e.action : e.formAction ?? location.href;
  if (new URL(target, location).origin !== location.origin) return true;
  return [...e.attributes].some(a => /^on|^style$|^srcdoc$/.test(a.name)
    || /^(data-)?hx-/.test(a.name) && !e.matches('#answer, #undo'));
}).map(e => e.outerHTML.slice(0, 200))
"""
ACTIVE = ("Refused to", "Content Security Policy", "Content-Security-Policy")


class Watched:
    """A page of a browser that keeps account of everything that should not happen."""

    def __init__(self, chromium: Any, served: Served, session: str) -> None:
        self.context, self.url = chromium.new_context(reduced_motion="reduce"), served.url
        self.context.set_default_timeout(300_000)
        self.context.add_cookies([{"name": "plaudit_session", "value": session, "url": served.url}])
        self.page, self.wrong, self.seen = self.context.new_page(), [], 0
        self.page.on(
            "dialog", lambda dialog: (self.wrong.append(("dialog", dialog.message)), dialog.dismiss())
        )
        self.page.on(
            "request", lambda r: None if self._ours(r.url) else self.wrong.append(("request", r.url))
        )
        self.page.on(
            "console", lambda m: self.wrong.append(("console", m.text)) if self._active(m.text) else None
        )

    def _ours(self, url: str) -> bool:
        return url.startswith((self.url, "data:", "about:"))

    def _active(self, said: str) -> bool:
        return any(word in said for word in ACTIVE)

    def look(self, path: str, text: str) -> None:
        """Open a page, and everything on it that opens; note what is not as it should be."""
        self.page.goto(self.url + path)
        self.page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        self.seen += 1
        if self.page.evaluate("window.hacked") is not None:
            self.wrong.append(("ran", path, text))
        self.wrong += [("element", path, text, found) for found in self.page.evaluate(STRANGE)]


def planted_in(served: Served, team: Team, texts: list[str]) -> list[Planted]:
    with served.client(cookies=team.cookies("admin"), headers={"x-csrf-token": team.csrf("admin")}) as admin:
        return [plant(served, team, admin, number, text) for number, text in enumerate(texts)]


def shown(team: Team, found: list[Planted]) -> list[tuple[str, str]]:
    """The pages that show what was planted: those of each project, of its items and conflicts, and those of all."""
    pages = [(page, one.text) for one in found for page in one.pages()]
    with team.store.read() as conn:
        for one in found:
            numbers = content.read_items(conn, projects.get_project(conn, one.slug))
            pages += [
                (f"/p/{one.slug}/{kind}/{n}", one.text) for n in numbers for kind in ("items", "conflicts")
            ]
    return [
        *pages,
        *((page, "all") for page in ("/", "/admin", "/admin/audit", "/account", "/admin/projects/new")),
    ]


def check_pages(chromium: Any, store: Store, texts: list[str]) -> int:
    team = make_team(store)
    with Served(store, limiter=Unlimited()) as served:
        found = planted_in(served, team, texts)
        watched = Watched(chromium, served, team.sessions["admin"])
        for page, text in shown(team, found):
            watched.look(page, text)
        watched.context.close()
    assert watched.wrong == []
    return watched.seen


@pytest.mark.browser
def test_some_hostile_texts_in_every_stored_field_do_nothing(chromium: Any, sqlite_store: Store) -> None:
    assert check_pages(chromium, sqlite_store, XSS[:: len(XSS) // EACH][: EACH // 3]) > 50


@pytest.mark.browser
@pytest.mark.slow
def test_all_hostile_texts_in_every_stored_field_do_nothing(chromium: Any, sqlite_store: Store) -> None:
    assert len(set(XSS)) >= 50
    seen = check_pages(chromium, sqlite_store, XSS)
    print(f"{len(XSS)} texts, {seen} pages")


@pytest.mark.browser
def test_what_would_run_is_noticed(chromium: Any, served: Served, team: Team) -> None:
    """The other way round: the same watch over a page that does not protect itself."""
    watched = Watched(chromium, served, team.sessions["admin"])
    active = "<script>window.hacked=1; alert(2)</script><img src='http://elsewhere.invalid/' onerror='0'>"
    watched.context.route("**/echo/1", lambda route: route.fulfill(body=active, content_type="text/html"))
    guarded = {"content-security-policy": "default-src 'none'", "content-type": "text/html"}
    watched.context.route("**/echo/2", lambda route: route.fulfill(body=active, headers=guarded))
    watched.look("/echo/1", "raw")
    assert {kind for kind, *_ in watched.wrong} == {"dialog", "request", "ran", "element"}
    watched.wrong.clear()
    watched.look("/echo/2", "guarded")
    assert {"console", "element"} <= {kind for kind, *_ in watched.wrong}, (
        "what only the policy stopped counts too"
    )
    watched.context.close()


def echoes(served: Served, team: Team, texts: list[str]) -> dict[str, tuple[Any, Field, str]]:
    """Pages that say a text back, each kind of page once for every text: from every field of every route."""
    found: dict[str, tuple[Any, Field, str]] = {}
    api, sent = served.app.openapi(), 0
    with served.client(cookies=team.cookies("admin"), headers=team.headers("admin")) as client:
        for field in fields(api):
            for text in texts:
                said, sent = send(client, api, field, text, team.csrf("admin")), sent + 1
                assert said.status_code < 500, (field, text)
                part = words(text)[:12]
                if said.headers.get("content-type", "").startswith("text/html") and part in html.unescape(
                    said.text
                ):
                    same = re.sub(r"[0-9a-f]{32,64}|[?]v=\w+", "", said.text)
                    found.setdefault(same, (said, field, text))
    print(f"{sent} requests, {len(found)} different pages that say a text back")
    return found


def check_echoes(chromium: Any, store: Store, texts: list[str]) -> None:
    team = make_team(store)
    with Served(store, limiter=Unlimited()) as served:
        found = list(echoes(served, team, texts).values())
        assert len(found) >= len(texts) / 2, "errors do repeat what was sent"
        watched = Watched(chromium, served, team.sessions["admin"])

        def again(route: Any) -> None:
            """What the server said to the request, headers and all, as the page that the browser asked for."""
            said, _, _ = found[int(urlsplit(route.request.url).path.rpartition("/")[2])]
            headers = {
                k: v for k, v in said.headers.items() if k not in ("content-length", "content-encoding")
            }
            route.fulfill(status=said.status_code, headers=headers, body=said.content)

        watched.context.route("**/echo/*", again)
        for number, (_, field, text) in enumerate(found):
            watched.look(f"/echo/{number}", f"{field} {text}")
        watched.context.close()
    assert watched.wrong == []


@pytest.mark.browser
@pytest.mark.slow
def test_no_page_that_says_a_hostile_text_back_lets_it_run(chromium: Any, sqlite_store: Store) -> None:
    check_echoes(chromium, sqlite_store, XSS)


def counted(store: Store) -> tuple[Any, ...]:
    with store.read() as conn:
        rows = conn.execute(
            sqlalchemy.select(users.c.role, users.c.password).order_by(users.c.id).limit(4)
        ).all()
        return tuple(tuple(row) for row in rows)


def check_sql(store: Store, texts: list[str]) -> None:
    """Every text comes back as it was sent from every field, and nothing else has changed."""
    team = make_team(store)
    before = counted(store)
    with Served(store, limiter=Unlimited()) as served:
        found = planted_in(served, team, texts)
    assert counted(store) == before
    with store.read() as conn:
        for one in found:
            project = projects.get_project(conn, one.slug)
            assert project.title == (one.text.strip()[:200] or one.slug)
            assert project.guidelines == one.text.strip()
            line = words(one.text)[:80].strip()
            assert project.settings.flags == project.settings.skips == (line,)
            items = {item.key: item for item in content.read_items(conn, project).values()}
            assert items[f"{one.text}0"].prompt == one.text
            assert items[f"{one.text}0"].responses[0].model == one.text
            given = history.read_annotations(conn, project)
            assert len(given) == (4 if one.name else 2)
            edits = [written_in(a.answer) for a in given]
            assert [e.text for e in edits if e][0] == f"{one.text}!".strip()
            assert any(a.comment == one.text.strip() and a.flags == (line,) for a in given)
            if one.name:
                assert people.find_user(conn, one.name) is not None
        total = conn.scalar(sqlalchemy.select(sqlalchemy.func.count()).select_from(judgements))
    assert total == sum(4 if one.name else 2 for one in found)


def test_some_sql_in_every_stored_field_stays_text(store: Store) -> None:
    check_sql(store, SQL[:: len(SQL) // EACH][:EACH])


@pytest.mark.slow
def test_all_sql_in_every_stored_field_stays_text(store: Store) -> None:
    assert len(set(SQL)) >= 50
    check_sql(store, SQL)
