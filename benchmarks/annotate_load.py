"""Many annotators over HTTP, the server killed with -9 again and again, and every answer accounted for.

    python benchmarks/annotate_load.py                      50 annotators, 10 000 judgements, five kill -9, SQLite
    python benchmarks/annotate_load.py --db postgresql://postgres@127.0.0.1/empty
    python benchmarks/annotate_load.py --db ... --also 'pg_ctl -D DATA -m immediate restart'     the database dies too
    python benchmarks/annotate_load.py --to-the-end --kills 10      until every item has all its answers
    python benchmarks/annotate_load.py --pages              by the forms of the pages instead of over the API

Each annotator holds one connection and sends an answer with a key of its own; without a reply the same answer is sent
again. At the end three sets are compared: what was acknowledged, what is in the database, and what each item may hold.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import re
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles
from typing import Protocol
from urllib.parse import urlencode

from sqlalchemy import func, select

from plaudit.annotate.server.site import csrf_of
from plaudit.preferences.annotation import Item, ItemResponse
from plaudit.preferences.store import content, people, projects
from plaudit.preferences.store.engine import Store
from plaudit.preferences.store.projects import ProjectSettings
from plaudit.preferences.store.schema import assignments, judgements

PLACES = 2
SHORT_LEASE = 20
"""Seconds; with --to-the-end, what those who were cut off held goes back to the others soon."""


@dataclass
class Ledger:
    """What the annotators saw."""

    wanted: int
    to_the_end: bool = False
    acknowledged: dict[str, int] = field(default_factory=dict)
    """Revision by key; 0 where the reply, a page, does not tell it."""
    seconds: list[float] = field(default_factory=list)
    retries: int = 0
    done: asyncio.Event = field(default_factory=asyncio.Event)

    def acknowledge(self, key: str, revision: int, seconds: float) -> None:
        self.acknowledged[key] = revision
        self.seconds.append(seconds)
        if len(self.acknowledged) >= self.wanted:
            self.done.set()


@dataclass(frozen=True)
class Work:
    """One item in front of an annotator."""

    path: str
    """Where the answer goes."""
    key: str
    fields: dict[str, str] = field(default_factory=dict)
    """What the form brings along."""


class Door(Protocol):
    """How annotators get in: what they send, and what they make of the replies."""

    def asking(self) -> bytes: ...

    def answering(self, work: Work, strength: int) -> bytes: ...

    def read(self, said: bytes) -> tuple[int, Work | None]:
        """The revision of the answer that was acknowledged, and the next item."""


class Api:
    """JSON with a bearer token."""

    def __init__(self, port: int, token: str) -> None:
        self.head = (
            f"Host: 127.0.0.1:{port}\r\nAuthorization: Bearer {token}\r\n"
            "Content-Type: application/json\r\nContent-Length: "
        )

    def asking(self) -> bytes:
        return self._post("/api/v1/projects/load/next", {})

    def answering(self, work: Work, strength: int) -> bytes:
        answer = {"type": "choice", "strength": strength, "verdict": ""}
        return self._post(work.path, {"key": work.key, "answer": answer, "next": True})

    def _post(self, path: str, body: dict[str, object]) -> bytes:
        sent = json.dumps(body)
        return f"POST {path} HTTP/1.1\r\n{self.head}{len(sent)}\r\n\r\n{sent}".encode()

    def read(self, said: bytes) -> tuple[int, Work | None]:
        reply = json.loads(said)
        found = reply["work"]
        path = f"/api/v1/projects/load/assignments/{found['assignment']}/answer" if found else ""
        return reply.get("revision", 0), Work(path, uuid.uuid4().hex) if found else None


FIELD = re.compile(r'<input type="hidden" name="(csrf|key|supersedes)" value="([^"]*)">')
ACTION = re.compile(r'<form id="answer"[^>]* action="([^"]+)"')


class Pages:
    """The page of the work, opened once, and then its forms as htmx sends them, with session and CSRF token."""

    def __init__(self, port: int, session: str) -> None:
        own = f"http://127.0.0.1:{port}"
        self.head = f"Host: 127.0.0.1:{port}\r\nCookie: plaudit_session={session}\r\n"
        self.form = (
            f"{self.head}Origin: {own}\r\nSec-Fetch-Site: same-origin\r\nHX-Request: true\r\n"
            "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: "
        )
        self.csrf = csrf_of(session)

    def asking(self) -> bytes:
        return f"GET /p/load/work HTTP/1.1\r\n{self.head}\r\n".encode()

    def answering(self, work: Work, strength: int) -> bytes:
        sent = urlencode({**work.fields, "choice": str(strength), "comment": ""})
        return f"POST {work.path} HTTP/1.1\r\n{self.form}{len(sent)}\r\n\r\n{sent}".encode()

    def read(self, said: bytes) -> tuple[int, Work | None]:
        page = said.decode()
        action = ACTION.search(page)
        if action is None:
            assert "That is all for now" in page, page
            return 0, None
        fields = dict(FIELD.findall(page[action.end() : page.index("</form>", action.end())]))
        assert fields["csrf"] == self.csrf, "the page carries the token of this session"
        return 0, Work(action[1], fields["key"], fields)


class Annotator:
    """Answers as fast as the server lets it, or with a pause between answers, over a connection of its own."""

    def __init__(self, port: int, door: Door, ledger: Ledger, pause: float) -> None:
        self.port, self.door, self.ledger, self.pause = port, door, ledger, pause
        self.line: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self.failure = ""

    async def run(self) -> None:
        if self.pause:  # people do not begin at the same moment
            await self.rest(random.uniform(0, 2 * self.pause))
        work = await self.next_item()
        while work and not self.ledger.done.is_set():
            began = time.perf_counter()
            said = await self.send(self.door.answering(work, random.choice((-2, -1, 0, 1, 2))))
            if said is None:
                break
            revision, following = self.door.read(said)
            self.ledger.acknowledge(work.key, revision, time.perf_counter() - began)
            work = following or (await self.next_item() if self.ledger.to_the_end else None)
            if self.pause:
                await self.rest(random.expovariate(1 / self.pause))
        self.hang_up()

    async def rest(self, seconds: float) -> None:
        """Unless everybody may go home meanwhile."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.ledger.done.wait(), seconds)

    async def next_item(self) -> Work | None:
        """What is put to the annotator; to the end, nothing means: wait until somebody's lease runs out."""
        while not self.ledger.done.is_set():
            said = await self.send(self.door.asking())
            work = self.door.read(said)[1] if said is not None else None
            if work or said is None or not self.ledger.to_the_end:
                return work
            await asyncio.sleep(0.5)
        return None

    async def send(self, request: bytes) -> bytes | None:
        """The reply; the same request again, after a growing pause, for as long as there is none.

        None where it was refused, or where everybody went home meanwhile.
        """
        pause = 0.1
        while not self.ledger.done.is_set():
            try:
                status, said = await asyncio.wait_for(self.exchange(request), 60)
                if status < 400:
                    return said
                if status != 429 and status < 500:
                    self.failure = said.decode()
                    return None
            except (OSError, EOFError, ValueError, TimeoutError):
                self.hang_up()
            self.ledger.retries += 1
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))
            pause = min(2.0, 2 * pause)
        return None

    async def exchange(self, request: bytes) -> tuple[int, bytes]:
        """One request and its reply: only as much of HTTP as our own server speaks, for it runs on the same cores."""
        if self.line is None or self.line[0].at_eof():  # the server ends connections that were idle for long
            self.hang_up()
            self.line = await asyncio.open_connection("127.0.0.1", self.port)
        reader, writer = self.line
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"\r\ncontent-length: ")[2].partition(b"\r\n")[0])
        return int(head[9:12]), await reader.readexactly(length)

    def hang_up(self) -> None:
        if self.line is not None:
            self.line[1].close()
        self.line = None


async def start(db: str, port: int) -> subprocess.Popen[bytes]:
    command = [
        sys.executable,
        "-m",
        "plaudit.cli.main",
        "annotate",
        "serve",
        "--auth",
        "--db",
        db,
        "--port",
        str(port),
    ]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while time.monotonic() < until:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return server
        if server.poll() is not None:
            raise SystemExit("the server did not start")
        await asyncio.sleep(0.02)
    raise SystemExit("the server did not start in time")


def prepare(db: str, annotators: int, wanted: int, to_the_end: bool, pages: bool = False) -> list[str]:
    """A project with places enough, or just enough, and the secret of an API token or session for each annotator."""
    store = Store.open(db)
    said = (ItemResponse("A short reply."), ItemResponse("Another one, which is somewhat longer."))
    n = wanted // PLACES + (0 if to_the_end else annotators)
    with store.write() as conn:
        lease = {"lease_seconds": SHORT_LEASE} if to_the_end else {}
        settings = ProjectSettings(annotators_per_item=PLACES, **lease)
        project = projects.create_project(conn, "load", "Load", "pairwise", settings)
        content.add_items(conn, project, [Item(f"i-{k}", f"Prompt {k}", said) for k in range(n)])
        tokens = []
        for k in range(annotators):
            user = people.add_user(conn, f"annotator-{k}", "annotator")
            projects.add_member(conn, project.id, user.id)
            tokens.append(people.issue_token(conn, user.id, "session" if pages else "api", "load"))
    store.close()
    return tokens


def audit(db: str, ledger: Ledger) -> dict[str, object]:
    """Compare what was acknowledged with what is stored."""
    store = Store.open(db)
    with store.read() as conn:
        done = projects.progress(conn, projects.get_project(conn, "load"))
        rows = conn.execute(
            select(judgements.c.key, judgements.c.id, judgements.c.item_id, judgements.c.user_id)
        ).all()
        twice = select(func.count()).select_from(
            select(judgements.c.assignment_id)
            .group_by(judgements.c.assignment_id)
            .having(func.count() > 1)
            .subquery()
        )
        doubled = int(conn.scalar(twice) or 0)
        held = Counter(
            conn.scalars(select(assignments.c.item_id).where(assignments.c.state.in_(("leased", "done"))))
        )
        healthy = conn.exec_driver_sql("PRAGMA integrity_check").scalar() if store.is_sqlite else "ok"
    store.close()
    stored = {row.key: row.id for row in rows}
    return {
        "acknowledged": len(ledger.acknowledged),
        "stored": len(stored),
        "lost": sum(stored.get(key) != (n or stored.get(key, -1)) for key, n in ledger.acknowledged.items()),
        "doubled": doubled + len(rows) - len({(row.item_id, row.user_id) for row in rows}),
        "items over their places": sum(n > PLACES for n in held.values()),
        "items without all their answers": done.items - done.complete if ledger.to_the_end else 0,
        "integrity": healthy,
    }


@dataclass(frozen=True)
class Plan:
    """What happens."""

    annotators: int
    judgements: int
    kills: int
    pause: float = 0.0
    also: str = ""
    to_the_end: bool = False
    pages: bool = False


async def run(db: str, plan: Plan) -> dict[str, object]:
    """The whole experiment."""
    secrets = prepare(db, plan.annotators, plan.judgements, plan.to_the_end, plan.pages)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    ledger = Ledger(plan.judgements, plan.to_the_end)
    server = await start(db, port)
    doors: list[Door] = [Pages(port, s) if plan.pages else Api(port, s) for s in secrets]
    crowd = [Annotator(port, door, ledger, plan.pause) for door in doors]
    began, own, served = time.perf_counter(), time.process_time(), _children()
    running = asyncio.gather(*(annotator.run() for annotator in crowd))
    down = 0.0
    try:
        for kill in range(1, plan.kills + 1):
            aim = plan.judgements * kill // (plan.kills + 1)
            while len(ledger.acknowledged) < aim and not running.done():
                await asyncio.sleep(0.005)
            fell = time.perf_counter()
            os.kill(server.pid, signal.SIGKILL)
            server.wait()
            if plan.also:
                shell = await asyncio.create_subprocess_shell(plan.also, stdout=subprocess.DEVNULL)
                assert await shell.wait() == 0, plan.also
            server = await start(db, port)
            down += time.perf_counter() - fell
        await running
        took = time.perf_counter() - began
        own = time.process_time() - own
    finally:
        server.kill()
        server.wait()
    cuts = quantiles(ledger.seconds, n=100) if len(ledger.seconds) > 1 else [0.0] * 99
    return audit(db, ledger) | {
        "failures": [a.failure for a in crowd if a.failure],
        "kills": plan.kills,
        "retries": ledger.retries,
        "seconds": round(took, 1),
        "of these without a server": round(down, 1),
        "judgements per second": round(len(ledger.seconds) / took, 1),
        "p50 ms": round(1000 * cuts[49], 1),
        "p95 ms": round(1000 * cuts[94], 1),
        "CPU ms each, server": round(1000 * (_children() - served) / len(ledger.seconds), 2),
        "CPU ms each, annotators": round(1000 * own / len(ledger.seconds), 2),
    }


def _children() -> float:
    """CPU seconds of the servers that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--db", default="", help="an empty database [a new SQLite file]")
    parser.add_argument("--annotators", type=int, default=50)
    parser.add_argument("--judgements", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument(
        "--pause", type=float, default=0.0, help="mean seconds between answers of one annotator [0]"
    )
    parser.add_argument("--also", default="", metavar="COMMAND", help="run in a shell at each kill")
    parser.add_argument("--to-the-end", action="store_true", help="until no item lacks an answer")
    parser.add_argument(
        "--pages", action="store_true", help="answer by the forms of the pages, not over the API"
    )
    given = parser.parse_args()
    plan = Plan(**{name: value for name, value in vars(given).items() if name != "db"})
    with tempfile.TemporaryDirectory() as folder:
        db = given.db or str(Path(folder) / "load.db")
        figures = asyncio.run(run(db, plan))
    print(json.dumps(figures, indent=2))
    faults = ("lost", "doubled", "items over their places", "items without all their answers", "failures")
    good = not any(figures[name] for name in faults)
    return int(not good or figures["integrity"] != "ok")


if __name__ == "__main__":
    sys.exit(main())
