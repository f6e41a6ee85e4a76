"""The API's reference page, generated from its OpenAPI description, so that the two cannot differ."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from plaudit.annotate.rest.bodies import REFUSED
from plaudit.annotate.server.access import MOST_NUMBER, needs
from plaudit.annotate.server.site import site_of

router = APIRouter()
Schema = Mapping[str, Any]
WHO = {
    "person": "anybody with a token",
    "member": "the people of the project",
    "reviewer": "reviewers of the project, and admins",
    "admin": "admins",
}
REF = "#/components/schemas/"
JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Part:
    """A parameter, or a field of a body."""

    name: str
    kind: str
    """Its type and limits in words."""
    required: bool
    default: str
    """As JSON; empty where there is none worth showing."""
    says: str
    """Its description."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One route."""

    method: str
    path: str
    says: str
    who: str
    parameters: tuple[Part, ...]
    bodies: tuple[tuple[str, tuple[Part, ...]], ...]
    """The request body and the types that it is made of, each with its fields."""
    answers: tuple[tuple[str, str], ...]
    """Status and an example; the example is empty where nothing is returned."""
    curl: str

    @property
    def anchor(self) -> str:
        """Its place on the page."""
        return "-".join((self.method.lower(), *self.path.replace("{", "").replace("}", "").split("/")[3:]))


@router.get("/docs/api", openapi_extra=needs("public"))
def reference(request: Request) -> Response:
    """Every route of the API with its parameters, bodies and results; public, as the OpenAPI description is."""
    site = site_of(request)
    listed = operations(request.app.openapi(), site.settings.url)
    (refused,) = (media["example"] for media in REFUSED["4XX"]["content"].values())
    return site.page(request, "api.html", operations=listed, url=site.settings.url, refused=_json(refused))


def operations(described: Schema, url: str) -> list[Operation]:
    """The routes under /api/ of an OpenAPI description.

    Args:
        described: the description.
        url: of the server, for the example commands.
    """
    return [
        _operation((method.upper(), path), entry, described["components"]["schemas"], url)
        for path, methods in described["paths"].items()
        for method, entry in methods.items()
        if path.startswith("/api/")
    ]


def _operation(route: tuple[str, str], entry: Schema, schemas: Schema, url: str) -> Operation:
    method, path = route
    listed = entry.get("parameters", [])
    sent = entry.get("requestBody", {}).get("content", {}).get(JSON, {}).get("schema")
    tables = tuple(_tables(sent, schemas)) if sent else ()
    example = schemas[sent["$ref"].removeprefix(REF)]["example"] if sent else None
    for parameter in listed:
        if parameter["in"] == "path":
            # With the example values in place, the curl line on the page can be copied and run as it stands.
            like = str(parameter["schema"]["examples"][0])
            path = path.replace(f"{{{parameter['name']}}}", like)
    return Operation(
        method,
        route[1],
        entry["description"],
        WHO[entry["x-access"]],
        tuple(_part(p["name"], p["schema"], required=p.get("required", False)) for p in listed),
        tables,
        tuple(_answers(entry["responses"])),
        _curl(method, f"{url}{path}", example),
    )


def _tables(schema: Schema, schemas: Schema) -> Iterator[tuple[str, tuple[Part, ...]]]:
    """The body, then every type that it is made of, each once."""
    waiting, seen = list(_refs(schema)), set()
    while waiting:
        name = waiting.pop(0)
        if name in seen:
            continue
        seen.add(name)
        body = schemas[name]
        needed = body.get("required", ())
        fields = body["properties"].items()
        yield name.removesuffix("Body"), tuple(_part(n, s, required=n in needed) for n, s in fields)
        waiting += [ref for _, s in fields for ref in _refs(s)]


def _refs(value: Any) -> Iterator[str]:
    """The names of the schemas that a schema names."""
    if isinstance(value, dict):
        if "$ref" in value:
            yield value["$ref"].removeprefix(REF)
        for inner in value.values():
            yield from _refs(inner)
    if isinstance(value, list):
        for inner in value:
            yield from _refs(inner)


def _part(name: str, schema: Schema, *, required: bool) -> Part:
    default = schema.get("default")
    shown = json.dumps(default) if not required and default not in (None, "", [], {}) else ""
    return Part(name, in_words(schema), required, shown, schema.get("description", ""))


def in_words(schema: Schema) -> str:
    """A JSON schema as a type with its limits, such as "list of 1 to 9: text"."""
    if "$ref" in schema:
        return str(schema["$ref"]).removeprefix(REF).removesuffix("Body").lower()
    if "anyOf" in schema:
        return " or ".join(in_words(s) for s in schema["anyOf"])
    if "enum" in schema:
        return f"one of {', '.join(map(str, schema['enum']))}"
    kind = schema.get("type", "anything")
    if kind == "string":
        return f"text{_limits(schema, 'Length', ' characters')}"
    if kind == "array":
        return f"list of{_limits(schema, 'Items', '').lstrip(',')}: {in_words(schema.get('items', {}))}"
    if kind in ("integer", "number"):
        name = "whole number" if kind == "integer" else "number"
        return f"{name}{_limits(schema, 'imum', '')}"
    return {"boolean": "true or false", "null": "null"}.get(kind, str(kind))


def _limits(schema: Schema, of: str, unit: str) -> str:
    low, high = schema.get(f"min{of}"), schema.get(f"max{of}")
    if high is not None and high >= MOST_NUMBER:  # the limit of the database's columns is of no interest to readers
        high = None
    if high is not None:
        return f", {low:g} to {high:.0f}{unit}" if low is not None else f", at most {high:.0f}{unit}"
    return f", at least {low:g}{unit}" if low else ""


def _answers(responses: Schema) -> Iterator[tuple[str, str]]:
    for status, answer in responses.items():
        if status == "4XX":
            continue  # the same for all routes: the page shows it once
        kinds = answer.get("content", {})
        for media in kinds.values():
            example = media["example"]
            yield status, example.strip() if isinstance(example, str) else _json(example)
        if not kinds:
            yield status, ""


def _json(value: Any) -> str:
    return json.dumps(value, indent=2)


def _curl(method: str, address: str, body: Any) -> str:
    parts = [
        f"curl{'' if method == 'GET' else f' -X {method}'} {address}",
        '-H "Authorization: Bearer $TOKEN"',
    ]
    if body is not None:
        line = json.dumps(body)
        parts += ['-H "Content-Type: application/json"', f"-d '{line if len(line) < 60 else _json(body)}'"]
    return " \\\n  ".join(parts)
