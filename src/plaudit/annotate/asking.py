"""Asking the person at this machine a few comparisons in the browser, from within another program."""

from __future__ import annotations

import contextlib
import os
import threading
import time
import webbrowser
from collections.abc import Callable, Sequence
from pathlib import Path

import uvicorn

from plaudit.annotate.export_data import read_answers
from plaudit.annotate.import_data import default_guidelines
from plaudit.annotate.server.app import create_app
from plaudit.annotate.server.connections import listen
from plaudit.annotate.server.serve import server_config
from plaudit.annotate.server.settings import ServeSettings
from plaudit.preferences.annotation import Item, ItemResponse
from plaudit.preferences.exporting import export
from plaudit.preferences.store import content, history, people, projects
from plaudit.preferences.store.engine import Store
from plaudit.preferences.store.projects import Project, ProjectSettings
from plaudit.records import Judgement

SLUG = "reviews"
POLL_SECONDS = 0.3


def ask_person(
    pairs: Sequence[tuple[str, str, str]], db: Path, port: int = 8000, say: Callable[[str], None] = print
) -> list[Judgement]:
    """Show (prompt, response a, response b) in the browser until all are answered or skipped, or Ctrl-C.

    Args:
        pairs: what to ask.
        db: the SQLite file that keeps the answers.
        port: where the page is served, on this machine only.
        say: prints the lines for the person.

    Returns:
        The answers; fewer than ``pairs`` if some were skipped, or could not be judged.
    """
    store = Store.open(db)
    project = _project(store, pairs)
    settings = ServeSettings(port=port)
    server = uvicorn.Server(server_config(create_app(store, settings), settings))
    opened = listen(settings.host, settings.port)
    # In a thread, because the calling program goes on here. A daemon thread: the program can end even if it hangs.
    thread = threading.Thread(target=server.run, kwargs={"sockets": [opened]}, daemon=True)
    thread.start()
    url = f"{settings.url}/p/{SLUG}/work"
    say(
        f"You are the annotator of {len(pairs)} comparisons: {url}\nCtrl-C goes on with what you have answered."
    )
    if os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") or os.name == "nt":
        webbrowser.open(url)
    with contextlib.suppress(KeyboardInterrupt):
        while _answered(store, project) < len(pairs) and thread.is_alive():
            time.sleep(POLL_SECONDS)
    server.should_exit = True
    thread.join(10)
    judgements = _judgements(store, project)
    store.close()
    say(f"{len(judgements)} comparisons are yours.")
    return judgements


def _project(store: Store, pairs: Sequence[tuple[str, str, str]]) -> Project:
    items = [
        Item(str(k), prompt, (ItemResponse(a), ItemResponse(b))) for k, (prompt, a, b) in enumerate(pairs)
    ]
    with store.write() as conn:
        body = default_guidelines("pairwise")
        project = projects.create_project(conn, SLUG, "Reviews", "pairwise", ProjectSettings(), body)
        content.add_items(conn, project, items)
    return project


def _answered(store: Store, project: Project) -> int:
    with store.read() as conn:
        local = people.find_user(conn, people.LOCAL_USER)
        counts = history.counts_of(conn, project, local[0].id) if local else {}
    return counts.get("done", 0) + counts.get("skipped", 0)


def _judgements(store: Store, project: Project) -> list[Judgement]:
    _, annotations, items = read_answers(store, project)
    made = export("judgements", annotations, items)
    return [record for record in made.records if isinstance(record, Judgement)]
