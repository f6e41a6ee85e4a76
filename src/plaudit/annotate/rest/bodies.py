"""Request bodies of the API with their limits, and examples of requests and responses, for the OpenAPI description."""

# Docstrings here are descriptions in /api/openapi.json, and so on the reference page. Every text and list has a
# limit: a body that passes the size limit of the server may still hold a million empty strings.

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Path, Query
from pydantic import BaseModel, ConfigDict, Field

from plaudit.annotate.server.access import MOST_NUMBER
from plaudit.preferences.annotation import Task
from plaudit.preferences.store.projects import ProjectSettings
from plaudit.records import Role, to_json

Text = Annotated[str, Field(max_length=65_536)]
MOST_ITEMS = 1000
Slug = Annotated[str, Path(description="The project's short name.", examples=["pairs"])]
What = Annotated[
    str,
    Path(
        description="preferences, rankings, ratings, kto, demonstrations, judgements or annotations.",
        examples=["preferences"],
    ),
]
Assignment = Annotated[int, Path(ge=1, le=MOST_NUMBER, description="As given with the item.", examples=[17])]
Person = Annotated[
    int, Path(ge=1, le=MOST_NUMBER, description="As in the list of the project's people.", examples=[3])
]
Since = Annotated[int, Query(ge=0, le=MOST_NUMBER, description="Only rows after this revision.")]
UpTo = Annotated[int, Query(ge=0, le=MOST_NUMBER, description="Only rows up to this revision; 0 is all.")]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


def _like(**example: Any) -> ConfigDict:
    return ConfigDict(json_schema_extra={"example": example})


class TurnBody(_Body):
    """One turn of a chat."""

    role: Role
    content: Text
    name: Annotated[str, Field(max_length=200)] | None = None
    """Who speaks, or which tool answers."""
    reasoning_content: Text | None = None
    """What the assistant thought before it answered."""
    tool_calls: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=100)] | None = None
    """Calls of tools, as `{"type": "function", "function": {"name": ..., "arguments": ...}}`."""
    tool_call_id: Annotated[str, Field(max_length=200)] | None = None
    """Which call a turn of a tool answers."""
    tools: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=500)] | None = None
    """On the first turn: the tools that the assistant may call, as JSON schemas."""


class ResponseBody(_Body):
    """One response of an item."""

    content: Text | Annotated[list[TurnBody], Field(min_length=1, max_length=200)]
    """Text, or a chat."""
    model: Annotated[str, Field(max_length=200)] = ""
    """Which model wrote it; annotators never see it."""
    provenance: dict[str, str | int | float | bool | None] = {}
    """Anything else to keep with it, such as the sampling settings."""


class ItemBody(_Body):
    """What people are asked about."""

    key: Annotated[str, Field(min_length=1, max_length=400)]
    """Your own name for it; an item that the project has already is left as it is, and listed as changed if its texts
    differ."""
    prompt: Text | Annotated[list[TurnBody], Field(min_length=1, max_length=200)]
    """Text, or a chat."""
    responses: Annotated[list[ResponseBody], Field(max_length=9)] = []
    """As many as the task needs."""
    gold: dict[str, Any] | None = None
    """The known answer, in the format of answers; it makes the item a gold item."""
    priority: Annotated[float, Field(allow_inf_nan=False)] = 0.0
    """Higher is shown earlier, where the project asks by priority."""
    meta: dict[str, str | int | float | bool | None] = {}
    """Anything else to keep with the item."""


class ItemsBody(_Body):
    """Items to add."""

    model_config = _like(
        items=[
            {
                "key": "a-1",
                "prompt": "Why is the sky blue?",
                "responses": [
                    {"content": "Because of the sea.", "model": "sft"},
                    {"content": "Air scatters blue light most.", "model": "ppo"},
                ],
            }
        ]
    )
    items: Annotated[list[ItemBody], Field(min_length=1, max_length=MOST_ITEMS)]


class AnswerBody(_Body):
    """An answer."""

    model_config = _like(key="5d0c9f0e-1", answer={"type": "choice", "strength": 1}, next=True)
    key: Annotated[str, Field(min_length=8, max_length=80)]
    """Made by the client, for example a UUID. The same key and answer sent again change nothing and give the same
    revision; another answer with the key of your newest one is stored as its correction."""
    answer: dict[str, Any]
    """A choice (strength -2 to 2, negative for the first response), ranks, scores, thumbs, a written text, or a skip
    with its reason. Responses count in the order in which the item came."""
    flags: Annotated[list[Annotated[str, Field(max_length=80)]], Field(max_length=20)] = []
    """Flags from the project's settings."""
    comment: Text = ""
    """For the reviewers."""
    supersedes: Annotated[int, Field(ge=1, le=MOST_NUMBER)] | None = None
    """The revision that this answer corrects."""
    guideline_version: Annotated[int, Field(ge=1, le=MOST_NUMBER)] | None = None
    """The version of the guidelines that the person saw; the newest if left out."""
    next: bool = False
    """Whether the reply contains the next item as well."""


class KeyBody(_Body):
    """A key and nothing else."""

    model_config = _like(key="5d0c9f0e-2")
    key: Annotated[str, Field(min_length=8, max_length=80)]
    """Made by the client, for example a UUID."""


class ProjectBody(_Body):
    """A new project."""

    model_config = _like(slug="pairs", task="pairwise", settings={"annotators_per_item": 3})
    slug: Annotated[str, Field(min_length=1, max_length=64)]
    """Its short name, for addresses: small letters, digits and hyphens."""
    task: Task
    title: Annotated[str, Field(max_length=200)] = ""
    guidelines: Text = ""
    """Markdown."""
    settings: dict[str, Any] = {}
    """Settings that differ from the defaults."""


class PrioritiesBody(_Body):
    """Which items to show first, where the project asks by priority."""

    model_config = _like(priorities={"a-1": 0.9})
    priorities: Annotated[dict[str, Annotated[float, Field(allow_inf_nan=False)]], Field(max_length=100_000)]
    """By item key; the highest is shown first."""


def shows(example: Any, *, status: int = 200, kind: str = "application/json") -> dict[int | str, Any]:
    """The ``responses`` entry of a route, with an example of what it returns."""
    return {status: {"description": "Done", "content": {kind: {"example": example}}}}


REFUSED: dict[int | str, Any] = {
    "4XX": {
        "description": "What was refused, and the cure",
        "content": {
            "application/problem+json": {
                "example": {
                    "type": "about:blank",
                    "status": 404,
                    "title": "there is no project 'pears'",
                    "code": "NOT_FOUND",
                    "detail": "see the list of projects",
                }
            }
        },
    }
}
WORK: dict[str, Any] = {
    "work": {
        "assignment": 17,
        "prompt": "Why is the sky blue?",
        "responses": ["Because of the sea.", "Air scatters blue light most."],
    }
}
ANSWERED = {"revision": 1200, **WORK}
_SETTINGS = {name: value for name, value in to_json(ProjectSettings()).items() if name != "seed"}
PROJECT: dict[str, Any] = {
    "slug": "pairs",
    "title": "Pairs",
    "task": "pairwise",
    "closed": False,
    "guideline_version": 1,
    "settings": _SETTINGS,
}
PROGRESS = {"items": 500, "gold": 20, "answers": 1200, "wanted": 1500, "complete": 310}
ROW = {
    "revision": 1200,
    "supersedes": 1187,
    "project": "pairs",
    "item": "a-1",
    "annotator": "Ada",
    "answer": {"type": "choice", "strength": -1, "verdict": ""},
    "order": [1, 0],
    "round": 0,
    "adjudicated": False,
    "seconds": 14.2,
    "created_at": 1767225600.0,
    "guideline_version": 1,
    "flags": [],
    "comment": "",
}
LINE = (
    '{"id": "a-1", "prompt": "Why is the sky blue?", "chosen": "Air scatters blue light most.", '
    '"rejected": "Because of the sea.", "agreement": 1.0, "provenance": {"annotators": ["Ada"]}}\n'
)
