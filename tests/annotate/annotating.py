"""What the tests of the annotation app share."""

import shutil
import socket
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from plaudit.annotate.server.app import create_app
from plaudit.annotate.server.limits import Limiter
from plaudit.annotate.server.security import hash_password
from plaudit.annotate.server.settings import ServeSettings
from plaudit.annotate.server.site import csrf_of
from plaudit.preferences.annotation import Annotation, Choice, Item, ItemResponse, Task
from plaudit.preferences.store import content, history, people, projects
from plaudit.preferences.store.engine import Store
from plaudit.preferences.store.projects import Project, ProjectSettings

POSTGRES = "PostgreSQL tests need its server: apt-get install postgresql"
DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
PASSWORD = "four random words do"
ROLES = {"annotator": "annotator", "stranger": "annotator", "reviewer": "reviewer", "admin": "admin",
         "guest": "reviewer", "overseer": "reviewer"}  # fmt: skip


def postgres_bin() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    which = shutil.which("initdb")
    return found[-1].parent if found else Path(which).parent if which else None


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def pairs(n: int, gold: int = 0) -> list[Item]:
    """Items with two responses; the first ``gold`` of them with a known answer."""
    said = (ItemResponse("one", "model-1", {"seed": 1}), ItemResponse("two", "model-2"))
    return [Item(f"item-{k}", f"prompt {k}", said, Choice(-1) if k < gold else None) for k in range(n)]


def make_project(
    store: Store,
    slug: str = "demo",
    task: Task = "pairwise",
    items: list[Item] | None = None,
    **settings: Any,
) -> Project:
    with store.write() as conn:
        project = projects.create_project(conn, slug, slug, task, ProjectSettings(**settings), "Be **fair**.")
        content.add_items(conn, project, pairs(6) if items is None else items)
    return project


def responses(n: int) -> tuple[ItemResponse, ...]:
    return tuple(ItemResponse(f"Response **{k}**\n\n```python\nprint({k})\n```") for k in range(n))


def stored(store: Store, slug: str) -> list[Annotation]:
    with store.read() as conn:
        return history.read_annotations(conn, projects.get_project(conn, slug))


def one_of(store: Store, task: Task, n: int, items: int = 1, **settings: Any) -> None:
    """The project "job" with items of n responses."""
    found = [Item(f"i{k}", f"Prompt {k}", responses(n)) for k in range(items)]
    make_project(store, "job", task, found, **settings)


def make_people(store: Store, n: int) -> list[people.User]:
    with store.write() as conn:
        return [people.add_user(conn, f"person-{k}", "annotator") for k in range(n)]


OUTSIDE = ("stranger", "guest")


@dataclass
class Team:
    """A store with two projects and people of every role. ``stranger`` and ``guest``, a reviewer, are of the other
    project; ``overseer`` is a reviewer of all and was added to none."""

    store: Store
    project: Project
    users: dict[str, people.User] = field(default_factory=dict)
    sessions: dict[str, str] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)

    def headers(self, who: str) -> dict[str, str]:
        return {"authorization": f"Bearer {self.tokens[who]}"} if who in self.tokens else {}

    def cookies(self, who: str) -> dict[str, str]:
        return {"plaudit_session": self.sessions[who]} if who in self.sessions else {}

    def csrf(self, who: str) -> str:
        return csrf_of(self.sessions[who])


def make_team(store: Store, **settings: Any) -> Team:
    project = make_project(store, items=pairs(30, gold=2), **settings)
    other = make_project(store, "other")
    team = Team(store, project)
    with store.write() as conn:
        for name, role in ROLES.items():
            password, everywhere = hash_password(PASSWORD, name), name == "overseer"
            user = people.add_user(conn, name, role, password, everywhere=everywhere)  # type: ignore[arg-type]
            if not everywhere:
                projects.add_member(conn, (other if name in OUTSIDE else project).id, user.id)
            team.users[name] = user
            team.sessions[name] = people.issue_token(conn, user.id, "session")
            team.tokens[name] = people.issue_token(conn, user.id, "api", "test")
    return team


class Served:
    """A running server; ``client`` talks to it over HTTP as a browser without scripts would."""

    def __init__(
        self, store: Store, *, auth: bool = True, limiter: Limiter | None = None, **options: Any
    ) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        settings = ServeSettings(port=self.port, auth=auth, **options)
        self.app = create_app(store, settings, limiter)
        config = uvicorn.Config(
            self.app, port=self.port, log_level="critical", lifespan="off", ws="none", server_header=False
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)

    def __enter__(self) -> "Served":
        self._thread.start()
        until = time.monotonic() + 600
        while not self._server.started:
            assert time.monotonic() < until, "the server did not start"
            time.sleep(0.01)
        return self

    def __exit__(self, *failure: object) -> None:
        self._server.should_exit = True
        self._thread.join(120)

    def client(self, **options: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=600, trust_env=False, **options)


class Unlimited(Limiter):
    """Lets everything through, for tests of other things."""

    def take(self, limit: object, key: str) -> None:
        return
