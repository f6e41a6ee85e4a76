"""Jobs that run in one batch: each fails alone, and none is acknowledged before the commit."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from annotating import make_people, make_project, pairs
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from plaudit.annotate.server import batches
from plaudit.annotate.server.batches import Batcher
from plaudit.errors import PlauditError
from plaudit.preferences.annotation import Choice
from plaudit.preferences.store import answers, history, leases, people
from plaudit.preferences.store.answers import Submission
from plaudit.preferences.store.engine import Store
from plaudit.preferences.store.projects import Project
from plaudit.preferences.store.transaction import Conflict, Job, NotFound, Outcome


def naming(name: str) -> Job:
    return lambda conn: people.add_user(conn, name, "annotator").name


def names(store: Store) -> list[str]:
    with store.read() as conn:
        return [user.name for user in people.list_users(conn)]


def answering(project: Project, user_id: int, number: int, key: str) -> Callable[[Any], int]:
    return lambda conn: answers.submit(conn, project, user_id, number, Submission(key, Choice(1)))


def test_each_fails_alone(store: Store) -> None:
    found = store.write_batch([naming("ada"), naming("ADA"), naming("bob"), naming("<>"), naming("eve")])
    assert [o.value for o in found] == ["ada", None, "bob", None, "eve"]
    assert isinstance(found[1].failure, Conflict) and found[3].failure is not None
    assert names(store) == ["ada", "bob", "eve"]


def test_what_a_failing_job_did_before_is_taken_back(store: Store) -> None:
    def half(conn: Any) -> None:
        people.add_user(conn, "half", "annotator")
        raise NotFound("no", cure="none")

    def breaks_the_database(conn: Any) -> None:
        people.add_user(conn, "broken", "annotator")
        conn.execute(text("SELECT nothing FROM nowhere"))

    found = store.write_batch([naming("ada"), half, breaks_the_database, naming("bob")])
    assert [type(o.failure).__name__ for o in found][:2] == ["NoneType", "NotFound"]
    assert isinstance(found[2].failure, DBAPIError) and found[3].failure is None
    assert names(store) == ["ada", "bob"]


def test_a_transaction_that_the_database_ended_is_acknowledged_to_nobody(sqlite_store: Store) -> None:
    """SQLite does this on a full disk; a commit of no transaction would succeed."""

    def ends(conn: Any) -> None:
        conn.connection.dbapi_connection.execute("ROLLBACK")

    with pytest.raises(PlauditError, match="ended the transaction"):
        sqlite_store.write_batch([naming("ada"), ends, naming("bob")])
    assert names(sqlite_store) == []
    assert sqlite_store.write_batch([naming("eve")])[0].value == "eve", "and it goes on"


def test_readers_behind_an_error_of_the_database_still_read(store: Store) -> None:
    def breaks(conn: Any) -> None:
        conn.execute(text("SELECT nothing FROM nowhere"))

    store.write_batch([naming("ada")])
    found = store.read_batch([people.list_users, breaks, people.list_users])
    assert isinstance(found[1].failure, DBAPIError)
    assert [u.name for u in found[2].value] == ["ada"]


def test_answers_of_one_batch_are_numbered_in_their_order_and_stored_once(store: Store) -> None:
    project, team = make_project(store, items=pairs(8)), make_people(store, 4)
    taking = [lambda conn, u=u: leases.lease(conn, project, u.id, time.time()) for u in team]
    given = [outcome.value for outcome in store.write_batch(taking)]
    assert len({work.item_id for work in given}) == 4, "one place each, although nobody has committed yet"
    jobs = [answering(project, u.id, w.id, f"key-{u.id:05d}") for u, w in zip(team, given, strict=True)]
    wrong = answering(project, team[0].id, given[1].id, "key-of-another")
    found = store.write_batch([*jobs, wrong, jobs[0]])
    revisions = [o.value for o in found[:4]]
    assert revisions == sorted(revisions) and isinstance(found[4].failure, NotFound)
    assert found[5].value == revisions[0], "the same key again"
    with store.read() as conn:
        assert [a.revision for a in history.read_annotations(conn, project)] == revisions


def run(batcher: Batcher, jobs: Sequence[Any]) -> list[Any]:
    async def all_of_them() -> list[Any]:
        return await asyncio.gather(*(batcher.run(job) for job in jobs), return_exceptions=True)

    return asyncio.run(all_of_them())


def test_what_comes_meanwhile_is_done_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "MOST_AT_ONCE", 5)
    sizes: list[int] = []
    used: set[str] = set()

    def serve(jobs: Sequence[Any]) -> list[Outcome]:
        sizes.append(len(jobs))
        used.add(threading.current_thread().name)
        return [Outcome(job) for job in jobs]

    assert run(Batcher(serve, "worker"), range(12)) == list(range(12))
    assert sizes == [1, 5, 5, 1], "the first at once, the others as they came"
    assert used == {"worker_0"}


def test_a_batch_that_fails_fails_for_every_job_in_it_and_only_for_them() -> None:
    def serve(jobs: Sequence[Any]) -> list[Outcome]:
        if "bad" in jobs:
            raise OSError("disk")
        return [Outcome(failure=ValueError(job)) if job == "wrong" else Outcome(job) for job in jobs]

    batcher = Batcher(serve, "worker")
    assert [type(x).__name__ for x in run(batcher, ["a", "bad", "b"])] == ["str", "OSError", "OSError"]
    assert [type(x).__name__ for x in run(batcher, ["a", "wrong", "b"])] == ["str", "ValueError", "str"]


@pytest.mark.parametrize("failure", [StopIteration("odd"), asyncio.CancelledError()])
def test_nobody_waits_for_ever_whatever_goes_wrong(failure: BaseException) -> None:
    def serve(jobs: Sequence[Any]) -> list[Outcome]:
        if "bad" in jobs:
            raise failure
        return [Outcome(failure=StopIteration()) if job == "odd" else Outcome(job) for job in jobs]

    batcher = Batcher(serve, "worker")
    assert [type(x).__name__ for x in run(batcher, ["a", "bad", "b"])] == [
        "str",
        "RuntimeError",
        "RuntimeError",
    ]
    assert [type(x).__name__ for x in run(batcher, ["a", "odd", "b"])] == ["str", "RuntimeError", "str"]


def test_a_batch_that_cannot_begin_is_not_begun_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = []

    @contextlib.contextmanager
    def refuse(self: Store) -> Iterator[Any]:
        begun.append(1)
        raise OSError("locked")
        yield

    monkeypatch.setattr(Store, "write", refuse)
    with pytest.raises(OSError, match="locked"):
        store.write_batch([naming("ada")])
    assert len(begun) == 1, "who waited for the lock in vain does not wait once more"


def test_somebody_who_left_is_not_waited_for() -> None:
    go_on = threading.Event()

    def serve(jobs: Sequence[Any]) -> list[Outcome]:
        assert go_on.wait(600)
        return [Outcome(job) for job in jobs]

    async def leave() -> str:
        batcher = Batcher(serve, "worker")
        first, second, third = (asyncio.create_task(batcher.run(name)) for name in ("a", "b", "c"))
        await asyncio.sleep(0)
        second.cancel()
        go_on.set()
        await first
        return await third

    assert asyncio.run(leave()) == "c"
