"""Data in: files of every format that Plaudit reads become items of a project."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import Response
from sqlalchemy import Connection

from plaudit.annotate.server.access import Posted, needs
from plaudit.annotate.server.site import project_of, site_of, visitor_of
from plaudit.data.load import load_records
from plaudit.errors import ConfigError, DataError
from plaudit.preferences.annotation import Item, Task
from plaudit.preferences.importing import items_of
from plaudit.preferences.store import content, people, projects
from plaudit.preferences.store.engine import Store
from plaudit.preferences.store.faults import NotFound
from plaudit.preferences.store.projects import Project, ProjectSettings

router = APIRouter()

TASK_OF: dict[str, Task] = {
    "preference": "pairwise",
    "judgement": "pairwise",
    "ranking": "ranking",
    "rating": "rating",
    "prompt": "demonstration",
    "demonstration": "thumbs",
}
"""What is asked about a kind of data unless something else is asked for."""
UPLOADS = (".jsonl", ".json", ".csv")
"""Endings taken over the web; compressed files, which can unpack to any size, only from the command line."""


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import did."""

    project: Project
    format: str
    added: int
    there: int
    notes: tuple[str, ...]


def read_file(
    path: str | Path, task: Task | None, *, gold: bool = False, seed: int = 0
) -> tuple[Task, list[Item], str, tuple[str, ...]]:
    """A data file as items: the task, the items, what format it was, and notes.

    ``seed`` draws the order of responses whose order tells which was preferred; it must be secret to annotators.

    Raises:
        DataError: the file cannot be read, or nothing in it fits the task.
    """
    loaded = load_records(str(path))
    if not loaded.records:
        raise DataError("there is nothing in the file", where=str(path), cure="check that it is complete")
    asked = task or _task_of(loaded.kind, loaded.records)
    items, counts = items_of(loaded.records, asked, gold=gold, seed=seed)
    if not items:
        cure = f"the file holds {loaded.kind} data; choose a task that fits them with --task"
        raise DataError(f"nothing in the file can be asked about as {asked}", where=str(path), cure=cure)
    return asked, items, loaded.format, (*loaded.notes, *(f"{n} x {what}" for what, n in counts.items()))


def _task_of(kind: str, records: Sequence[object]) -> Task:
    if kind != "comparison":
        return TASK_OF.get(kind, "demonstration")
    most = max(len(getattr(r, "responses", ())) for r in records)
    return "ranking" if most > 2 else "pairwise" if most == 2 else "thumbs"


def import_file(
    store: Store,
    path: str | Path,
    *,
    slug: str = "",
    task: Task | None = None,
    gold: bool = False,
    settings: ProjectSettings | None = None,
    guidelines: str = "",
) -> Imported:
    """Add a file to a project, which is made where there is none of that name; the same rows are added once."""
    wanted = slug or slug_of(path)
    with store.read() as conn:
        there = _find(conn, wanted)
    chosen = there.settings if there else settings or projects.new_settings({})
    known = there.task if there else None
    asked, items, form, notes = read_file(path, task or known, gold=gold, seed=chosen.seed)
    source = Path(path)
    digest = sha256(source.read_bytes()).hexdigest() if source.is_file() else ""
    with store.write() as conn:
        project = _find(conn, wanted) or projects.create_project(
            conn,
            wanted,
            title_of(slug or path),
            asked,
            chosen,
            guidelines or default_guidelines(asked),
        )
        if project.task != asked:
            cure = "leave --task out, or choose another --project"
            raise ConfigError(
                f"the project {wanted} asks {project.task}, not {asked}", where="--task", cure=cure
            )
        marked = [_marked(item, source.name, digest) for item in items]
        added, already = content.add_items(conn, project, marked)
        people.record(conn, "imported", wanted, by=None, file=source.name, sha256=digest, added=added)
    return Imported(project, form, added, already, notes)


def _find(conn: Connection, slug: str) -> Project | None:
    try:
        return projects.get_project(conn, slug)
    except NotFound:
        return None


def _marked(item: Item, name: str, digest: str) -> Item:
    meta = {**item.meta, "source": name, "source_sha256": digest}
    return Item(item.key, item.prompt, item.responses, item.gold, item.priority, meta)


def slug_of(path: str | Path) -> str:
    """A short name from the name of a file."""
    stem = Path(path).name.split(".")[0].lower()
    return re.sub(r"[^a-z0-9]+", "-", stem).strip("-")[:64].strip("-") or "project"


def title_of(path: str | Path) -> str:
    """A title from the name of a file."""
    return re.sub(r"[-_]+", " ", Path(path).name.split(".")[0]).strip().capitalize() or "Project"


def default_guidelines(task: Task) -> str:
    """Guidelines to start from; a team should write its own."""
    return GUIDELINES[task]


_COMMON = """
- Read the **whole** prompt and every response before you answer.
- Judge what is written, not how long it is or how sure it sounds.
- A response that is harmful, or that states what is not so, is worse than one that is merely dull.
"""
_UNSURE = "- If you cannot tell, say so: an honest *{}* is worth more than a guess.\n"
GUIDELINES: dict[Task, str] = {
    "pairwise": "Which response would you rather have received?\n" + _COMMON + _UNSURE.format("cannot judge"),
    "ranking": "Put the responses in order, the best first. Responses that are equally good share a place.\n"
    + _COMMON
    + _UNSURE.format("skip"),
    "rating": "Give every response a number from 1 (very bad) to 10 (could not be better) on every scale.\n"
    + _COMMON
    + _UNSURE.format("skip"),
    "thumbs": "Is this a good response to the prompt? Thumb up if you would be content with it.\n"
    + _COMMON
    + _UNSURE.format("skip"),
    "demonstration": (
        "Write the response that you would like to receive. You may start from one of the responses shown.\n\n"
        "- Answer what was asked, in the language in which it was asked.\n"
        "- Be correct first, then clear, then short.\n"
        "- Leave out what you are not sure of, or say that you are not.\n"
    ),
}


@router.post("/p/{slug}/import", openapi_extra=needs("admin", "gold"))
def upload(request: Request, slug: str, form: Posted) -> Response:
    """Add the rows of an uploaded file."""
    site, project, visitor = site_of(request), project_of(request), visitor_of(request)
    sent = form.file("file")
    ending = Path(sent.filename or "").suffix.lower() if sent else ""
    if sent is None or ending not in UPLOADS:
        cure = f"choose a file that ends in {', '.join(UPLOADS)}; for others use `plaudit annotate import`"
        raise DataError("no file that can be read here", where="file", cure=cure)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / f"{slug_of(sent.filename or 'upload')}{ending}"
        with sent.file as uploaded:
            copy.write_bytes(uploaded.read())
        done = import_file(site.store, copy, slug=project.slug, task=project.task, gold=form.has("gold"))
    with site.store.write() as conn:
        people.record(
            conn, "uploaded", project.slug, by=visitor.me.id, address=visitor.address, added=done.added
        )
    return site.page(request, "imported.html", done=done)
