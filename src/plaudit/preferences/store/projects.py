"""Projects: one question about many items, with its settings and its guidelines in versions."""

from __future__ import annotations

import dataclasses
import re
import secrets
import time
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from sqlalchemy import Connection, Select, bindparam, delete, exists, func, insert, select, update

from plaudit.errors import ConfigError
from plaudit.preferences.annotation import AXES, TASKS, Task
from plaudit.preferences.store.schema import assignments, guidelines, items, members, projects
from plaudit.preferences.store.transaction import Conflict, NotFound

Strategy = Literal["random", "least-annotated", "priority"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)
SLUG = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?")
FLAGS = ("harmful", "private data", "broken text", "wrong language", "off topic")
SKIPS = ("I do not know enough", "The task is unclear", "The text is broken", "I would rather not read this")
MOST_AXES = 6


@dataclass(frozen=True, slots=True)
class ProjectSettings:
    """How a project asks its question.

    Raises:
        ConfigError: a value out of its range.
    """

    annotators_per_item: int = 1
    """How many people answer each item, at most."""
    strategy: Strategy = "random"
    """What is asked next: by chance, where there are fewest answers, or by priority."""
    gold_share: float = 0.1
    """Share of questions that are gold items, where there are any."""
    repeat_share: float = 0.0
    """Share of questions asked of the same person a second time, to measure consistency."""
    lease_seconds: int = 1800
    """How long an item is reserved for the person it was shown to."""
    axes: tuple[str, ...] = AXES
    """What responses are rated on (task rating)."""
    flags: tuple[str, ...] = FLAGS
    """What annotators can mark an item with."""
    skips: tuple[str, ...] = SKIPS
    """Reasons for leaving an item out."""
    edit_best: bool = False
    """After a comparison or ranking the best response can be edited into a better one (task pairwise, ranking)."""
    seed: int = 0
    """Of the order of items and responses. It is secret: imported responses are shuffled with it, so whoever knows it
    can tell which one was preferred in the file."""

    def __post_init__(self) -> None:
        if not all(isinstance(n, int) for n in (self.annotators_per_item, self.lease_seconds, self.seed)):
            raise ConfigError("a project setting that counts is no whole number", cure="give whole numbers")
        _within("annotators_per_item", self.annotators_per_item, 1, 100)
        _within("gold_share", self.gold_share, 0, 0.9)
        _within("repeat_share", self.repeat_share, 0, 0.9)
        _within("lease_seconds", self.lease_seconds, 10, 7 * 86400)
        _within("the number of scales (axes)", len(self.axes), 1, MOST_AXES)
        if not isinstance(self.edit_best, bool):
            raise ConfigError(f"edit_best is {self.edit_best!r}", cure="true or false")
        if self.strategy not in STRATEGIES:
            raise ConfigError(f"strategy is {self.strategy!r}", cure=f"one of {', '.join(STRATEGIES)}")
        if len(set(self.axes)) < len(self.axes) or not all(
            re.fullmatch(r"[\w -]{1,40}", a) for a in self.axes
        ):
            raise ConfigError(
                f"the scales (axes) are {list(self.axes)}",
                cure="give them different names of letters, digits, spaces and -",
            )


@dataclass(frozen=True, slots=True)
class Project:
    """A project as it is now."""

    id: int
    slug: str
    title: str
    task: Task
    settings: ProjectSettings
    guideline_version: int
    guidelines: str
    """Markdown, the newest version."""
    closed: bool = False


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a project is. ``wanted`` answers in all: items times annotators for each."""

    items: int
    gold: int
    answers: int
    wanted: int
    complete: int = field(default=0)
    """Items that have all their answers."""


def create_project(
    conn: Connection, slug: str, title: str, task: Task, settings: ProjectSettings, body: str = ""
) -> Project:
    """A new project; its guidelines are version 1.

    Raises:
        ConfigError: not a slug, or not a task.
        Conflict: the slug is taken.
    """
    if not SLUG.fullmatch(slug):
        cure = "1 to 64 small letters, digits and hyphens, such as helpful-replies"
        raise ConfigError(f"the short name {slug!r} cannot stand in an address", cure=cure)
    if task not in TASKS:
        raise ConfigError(f"there is no task {task!r}", cure=f"one of {', '.join(TASKS)}")
    if conn.scalar(select(projects.c.id).where(projects.c.slug == slug)) is not None:
        raise Conflict(f"there is a project {slug!r} already", cure="choose another short name")
    now = time.time()
    row = {
        "slug": slug,
        "title": title or slug,
        "task": task,
        "settings": _settings_json(settings),
        "guideline_version": 1,
        "created_at": now,
    }
    project_id = int(conn.execute(insert(projects).values(row).returning(projects.c.id)).scalar_one())
    conn.execute(insert(guidelines).values(project_id=project_id, version=1, body=body, created_at=now))
    return get_project(conn, slug)


_NEWEST = (guidelines.c.project_id == projects.c.id) & (guidelines.c.version == projects.c.guideline_version)
_PROJECTS = select(projects, guidelines.c.body).join(guidelines, _NEWEST)
_BY_SLUG = _PROJECTS.where(projects.c.slug == bindparam("b_slug"))
_BY_SLUG_FOR = _BY_SLUG.add_columns(
    exists()
    .where(members.c.project_id == projects.c.id, members.c.user_id == bindparam("b_user"))
    .label("is_member")
)


def get_project(conn: Connection, slug: str) -> Project:
    """The project of this short name, or NotFound."""
    return _project(_found(conn, slug, _BY_SLUG, {}))


def project_for(conn: Connection, slug: str, user_id: int) -> tuple[Project, bool]:
    """The project of this short name, or NotFound, and whether the person is a member of it."""
    row = _found(conn, slug, _BY_SLUG_FOR, {"b_user": user_id})
    return _project(row), bool(row.is_member)


def _found(conn: Connection, slug: str, query: Select[Any], more: dict[str, int]) -> Any:
    # The slug comes from the address of a request. What cannot be one is not looked up at all: PostgreSQL refuses some
    # characters with an error, where a plain "there is no project" is meant.
    row = conn.execute(query, {"b_slug": slug, **more}).one_or_none() if SLUG.fullmatch(slug) else None
    if row is None:
        raise NotFound(f"there is no project {slug[:80]!r}", cure="see the list of projects")
    return row


def list_projects(conn: Connection, user_id: int | None = None) -> list[Project]:
    """All projects, or those that a person is a member of; the newest first."""
    query = _PROJECTS.order_by(projects.c.id.desc())
    if user_id is not None:
        mine = select(members.c.project_id).where(members.c.user_id == user_id)
        query = query.where(projects.c.id.in_(mine))
    return [_project(row) for row in conn.execute(query)]


def change_project(
    conn: Connection, project: Project, *, title: str, settings: ProjectSettings, closed: bool
) -> None:
    """Change title and settings; a closed project shows no more items.

    Raises:
        Conflict: other scales (axes) although there are answers.
    """
    # Answers of a rating task hold one number for each axis. With other axes the old answers would not fit the task any
    # more, and exports could not average them.
    if settings.axes != project.settings.axes and _has_answers(conn, project):
        raise Conflict(
            "the scales (axes) cannot change once there are answers",
            cure="make a new project for the new ones",
        )
    closed_at = time.time() if closed else None
    values = {"title": title, "settings": _settings_json(settings), "closed_at": closed_at}
    conn.execute(update(projects).where(projects.c.id == project.id).values(values))


def change_guidelines(conn: Connection, project: Project, body: str, user_id: int | None) -> int:
    """Add a version of the guidelines and return its number, which answers carry from now on."""
    newest = select(func.max(guidelines.c.version)).where(guidelines.c.project_id == project.id)
    version = int(conn.scalar(newest) or 0) + 1
    row = {"project_id": project.id, "version": version, "body": body, "user_id": user_id}
    conn.execute(insert(guidelines).values(**row, created_at=time.time()))
    conn.execute(update(projects).where(projects.c.id == project.id).values(guideline_version=version))
    return version


def guideline_versions(conn: Connection, project: Project) -> dict[int, str]:
    """Every version of the guidelines by its number."""
    query = select(guidelines.c.version, guidelines.c.body).where(guidelines.c.project_id == project.id)
    return {row.version: row.body for row in conn.execute(query)}


def add_member(conn: Connection, project_id: int, user_id: int) -> None:
    """Let a person work on a project; nothing happens where they already do."""
    here = (members.c.project_id == project_id) & (members.c.user_id == user_id)
    if conn.scalar(select(members.c.id).where(here)) is None:
        conn.execute(insert(members).values(project_id=project_id, user_id=user_id))


def remove_member(conn: Connection, project: Project, user_id: int) -> None:
    """End a person's membership, or NotFound. Their answers stay; ``leases.release_all`` ends their leases."""
    here = (members.c.project_id == project.id) & (members.c.user_id == user_id)
    if conn.execute(delete(members).where(here)).rowcount == 0:
        raise NotFound(f"person {user_id} is not of {project.slug}", cure="see the list of people")


def member_ids(conn: Connection, project: Project) -> list[int]:
    """The numbers of the people of a project."""
    return list(conn.scalars(select(members.c.user_id).where(members.c.project_id == project.id)))


def progress(conn: Connection, project: Project) -> Progress:
    """Counts of items and answers."""
    counted = select(func.count(), func.coalesce(func.sum(items.c.is_gold), 0)).where(
        items.c.project_id == project.id
    )
    total, gold = conn.execute(counted).one()
    each = (
        select(func.count().label("n"))
        .select_from(assignments.join(items))
        .where(
            assignments.c.project_id == project.id,
            assignments.c.state == "done",
            assignments.c.round == 0,
            items.c.is_gold == 0,
        )
        .group_by(assignments.c.item_id)
        .subquery()
    )
    n = project.settings.annotators_per_item
    complete = func.count().filter(each.c.n >= n)
    answers, done = conn.execute(
        select(func.coalesce(func.sum(each.c.n), 0), complete).select_from(each)
    ).one()
    ordinary = int(total) - int(gold)
    return Progress(ordinary, int(gold), int(answers), ordinary * n, int(done))


def new_settings(values: dict[str, Any]) -> ProjectSettings:
    """Settings of a new project from plain values, with a secret seed where none is among them."""
    return settings_from({"seed": secrets.randbelow(2**31), **values})


def settings_from(values: dict[str, Any], base: ProjectSettings | None = None) -> ProjectSettings:
    """Settings from plain values; unknown names and wrong types are a ConfigError."""
    known = {f.name for f in dataclasses.fields(ProjectSettings)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise ConfigError(
            f"there is no project setting {unknown[0]!r}", cure=f"one of {', '.join(sorted(known))}"
        )
    lists: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
    try:
        return dataclasses.replace(base or ProjectSettings(), **lists)
    except TypeError as error:
        raise ConfigError(
            f"a project setting has the wrong type: {error}", cure="see docs/howto/annotate.md"
        ) from None


def _within(name: str, value: float, low: float, high: float) -> None:
    if isinstance(value, bool) or not low <= value <= high:
        raise ConfigError(f"{name} is {value}", cure=f"choose a value from {low:g} to {high:g}")


def _settings_json(settings: ProjectSettings) -> dict[str, Any]:
    return dataclasses.asdict(settings)


def _project(row: Any) -> Project:
    settings = settings_from(row.settings)
    closed = row.closed_at is not None
    return Project(row.id, row.slug, row.title, row.task, settings, row.guideline_version, row.body, closed)


def _has_answers(conn: Connection, project: Project) -> bool:
    query = select(assignments.c.id).where(assignments.c.project_id == project.id).limit(1)
    return conn.scalar(query) is not None
