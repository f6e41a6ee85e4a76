"""What the pages and the API do, over HTTP: imports, exports, figures, commands."""

import json
import re
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, get_args

import pytest
import sqlalchemy
from annotating import Served, Team, Unlimited, free_port, make_people, make_project

from plaudit.annotate import commands
from plaudit.annotate.import_data import default_guidelines, import_file
from plaudit.annotate.pages.forms import filled, in_words
from plaudit.annotate.server.limits import Limit, Limiter, TooMany
from plaudit.cli.main import main
from plaudit.data.load import load_records
from plaudit.errors import ConfigError, DataError
from plaudit.preferences.annotation import (
    Choice,
    Ranks,
    Scores,
    Skip,
    Task,
    Thumbs,
    Written,
    answer_from_json,
    answer_to_json,
    in_order,
    inverse,
)
from plaudit.preferences.store import content, history, projects
from plaudit.preferences.store.engine import Store
from plaudit.preferences.store.schema import judgements
from plaudit.records import Preference

SRC = Path(commands.__file__).parents[2]


def write_pairs(path: Path, n: int = 3) -> Path:
    rows = [{"id": f"p{k}", "prompt": f"Say {k}", "chosen": "yes", "rejected": "no"} for k in range(n)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_from_a_file_to_training_data(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    """import, answers over the API, export; the export is data that `plaudit reward` reads."""
    monkeypatch.chdir(tmp_path)
    assert main(["annotate", "import", str(write_pairs(tmp_path / "pairs.jsonl"))]) == 0
    store = Store.open("annotations.db")
    (user,) = make_people(store, 1)
    with store.write() as conn:
        from plaudit.preferences.store import people

        projects.add_member(conn, projects.get_project(conn, "pairs").id, user.id)
        token = people.issue_token(conn, user.id, "api")
    with Served(store) as served, served.client(headers={"authorization": f"Bearer {token}"}) as client:
        work = client.post("/api/v1/projects/pairs/next").json()["work"]
        assert set(work) == {"assignment", "prompt", "responses"}, "no name that says gold or again"
        while work:
            strength = 1 if work["responses"][1] == "no" else -1
            answer = {"type": "choice", "strength": strength}
            path = f"/api/v1/projects/pairs/assignments/{work['assignment']}/answer"
            body = {"key": f"answer-{work['assignment']}", "answer": answer, "next": True}
            work = client.post(path, json=body).json()["work"]
    store.close()
    assert main(["annotate", "export", "pairs", "out.jsonl"]) == 0
    first = Path("out.jsonl").read_bytes()
    records = load_records("out.jsonl").records
    assert [type(r) for r in records] == [Preference] * 3
    assert all(r.chosen == "no" for r in records if isinstance(r, Preference))
    manifest = json.loads(Path("out.manifest.json").read_text())
    assert manifest["rows"] == 3 and manifest["project"] == "pairs"
    assert main(["annotate", "export", "pairs", "again.jsonl", "--at", str(manifest["revision"])]) == 0
    assert Path("again.jsonl").read_bytes() == first
    assert main(["annotate", "status"]) == 0
    assert "3 of 3 answers" in capsys.readouterr().out
    assert main(["annotate", "export", "pairs", "labels.jsonl", "--what", "kto"]) != 0
    assert "--what preferences is what pairwise projects give" in capsys.readouterr().err


def test_commands_that_cannot_work(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["annotate", "status"]) == 78
    write_pairs(tmp_path / "pairs.jsonl")
    assert main(["annotate", "import", "pairs.jsonl", "--task", "rating"]) == 0
    assert main(["annotate", "import", "pairs.jsonl", "--task", "pairwise"]) == 78
    assert main(["annotate", "export", "pairs", "out.jsonl"]) == 65
    assert main(["annotate", "export", "nothing", "out.jsonl"]) == 65
    assert main(["annotate", "serve", "--host", "0.0.0.0"]) == 78
    assert "nobody has to log in" in capsys.readouterr().err


def test_backup_and_invitation_and_priorities(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    main(["annotate", "import", str(write_pairs(tmp_path / "pairs.jsonl"))])
    Path("priorities.jsonl").write_text('{"id": "p1", "priority": 2}\n')
    assert main(["annotate", "prioritise", "pairs", "priorities.jsonl"]) == 0
    assert main(["annotate", "backup", "copy.db"]) == 0
    assert main(["annotate", "backup", "copy.db"]) == 78
    assert main(["annotate", "invite", "--role", "reviewer", "--project", "pairs"]) == 0
    said = capsys.readouterr().out
    assert "1 items have a new priority" in said and "/join/" in said
    assert main(["annotate", "status", "--db", "copy.db"]) == 0


def test_the_app_never_loads_torch() -> None:
    code = "import plaudit.annotate.commands, plaudit.annotate.asking, sys\n"
    code += "print([m for m in ('torch', 'transformers') if m in sys.modules])"
    env = {"PYTHONPATH": str(SRC)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert done.stdout.strip() == "[]"


def test_importing_twice_adds_once_and_gold_is_marked(store: Store, tmp_path: Path) -> None:
    path = write_pairs(tmp_path / "My Pairs.jsonl")
    first = import_file(store, path)
    assert (first.project.slug, first.project.task, first.added) == ("my-pairs", "pairwise", 3)
    assert import_file(store, path).known == 3
    gold = import_file(store, path, slug="gold", gold=True)
    with store.read() as conn:
        assert projects.progress(conn, gold.project).gold == 3
    with pytest.raises(ConfigError, match="asks pairwise"):
        import_file(store, path, task="ranking", slug="gold")


def test_rows_without_an_id_are_known_by_their_texts(store: Store, tmp_path: Path) -> None:
    """A second file of the same name adds its rows, a row inserted on top adds itself alone, a changed row is said."""
    path = tmp_path / "batch.jsonl"

    def add(*prompts: str, **more: str) -> tuple[int, int, tuple[str, ...]]:
        rows = [{"prompt": p, "chosen": f"yes {p}", "rejected": "no", **more} for p in prompts]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        done = import_file(store, path, slug="batch")
        return done.added, done.known, done.changed

    assert add("one", "two", "three") == (3, 0, ())
    assert add("four", "five", "six") == (3, 0, ()), "another file of the same name"
    assert add("zero", "one", "two", "three") == (1, 3, ()), "a row on top"
    assert add("one", "one", "seven") == (1, 2, ()), "twice in one file"
    assert add("eight", id="mine") == (1, 0, ())
    assert add("eight", id="mine") == (0, 1, ())
    assert add("nine", id="mine") == (0, 0, ("mine",)), "the id of other texts is said, not taken for the same"
    with store.read() as conn:
        assert content.count_items(conn, projects.get_project(conn, "batch")) == 9


def test_guidelines_name_only_answers_that_the_task_has() -> None:
    said = {task: default_guidelines(task) for task in get_args(Task)}
    assert [task for task, text in said.items() if "*cannot judge*" in text] == ["pairwise"]
    assert {task for task, text in said.items() if "*skip*" in text} == {"ranking", "rating", "thumbs"}


def test_reviewers_pages(as_person: Any, team: Team) -> None:
    annotator, reviewer = as_person("annotator"), as_person("overseer")
    page = annotator.get("/p/demo/work")
    assert "model-1" not in page.text, "blind"
    assert "<progress" not in page.text, (
        "known answers do not count, so the figure would say which items are gold"
    )
    for path in ("/", "/p/demo"):
        assert "<progress" not in annotator.get(path).text and "<progress" in reviewer.get(path).text
    assert "<progress" in reviewer.get("/p/demo/work").text
    assert "this is for a reviewer" in annotator.get("/p/demo/items").text.lower()
    assert "this is for an admin" in annotator.get("/admin").text.lower()
    for path in ("review", "conflicts", "items", "items/1", "compare"):
        assert reviewer.get(f"/p/demo/{path}").status_code == 200
    assert "model-1" in reviewer.get("/p/demo/items/1").text
    said = reviewer.get("/p/demo/export/annotations.jsonl")
    assert said.status_code == 200 and said.headers["x-revision"] == "0"
    assert reviewer.get("/p/demo/export/nonsense.jsonl").status_code == 422


def test_admin_changes_a_project(as_person: Any, team: Team) -> None:
    admin = as_person("admin")
    new = admin.post("/admin/projects", data={"slug": "fresh", "title": "Fresh", "task": "rating"})
    assert new.headers["location"] == "/p/fresh/settings"
    form = {"title": "Fresh", "annotators": "3", "strategy": "priority", "gold_share": "20", "repeat_share": "5",
            "lease_minutes": "10", "axes": "kind\nclear", "flags": "rude", "skips": "no idea"}  # fmt: skip
    assert admin.post("/p/fresh/settings", data=form).status_code == 303
    for name, value, words in (
        ("annotators", "many", "&#34;Annotators per item&#34; is &#39;many&#39;"),
        ("lease_minutes", "0", "&#34;Minutes until an item is passed on&#34; is 0"),
        ("gold_share", "95", "&#34;Gold items, % of what is asked&#34; is 95"),
        ("axes", "kind\nkind", "scales (axes) are"),
    ):
        refused = admin.post("/p/fresh/settings", data={**form, name: value})
        assert refused.status_code == 422 and words in refused.text, "in the words and units of the form"
    assert admin.post("/p/fresh/guidelines", data={"body": "Be *kind*."}).status_code == 303
    upload = {
        "file": (
            "r.jsonl",
            json.dumps({"id": "1", "prompt": "p", "response": "r", "reward": 3}).encode() + b"\n",
        )
    }
    assert "1 new items" in admin.post("/p/fresh/import", files=upload).text
    bomb = {"file": ("r.jsonl.gz", b"\x1f\x8b")}
    assert admin.post("/p/fresh/import", files=bomb).status_code == 422
    outside = {"file": ("../../etc/passwd.jsonl", b"x\n")}
    assert admin.post("/p/fresh/import", files=outside).status_code == 422
    log = admin.get("/admin/audit").text
    assert "annotators_per_item: 1 -&gt; 3" in log and "lease_seconds: " in log
    assert "off topic -&gt; rude" in log
    assert "edit_best" not in log, "what did not change is not told"
    with team.store.read() as conn:
        project = projects.get_project(conn, "fresh")
    assert (project.settings.axes, project.settings.annotators_per_item) == (("kind", "clear"), 3)
    assert (project.guideline_version, project.guidelines) == (2, "Be *kind*.")


def test_settings_that_the_form_shows_rounded_stay_as_they_are(as_person: Any, team: Team) -> None:
    admin = as_person("admin")
    exact = {"lease_seconds": 45, "gold_share": 0.125}
    with team.store.write() as conn:
        settings = projects.settings_from(exact, team.project.settings)
        projects.change_project(conn, team.project, title="demo", settings=settings, closed=False)
    page = admin.get("/p/demo/settings").text
    form = dict(re.findall(r'name="(\w+)" type="number"[^>]* value="(\d+)"', page))
    assert form == {"annotators": "1", "lease_minutes": "1", "gold_share": "12", "repeat_share": "0"}

    def save(**changed: str) -> tuple[int, float]:
        sent = {**form, "strategy": "random", **changed}
        assert admin.post("/p/demo/settings", data=sent).status_code == 303
        with team.store.read() as conn:
            now = projects.get_project(conn, "demo").settings
        return now.lease_seconds, now.gold_share

    assert save(annotators="2") == (45, 0.125)
    assert save(lease_minutes="2", gold_share="13") == (120, 0.13)


def test_answers_that_say_nothing_yet_are_refused_with_a_cure(as_person: Any, team: Team) -> None:
    client = as_person("annotator")
    client.get("/p/demo/work")
    said = client.post("/p/demo/a/1", data={"key": "k" * 12}, headers={"hx-request": "true"})
    assert said.status_code == 422 and "nothing is chosen yet" in said.text
    assert said.headers["hx-retarget"] == "#notice"
    with team.store.read() as conn:
        assert history.revision(conn, team.project) == 0


def hidden_fields(page: str) -> dict[str, str]:
    """What the form of the answer brings along, and ``action``."""
    form = page.split('id="answer"')[1].split("</form>")[0]
    found = dict(re.findall(r'<input type="hidden" name="(csrf|key|supersedes|guidelines)" value="([^"]*)"', form))
    action = re.search(r'action="(/p/\w+/a/\d+)"', form)
    assert action
    return found | {"action": action[1]}


def test_answers_carry_the_guidelines_that_were_shown(as_person: Any, team: Team) -> None:
    """They change while somebody works: what is on the screen is answered by the old, the next item brings the new."""
    client, htmx = as_person("annotator"), {"hx-request": "true"}
    page = client.get("/p/demo/work").text
    assert page.count('id="guide-text"') == 1
    assert as_person("admin").post("/p/demo/guidelines", data={"body": "Be *kind*."}).status_code == 303
    for guidelines in ("1", "2", "99", "-1", ""):  # what was never shown cannot be claimed
        sent = hidden_fields(page)
        assert sent["guidelines"] == ("1" if guidelines == "1" else "2")
        form = sent | {"choice": "1", "guidelines": guidelines}
        page = client.post(form.pop("action"), data=form, headers=htmx).text
        assert '<div class="prose" id="guide-text" hx-swap-oob="true"><p>Be <em>kind</em>.</p>' in page
    with team.store.read() as conn:
        kept = conn.execute(sqlalchemy.select(judgements.c.guideline_version).order_by(judgements.c.id))
        assert [row.guideline_version for row in kept] == [1, 2, 2, 2, 2]


def test_answers_over_the_api_carry_them_too(as_person: Any, team: Team) -> None:
    client, admin, token = as_person("annotator"), as_person("admin"), team.headers("annotator")
    work = client.post("/api/v1/projects/demo/next", headers=token).json()["work"]
    assert admin.post("/p/demo/guidelines", data={"body": "Be *kind*."}).status_code == 303
    for number, shown in enumerate(({"guideline_version": 1}, {}, {"guideline_version": 99})):
        sent = {"key": f"over-api-{number}", "answer": {"type": "choice", "strength": 1}, "next": True} | shown
        path = f"/api/v1/projects/demo/assignments/{work['assignment']}/answer"
        work = client.post(path, json=sent, headers=token).json()["work"]
    with team.store.read() as conn:
        kept = conn.execute(sqlalchemy.select(judgements.c.guideline_version).order_by(judgements.c.id))
        assert [row.guideline_version for row in kept] == [1, 2, 2]


def test_forms_of_many_at_once_are_stored_once_each(as_person: Any, team: Team) -> None:
    """Everybody sends each form twice, at the same time, beside somebody whose form says nothing."""
    clients = {who: as_person(who) for who in ("annotator", "reviewer", "admin")}

    def work(who: str) -> list[str]:
        keys, page = [], clients[who].get("/p/demo/work").text
        for _ in range(4):
            sent = hidden_fields(page)
            action, htmx = sent.pop("action"), {"hx-request": "true"}
            assert clients[who].post(action, data=sent, headers=htmx).status_code == 422
            again = [clients[who].post(action, data=sent | {"choice": "1"}, headers=htmx) for _ in range(2)]
            assert {said.status_code for said in again} == {200}
            keys, page = [*keys, sent["key"]], again[1].text
            assert hidden_fields(again[0].text)["action"] == hidden_fields(page)["action"] != action
        return keys

    with ThreadPoolExecutor(3) as pool:
        keys = [key for found in pool.map(work, clients) for key in found]
    with team.store.read() as conn:
        rows = [row.key for row in conn.execute(sqlalchemy.select(judgements.c.key))]
    assert sorted(rows) == sorted(keys) and len(set(rows)) == 12


def test_how_far_a_project_is_is_not_counted_while_others_wait(
    as_person: Any, team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is a look at every answer, a second with 50 000 items, and must not hold up the writing thread."""
    where: list[str] = []
    count = projects.progress

    def counted(*given: Any) -> projects.Progress:
        where.append(threading.current_thread().name)
        return count(*given)

    reviewer = as_person("reviewer")
    monkeypatch.setattr(projects, "progress", counted)
    page = reviewer.get("/p/demo/work").text
    sent = hidden_fields(page)
    action = sent.pop("action")
    reviewer.post(action, data=sent | {"choice": "1"}, headers={"hx-request": "true"})
    assert (
        "<progress" in reviewer.get(action).text and "<progress" in reviewer.get("/p/demo/conflicts/1").text
    )
    assert len(where) == 4
    assert not [name for name in where if name.startswith(("reader", "writer"))]


NASTY = [
    *("' OR 1=1 --", '"; DROP TABLE users; --', "1); DELETE FROM items; --", "'||pg_sleep(5)--"),
    *("../" * 8 + "etc/passwd", "..%2f..%2fetc%2fpasswd", "\x00", "%00", "\\", "%s%n", "`id`"),
    *("{{7*7}}", "${7*7}", "\ud7ff\uffff", "a" * 5000),
]


@pytest.mark.parametrize("text", NASTY)
def test_nasty_texts_in_every_place_are_only_texts(as_person: Any, team: Team, text: str) -> None:
    from urllib.parse import quote

    admin = as_person("admin")
    part = quote(text, safe="")
    codes = [
        admin.get(path).status_code
        for path in (
            f"/p/{part}",
            f"/join/{part}",
            f"/p/demo/export/{part}.jsonl",
            f"/static/{part}",
            f"/p/demo/items/{part}",
        )
    ]
    codes.append(admin.post("/admin/projects", data={"slug": text, "title": text, "task": text}).status_code)
    codes.append(admin.post("/admin/invitations", data={"role": text, "project": text}).status_code)
    codes.append(admin.post("/p/demo/guidelines", data={"body": text}).status_code)
    codes.append(admin.post("/p/demo/undo", data={"key": text}).status_code)
    codes.append(admin.post("/account/tokens", data={"label": text}).status_code)
    assert max(codes) < 500 and not any(200 <= code < 300 for code in codes[:5])
    with team.store.read() as conn:
        assert len(projects.list_projects(conn)) == 2


@pytest.mark.parametrize(
    "answer",
    [
        Choice(-2),
        Choice(0, "both_bad"),
        Choice(1, edit=Written("x", 1)),
        Ranks((1, 1, 2)),
        Ranks((2, 1), Written("x", 1)),
        Scores(({"a": 3}, {"a": 10})),
        Thumbs((True, False)),
        Written("x", 1),
    ],
)
def test_answers_survive_json(answer: Any) -> None:
    assert answer_from_json(json.loads(json.dumps(answer_to_json(answer)))) == answer


@pytest.mark.parametrize("value", [None, 3, {}, {"type": []}, {"type": "choice"}, {"type": "choice", "strength": True},
                                   {"type": "ranks", "ranks": "12"}, {"type": "scores", "scores": [{"a": 1.5}]},
                                   {"type": "skip", "reason": "x", "more": 1}])  # fmt: skip
def test_what_is_no_answer(value: Any) -> None:
    with pytest.raises(DataError):
        answer_from_json(value)


def test_strengths_are_turned_with_the_order() -> None:
    assert [in_order(Choice(s), (0, 1)) for s in (-2, 0, 1)] == [Choice(s) for s in (-2, 0, 1)]
    assert [in_order(Choice(s), (1, 0)) for s in (-2, 0, 1)] == [Choice(s) for s in (2, 0, -1)]
    assert in_order(Choice(1, edit=Written("x", 1)), (1, 0)) == Choice(-1, edit=Written("x", 0))
    rows, order = ({"helpfulness": 1}, {"helpfulness": 2}, {"helpfulness": 3}), (2, 0, 1)
    assert in_order(Scores(rows), order) == Scores((rows[2], rows[0], rows[1]))
    assert in_order(Thumbs((True, False, False)), order) == Thumbs((False, True, False))
    for answer in (Ranks((1, 3, 2), Written("x", 0)), Scores(rows), Written("x", 2), Written("x"), Skip("no")):
        assert in_order(in_order(answer, order), inverse(order)) == answer
    assert in_words(Choice(-2), (1, 0)) == "B much better"
    assert in_words(Ranks((2, 1, 1)), (0, 1, 2)) == "B = C > A"
    assert in_words(Choice(1, edit=Written("x", 1)), (1, 0)) == "A better; A edited"


def test_a_form_starts_from_the_answer_given(sqlite_store: Store) -> None:
    import time

    from plaudit.preferences.store import leases

    project, (user,) = make_project(sqlite_store), make_people(sqlite_store, 1)
    with sqlite_store.write() as conn:
        work = leases.lease(conn, project, user.id, time.time())
    assert work
    seen = filled(Choice(1), work.order)["choice"]
    assert in_order(Choice(int(seen)), inverse(work.order)) == Choice(1)
    assert filled(Ranks((1, 3, 2), Written("x", 0)), (2, 0, 1)) == {
        "rank-A": "2", "rank-B": "1", "rank-C": "3", "text": "x", "base": "B",
    }  # fmt: skip


def test_a_bucket_fills_again() -> None:
    now = [0.0]
    limiter, limit = Limiter(clock=lambda: now[0]), Limit(2, 3)
    for _ in range(3):
        limiter.take(limit, "a")
    with pytest.raises(TooMany):
        limiter.take(limit, "a")
    limiter.take(limit, "b")
    now[0] = 0.5
    limiter.take(limit, "a")


def test_a_limit_that_waits_refuses_nobody() -> None:
    limiter, limit = Limiter(clock=lambda: 0.0), Limit(1 / 3, 2)
    assert [limiter.wait(limit, "a") for _ in range(50)] == [0.0, 0.0] + [3.0] * 48
    assert limiter.wait(limit, "b") == 0.0
    assert limiter.wait(Limit(1 / 1000, 1), "c") == 0.0 and limiter.wait(Limit(1 / 1000, 1), "c", most=5) == 5.0


def test_vendored_scripts_are_what_they_say() -> None:
    from hashlib import sha256

    folder = Path(commands.__file__).parent / "static" / "vendor"
    table = (folder / "README.md").read_text(encoding="utf-8")
    scripts = sorted(folder.glob("*.js"))
    assert [p.name for p in scripts] == ["Sortable.min.js", "htmx.min.js"]
    assert all(sha256(p.read_bytes()).hexdigest() in table for p in scripts)


def test_a_person_is_asked_in_the_middle_of_a_program(tmp_path: Path) -> None:
    import threading

    from plaudit.annotate.asking import ask_person

    port, found = free_port(), []
    asked = [("p", "a", "b"), ("q", "c", "d")]
    thread = threading.Thread(
        target=lambda: found.extend(ask_person(asked, tmp_path / "a.db", port, lambda text: None)),
        daemon=True,
    )
    thread.start()
    import time

    import httpx

    with httpx.Client(base_url=f"http://127.0.0.1:{port}", follow_redirects=True, trust_env=False) as client:
        for _ in range(1200):
            try:
                page = client.get("/p/reviews/work").text
                break
            except httpx.TransportError:
                time.sleep(0.1)
        for _ in asked:
            hidden = dict(
                re.findall(
                    r'name="(csrf|key|supersedes)" value="([^"]*)"',
                    page.split('id="answer"')[1].split("<section")[0],
                )
            )
            action = re.search(r'action="(/p/reviews/a/\d+)"', page)
            assert action
            page = client.post(action[1], data={**hidden, "choice": "-2"}).text
    thread.join(300)
    assert [j.strength for j in found] == [-2, -2]


class Counted:
    """Counts what the app answers, by status: the fuzzer's own word is not needed."""

    def __init__(self, app: Any, seen: "Counter[int]") -> None:
        self.app, self.seen = app, seen

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def watched(message: Any) -> None:
            if message["type"] == "http.response.start":
                self.seen[message["status"]] += 1
            await send(message)

        await self.app(scope, receive, watched)


@pytest.mark.slow
def test_schemathesis_finds_no_server_error(team: Team) -> None:
    """5 000 generated requests and more as admin, over pages and API: no 5xx."""
    schemathesis = pytest.importorskip("schemathesis", reason="pip install 'plaudit[annotate-test]'")
    seen: Counter[int] = Counter()
    running = Served(team.store, limiter=Unlimited())
    running.app.add_middleware(Counted, seen=seen)
    with running as served:
        headers = team.headers("admin") | {"x-csrf-token": team.csrf("admin")}
        headers["cookie"] = f"plaudit_session={team.sessions['admin']}"
        script = [sys.executable, "-m", "schemathesis.cli", "run", f"{served.url}/api/openapi.json"]
        script += ["--url", served.url, "--checks", "not_a_server_error", "--max-examples", "110"]
        script += ["--exclude-path-regex", "^/(logout|account/password)"]
        for name, value in headers.items():
            script += ["--header", f"{name}: {value}"]
        done = subprocess.run(script, capture_output=True, text=True, check=False)
    print(sum(seen.values()), "requests", dict(sorted(seen.items())))
    assert schemathesis and done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert sum(seen.values()) >= 5000 and not [status for status in seen if status >= 500]


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], ["--pages"]], ids=["api", "pages"])
def test_nothing_is_lost_when_the_server_is_killed(more: list[str]) -> None:
    """The small version of benchmarks/annotate_load.py."""
    script = Path(__file__).parents[2] / "benchmarks" / "annotate_load.py"
    command = [sys.executable, str(script), "--annotators", "8", "--judgements", "300", "--kills", "2", *more]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(SRC), "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(done.stdout)
    assert figures["lost"] == figures["doubled"] == 0 and figures["acknowledged"] >= 300
