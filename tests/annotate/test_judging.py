"""A judge in a project: compared with its people, refused until it is trusted, and then an annotator of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from annotating import make_people, make_project, stored
from chat_server import ChatServer, chat_server, judging, saying, shown, status

from plaudit.annotate.judging import ACCOUNT, Judged, judge_project
from plaudit.cli.main import main
from plaudit.errors import ConfigError, Refused
from plaudit.jobs.reward_tables import JudgeTable
from plaudit.preferences.annotation import Choice, Item, ItemResponse, Ranks
from plaudit.preferences.store import answers, leases, people, projects
from plaudit.preferences.store.answers import Submission
from plaudit.preferences.store.engine import Store

DECIDED = 50
"""Items that a person has answered."""
OPEN = 6


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with chat_server() as made:
        made.answers = [judging(lambda text: text.count("good"))]
        yield made


def pairs(n: int) -> list[Item]:
    """The better response of each has more of the word "good"; which one that is alternates."""
    texts = [f"good good {n}", f"good {n}"]
    return [
        Item(f"i{k}", f"prompt {k}", tuple(map(ItemResponse, texts if k % 2 else texts[::-1]))) for k in range(n)
    ]


def answered_by_a_person(store: Store, slug: str, n: int, *, right: bool = True) -> None:
    with store.write() as conn:
        project = projects.get_project(conn, slug)
        found = people.find_user(conn, "ann")
        user = found[0] if found else people.add_user(conn, "ann", "annotator")
        for number in leases.open_items(conn, project, user.id)[:n]:
            work = leases.lease_item(conn, project, user.id, number, 0.0)
            assert work is not None
            better = -1 if int(work.item.key[1:]) % 2 else 1
            answer = Choice(better if right else -better)
            answers.submit(conn, project, user.id, work.id, Submission(f"person-{work.id:08}", answer))


def judged(store: Store, server: ChatServer, tmp_path: Path, **options: Any) -> Judged:
    table = JudgeTable(url=server.url, model="mini", cache=str(tmp_path / "answers.jsonl"))
    return judge_project(store, "demo", table, **options)


def by_judges(store: Store) -> list[Any]:
    return [a for a in stored(store, "demo") if a.annotator.startswith(ACCOUNT)]


def test_a_trusted_judge_answers_what_is_open(store: Store, server: ChatServer, tmp_path: Path) -> None:
    make_project(store, items=pairs(DECIDED + OPEN))
    answered_by_a_person(store, "demo", DECIDED)
    lines: list[str] = []
    done = judged(store, server, tmp_path, say=lines.append)
    assert done.calibration.items == DECIDED and done.calibration.agreement.value == 1.0 and not done.calibration.doubts
    assert done.answered == OPEN and done.unanswered == 0 and "agreement with people" in lines[0]
    given = by_judges(store)
    assert len(given) == OPEN and {a.annotator for a in given} == {done.account}
    assert all(a.answer == Choice(-1 if int(a.item[1:]) % 2 else 1) for a in given)
    assert all(a.round == 0 and "both orders" in a.comment for a in given)
    with store.read() as conn:
        user, password = people.find_user(conn, done.account)  # type: ignore[misc]
        [line] = [row for row in people.audit_log(conn) if row["action"] == "judged"]
    assert password is None and user.role == "annotator"
    assert line["detail"]["model"] == "mini" and line["detail"]["answers"] == OPEN and line["name"] == done.account


def test_it_goes_on_where_it_stopped_and_asks_nothing_twice(store: Store, server: ChatServer, tmp_path: Path) -> None:
    make_project(store, items=pairs(DECIDED + OPEN))
    answered_by_a_person(store, "demo", DECIDED)
    assert judged(store, server, tmp_path, limit=2, say=lambda text: None).answered == 2
    asked = len(server.asked)
    assert judged(store, server, tmp_path, say=lambda text: None).answered == OPEN - 2
    assert judged(store, server, tmp_path, say=lambda text: None).answered == 0
    # Prompts differ, so each pair is two questions; the calibration asked about its own already.
    assert len(server.asked) == asked + 2 * (OPEN - 2) and len(by_judges(store)) == OPEN


@pytest.mark.parametrize(("n", "right", "reason"), [(10, True, "50 are needed"), (DECIDED, False, "a coin")])
def test_a_judge_that_is_not_trusted_is_refused(
    sqlite_store: Store, server: ChatServer, tmp_path: Path, n: int, right: bool, reason: str
) -> None:
    make_project(sqlite_store, items=pairs(DECIDED + OPEN))
    answered_by_a_person(sqlite_store, "demo", n, right=right)
    with pytest.raises(Refused, match=reason) as caught:
        judged(sqlite_store, server, tmp_path)
    assert "--anyway" in caught.value.cure and by_judges(sqlite_store) == []
    assert judged(sqlite_store, server, tmp_path, only_calibrate=True).calibration.doubts
    done = judged(sqlite_store, server, tmp_path, anyway=True)
    assert done.answered == DECIDED + OPEN - n
    with sqlite_store.read() as conn:
        [line] = [row for row in people.audit_log(conn) if row["action"] == "judged"]
    assert reason in line["detail"]["doubts"][0]


def test_judges_are_not_compared_with_judges(sqlite_store: Store, server: ChatServer, tmp_path: Path) -> None:
    make_project(sqlite_store, items=pairs(DECIDED), annotators_per_item=2)
    judged(sqlite_store, server, tmp_path, anyway=True)
    other = JudgeTable(url=server.url, model="maxi", cache=str(tmp_path / "answers.jsonl"))
    assert judge_project(sqlite_store, "demo", other, only_calibrate=True).calibration.items == 0


def test_a_place_that_went_to_a_person_meanwhile_stays_theirs(
    sqlite_store: Store, server: ChatServer, tmp_path: Path
) -> None:
    project = make_project(sqlite_store, items=pairs(OPEN))
    [person] = make_people(sqlite_store, 1)
    liked = judging(lambda text: text.count("good"))

    def slow(body: Any) -> Any:
        if shown(body)[0].startswith("good"):
            with sqlite_store.write() as conn:
                leases.lease(conn, project, person.id, 1e12)
        return liked(body)

    server.answers = [slow]
    done = judged(sqlite_store, server, tmp_path, anyway=True)
    assert done.answered == OPEN - 1 and done.unanswered == 0


def test_items_without_an_answer_stay_open(sqlite_store: Store, server: ChatServer, tmp_path: Path) -> None:
    make_project(sqlite_store, items=pairs(OPEN))
    server.answers = [judging(len), saying("no idea")]
    done = judged(sqlite_store, server, tmp_path, anyway=True)
    assert done.answered < OPEN and done.answered + done.unanswered == OPEN and "no JSON object" in done.error
    assert len(by_judges(sqlite_store)) == done.answered


def test_a_ranking_is_answered_with_ranks(sqlite_store: Store, server: ChatServer, tmp_path: Path) -> None:
    texts = ("good", "good good good", "bad", "good")
    make_project(sqlite_store, task="ranking", items=[Item("r", "prompt", tuple(map(ItemResponse, texts)))])
    assert judged(sqlite_store, server, tmp_path, anyway=True).answered == 1
    assert by_judges(sqlite_store)[0].answer == Ranks((2, 1, 3, 2))


def test_what_a_judge_cannot_do(sqlite_store: Store, server: ChatServer, tmp_path: Path) -> None:
    make_project(sqlite_store, task="thumbs", items=[Item("t", "p", (ItemResponse("a"),))])
    with pytest.raises(ConfigError, match="is a thumbs project"):
        judged(sqlite_store, server, tmp_path)
    server.answers = [status(404, {"error": {"message": "no such model"}})]
    make_project(sqlite_store, "other", items=pairs(1))
    with pytest.raises(ConfigError, match="no such model") as caught:
        table = JudgeTable(url=server.url, model="mni", cache=str(tmp_path / "answers.jsonl"))
        judge_project(sqlite_store, "other", table)
    assert caught.value.where == "--judge"


def test_from_the_command_line(
    server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store.open("annotations.db")
    make_project(store, items=pairs(DECIDED + OPEN))
    answered_by_a_person(store, "demo", 10)
    judge = ["annotate", "judge", "demo", "--judge", f"judge:mini@{server.url}"]
    assert main(judge) == 4 and "not trusted" in capsys.readouterr().err
    assert main([*judge, "--calibrate"]) == 0 and "50 are needed" in capsys.readouterr().out
    answered_by_a_person(store, "demo", DECIDED - 10)
    assert main([*judge, "--calibrate"]) == 0 and "it may answer" in capsys.readouterr().out
    assert main([*judge, "--limit", "4"]) == 0 and "4 items answered by judge@mini" in capsys.readouterr().out
    assert main(["annotate", "export", "demo", "out.jsonl", "--what", "judgements"]) == 0
    assert "judge@mini" in Path("out.jsonl").read_text()
    capsys.readouterr()
    assert main(["annotate", "judge", "demo", "--judge", "runs/reward"]) == 78
    assert main([*judge, "--limit", "-1"]) == 78
    store.close()
