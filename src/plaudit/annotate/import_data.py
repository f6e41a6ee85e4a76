"""Data in: the rows of a file, of any format that Plaudit reads, become items of a project."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

from plaudit.data.load import Loaded, load_records
from plaudit.errors import ConfigError, DataError
from plaudit.preferences.annotation import Item, Task
from plaudit.preferences.importing import items_of
from plaudit.preferences.store import content, people, projects
from plaudit.preferences.store.engine import Store
from plaudit.preferences.store.projects import Project, ProjectSettings
from plaudit.preferences.store.transaction import NotFound, Transaction
from plaudit.records import Comparison, Record

TASK_OF: dict[str, Task] = {
    "preference": "pairwise",
    "judgement": "pairwise",
    "ranking": "ranking",
    "rating": "rating",
    "prompt": "demonstration",
    "demonstration": "thumbs",
}
"""The task for a kind of data where the person names none."""


@dataclass(frozen=True, slots=True)
class Imported:
    """The result of an import."""

    project: Project
    format: str
    added: int
    known: int
    """Items that were in the project before, or twice in the file."""
    changed: tuple[str, ...]
    """Ids of rows whose id the project has with other texts; its items are left as they are."""
    notes: tuple[str, ...]


def read_file(
    path: str | Path | Loaded, task: Task | None, *, gold: bool = False, seed: int = 0
) -> tuple[Task, list[Item], str, tuple[str, ...]]:
    """A data file as items: the task, the items, the format in words, and notes.

    Args:
        path: a file, a directory or a hub name, or what was read from one.
        task: what will be asked; None: what suits the kind of data.
        gold: the verdicts in the file become known answers.
        seed: shuffles responses whose order in the file tells which was preferred; annotators must not know it.

    Raises:
        DataError: the file cannot be read, or nothing in it fits the task.
    """
    loaded = path if isinstance(path, Loaded) else load_records(str(path))
    path = loaded.source
    if not loaded.records:
        raise DataError("there is nothing in the file", where=str(path), cure="check that it is complete")
    chosen = task or _task_of(loaded.kind, loaded.records)
    items, counts = items_of(loaded.records, chosen, gold=gold, seed=seed)
    if not items:
        cure = f"the file holds {loaded.kind} data; choose a task that fits them with --task"
        raise DataError(f"nothing in the file can be asked about as {chosen}", where=str(path), cure=cure)
    items = [_keyed(item, loaded.unnamed) for item in items]
    return chosen, items, loaded.format, (*loaded.notes, *(f"{n} x {what}" for what, n in counts.items()))


def _task_of(kind: str, records: Sequence[Record]) -> Task:
    if kind != "comparison":
        return TASK_OF.get(kind, "demonstration")
    most = max(len(r.responses) for r in records if isinstance(r, Comparison))
    return "ranking" if most > 2 else "pairwise" if most == 2 else "thumbs"


def import_file(
    store: Store,
    path: str | Path | Loaded,
    *,
    slug: str = "",
    task: Task | None = None,
    gold: bool = False,
    settings: ProjectSettings | None = None,
    guidelines: str = "",
) -> Imported:
    """Add a file to a project, which is made where there is none of that name.

    Args:
        store: the database.
        path: a file, a directory or a hub name, or what was read from one.
        slug: the short name of the project; empty: made from the name of the file.
        task: what is asked; None: the task of the project, or what suits the data.
        gold: the items are gold items.
        settings: of a new project.
        guidelines: of a new project; empty: the default ones for the task.

    Raises:
        ConfigError: the project asks another task.
        DataError: the file cannot be read, or nothing in it fits the task.
    """
    source = Path(path.source if isinstance(path, Loaded) else path)
    name = slug or slug_of(source)
    with store.read() as conn:
        existing = _find(conn, name)
    chosen = existing.settings if existing else settings or projects.new_settings({})
    # The file is read before the writing transaction begins: reading may take minutes, and everybody else's answers
    # would wait for it. So the project is looked up again below.
    chosen_task, items, form, notes = read_file(
        path, task or (existing.task if existing else None), gold=gold, seed=chosen.seed
    )
    digest = sha256(source.read_bytes()).hexdigest() if source.is_file() else ""
    with store.write() as conn:
        project = _find(conn, name) or projects.create_project(
            conn,
            name,
            title_of(slug or source),
            chosen_task,
            chosen,
            guidelines or default_guidelines(chosen_task),
        )
        if project.task != chosen_task:
            cure = "leave --task out, or choose another --project"
            raise ConfigError(
                f"the project {name} asks {project.task}, not {chosen_task}", where="--task", cure=cure
            )
        marked = [_marked(item, source.name, digest) for item in items]
        done = content.add_items(conn, project, marked)
        people.record(conn, "imported", name, by=None, file=source.name, sha256=digest, added=done.new)
    if done.changed:
        cure = "left as they are; for a new item, give the row another id"
        first = ", ".join(map(repr, done.changed[:3]))
        notes = (*notes, f"{len(done.changed)} ids that the project has with other texts ({first}): {cure}")
    return Imported(project, form, done.new, done.same, done.changed, notes)


def _keyed(item: Item, unnamed: frozenset[str]) -> Item:
    """The item under a key made of its texts, where its row has no id."""
    # A row number is no name: a second file of the same name, or a row inserted on top, would give it to other texts.
    ends = [k for k, mark in enumerate(item.key) if mark in "/>#"]
    if unnamed.isdisjoint(item.key[:end] for end in (*ends, len(item.key))):
        return item
    return replace(item, key=f"row-{content.digest_of(item)}")


def _find(conn: Transaction, slug: str) -> Project | None:
    try:
        return projects.get_project(conn, slug)
    except NotFound:
        return None


def _marked(item: Item, name: str, digest: str) -> Item:
    """The item with the file that it came from, so that every export can name its source."""
    return replace(item, meta={**item.meta, "source": name, "source_sha256": digest})


def slug_of(path: str | Path) -> str:
    """A short name from the name of a file."""
    stem = Path(path).name.split(".")[0].lower()
    return re.sub(r"[^a-z0-9]+", "-", stem).strip("-")[:64].strip("-") or "project"


def title_of(path: str | Path) -> str:
    """A title from the name of a file."""
    return re.sub(r"[-_]+", " ", Path(path).name.split(".")[0]).strip().capitalize() or "Project"


def default_guidelines(task: Task) -> str:
    """Guidelines for a new project; a team should write its own."""
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
