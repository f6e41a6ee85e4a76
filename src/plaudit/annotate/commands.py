"""What `plaudit annotate` does, once its packages are there."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from plaudit.annotate.intake import Imported, import_file
from plaudit.annotate.server.serve import serve
from plaudit.annotate.server.settings import ServeSettings
from plaudit.errors import ConfigError, DataError
from plaudit.preferences.aggregate import Rule
from plaudit.preferences.exchange import WHAT_OF, export
from plaudit.preferences.store import content, history, people, projects
from plaudit.preferences.store.engine import Store


def run(given: Any) -> int:
    """Do the action of a parsed command line."""
    actions = {
        "serve": _serve,
        "import": _import,
        "export": _export,
        "status": _status,
        "backup": _backup,
        "invite": _invite,
        "prioritise": _prioritise,
    }
    if given.action in ("export", "status", "backup", "prioritise") and "://" not in given.db:
        _must_exist(given.db)
    store = Store.open(given.db)
    try:
        actions[given.action](store, given)
    finally:
        store.close()
    return 0


def _must_exist(name: str) -> None:
    if not Path(name).is_file():
        raise ConfigError(
            "there is no such database", where=name, cure="name it with --db; `serve` makes a new one"
        )


def _serve(store: Store, given: Any) -> None:
    settings = ServeSettings(given.host, given.port, given.auth, given.public_url, given.plain_http)
    path = "/"
    if given.file:
        done = _bring(store, given, gold=False)
        path = f"/p/{done.project.slug}"
    has_screen = (
        bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")) or os.name == "nt" or _is_mac()
    )
    serve(
        store, settings, path=path, browser=has_screen and not given.no_browser and not given.auth, say=_say
    )


def _is_mac() -> bool:
    return os.uname().sysname == "Darwin" if hasattr(os, "uname") else False


def _import(store: Store, given: Any) -> None:
    _bring(store, given, gold=given.gold)


def _bring(store: Store, given: Any, *, gold: bool) -> Imported:
    body = _read(given.guidelines) if given.guidelines else ""
    done = import_file(
        store,
        given.file,
        slug=given.project,
        task=given.task,
        gold=gold,
        settings=projects.new_settings(
            {"annotators_per_item": given.annotators, "edit_best": given.edit_best}
        ),
        guidelines=body,
    )
    there = f", {done.there} were there already" if done.there else ""
    _say(
        f"{given.file}: {done.added} items for {done.project.slug} ({done.project.task}){there} \u00b7 {done.format}"
    )
    for note in done.notes:
        _say(f"  note  {note}")
    return done


def _read(name: str) -> str:
    try:
        return Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot be read: {error}", where=name, cure="give a text file in UTF-8") from error


def _export(store: Store, given: Any) -> None:
    rule = Rule(given.method, given.min_votes, given.min_agreement, given.without_flagged)
    with store.read() as conn:
        project = projects.get_project(conn, given.project)
        revision = given.at or history.revision(conn, project)
        found = history.read_annotations(conn, project, revision)
        items = {item.key: item for item in content.read_items(conn, project).values()}
    usual = WHAT_OF[project.task]
    made = export(given.what or usual, found, items, rule)
    left = "".join(f"\n  left out  {n} x {why}" for why, n in made.dropped.items())
    if not made.rows:
        other = (
            f"; --what {usual} is what {project.task} projects give" if given.what not in ("", usual) else ""
        )
        cure = f"wait for answers, or ask for less agreement{other}{left}"
        raise DataError(f"there is nothing to export of {len(found)} answers", where=given.project, cure=cure)
    target = Path(given.target)
    manifest = made.manifest(revision=revision, rule=rule, project=project.slug, task=project.task)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for path, data in (
            (target, made.to_jsonl()),
            (target.with_suffix(".manifest.json"), _json(manifest)),
        ):
            partial = path.with_name(f".{path.name}.partial")
            partial.write_bytes(data)
            os.replace(partial, path)
    except OSError as error:
        raise DataError(
            f"cannot write: {error.strerror}", where=str(target), cure="choose another name"
        ) from error
    with store.write() as conn:
        people.record(
            conn,
            "exported",
            f"{project.slug}/{made.what}",
            by=None,
            revision=revision,
            sha256=manifest["sha256"],
        )
    _say(f"{target}: {len(made.rows)} {made.what} at revision {revision}{left}")


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def _status(store: Store, given: Any) -> None:
    with store.read() as conn:
        rows = [
            (p, projects.progress(conn, p), history.revision(conn, p)) for p in projects.list_projects(conn)
        ]
        team = len(people.list_users(conn))
    for project, done, revision in rows:
        gold = f", {done.gold} gold" if done.gold else ""
        closed = ", closed" if project.closed else ""
        _say(f"{project.slug}  {project.task}{closed}: {done.answers} of {done.wanted} answers, "
             f"{done.complete} of {done.items} items complete{gold}, revision {revision}")  # fmt: skip
    _say(f"projects: {len(rows)}, people: {team} \u00b7 {given.db}")


def _backup(store: Store, given: Any) -> None:
    store.backup(Path(given.target))
    _say(f"{given.target}: a consistent copy of {given.db}, checked")


def _invite(store: Store, given: Any) -> None:
    with store.write() as conn:
        project = projects.get_project(conn, given.project).id if given.project else None
        secret = people.invite(conn, given.role, project)
        people.record(conn, "invited", given.role, by=None, project=given.project)
    where = {"annotator": " of no project yet", "reviewer": " of all projects"}.get(given.role, "")
    if given.project and given.role != "admin":
        where = f" of {given.project}"
    _say(
        f"{given.public_url.rstrip('/')}/join/{secret}\nIt lets one {given.role}{where} in, once, for a week."
    )


def _prioritise(store: Store, given: Any) -> None:
    wanted: dict[str, float] = {}
    for number, line in enumerate(_read(given.file).splitlines(), 1):
        try:
            row = json.loads(line)
            wanted[str(row["id"])] = float(row["priority"])
        except (ValueError, KeyError, TypeError) as error:
            cure = 'write lines such as {"id": "a-1", "priority": 0.9}'
            raise DataError(
                f"no id and priority: {line[:60]!r}", where=f"{given.file}:{number}", cure=cure
            ) from error
    with store.write() as conn:
        project = projects.get_project(conn, given.project)
        changed = content.set_priorities(conn, project, wanted)
    _say(f"{given.project}: {changed} items have a new priority, {len(wanted) - changed} ids are not in it")
    if project.settings.strategy != "priority":
        _say("  note  the project does not ask by priority yet: choose that under Settings")


def _say(text: str) -> None:
    print(text, flush=True)
