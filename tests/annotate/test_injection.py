"""SQL, path and file payloads in every field that OpenAPI names, on both databases: refused or taken as plain text."""

import io
import itertools
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import httpx
import pytest
import sqlalchemy
from annotating import Served, Team, Unlimited, make_team

from plaudit.errors import DataError
from plaudit.preferences.store import history, people, projects
from plaudit.preferences.store.engine import Store
from plaudit.preferences.store.projects import SLUG
from plaudit.preferences.store.schema import items, users

PAYLOADS = json.loads((Path(__file__).parent / "injections.json").read_text(encoding="utf-8"))
HOSTILE: list[str] = [*PAYLOADS["sql"], *PAYLOADS["paths"], *PAYLOADS["bytes"]]
EACH = 4
"""Payloads for each field in the quick test; taken in turns, so that every payload has its field."""
USUAL = {
    "slug": "demo",
    "number": "1",
    "what": "preferences",
    "secret": "none",
    "task": "pairwise",
    "role": "annotator",
}
LEAVE = ("/logout", "/account/password")
"""They end the session that the others need."""
LEAKS = ("root:x:0:", "Traceback", "sqlalchemy", "psycopg", "syntax error", "argon2id$")

Field = tuple[str, str, str, tuple[str | int, ...]]
"""Method, path, where (path, query, form, json), and the way to it."""


def fields(api: dict[str, Any]) -> Iterator[Field]:
    """Every string that a client can send."""
    for path, methods in api["paths"].items():
        for method, entry in methods.items():
            if path in LEAVE:
                continue
            for parameter in entry.get("parameters", ()):
                if parameter["in"] in ("path", "query"):
                    yield method.upper(), path, parameter["in"], (parameter["name"],)
            for kind, body in entry.get("requestBody", {}).get("content", {}).items():
                where = "json" if kind == "application/json" else "form"
                for way in strings(body["schema"], api):
                    yield method.upper(), path, where, way


def strings(schema: dict[str, Any], api: dict[str, Any]) -> Iterator[tuple[str | int, ...]]:
    """The ways to the strings of a schema; free objects are given one."""
    schema = resolved(schema, api)
    if schema.get("type") == "string":
        yield ()
    elif schema.get("type") == "array":
        yield from ((0, *way) for way in strings(schema["items"], api))
    elif "properties" in schema:
        for name, part in schema["properties"].items():
            yield from ((name, *way) for way in strings(part, api))
    elif schema.get("type") == "object":
        yield ("type",)


def resolved(schema: dict[str, Any], api: dict[str, Any]) -> dict[str, Any]:
    if "anyOf" in schema:
        schema = schema["anyOf"][0]
    name = schema.get("$ref", "").rpartition("/")[2]
    return resolved(api["components"]["schemas"][name], api) if name else schema


def example(schema: dict[str, Any], api: dict[str, Any], name: str = "") -> Any:
    """Something of this schema."""
    schema = resolved(schema, api)
    kind = schema.get("type")
    if "properties" in schema:
        return {key: example(part, api, key) for key, part in schema["properties"].items()}
    if kind == "array":
        return [example(schema["items"], api, name)]
    plain = {"string": USUAL.get(name, "some text"), "integer": 1, "number": 0.5, "boolean": False}
    return plain.get(kind or "", {})


def put(value: Any, way: tuple[str | int, ...], text: str) -> Any:
    """The value with the text at the end of the way."""
    if not way:
        return text
    if isinstance(value, list):
        return [put(value[0], way[1:], text)]
    return {**value, way[0]: put(value.get(way[0], {}), way[1:], text)}


def send(client: httpx.Client, api: dict[str, Any], field: Field, text: str, csrf: str) -> httpx.Response:
    """One request with the payload in one field, and usual things in the others."""
    method, path, where, way = field
    values = {**USUAL, way[0]: text} if where == "path" else USUAL
    for name, value in values.items():
        path = path.replace(f"{{{name}}}", quote(str(value), safe="", errors="surrogatepass"))
    body = api["paths"][field[1]][method.lower()].get("requestBody", {}).get("content", {})
    if where == "query":
        path = f"{path}?{urlencode({way[0]: text}, errors='surrogatepass')}"
    if "application/json" in body:
        made = example(body["application/json"]["schema"], api)
        made = put(made, way, text) if where == "json" else made
        sent = json.dumps(made).encode()
        return client.request(method, path, content=sent, headers={"content-type": "application/json"})
    names = [name for kind in body.values() for name in kind["schema"]["properties"]]
    form: dict[str, str] = {name: USUAL.get(name, "1") for name in names} | {"csrf": csrf}
    if where == "form" and way[0] != "csrf":
        form[str(way[0])] = text
    sent = urlencode(form, errors="surrogatepass").encode() if method == "POST" else b""
    return client.request(
        method, path, content=sent, headers={"content-type": "application/x-www-form-urlencoded"}
    )


def attack(team: Team, rounds: int) -> tuple[int, list[Any]]:
    """Send ``rounds`` payloads to each field; returns how many were sent, and what was not as it should be."""
    wrong, sent, payloads = [], 0, itertools.cycle(HOSTILE)
    with Served(team.store, limiter=Unlimited()) as served:
        api = served.app.openapi()
        with served.client(cookies=team.cookies("admin"), headers=team.headers("admin")) as client:
            for field in fields(api):
                for _ in range(rounds):
                    text = next(payloads)
                    said = send(client, api, field, text, team.csrf("admin"))
                    let_in = field[2] == "path" and 200 <= said.status_code < 300 and not lawful(field, text)
                    leaked = [word for word in LEAKS if word in said.text and word not in text]
                    sent += 1
                    if said.status_code >= 500 or let_in or leaked:
                        wrong.append((field, text, said.status_code, leaked))
    return sent, wrong


def lawful(field: Field, text: str) -> bool:
    """Whether the path may be found: the text is a short name, which another request gave to a project, or one of
    the dots that the client itself takes out of an address.
    """
    return text in (".", "..") or field[3] == ("slug",) and SLUG.fullmatch(text) is not None


def everybody(conn: Any) -> list[tuple[Any, ...]]:
    query = sqlalchemy.select(users.c.id, users.c.name, users.c.password).order_by(users.c.id)
    return [tuple(row) for row in conn.execute(query)]


def check(team: Team, rounds: int) -> None:
    with team.store.read() as conn:
        before = everybody(conn)
        total = conn.scalar(sqlalchemy.select(sqlalchemy.func.count()).select_from(items))
    sent, wrong = attack(team, rounds)
    assert wrong == []
    assert sent >= 50 * rounds, "every field was tried"
    with team.store.read() as conn:
        assert everybody(conn) == before, "nobody was added, renamed or given another password"
        left = conn.scalar(sqlalchemy.select(sqlalchemy.func.count()).select_from(items))
        assert left is not None and total is not None and left >= total
        assert projects.get_project(conn, "demo").task == "pairwise"
        assert history.revision(conn, team.project) == 0


def test_there_are_payloads_enough() -> None:
    assert len(set(PAYLOADS["sql"])) >= 50 and len(set(PAYLOADS["paths"])) >= 20


def test_every_field_takes_hostile_texts_as_texts(store: Store) -> None:
    check(make_team(store), EACH)


@pytest.mark.slow
def test_every_field_takes_every_hostile_text_as_a_text(store: Store) -> None:
    check(make_team(store), len(HOSTILE))


def archive() -> bytes:
    """A few hundred bytes that unpack to a megabyte."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("a.jsonl", "0" * (1 << 20))
    return made.getvalue()


ROW = b'{"prompt": "p", "chosen": "a", "rejected": "b"}\n'


@pytest.mark.parametrize(
    "name", [*PAYLOADS["paths"], "a.zip", "a.jsonl.gz", "a.parquet", "", "x" * 5000 + ".csv"]
)
def test_names_of_uploads_lead_nowhere(as_person: Any, team: Team, tmp_path: Path, name: str) -> None:
    """A file is read under a name of our own, whatever it was called; what can unpack to any size is not read."""
    there = set(tmp_path.rglob("*"))
    client = as_person("admin")
    for shown in (name, f"{name}.jsonl"):
        said = client.post("/p/demo/import", files={"file": (shown or "x", ROW)})
        assert said.status_code in (200, 400, 422), shown[:80]
    assert {p.name for p in set(tmp_path.rglob("*")) - there} <= {"store.db-wal", "store.db-shm"}


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("deep.json", b"[" * 100_000),
        ("deep.jsonl", b'{"prompt": ' * 50_000),
        ("packed.jsonl", archive()),
        ("number.jsonl", b'{"prompt": "p", "response": "r", "reward": ' + b"9" * 5000 + b"}"),
        ("binary.csv", bytes(range(256)) * 40),
        ("quotes.csv", b'prompt,chosen,rejected\n"' + b"a" * 200_000),
        ("empty.json", b""),
    ],
)
def test_bombs_are_refused(as_person: Any, team: Team, name: str, data: bytes) -> None:
    said = as_person("admin").post("/p/demo/import", files={"file": (name, data)})
    assert said.status_code == 422


def test_hostile_names_of_people_are_refused_or_shown_as_text(store: Store) -> None:
    with store.write() as conn:
        for k, text in enumerate(PAYLOADS["sql"][:10]):
            try:
                made = people.add_user(conn, text, "annotator")
            except DataError:
                continue
            assert people.find_user(conn, text) is not None, (k, made)
