"""The store's promises, on SQLite and on PostgreSQL."""

import threading
import time
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from annotating import make_people, make_project, pairs, stored
from sqlalchemy.exc import DBAPIError

from plaudit.errors import ConfigError, DataError
from plaudit.preferences.annotation import Choice, Item, ItemResponse, Skip, Written
from plaudit.preferences.store import answers, content, history, leases, people, projects
from plaudit.preferences.store.answers import Submission
from plaudit.preferences.store.engine import Store
from plaudit.preferences.store.leases import Work
from plaudit.preferences.store.projects import Project, ProjectSettings, Strategy
from plaudit.preferences.store.schema import judgements, metadata
from plaudit.preferences.store.transaction import Conflict, NotFound


def key() -> str:
    return uuid.uuid4().hex


def take(store: Store, project: Project, user: people.User, now: float | None = None) -> Work | None:
    with store.write() as conn:
        return leases.lease(conn, project, user.id, now or time.time())


def send(
    store: Store, project: Project, user: people.User, work: Work, answer: object = None, **more: object
) -> int:
    decides = bool(more.pop("decides", False))
    sent = Submission(str(more.pop("key", key())), answer or Choice(-1), **more)  # type: ignore[arg-type]
    with store.write() as conn:
        return answers.submit(conn, project, user.id, work.id, sent, decides=decides)


def finish(store: Store, project: Project, user: people.User) -> list[Work]:
    done = []
    while work := take(store, project, user):
        send(store, project, user, work)
        done.append(work)
    return done


def test_migrations_give_the_tables_of_the_schema(store: Store) -> None:
    with store.read() as conn:
        found = compare_metadata(MigrationContext.configure(conn, opts={"compare_type": True}), metadata)
    assert found == []


def test_sqlite_keeps_its_promises(sqlite_store: Store, tmp_path: Path) -> None:
    with sqlite_store.read() as conn:
        pragma = {
            p: conn.exec_driver_sql(f"PRAGMA {p}").scalar()
            for p in ("journal_mode", "synchronous", "foreign_keys")
        }
        tables = conn.exec_driver_sql(
            "SELECT sql FROM sqlite_master WHERE type = 'table' AND name = 'items'"
        ).scalar()
    assert pragma == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}
    assert "STRICT" in tables
    assert (tmp_path / "store.db").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("statement", ["UPDATE judgements SET comment = 'x'", "DELETE FROM judgements"])
def test_history_cannot_be_changed(store: Store, statement: str) -> None:
    project, (user,) = make_project(store), make_people(store, 1)
    finish(store, project, user)
    with pytest.raises(DBAPIError, match="append-only"), store.write() as conn:
        conn.execute(sqlalchemy.text(statement))


def test_each_item_gets_the_annotators_it_wants(store: Store) -> None:
    project, team = make_project(store, annotators_per_item=2), make_people(store, 3)
    for user in team:
        finish(store, project, user)
    with store.read() as conn:
        found = history.read_annotations(conn, project)
        done = projects.progress(conn, project)
    assert set(Counter(a.item for a in found).values()) == {2}
    assert (done.answers, done.wanted, done.complete) == (12, 12, 6)
    assert len({(a.item, a.annotator) for a in found}) == 12


def test_two_people_never_hold_the_same_place(store: Store) -> None:
    project, team = make_project(store, items=pairs(20)), make_people(store, 8)
    barrier = threading.Barrier(len(team))

    def work(user: people.User) -> int:
        barrier.wait()
        return len(finish(store, project, user))

    with ThreadPoolExecutor(len(team)) as pool:
        counts = list(pool.map(work, team))
    with store.read() as conn:
        found = history.read_annotations(conn, project)
    assert sum(counts) == 20
    assert len({a.item for a in found}) == len(found) == 20


def test_a_double_click_leases_one_item(store: Store) -> None:
    project, (user,) = make_project(store), make_people(store, 1)
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda _: take(store, project, user), range(6)))
    assert len({work.id for work in found if work}) == 1


def test_an_expired_lease_goes_to_somebody_else(store: Store) -> None:
    project, (slow, quick) = make_project(store, items=pairs(1), lease_seconds=60), make_people(store, 2)
    held = take(store, project, slow)
    assert held and take(store, project, quick) is None
    taken = take(store, project, quick, time.time() + 61)
    assert taken and taken.item_id == held.item_id
    send(store, project, quick, taken)
    with pytest.raises(Conflict, match="time for this item ran out"):
        send(store, project, slow, held)


def test_an_expired_lease_is_still_good_while_the_place_is_free(store: Store) -> None:
    project, (slow, other) = make_project(store, items=pairs(1), lease_seconds=60), make_people(store, 2)
    held = take(store, project, slow)
    assert held
    with store.write() as conn:
        assert leases.release_expired(conn, time.time() + 61) == 1
    send(store, project, slow, held)
    assert take(store, project, other) is None


def test_a_changed_answer_with_the_key_of_a_lost_reply_is_a_correction(store: Store) -> None:
    project, (user,) = make_project(store, items=pairs(2)), make_people(store, 1)
    work, same = take(store, project, user), key()
    assert work
    first = send(store, project, user, work, Choice(-1), key=same)  # stored, but the reply is lost
    second = send(store, project, user, work, Choice(1), key=same)
    assert second > first
    assert send(store, project, user, work, Choice(1), key=same) == second, "sent again: stored once"
    third = send(store, project, user, work, Choice(1), key=same, comment="I looked again")
    assert third > second, "a changed comment is a change too"
    (counted,) = stored(store, "demo")
    assert (counted.answer, counted.comment) == (Choice(1), "I looked again")
    with store.read() as conn:
        rows = history.raw_rows(conn, project, None, 0)
    assert [row["supersedes"] for row in rows] == [None, first, second]
    with pytest.raises(Conflict, match="another answer is stored"):
        send(store, project, user, work, Choice(-1), key=same)  # a late copy, or meant: it is not guessed
    (counted,) = stored(store, "demo")
    assert counted.answer == Choice(1)


def test_a_late_copy_does_not_undo_a_correction(store: Store) -> None:
    project, (user,) = make_project(store, items=pairs(1)), make_people(store, 1)
    work, same = take(store, project, user), key()
    assert work
    first = send(store, project, user, work, Choice(-1), key=same)
    corrected = send(store, project, user, work, Choice(2), supersedes=first)
    assert send(store, project, user, work, Choice(-1), key=same) == first, "it was stored, and was corrected since"
    with pytest.raises(Conflict, match="another answer is stored"):
        send(store, project, user, work, Choice(1), key=same)
    with store.read() as conn:
        assert [row["revision"] for row in history.raw_rows(conn, project, None, 0)] == [first, corrected]


def test_a_key_of_an_answer_takes_nothing_back_and_the_other_way_round(store: Store) -> None:
    project, (user,) = make_project(store, items=pairs(1)), make_people(store, 1)
    work, same, back = take(store, project, user), key(), key()
    assert work
    first = send(store, project, user, work, key=same)
    with store.write() as conn, pytest.raises(Conflict, match="key belongs to another"):
        answers.undo(conn, project, user.id, same)
    with store.write() as conn:
        answers.undo(conn, project, user.id, back)
    with pytest.raises(Conflict, match="key belongs to another"):
        send(store, project, user, work, key=back, supersedes=first)


def test_the_same_key_is_stored_once(store: Store) -> None:
    project, (user, other) = make_project(store), make_people(store, 2)
    work, same = take(store, project, user), key()
    assert work
    first = send(store, project, user, work, key=same)
    assert send(store, project, user, work, key=same) == first
    elsewhere = take(store, project, other)
    assert elsewhere
    with pytest.raises(Conflict, match="key belongs to another"):
        send(store, project, other, elsewhere, key=same)


def test_correction_undo_and_revisions(store: Store) -> None:
    project, (user,) = make_project(store, items=pairs(1)), make_people(store, 1)
    work = take(store, project, user)
    assert work
    first = send(store, project, user, work, Choice(-2))
    with pytest.raises(Conflict, match="another window"):
        send(store, project, user, work, Choice(1))
    second = send(store, project, user, work, Choice(1), supersedes=first, comment="on second thoughts")
    with store.write() as conn:
        again = answers.undo(conn, project, user.id, key())
    assert again and again.id == work.id
    third = send(store, project, user, work, Choice(0, "both_bad"), supersedes=second + 1)
    with store.read() as conn:
        at = {
            r: [a.answer for a in history.read_annotations(conn, project, r)]
            for r in range(first - 1, third + 1)
        }
        rows = history.raw_rows(conn, project)
        assert history.revision(conn, project) == third
    assert at == {
        first - 1: [], first: [Choice(-2)], second: [Choice(1)], second + 1: [], third: [Choice(0, "both_bad")],
    }  # fmt: skip
    assert [row["supersedes"] for row in rows] == [None, first, second, second + 1]
    assert rows[1]["comment"] == "on second thoughts"


def test_an_edit_nobody_asked_for_is_refused(store: Store) -> None:
    project, (user,) = make_project(store, items=pairs(2), edit_best=True), make_people(store, 1)
    edited = Choice(-1, edit=Written("better", 0))
    work = take(store, project, user)
    assert work
    first = send(store, project, user, work, edited)
    silent = replace(project, settings=replace(project.settings, edit_best=False))
    kept = send(store, silent, user, work, Choice(-2, edit=Written("best", 0)), supersedes=first)
    assert kept > first, "one from when the project asked for it may be corrected"
    other = take(store, silent, user)
    assert other and other.id != work.id
    with pytest.raises(DataError, match="does not ask for edits"):
        send(store, silent, user, other, edited)
    assert send(store, silent, user, other, Choice(-1)) > kept


def test_undo_reaches_back_answer_by_answer(store: Store) -> None:
    project, (user,) = make_project(store, items=pairs(3)), make_people(store, 1)
    done = finish(store, project, user)
    for expected in reversed(done):
        with store.write() as conn:
            back = answers.undo(conn, project, user.id, key())
        assert back and back.id == expected.id
    with store.write() as conn:
        assert answers.undo(conn, project, user.id, key()) is None


def test_an_undo_sent_twice_takes_back_once_and_names_the_same_item(store: Store) -> None:
    project, (user, other) = make_project(store, items=pairs(3)), make_people(store, 2)
    *_, last = finish(store, project, user)
    same = key()
    for _ in range(2):
        with store.write() as conn:
            back = answers.undo(conn, project, user.id, same)
        assert back and (back.id, back.state) == (last.id, "leased")
    with store.write() as conn, pytest.raises(Conflict, match="key belongs to another"):
        answers.undo(conn, project, other.id, same)


def test_a_skipped_item_goes_to_somebody_else(store: Store) -> None:
    project, (first, second) = make_project(store, items=pairs(1)), make_people(store, 2)
    work = take(store, project, first)
    assert work
    send(store, project, first, work, Skip("unclear"))
    assert take(store, project, first) is None
    taken = take(store, project, second)
    assert taken and taken.item_id == work.item_id
    send(store, project, second, taken)
    with (
        store.write() as conn,
        pytest.raises(Conflict),
    ):  # the skip cannot be taken back once the place is gone
        answers.undo(conn, project, first.id, key())


def test_orders_are_stored_balanced_and_the_same_again(store: Store) -> None:
    project, (user, other) = (
        make_project(store, items=pairs(60), annotators_per_item=2),
        make_people(store, 2),
    )
    first = {w.item.key: w.order for w in finish(store, project, user)}
    second = {w.item.key: w.order for w in finish(store, project, other)}
    swapped = sum(order == (1, 0) for order in first.values())
    assert 15 <= swapped <= 45, "each order comes up about half the time"
    assert sum(first[k] != second[k] for k in first) >= 15, "drawn anew for each person"
    with store.read() as conn:
        assert {a.item: a.order for a in history.read_annotations(conn, project, user_id=user.id)} == first


def test_gold_items_are_asked_of_everybody_and_take_no_place(store: Store) -> None:
    items = pairs(40, gold=10)
    project, team = make_project(store, items=items, gold_share=0.4), make_people(store, 2)
    both = [take(store, project, user) for user in team]
    assert all(both)
    gold: Counter[str] = Counter()
    for _ in range(12):
        for user in team:
            work = take(store, project, user)
            assert work
            gold[work.item.key] += work.item.gold is not None
            send(store, project, user, work)
    assert sum(gold.values()) >= 4 and max(gold.values()) <= 2


def test_repeats_come_later_and_in_rounds(store: Store) -> None:
    project, (user,) = make_project(store, items=pairs(40), repeat_share=0.4), make_people(store, 1)
    done = finish(store, project, user)
    places: dict[str, list[int]] = {}
    for place, work in enumerate(done):
        places.setdefault(work.item.key, []).append(place)
    repeated = [found for found in places.values() if len(found) == 2]
    assert len(repeated) >= 5 and all(b - a >= leases.REPEAT_AFTER for a, b in repeated)
    with store.read() as conn:
        rounds = Counter(a.round for a in history.read_annotations(conn, project))
    assert rounds == {0: 40, 1: len(repeated)}


@pytest.mark.parametrize("strategy", projects.STRATEGIES)
def test_strategies(store: Store, strategy: Strategy) -> None:
    project, team = (
        make_project(store, items=pairs(12), strategy=strategy, annotators_per_item=3),
        make_people(store, 4),
    )
    with store.write() as conn:
        assert (
            content.set_priorities(conn, project, {f"item-{k}": k / 12 for k in range(12)} | {"nothing": 1.0})
            == 12
        )
    for _ in range(3):
        for user in team:
            work = take(store, project, user)
            assert work
            send(store, project, user, work)
    with store.read() as conn:
        asked = Counter(a.item for a in history.read_annotations(conn, project))
    if strategy == "least-annotated":
        assert set(asked.values()) == {1}
    if strategy == "priority":
        assert set(asked) == {"item-11", "item-10", "item-9", "item-8"}
    if strategy == "random":
        assert len(asked) >= 6


def test_closed_projects_ask_nothing(store: Store) -> None:
    project, (user,) = make_project(store), make_people(store, 1)
    with store.write() as conn:
        projects.change_project(conn, project, title="t", settings=project.settings, closed=True)
        project = projects.get_project(conn, "demo")
    assert project.closed and take(store, project, user) is None


def test_adjudication_is_a_verdict_of_its_own(store: Store) -> None:
    project, (user, reviewer) = make_project(store, items=pairs(1)), make_people(store, 2)
    work = take(store, project, user)
    assert work
    send(store, project, user, work, Choice(-1))
    with store.write() as conn:
        verdict = answers.open_adjudication(conn, project, reviewer.id, work.item_id)
    with pytest.raises(NotFound, match="no such assignment of yours"):
        send(store, project, reviewer, verdict, Choice(2))
    send(store, project, reviewer, verdict, Choice(2), decides=True)
    with store.read() as conn:
        found = history.read_annotations(conn, project)
        done = projects.progress(conn, project)
    assert [(a.adjudicated, a.answer) for a in found] == [(False, Choice(-1)), (True, Choice(2))]
    assert done.answers == 1, "the verdict takes no annotator's place"
    with store.write() as conn, pytest.raises(NotFound):
        answers.open_adjudication(conn, project, reviewer.id, 10**6)


def test_answers_of_others_and_wrong_ones_are_refused(store: Store) -> None:
    project, (user, thief) = make_project(store), make_people(store, 2)
    work = take(store, project, user)
    assert work
    with pytest.raises(NotFound, match="no such assignment of yours"):
        send(store, project, thief, work)
    for answer, said in ((Choice(3), "strength 3"), (Choice(1, "both_bad"), "goes with strength 0")):
        with pytest.raises(DataError, match=said):
            send(store, project, user, work, answer)
    with pytest.raises(DataError, match="no flag"):
        send(store, project, user, work, flags=("invented",))
    with pytest.raises(DataError, match="more than"):
        send(store, project, user, work, comment="x" * 70_000)
    with store.read() as conn:
        assert history.raw_rows(conn, project) == []


def test_items_are_added_once_and_all_or_none(store: Store) -> None:
    project = make_project(store, items=[])
    with store.write() as conn:
        assert content.add_items(conn, project, pairs(3)) == (3, 0, ())
        assert content.add_items(conn, project, pairs(5)) == (2, 3, ())
        first, second = pairs(2)
        assert content.add_items(conn, project, [replace(first, prompt="another"), second]) == (0, 1, (first.key,))
    one = Item("lonely", "p", (ItemResponse("x"),))
    with pytest.raises(DataError, match="has 1 responses"), store.write() as conn:
        content.add_items(conn, project, [*pairs(9), one])
    with store.read() as conn:
        assert content.count_items(conn, project) == 5


def test_any_unicode_comes_back(store: Store) -> None:
    text = "\x00\ud800 \u202e\u200b \U0001f600 'quote\" \\ \r\n\t end"
    project, (user,) = (
        make_project(store, items=[Item("k", text, (ItemResponse(text), ItemResponse("b")))]),
        make_people(store, 1),
    )
    work = take(store, project, user)
    assert work and work.item.prompt == text and work.item.responses[0].content == text
    send(store, project, user, work, comment="caf\u00e9 \u202e")
    with store.read() as conn:
        assert history.read_annotations(conn, project)[0].comment == "caf\u00e9 \u202e"


def test_tokens_passwords_and_invitations(store: Store) -> None:
    make_project(store)
    with store.write() as conn:
        admin = people.add_user(conn, "Ada", "admin")
        with pytest.raises(Conflict, match="name is taken"):
            people.add_user(conn, "ada", "annotator")
        session = people.issue_token(conn, admin.id, "session")
        assert people.user_of(conn, session, "session") == admin
        assert people.user_of(conn, session, "api") is None, "a session is no API token"
        with pytest.raises(Conflict, match="somebody must be admin"):
            people.change_user(conn, admin.id, role="annotator", disabled=False)
        secret = people.invite(conn, "reviewer", projects.get_project(conn, "demo").id)
        joined = people.join(conn, secret, "Bob", "hash")
        assert joined.role == "reviewer"
        with pytest.raises(NotFound):
            people.join(conn, secret, "Eve", "hash")
        kept = people.issue_token(conn, joined.id, "session")
        people.change_user(conn, joined.id, role="reviewer", disabled=True)
        assert people.user_of(conn, kept, "session") is None
        stored = [str(row) for table in metadata.sorted_tables for row in conn.execute(table.select())]
    assert not any(s in row for s in (session, secret, kept) for row in stored), (
        "secrets are stored as digests"
    )


def revision(store: Store, project: Project) -> int:
    with store.read() as conn:
        return history.revision(conn, project)


def test_backup_of_a_database_in_use(sqlite_store: Store, tmp_path: Path) -> None:
    project, team = make_project(sqlite_store, items=pairs(200)), make_people(sqlite_store, 3)
    with ThreadPoolExecutor(3) as pool:
        running = [pool.submit(finish, sqlite_store, project, user) for user in team]
        while not revision(sqlite_store, project):
            time.sleep(0.005)
        sqlite_store.backup(tmp_path / "copy.db")
        assert sum(len(r.result()) for r in running) == 200
    copy = Store.open(tmp_path / "copy.db")
    copied = revision(copy, project)
    assert copied > 0
    with copy.read() as old, sqlite_store.read() as new:
        assert history.raw_rows(old, project) == history.raw_rows(new, project, at=copied)
    copy.close()
    with pytest.raises(ConfigError, match="exists"):
        sqlite_store.backup(tmp_path / "copy.db")


@pytest.mark.parametrize(
    "where", ["mysql://x/y", "postgresql://nobody@127.0.0.1:1/x", "/nowhere/at/all.db", ":memory:"]
)
def test_databases_that_cannot_be_used(where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Store.open(where)
    assert caught.value.cure


@pytest.mark.parametrize(
    "values",
    [{"annotators_per_item": 0}, {"gold_share": 1.5}, {"strategy": "clever"}, {"axes": ["a", "a"]}, {"axes": ["<b>"]},
     {"lease_seconds": "60"}, {"nonsense": 1}, {"annotators_per_item": True}],
)  # fmt: skip
def test_settings_out_of_range(values: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        projects.settings_from(values, ProjectSettings())


def test_rows_are_numbered_in_the_order_of_their_commits(store: Store) -> None:
    """What was exported at a revision stays what it was: no smaller number turns up later."""
    project, team = make_project(store, items=pairs(30)), make_people(store, 6)
    seen: list[set[int]] = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.is_set():
            with store.read() as conn:
                seen.append(set(conn.scalars(sqlalchemy.select(judgements.c.id))))

    watcher = threading.Thread(target=watch)
    watcher.start()
    with ThreadPoolExecutor(len(team)) as pool:
        list(pool.map(lambda user: finish(store, project, user), team))
    stop.set()
    watcher.join()
    for before, after in zip(seen, seen[1:], strict=False):
        assert all(new > max(before, default=0) for new in after - before)
