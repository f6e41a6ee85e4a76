"""Pages, exports and imports of large projects: what they ask of the database is counted, not how long it takes."""

import io
import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import pytest
import sqlalchemy
from annotating import Team, make_people, make_project
from test_review import GIVEN

from plaudit.annotate.export_data import Wanted, read_answers, write_export
from plaudit.annotate.import_data import ITEMS_AT_ONCE, import_file
from plaudit.annotate.server.newest import Newest
from plaudit.preferences.aggregate import Rule
from plaudit.preferences.annotation import Choice, Item, ItemResponse, Skip, Task
from plaudit.preferences.disputes import disputes
from plaudit.preferences.exporting import What, export
from plaudit.preferences.store import answers, content, digest, history, leases, projects
from plaudit.preferences.store.answers import Submission
from plaudit.preferences.store.engine import Store
from plaudit.preferences.store.projects import Project

FEW, MANY = 60, 300
STEP = 100
"""Instructions of SQLite's machine between two counts."""


def fill(store: Store, project: Project, user_id: int, items: int, said: Callable[[int], Any]) -> None:
    """A person's answer to each item; None: no answer. They are stored as the app stores them."""
    with store.write() as conn:
        numbers = [number for number, _ in content.page_of_items(conn, project, 0, items)]
        for k, number in enumerate(numbers):
            answer = said(k)
            if answer is not None:
                work = leases.assign(conn, project, user_id, number, 0, time.time())
                flags = ("harmful",) if k % 7 == 3 else ()
                answers.submit(conn, project, user_id, work.id, Submission(f"answer-{user_id}-{number}", answer, flags))


@contextmanager
def counting(store: Store) -> Iterator[dict[str, Any]]:
    """Statements, and hundreds of instructions of SQLite's machine, that run meanwhile."""
    count: dict[str, Any] = {"statements": 0, "steps": 0, "log": []}

    def stepped() -> int:
        count["steps"] += 1
        return 0

    def began(conn: Any, cursor: Any, statement: str, *_: Any) -> None:
        count["statements"] += 1
        count["log"].append((count["steps"], statement))
        driver: sqlite3.Connection = conn.connection.dbapi_connection
        driver.set_progress_handler(stepped, STEP)
        drivers.append(driver)

    drivers: list[sqlite3.Connection] = []
    sqlalchemy.event.listen(store.engine, "before_cursor_execute", began)
    yield count
    sqlalchemy.event.remove(store.engine, "before_cursor_execute", began)
    for driver in drivers:  # connections are used again: what comes later does not count
        driver.set_progress_handler(None, STEP)


# Not conflicts/1: a reviewer's work page counts the answers of the whole project for its progress bar.
PAGES = ("items/1", "items", "items?only=flagged", "items?only=skipped", "conflicts", "review", "compare")


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_pages_grow_with_what_they_show(as_person: Any, team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five times the answers on pages of one length: the same statements, and not much more work for them."""
    monkeypatch.setattr("plaudit.annotate.pages.review.PAGE", 5)
    monkeypatch.setattr("plaudit.annotate.pages.review.MOST_CONFLICTS", 5)
    found: dict[str, list[dict[str, Any]]] = {page: [] for page in PAGES}
    reviewer = as_person("overseer")
    for slug, n in (("few", FEW), ("many", MANY)):
        said = (ItemResponse("one", "model-1"), ItemResponse("two", "model-2"))
        items = [Item(f"{slug}-{k}", f"prompt {k}", said) for k in range(n)]
        project = make_project(team.store, slug, items=items, annotators_per_item=2)
        for name in ("annotator", "stranger"):
            sign = 1 if name == "annotator" else -1
            fill(team.store, project, team.users[name].id, n, lambda k, s=sign: Skip("x") if k % 11 == 5 else Choice(s))
        with team.store.read() as conn:
            first = content.page_of_items(conn, project, 0, 1)[0][0]
        while not digest.catch_up(team.store, project):
            pass
        for page in PAGES:
            address = f"/p/{slug}/{page.replace('/1', f'/{first}')}"
            assert reviewer.get(address).status_code == 200  # what is computed once is computed now
            with counting(team.store) as count:
                assert reviewer.get(address).status_code == 200
            found[page].append(count)
    for page, (few, many) in found.items():
        assert many["statements"] == few["statements"] < 25, page
        # What grows is the walk through an index to count items or marks; reading the answers would be five times more.
        assert many["steps"] < 2 * few["steps"] + 40, (page, few, many)


@pytest.mark.parametrize("task", get_args(Task))
def test_an_export_in_parts_is_the_export(store: Store, task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes, counts and reasons are those of all answers at once, for every kind, rule and revision."""
    monkeypatch.setattr("plaudit.annotate.export_data.ROWS_AT_ONCE", 4)
    n, said = GIVEN[task]
    shown = tuple(ItemResponse(f"text {k}", f"model-{k}") for k in range(n))
    items = [Item(f"i{k}", f"p{k}", shown, said if k == 2 and task != "demonstration" else None) for k in range(11)]
    edits = task in ("pairwise", "ranking")
    project = make_project(store, "job", task, items, annotators_per_item=3, edit_best=edits)
    one, two = make_people(store, 2)
    fill(store, project, two.id, 11, lambda k: None if k in (0, 5) else said)
    if task == "pairwise":
        fill(store, project, one.id, 11, lambda k: Skip("x") if k == 4 else Choice((-2, 1, 0)[k % 3]))
    for at in (0, 7):
        revision, annotations, known = read_answers(store, project, at)
        rules = [Rule(), Rule(min_votes=2), Rule("dawid_skene", without_flagged=True), Rule(min_agreement=0.8)]
        for what in get_args(What):
            for rule in rules:
                whole, out = export(what, annotations, known, rule), io.BytesIO()
                shares: list[float] = []
                manifest = write_export(store, Wanted(project, what, rule, at), out, shares.append)
                assert out.getvalue() == whole.to_jsonl(), (what, rule)
                assert (manifest["rows"], manifest["left_out"]) == (len(whole.rows), whole.dropped), (what, rule)
                assert manifest["revision"] == revision and shares == sorted(shares) and max(shares, default=1) <= 1


def test_the_table_of_disputes_is_what_the_answers_say(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """In parts, after corrections, after an item became gold, and when two programs read at once."""
    monkeypatch.setattr("plaudit.preferences.store.digest.ROWS_AT_ONCE", 5)
    items = [Item(f"i{k}", f"p{k}", (ItemResponse("a"), ItemResponse("b"))) for k in range(9)]
    project = make_project(store, "job", items=items, annotators_per_item=3)
    one, two = make_people(store, 2)

    def check() -> None:
        while not digest.catch_up(store, project):
            pass
        with store.read() as conn:
            assert digest.behind(conn, project) == 0
            known = {item.key: item for item in content.read_items(conn, project).values()}
            asked = [a for a in history.read_annotations(conn, project) if known[a.item].gold is None]
            found = digest.open_disputes(conn, project, 100)
            assert {d.item: (d.summary, d.agreement) for _, d in found} == {
                d.item: (d.summary, d.agreement) for d in disputes(asked)
            }
            assert digest.count_disputes(conn, project) == len(found)
            assert [d.agreement for _, d in found] == sorted(d.agreement for _, d in found)

    fill(store, project, one.id, 9, lambda k: Choice(1))
    check()
    fill(store, project, two.id, 9, lambda k: Choice(-1 if k % 2 else 1))
    check()
    with store.write() as conn:
        assert len(digest.open_disputes(conn, project, 100)) == 4
        work = answers.undo(conn, project, two.id, "undo-the-last")
        assert work is not None
        number = digest.open_disputes(conn, project, 1)[0][0]
        content.set_gold(conn, project, number, content.get_item(conn, project, number), Choice(1))
    check()


def test_an_import_writes_in_short_transactions(sqlite_store: Store, tmp_path: Path) -> None:
    """Somebody else's answer waits for a hundred rows at most, and a second import finishes the first."""
    path = tmp_path / "rows.jsonl"
    rows = [{"id": f"r{k}", "prompt": f"p{k}"} for k in range(5 * ITEMS_AT_ONCE + 1)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    inserted: list[int] = []

    def committed(conn: Any) -> None:
        inserted.append(conn.exec_driver_sql("SELECT count(*) FROM items").scalar())

    sqlalchemy.event.listen(sqlite_store.engine, "commit", committed)
    done = import_file(sqlite_store, path, slug="job")
    sqlalchemy.event.remove(sqlite_store.engine, "commit", committed)
    grown = [b - a for a, b in zip(inserted, inserted[1:], strict=False)]
    assert done.added == 5 * ITEMS_AT_ONCE + 1 and max(grown) == ITEMS_AT_ONCE and sum(n > 0 for n in grown) == 6
    assert import_file(sqlite_store, path, slug="job").known == done.added


def test_items_that_need_no_answer_are_not_asked(sqlite_store: Store, tmp_path: Path) -> None:
    rows = [
        {"id": "a", "prompt": "p", "chosen": "yes", "rejected": "no"},
        {"id": "b", "prompt": "p", "chosen": "no", "rejected": "yes"},
        {"id": "c", "prompt": "p", "chosen": "same", "rejected": "same"},
        {"id": "d", "prompt": "q", "chosen": "yes", "rejected": "no"},
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = import_file(sqlite_store, path, slug="job")
    said = " ".join(done.notes)
    assert done.added == 2 and "1 x rows whose responses are all the same" in said
    assert "1 x rows with the texts of another item under another id" in said
    path.write_text(json.dumps({**rows[3], "id": "e"}) + "\n" + json.dumps({**rows[0], "prompt": "r"}) + "\n")
    again = import_file(sqlite_store, path, slug="job")
    assert again.added == 0 and len(again.changed) == 1, "also of an earlier import"
    assert "1 x rows with the texts of another item under another id" in " ".join(again.notes)
    assert import_file(sqlite_store, path, slug="job", gold=True).added == 1, "a gold item may ask what another asks"


def test_the_last_result_is_shown_while_the_next_is_made() -> None:
    newest, go, made = Newest(), threading.Event(), threading.Event()

    def slow() -> str:
        go.wait(60)
        made.set()
        return "two"

    assert newest.get("kind", 1, lambda: "one", wait=True).value == "one"
    first = newest.get("kind", 2, slow, wait=False)
    assert (first.value, first.fresh) == ("one", False)
    assert not newest.get("kind", 2, lambda: "never", wait=False).fresh, "it is made once"
    assert newest.get("other", 1, lambda: "own", wait=False).value in (None, "own")
    go.set()
    assert made.wait(60)
    until = time.monotonic() + 60
    while not newest.get("kind", 2, slow, wait=False).fresh and time.monotonic() < until:
        time.sleep(0.01)
    assert newest.get("kind", 2, slow, wait=False).value == "two"


def test_a_project_is_found_by_name(store: Store) -> None:
    """The table of disputes belongs to one project."""
    one, two = make_project(store, "one", annotators_per_item=2), make_project(store, "two", annotators_per_item=2)
    first, second = make_people(store, 2)
    fill(store, one, first.id, 3, lambda k: Choice(1))
    fill(store, one, second.id, 3, lambda k: Choice(-1))
    for project in (one, two):
        while not digest.catch_up(store, project):
            pass
    with store.read() as conn:
        found = [digest.count_disputes(conn, projects.get_project(conn, slug)) for slug in ("one", "two")]
    assert found == [3, 0]
