"""The page about the API says what the API does: its examples are sent, and the replies look like those it shows."""

import html
import json
import re
import shlex
from typing import Any

import pytest
from annotating import Served, Team

from plaudit.annotate.rest.bodies import REFUSED
from plaudit.annotate.rest.reference import Operation, in_words, operations


def sent_by(operation: Operation) -> tuple[str, str, Any]:
    """Method, address and body of the line to be tried out, as a shell would read it."""
    words = shlex.split(operation.curl.replace("\\\n", " "))
    assert words[0] == "curl" and "Authorization: Bearer $TOKEN" in words
    method = words[words.index("-X") + 1] if "-X" in words else "GET"
    body = json.loads(words[words.index("-d") + 1]) if "-d" in words else None
    return method, next(word for word in words if word.startswith("http")), body


def shape(value: Any) -> Any:
    """The names in a reply; of lists, the first row."""
    if isinstance(value, dict):
        return {name: shape(inner) for name, inner in value.items() if name not in ("answer", "settings")}
    return [shape(value[0])] if isinstance(value, list) and value and isinstance(value[0], dict) else None


def test_anybody_may_read_it_and_every_route_is_there(served: Served) -> None:
    with served.client() as client:
        page = client.get("/docs/api")
    text = html.unescape(re.sub("<[^>]+>", "", page.text.replace("<wbr>", "")))
    found = operations(served.app.openapi(), served.url)
    routes = [
        (m.upper(), p)
        for p, entry in served.app.openapi()["paths"].items()
        for m in entry
        if "/api/" in p[:5]
    ]
    assert page.status_code == 200 and [(o.method, o.path) for o in found] == routes and len(routes) >= 13
    for operation in found:
        assert f"{operation.method} {operation.path}" in text
        assert f'href="#{operation.anchor}"' in page.text and f'id="{operation.anchor}"' in page.text
    assert len({o.anchor for o in found}) == len(found)


def test_the_examples_are_what_happens(served: Served, team: Team) -> None:
    """Each line of the page as an admin, from top to bottom, in a project that the examples make."""
    found = {(o.method, o.path): o for o in operations(served.app.openapi(), served.url)}
    makes = ("POST", "/api/v1/projects"), ("POST", "/api/v1/projects/{slug}/items")
    order = [*makes, *(route for route in found if route not in makes and "members" not in route[1])]
    with served.client(headers=team.headers("admin")) as client:
        for route in order:
            method, address, body = sent_by(found[route])
            address = re.sub(r"assignments/\d+", f"assignments/{assignment(team)}", address)
            said = client.request(method, address, json=body)
            if route == makes[1]:  # one more, for the item after the first
                more = {"items": [{**body["items"][0], "key": "a-2"}]}
                assert client.post(address, json=more).json() == said.json()
            ((status, example),) = found[route].answers
            assert str(said.status_code) == status, (route, said.text)
            if "export" not in address:
                assert shape(said.json()) == shape(json.loads(example)), route
        refused = client.get("/api/v1/projects/pears")
        (problem,) = REFUSED["4XX"]["content"].values()
        assert refused.json() == problem["example"]
        assert refused.headers["content-type"] == next(iter(REFUSED["4XX"]["content"]))


def assignment(team: Team) -> int:
    """The newest one, which the admin was given."""
    with team.store.read() as conn:
        return int(conn.exec_driver_sql("SELECT coalesce(max(id), 0) FROM assignments").scalar_one())


def test_the_examples_about_people_are_what_happens(served: Served, team: Team) -> None:
    found = {o.method: o for o in operations(served.app.openapi(), served.url) if "members" in o.path}
    with served.client(headers=team.headers("admin")) as client:
        listed = client.get(sent_by(found["GET"])[1].replace("pairs", "demo"))
        assert shape(listed.json()) == shape(json.loads(found["GET"].answers[0][1]))
        gone = client.delete(sent_by(found["DELETE"])[1].replace("pairs", "demo"))
        assert (str(gone.status_code), gone.text) == found["DELETE"].answers[0] == ("204", "")


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "string", "minLength": 1, "maxLength": 9}, "text, 1 to 9 characters"),
        ({"type": "string", "maxLength": 9}, "text, at most 9 characters"),
        ({"type": "integer", "minimum": 1, "maximum": 2**31 - 1}, "whole number, at least 1"),
        ({"type": "number", "minimum": 0, "maximum": 1}, "number, 0 to 1"),
        ({"type": "array", "maxItems": 9, "items": {"$ref": "#/components/schemas/TurnBody"}},
         "list of at most 9: turn"),
        ({"anyOf": [{"type": "boolean"}, {"type": "null"}]}, "true or false or null"),
        ({"enum": ["a", "b"], "type": "string"}, "one of a, b"),
        ({"type": "object", "additionalProperties": True}, "object"),
        ({}, "anything"),
    ],
)  # fmt: skip
def test_types_in_words(schema: dict[str, Any], words: str) -> None:
    assert in_words(schema) == words
