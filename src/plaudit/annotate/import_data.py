"""Data in: the rows of a file, of any format that Plaudit reads, become items of a project."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import file_digest
from pathlib import Path

from plaudit.data.load import Loaded, load_records
from plaudit.errors import ConfigError, DataError
from plaudit.preferences.annotation import Item, Task
from plaudit.preferences.importing import items_of, texts_of
from plaudit.preferences.store import content, people, projects
from plaudit.preferences.store.content import Added, Fingerprint
from plaudit.preferences.store.engine import Store
from plaudit.preferences.store.projects import Project, ProjectSettings
from plaudit.preferences.store.transaction import NotFound, Transaction
from plaudit.records import Comparison, Content, Record, to_json

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
class ImportLimits:
    """How much one import may bring, by whatever way it comes.

    Raises:
        ConfigError: a limit that lets nothing in.
    """

    max_gb: float = 2.0
    """The largest file, unpacked; a row may take a 256th of it."""
    max_rows: int = 1_000_000
    """The most rows of a file."""
    max_text: int = 10_000_000
    """The longest prompt or response, in characters."""

    def __post_init__(self) -> None:
        for name, value in (("gb", self.max_gb), ("rows", self.max_rows), ("text", self.max_text)):
            if not value > 0:
                raise ConfigError(f"max-{name} is {value}", where=f"--max-{name}", cure="give a number above 0")


LIMITS = ImportLimits()
ITEMS_AT_ONCE = 100
"""Items of one transaction."""
PAUSE = 0.002
"""Seconds between two transactions, in which somebody else may write."""


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
        DataError: the file cannot be read, holds more than `LIMITS`, or nothing in it fits the task.
    """
    loaded = path if isinstance(path, Loaded) else load_within(str(path))
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


def _worth_asking(
    items: Sequence[Item], task: Task, there: Mapping[Fingerprint, str]
) -> tuple[list[Item], tuple[str, ...]]:
    """The items without those that need no answer, or are there under another id; and notes of how many these are.

    Args:
        items: of one file.
        task: what will be asked.
        there: the keys of the items that the project has.
    """
    kept: list[Item] = []
    notes: Counter[str] = Counter()
    first = dict(there)
    for item in items:
        known = first.setdefault(content.fingerprint(item), item.key)
        if task in ("pairwise", "ranking") and len({json.dumps(to_json(r.content)) for r in item.responses}) == 1:
            notes["rows whose responses are all the same, not asked: they are a tie by definition"] += 1
        elif known != item.key:
            notes["rows with the texts of another item under another id, asked once"] += 1
        else:
            kept.append(item)
    return kept, tuple(f"{n} x {what}" for what, n in notes.items())


def load_within(source: str, limits: ImportLimits = LIMITS, fields: Mapping[str, str] | None = None) -> Loaded:
    """The records of a source, which may hold so many rows and bytes, and texts of such a length.

    Raises:
        DataError: it cannot be read, or holds more.
    """
    # One row more than may be there tells whether there are more; the rest of a huge file is not read.
    loaded = load_records(source, limit=limits.max_rows + 1, fields=fields, max_gb=limits.max_gb)
    if loaded.rows > limits.max_rows:
        cure = f"split the file, or raise --max-rows (now {limits.max_rows:,})"
        raise DataError(f"more than {limits.max_rows:,} rows", where=source, cure=cure)
    _check_texts(loaded, limits)
    return loaded


def _check_texts(loaded: Loaded, limits: ImportLimits) -> None:
    """Refuse records with a text that is longer than it may be."""
    for record in loaded.records:
        longest = max(map(_characters, texts_of(record)), default=0)
        if longest > limits.max_text:
            what = f"a text of {longest:,} characters"
            cure = f"shorten it, or raise --max-text (now {limits.max_text:,})"
            raise DataError(what, where=loaded.places.of(record.id), cure=cure)


def _characters(content: Content) -> int:
    return len(content) if isinstance(content, str) else sum(len(turn.text) for turn in content)


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
        there = content.fingerprints(conn, existing) if existing else {}
    chosen = existing.settings if existing else settings or projects.new_settings({})
    # The file is read before the writing transaction begins: reading may take minutes, and everybody else's answers
    # would wait for it. So the project is looked up again below.
    chosen_task, items, form, notes = read_file(
        path, task or (existing.task if existing else None), gold=gold, seed=chosen.seed
    )
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
    digest = _digest(source)
    items, more = _worth_asking(items, chosen_task, there)
    done = _add(store, project, [_marked(item, source.name, digest) for item in items])
    with store.write() as conn:
        people.record(conn, "imported", name, by=None, file=source.name, sha256=digest, added=done.new)
    return Imported(project, form, done.new, done.same, done.changed, (*notes, *more, *_of_changed(done.changed)))


def _of_changed(changed: Sequence[str]) -> tuple[str, ...]:
    """The note of rows whose ids the project has with other texts."""
    if not changed:
        return ()
    cure = "left as they are; for a new item, give the row another id"
    first = ", ".join(map(repr, changed[:3]))
    return (f"{len(changed)} ids that the project has with other texts ({first}): {cure}",)


def _add(store: Store, project: Project, items: Sequence[Item]) -> Added:
    """Add items in many short transactions: while one of them writes, nobody's answer is stored on SQLite.

    Raises:
        DataError: an item that does not fit the task; nothing is stored then.
    """
    # An import that is cut off is finished by the same command: what is there already is known by its keys.
    for item in items:
        content.check_item(item, project)
    new = same = 0
    changed: dict[str, None] = {}
    for start in range(0, len(items), ITEMS_AT_ONCE):
        with store.write() as conn:
            done = content.add_items(conn, project, items[start : start + ITEMS_AT_ONCE])
        new, same, changed = new + done.new, same + done.same, changed | dict.fromkeys(done.changed)
        time.sleep(PAUSE)
    return Added(new, same, tuple(changed))


def _digest(source: Path) -> str:
    """The SHA-256 of a file; empty for what is none."""
    if not source.is_file():
        return ""
    with source.open("rb") as stream:
        return file_digest(stream, "sha256").hexdigest()


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
