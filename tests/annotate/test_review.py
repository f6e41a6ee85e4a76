"""The reviewer's pages: what they offer to export is what the answers can give."""

import re
import time
from typing import Any, get_args

import pytest
from annotating import Team, make_people, make_project, responses, stored

from plaudit.annotate.pages.review import GIVES
from plaudit.preferences.annotation import Answer, Choice, Item, Ranks, Scores, Task, Thumbs, Written
from plaudit.preferences.exporting import WHAT_OF, What, export
from plaudit.preferences.store import answers, content, leases, projects
from plaudit.preferences.store.answers import Submission
from plaudit.preferences.store.engine import Store

AXES = {"helpfulness": 3, "harmlessness": 4, "accuracy": 5}
GIVEN: dict[Task, tuple[int, Answer]] = {
    "pairwise": (2, Choice(-1, edit=Written("better", 0))),
    "ranking": (3, Ranks((1, 2, 3), Written("better", 0))),
    "rating": (2, Scores((AXES, AXES))),
    "thumbs": (1, Thumbs((True,))),
    "demonstration": (0, Written("mine")),
}


@pytest.mark.parametrize("task", get_args(Task))
def test_the_exports_offered_are_those_that_have_rows(sqlite_store: Store, task: Task) -> None:
    n, said = GIVEN[task]
    item = Item("i", "p", responses(n))
    project, (user,) = (
        make_project(sqlite_store, "job", task, [item], edit_best=n > 1 and task != "rating"),
        make_people(sqlite_store, 1),
    )
    with sqlite_store.write() as conn:
        work = leases.lease(conn, project, user.id, time.time())
        assert work
        answers.submit(conn, project, user.id, work.id, Submission("k" * 10, said))
    with sqlite_store.read() as conn:
        items = {i.key: i for i in content.read_items(conn, project).values()}
    found = stored(sqlite_store, "job")
    assert {what for what in get_args(What) if export(what, found, items).rows} == set(GIVES[task])
    assert GIVES[task][0] == WHAT_OF[task], "the usual one comes first"


def offered(page: str) -> list[str]:
    return re.findall(r'formaction="/p/\w+/export/(\w+)\.jsonl"', page)


def test_the_page_offers_what_this_project_can_give(as_person: Any, team: Team) -> None:
    reviewer, admin = as_person("reviewer"), as_person("admin")
    assert offered(reviewer.get("/p/demo/review").text) == [
        "preferences", "judgements", "rankings", "annotations",
    ]  # fmt: skip
    with team.store.write() as conn:
        changed = projects.settings_from({"edit_best": True}, team.project.settings)
        projects.change_project(conn, team.project, title="t", settings=changed, closed=False)
    assert "demonstrations" in offered(reviewer.get("/p/demo/review").text)
    make_project(team.store, "stars", "rating")
    assert offered(admin.get("/p/stars/review").text) == ["ratings", "annotations"]
