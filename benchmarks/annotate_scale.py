"""A project of 50 000 items and 100 000 answers: what its pages, exports and imports cost.

    python benchmarks/annotate_scale.py                                        SQLite
    python benchmarks/annotate_scale.py --db postgresql://postgres@127.0.0.1/empty
    python benchmarks/annotate_scale.py --items 5000                           a tenth of it

Each page is asked for as a reviewer, after one visit before; its figure is the processor time of the whole process from
the request to the end of the response, so what the page starts in the background within that time counts as well. An
import runs beside a person who answers, and the longest time that one of these answers took is the figure.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient
from sqlalchemy import insert

from plaudit.annotate.export_data import Wanted, write_export
from plaudit.annotate.import_data import import_file
from plaudit.annotate.server.app import create_app
from plaudit.annotate.server.limits import Limiter
from plaudit.annotate.server.settings import ServeSettings
from plaudit.preferences.annotation import Item, ItemResponse, Skip
from plaudit.preferences.store import answers, content, digest, leases, people, projects
from plaudit.preferences.store.answers import Submission
from plaudit.preferences.store.engine import Store
from plaudit.preferences.store.projects import Project, ProjectSettings
from plaudit.preferences.store.schema import assignments, judgements

PEOPLE, EACH = 20, 2
"""Annotators, and answers to each item."""
WORDS = "the of and to in is that it for was on are as with they be at one have this from or had by not".split()


class Free(Limiter):
    """Lets everything through."""

    def take(self, limit: object, key: str) -> None:
        return


def text(dice: random.Random, words: int) -> str:
    return " ".join(dice.choice(WORDS) for _ in range(words))


def fill(store: Store, n: int) -> Project:
    """Items of about 1 kB with two answers each, by twenty people who mostly agree."""
    dice = random.Random(0)
    with store.write() as conn:
        settings = ProjectSettings(annotators_per_item=EACH, gold_share=0.0, seed=1)
        project = projects.create_project(conn, "scale", "Scale", "pairwise", settings)
        crowd = [people.add_user(conn, f"person-{k}", "annotator").id for k in range(PEOPLE)]
    for start in range(0, n, 500):
        items = [
            Item(f"i{k}", text(dice, 40), (ItemResponse(text(dice, 60), "one"), ItemResponse(text(dice, 60), "two")))
            for k in range(start, min(n, start + 500))
        ]
        with store.write() as conn:
            content.add_items(conn, project, items)
            keys = [item.key for item in items]
            numbers = content.numbers_of(conn, project, keys)
            for key in keys:
                _answers(conn, project, numbers[key], dice.sample(crowd, EACH), dice)
    return project


def _answers(conn: Any, project: Project, item: int, who: list[int], dice: random.Random) -> None:
    usual, now = dice.choice((-1, 1)), time.time()
    for user in who:
        shared = {"project_id": project.id, "item_id": item, "user_id": user}
        order = dice.choice(([0, 1], [1, 0]))
        place = {"round": 0, "order": order, "state": "done", "shown_at": now, "expires_at": now}
        made = conn.execute(insert(assignments).values(**shared, **place).returning(assignments.c.id)).scalar_one()
        answer = {"type": "choice", "strength": usual if dice.random() < 0.8 else -usual, "verdict": ""}
        if dice.random() < 0.02:
            answer = {"type": "skip", "reason": "The task is unclear"}
        row = {
            "assignment_id": made, "key": f"answer-{made}", "answer": answer, "created_at": now, "comment": "",
            "flags": ["off topic"] if dice.random() < 0.02 else [], "guideline_version": 1, "supersedes": None,
            "seconds": dice.lognormvariate(2.5, 0.5),
        }  # fmt: skip
        conn.execute(insert(judgements).values(**shared, **row))


def pages(store: Store, project: Project) -> dict[str, float]:
    """Processor seconds of each page."""
    client = TestClient(create_app(store, ServeSettings(), Free()), base_url="http://127.0.0.1:8000")
    with store.read() as conn:
        first = content.page_of_items(conn, project, 0, 1)[0][0]
    names = (f"items/{first}", "items", "items?page=900", "items?only=flagged", "items?only=skipped", "conflicts",
             f"conflicts/{first}", "review", "compare", "")  # fmt: skip
    figures = {}
    for name in names:
        address = f"/p/scale/{name}".rstrip("/")
        until = time.monotonic() + 600
        while "still being" in client.get(address).text and time.monotonic() < until:
            time.sleep(1)
        began = time.process_time()
        assert client.get(address).status_code == 200, address
        figures[name.replace(str(first), "N") or "overview"] = round(time.process_time() - began, 3)
    return figures


def timed(work: Callable[[], Any]) -> dict[str, float]:
    began, cpu = time.perf_counter(), time.process_time()
    work()
    return {"seconds": round(time.perf_counter() - began, 1), "CPU": round(time.process_time() - cpu, 1)}


def importing(store: Store, project: Project, rows: int, folder: Path) -> dict[str, float]:
    """An import while somebody answers: how long it takes, and the longest that an answer waits."""
    dice, path, waits = random.Random(1), folder / "rows.jsonl", [0.0]
    with path.open("w") as out:
        for k in range(rows):
            row = {"id": f"n{k}", "prompt": text(dice, 40), "chosen": text(dice, 60), "rejected": text(dice, 60)}
            out.write(json.dumps(row) + "\n")
    with store.write() as conn:
        user = people.add_user(conn, "busy", "annotator")
    done = threading.Event()

    def annotate() -> None:
        number = 0
        while not done.is_set():
            began = time.perf_counter()
            with store.write() as conn:
                work = leases.lease(conn, project, user.id, time.time())
                if work is not None:
                    number += 1
                    sent = Submission(f"busy-{number:06}", Skip("I do not know enough"))
                    answers.submit(conn, project, user.id, work.id, sent)
            waits.append(time.perf_counter() - began)
            time.sleep(0.05)

    thread = threading.Thread(target=annotate)
    thread.start()
    figures = timed(lambda: import_file(store, path, slug="scale"))
    done.set()
    thread.join()
    ordered = sorted(waits)
    p99 = ordered[len(ordered) * 99 // 100]
    return {**figures, "longest wait of an answer": round(ordered[-1], 3), "p99 of the waits": round(p99, 3)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--db", default="", help="an empty database [a new SQLite file]")
    parser.add_argument("--items", type=int, default=50_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = Store.open(given.db or str(Path(folder) / "scale.db"))
        project = fill(store, given.items)
        figures: dict[str, Any] = {"items": given.items, "answers": EACH * given.items}

        def read_all() -> None:
            while not digest.catch_up(store, project):
                pass

        figures["table of disputes, from nothing"] = timed(read_all)
        for what in ("preferences", "judgements", "annotations"):
            with (Path(folder) / f"{what}.jsonl").open("wb") as out:
                wanted = Wanted(project, what)  # type: ignore[arg-type]
                figures[f"export of {what}"] = timed(lambda w=wanted, o=out: write_export(store, w, o))
        figures["memory after exports, MB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        figures["pages, CPU seconds"] = pages(store, project)
        figures["import"] = importing(store, project, given.items, Path(folder))
        figures["memory at the end, MB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        store.close()
    print(json.dumps(figures, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
