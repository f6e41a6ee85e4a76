"""One hostile text in every field that the app stores, put there by the requests that people and programs make."""

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import httpx
from annotating import PASSWORD, Served, Team

from plaudit.annotate.server.site import csrf_of
from plaudit.preferences.store import people
from plaudit.preferences.store.engine import Store

ROW = b'{"prompt": "p", "chosen": "a", "rejected": "b"}\n'


def words(text: str) -> str:
    """What is left of a text in a field of one line that is stored as words."""
    whole = text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    return " ".join(whole.replace("\x00", "\ufffd").split())


@dataclass
class Planted:
    """Where a text was put, and what became of the requests that name a person and a file."""

    slug: str
    text: str
    assignment: str
    name: str
    """Of the person who joined; empty where the text can be no name."""

    def pages(self) -> list[str]:
        """Every page that shows what a project holds."""
        own = f"/p/{self.slug}"
        found = [
            "",
            "/work",
            f"/a/{self.assignment}",
            "/guidelines",
            "/review",
            "/conflicts",
            "/compare",
            "/settings",
        ]
        found += ["/items", "/items?only=flagged", "/items?only=skipped"]
        return [own + page for page in found]


def done(said: httpx.Response, *, but: tuple[int, ...] = ()) -> httpx.Response:
    assert said.status_code < 400 or said.status_code in but, (
        said.request.url,
        said.status_code,
        said.text[-900:],
    )
    return said


def form(
    client: httpx.Client, path: str, fields: dict[str, str], but: tuple[int, ...] = ()
) -> httpx.Response:
    body = urlencode(fields, errors="surrogatepass").encode()
    kind = {"content-type": "application/x-www-form-urlencoded"}
    return done(client.post(path, content=body, headers=kind), but=but)


def plant(served: Served, team: Team, admin: httpx.Client, number: int, text: str) -> Planted:
    """A project of its own for the text; the text is its title, guidelines, flag, reason, item, answer and so on."""
    slug, line = f"x{number}", words(text)[:80].strip()
    form(admin, "/admin/projects", {"title": text, "slug": slug, "task": "pairwise"})
    wanted = {"title": text, "annotators": "3", "strategy": "random", "gold_share": "0", "repeat_share": "0"}
    wanted |= {"lease_minutes": "30", "flags": line, "skips": line, "edit_best": "1"}
    form(admin, f"/p/{slug}/settings", wanted)
    form(admin, f"/p/{slug}/guidelines", {"body": text})
    form(admin, f"/p/{slug}/settings", {**wanted, "axes": text}, but=(422,))
    token = team.headers("admin")
    said = [
        {"content": one, "model": text, "provenance": {"run": text}}
        for one in (text, f"```html\n{text}\n```")
    ]
    chat = [{"role": role, "content": text} for role in ("system", "user", "assistant", "user")]
    items = [{"key": f"{text}{k}", "prompt": prompt, "responses": said, "meta": {"file": text}}
             for k, prompt in enumerate((text, chat))]  # fmt: skip
    done(admin.post(f"/api/v1/projects/{slug}/items", json={"items": items}, headers=token))
    assignment = respond(admin, slug, text, line)
    form(admin, "/account/tokens", {"label": text})
    name = f"{text}.jsonl"
    done(admin.post(f"/p/{slug}/import", files={"file": (name, ROW)}), but=(400, 422))
    return Planted(slug, text, assignment, join(served, team.store, slug, text, line))


def respond(client: httpx.Client, slug: str, text: str, line: str) -> str:
    """Answer one item with an edit, a flag and a comment, and skip the next; returns the first assignment."""
    page = done(client.get(f"/p/{slug}/work")).text
    first = answer_fields(page)
    fields = {
        "choice": "-1",
        "text": f"{text}!",
        "base": first[2],
        "flag": line,
        "comment": text.replace("\x00", ""),
    }
    form(client, f"/p/{slug}/a/{first[0]}", {**fields, "key": first[1]})
    second = answer_fields(done(client.get(f"/p/{slug}/work")).text)
    form(client, f"/p/{slug}/a/{second[0]}", {"reason": line, "key": second[1]})
    return first[0]


def answer_fields(page: str) -> tuple[str, str, str]:
    """Number of the assignment, key of the form, and letter of the response shown first."""
    ways = (r'data-assignment="(\d+)"', r'name="key" value="(\w+)"', r'data-letter="([A-I])"')
    found = [re.search(way, page) for way in ways]
    number, key, index = (match[1] for match in found if match)
    return number, key, index


def join(served: Served, store: Store, slug: str, text: str, line: str) -> str:
    """Somebody of this name joins by an invitation and answers; returns the name, if it can be one."""
    with store.write() as conn:
        from plaudit.preferences.store import projects

        secret = people.invite(conn, "annotator", projects.get_project(conn, slug).id)
    name = words(text)[:64].strip()
    with served.client() as client:
        visit = client.get(f"/join/{secret}")
        csrf = re.search(r'name="csrf" value="(\w+)"', visit.text)
        assert csrf
        who = {"csrf": csrf[1], "name": name, "password": PASSWORD}
        said = form(client, f"/join/{secret}", who, but=(200, 409, 422))
        if said.status_code != 303:
            return ""
        session: Any = client.cookies.get("plaudit_session")
        client.headers["x-csrf-token"] = csrf_of(session)
        respond(client, slug, text, line)
    return name
