"""A spy among the annotators: two worlds that differ only in a secret must look the same to a session and a token.

The secrets: which item is gold, which is asked again, and which model wrote which response. What differs between any
two databases, such as tokens of forms and the time of day, is taken out before the comparison.
"""

import re
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
from annotating import PASSWORD, Served, Unlimited, make_project
from test_access import routes

from plaudit.annotate.server.security import hash_password
from plaudit.annotate.server.site import csrf_of
from plaudit.preferences.annotation import (
    Answer,
    Choice,
    Item,
    ItemResponse,
    Ranks,
    Scores,
    Skip,
    Task,
    Thumbs,
    in_order,
)
from plaudit.preferences.store import answers, history, leases, people, projects
from plaudit.preferences.store.answers import Submission
from plaudit.preferences.store.engine import Store
from plaudit.preferences.store.schema import assignments
from plaudit.records import Message

AXES = {"helpfulness": 3, "harmlessness": 4, "accuracy": 5}
OTHER = {"helpfulness": 9, "harmlessness": 8, "accuracy": 7}
SENT: dict[Task, dict[str, Any]] = {
    "pairwise": {"type": "choice", "strength": -2, "edit": {"text": "better still", "base": 0}},
    "ranking": {"type": "ranks", "ranks": [2, 1], "edit": {"text": "better still", "base": 1}},
    "rating": {"type": "scores", "scores": [AXES, OTHER]},
    "thumbs": {"type": "thumbs", "up": [True, False]},
    "demonstration": {"type": "written", "text": "from the second", "base": 1},
}
"""An answer to each task that is not the same about both responses, as seen."""
FORMS: dict[Task, dict[str, str]] = {
    "pairwise": {"choice": "-2", "text": "better still", "base": "A"},
    "ranking": {"rank-A": "2", "rank-B": "1", "text": "better still", "base": "B"},
    "rating": {f"score-{letter}-{n}": str(v) for letter, row in (("A", AXES), ("B", OTHER))
               for n, v in enumerate(row.values())},
    "thumbs": {"thumb-A": "up", "thumb-B": "down"},
    "demonstration": {"text": "from the second", "base": "B"},
}  # fmt: skip
"""The same in the fields of the form."""
GOLD: dict[Task, Answer] = {
    "pairwise": Choice(-1), "ranking": Ranks((1, 2)), "rating": Scores((AXES, OTHER)), "thumbs": Thumbs((True, False)),
}  # fmt: skip
WRONG = ({"type": "choice", "strength": 1, "edit": {"text": "x", "base": 0}},
         {"type": "ranks", "ranks": [1, 2], "edit": {"text": "x", "base": 1}},
         {"type": "written", "text": "x", "base": 7}, {"type": "scores", "scores": [AXES, {}]})  # fmt: skip
"""Answers that are refused: what is said of them must tell nothing either."""
VARIES = (r"\d{4}-\d\d-\d\d \d\d:\d\d", r'name="csrf" value="\w+"', r'name="key" value="[\w-]+"', r"127\.0\.0\.1:\d+")


PUBLISHED: list[tuple[str, str, str]] = []


def published(app: Any) -> list[tuple[str, str, str]]:
    """The routes; listed once, for they are the same for every store."""
    PUBLISHED[:] = PUBLISHED or routes(app)
    return PUBLISHED


class World:
    """A project in which one annotator has answered one item and holds another one."""

    def __init__(
        self, path: Path, task: Task, *, gold: bool = False, again: bool = False, turned: bool = False
    ) -> None:
        self.store, self.turned, self.shown = Store.open(path), turned, time.time() - 9
        own = [Message("assistant", "the second", name="model-2")]
        said = (ItemResponse("the first", "model-1", {"run": "a"}), ItemResponse(tuple(own), "model-2", {"run": "b"}))
        said = said[::-1] if turned else said
        items = [Item(f"i{k}", "The prompt", said) for k in range(3)]
        known = GOLD.get(task)
        if gold and known is not None:
            items[1:3] = [replace(item, gold=known) for item in items[1:3]]
        comparing = task in ("pairwise", "ranking")
        self.project = make_project(self.store, "demo", task, items, seed=7, edit_best=comparing)
        with self.store.write() as conn:
            user = people.add_user(conn, "spy", "annotator", hash_password(PASSWORD, "spy"))
            projects.add_member(conn, self.project.id, user.id)
            self.session = people.issue_token(conn, user.id, "session")
            self.token = people.issue_token(conn, user.id, "api", "t")
            self.user = user.id
            # All texts are the same, so only what the app says of itself can tell an item that is asked again.
            self._assign(conn, 1)
            answers.submit(conn, self.project, self.user, 1, Submission("earlier-answer", Skip("x")))
            self._assign(conn, 2)
            self._assign(conn, *(1, 1) if again else (3, 0))
            if again:
                leases.take_place(conn, self.project, 3)  # it is with somebody else

    def _assign(self, conn: Any, item: int, round_number: int = 0) -> None:
        """Lease an item with its responses shown in the same order in both worlds."""
        self.shown += 1.0
        number = leases.assign(conn, self.project, self.user, item, round_number, self.shown).id
        order = [0, 1] if self.turned else [1, 0]
        conn.execute(assignments.update().where(assignments.c.id == number).values(order=order))

    def stored(self) -> list[Answer]:
        with self.store.read() as conn:
            return [a.answer for a in history.read_annotations(conn, self.project)]

    def transcript(self, task: Task) -> Iterator[str]:
        """What every page and route says before, between and after an answer, a correction, a skip and an undo."""
        headers = {"x-csrf-token": csrf_of(self.session)}
        bearer = {"authorization": f"Bearer {self.token}"}
        api = "/api/v1/projects/demo"
        with Served(self.store, limiter=Unlimited()) as served, served.client(
            cookies={"plaudit_session": self.session}, headers=headers
        ) as client:
            readable = [path for method, path, access in published(served.app) if method == "GET"
                        and access in ("person", "member")]  # fmt: skip
            assert {"/p/{slug}/work", "/p/{slug}/a/{number}", "/api/v1/projects/{slug}", "/"} <= set(readable)

            def look() -> Iterator[str]:
                for path in readable:
                    for number in ("2", "3") if "{number}" in path else ("",):
                        place = path.format(slug="demo", number=number, secret="none", place="A")
                        found = client.get(place, headers=bearer if path.startswith("/api/") else {})
                        yield f"{place} {found.status_code} {found.text}"

            def send(path: str, **body: Any) -> str:
                said = client.post(path, json=body, headers=bearer)
                return f"{path} {said.status_code} {said.text}"

            yield from look()
            yield send(f"{api}/next")
            for k, answer in enumerate(WRONG):
                yield send(f"{api}/assignments/3/answer", key=f"wrong-{k:04}", answer=answer)
            yield send(f"{api}/assignments/3/answer", key="first-answer", answer=SENT[task], next=True)
            yield from look()
            yield send(f"{api}/assignments/2/answer", key="second-answer", answer={"type": "skip", "reason": "x"})
            yield from look()
            yield send(f"{api}/undo", key="taken-back")
            yield from look()
            fields = {**FORMS[task], "key": "by-the-form", "supersedes": "4"}
            form = client.post("/p/demo/a/2", data=fields, headers={"hx-request": "true"})
            assert form.status_code == 200, form.text
            yield form.text
            yield from look()


def told(world: World, task: Task) -> list[str]:
    said = list(world.transcript(task))
    for way in VARIES:
        said = [re.sub(way, "*", text) for text in said]
    return said


SECRETS: dict[str, dict[str, bool]] = {name: {name: True} for name in ("gold", "again", "turned")}
CASES = [*((task, "turned") for task in get_args(Task)), ("pairwise", "gold"), ("rating", "gold"), ("ranking", "again")]


@pytest.mark.parametrize(("task", "secret"), CASES)
def test_nothing_that_an_annotator_can_read_tells(tmp_path: Path, task: Task, secret: str) -> None:
    """Gold, repeats and authorship: each of them changes nothing, on any page and any route, at any moment."""
    plain, other = World(tmp_path / "plain.db", task), World(tmp_path / "other.db", task, **SECRETS[secret])
    seen, spied = told(plain, task), told(other, task)
    assert len(seen) > 40 and any("the first" in text for text in seen), "the texts are there"
    differing = [(a, b) for a, b in zip(seen, spied, strict=True) if a != b]
    assert differing == []
    leaks = [text for text in seen if "model-1" in text or "model-2" in text or '"run"' in text]
    assert leaks == [], "no name of a model, also not as the name of a speaker"
    turn = (1, 0) if secret == "turned" else (0, 1)
    assert [in_order(a, turn) for a in other.stored()] == plain.stored(), "what was meant is what is stored"
    assert sum(not isinstance(a, Skip) for a in plain.stored()) == 2


def test_the_order_over_the_api_says_nothing_of_the_author(sqlite_store: Store) -> None:
    """Rows come with the responses of one model first, also in databases filled long ago."""
    said = (ItemResponse("one", "model-1"), ItemResponse("two", "model-2"))
    project = make_project(sqlite_store, "demo", items=[Item(f"i{k}", f"p{k}", said) for k in range(60)], seed=7)
    with sqlite_store.write() as conn:
        user = people.add_user(conn, "spy", "annotator")
        projects.add_member(conn, project.id, user.id)
        token = people.issue_token(conn, user.id, "api", "t")
    api, first = "/api/v1/projects/demo", 0
    with Served(sqlite_store, limiter=Unlimited()) as served, served.client(
        headers={"authorization": f"Bearer {token}"}
    ) as client:
        work = client.post(f"{api}/next").json()["work"]
        for k in range(60):
            assert set(work) == {"assignment", "prompt", "responses"}
            first += work["responses"][0] == "one"
            body = {"key": f"answer-{k:04}", "answer": {"type": "skip", "reason": "x"}, "next": True}
            work = client.post(f"{api}/assignments/{work['assignment']}/answer", json=body).json()["work"]
    assert 20 <= first <= 40, "as often first as second"


def test_annotators_see_no_setting_that_is_not_theirs(tmp_path: Path) -> None:
    """How many questions are gold or asked again is for reviewers."""
    world = World(tmp_path / "a.db", "pairwise", gold=True)
    bearer = {"authorization": f"Bearer {world.token}"}
    with Served(world.store, limiter=Unlimited()) as served, served.client(headers=bearer) as client:
        whole = client.get("/api/v1/projects/demo").json()
        (listed,) = client.get("/api/v1/projects").json()
        paths = ("export/preferences", "judgements")
        refused = [client.get(f"/api/v1/projects/demo/{path}").status_code for path in paths]
    assert set(whole["settings"]) == set(listed["settings"]) == {"lease_seconds", "axes", "flags", "skips", "edit_best"}
    assert set(whole) - set(listed) == {"mine"} and refused == [403, 403]
