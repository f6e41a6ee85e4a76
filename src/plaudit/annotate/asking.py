"""Putting a few comparisons to the person at this machine, in the middle of a program."""

from __future__ import annotations

import contextlib
import os
import threading
import time
import webbrowser
from collections.abc import Callable, Sequence
from pathlib import Path

import uvicorn

from plaudit.annotate.intake import default_guidelines
from plaudit.annotate.server.app import create_app
from plaudit.annotate.server.serve import listen, server_config
from plaudit.annotate.server.settings import ServeSettings
from plaudit.preferences.annotation import Item, ItemResponse
from plaudit.preferences.exchange import export
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
        pairs: what is asked.
        db: the SQLite file that keeps the answers.
        port: where the page is served, on this machine only.
        say: where the lines for the person go.

    Returns:
        The answers; fewer than ``pairs`` where some were skipped, or could not be judged.
    """
    store = Store.open(db)
    project = _project(store, pairs)
    settings = ServeSettings(port=port)
    server = uvicorn.Server(server_config(create_app(store, settings), settings))
    opened = listen(settings)
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
    found = _judgements(store, project)
    store.close()
    say(f"{len(found)} comparisons are yours.")
    return found


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
        found = people.find_user(conn, people.LOCAL_USER)
        counts = history.counts_of(conn, project, found[0].id) if found else {}
    return counts.get("done", 0) + counts.get("skipped", 0)


def _judgements(store: Store, project: Project) -> list[Judgement]:
    with store.read() as conn:
        given = history.read_annotations(conn, project)
        items = {item.key: item for item in content.read_items(conn, project).values()}
    return [record for record in export("judgements", given, items).records if isinstance(record, Judgement)]
