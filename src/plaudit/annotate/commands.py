"""The actions of `plaudit annotate`. `plaudit.cli.annotate` imports this module once a command is to be run."""

from __future__ import annotations

import contextlib
import json
import os
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from plaudit.annotate.export_data import Wanted, read_answers, write_export
from plaudit.annotate.import_data import Imported, ImportLimits, import_file, load_within
from plaudit.annotate.server.serve import serve
from plaudit.annotate.server.settings import ServeSettings
from plaudit.data.served import ServedWhat, load_served, read_served, records_of
from plaudit.data.write import write_rows
from plaudit.errors import ConfigError, DataError
from plaudit.jobs.reward_tables import JudgeTable
from plaudit.jobs.reward_texts import table_of
from plaudit.preferences.aggregate import Rule
from plaudit.preferences.exporting import WHAT_OF
from plaudit.preferences.store import content, history, people, projects
from plaudit.preferences.store.engine import Store
from plaudit.records import to_json


def run(args: Namespace) -> int:
    """Run the action of a parsed command line; returns the exit status."""
    if args.action == "export" and args.origin == "served":
        _export_served(args)
        return 0
    actions = {
        "serve": _serve,
        "import": _import,
        "export": _export,
        "status": _status,
        "backup": _backup,
        "invite": _invite,
        "prioritise": _prioritise,
        "judge": _judge,
    }
    if args.action in ("export", "status", "backup", "prioritise", "judge") and "://" not in args.db:
        # SQLite silently makes a missing file, and an export with a mistyped name would then report "no such project".
        _must_exist(args.db)
    store = Store.open(args.db)
    try:
        actions[args.action](store, args)
    finally:
        store.close()
    return 0


def _must_exist(name: str) -> None:
    if not Path(name).is_file():
        raise ConfigError(
            "there is no such database", where=name, cure="name it with --db; `serve` makes a new one"
        )


def _serve(store: Store, args: Namespace) -> None:
    settings = ServeSettings(
        args.host, args.port, args.auth, args.public_url, args.plain_http, args.proxy, _limits(args)
    )
    path = "/"
    if args.file:
        done = _import_rows(store, args, gold=False)
        path = f"/p/{done.project.slug}"
    # A browser is opened only where somebody can see it: with --auth the server is for other machines, and without a
    # display the call could start a text browser inside this terminal.
    has_screen = (
        bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")) or os.name == "nt" or _is_mac()
    )
    serve(
        store, settings, path=path, browser=has_screen and not args.no_browser and not args.auth, say=_say
    )


def _is_mac() -> bool:
    return os.uname().sysname == "Darwin" if hasattr(os, "uname") else False


def _import(store: Store, args: Namespace) -> None:
    _import_rows(store, args, gold=args.gold)


def _import_rows(store: Store, args: Namespace, *, gold: bool) -> Imported:
    body = _read(args.guidelines) if args.guidelines else ""
    served = args.action == "import" and args.origin == "served"
    done = import_file(
        store,
        load_served(args.file, args.task) if served else load_within(args.file, _limits(args), args.fields),
        slug=args.project,
        task=args.task,
        gold=gold,
        settings=projects.new_settings(
            {"annotators_per_item": args.annotators, "edit_best": args.edit_best}
        ),
        guidelines=body,
    )
    already = f", {done.known} were in it already" if done.known else ""
    already += f", {len(done.changed)} changed" if done.changed else ""
    _say(
        f"{args.file}: {done.added} items for {done.project.slug} ({done.project.task}){already} \u00b7 {done.format}"
    )
    for note in done.notes:
        _say(f"  note  {note}")
    return done


def _limits(args: Namespace) -> ImportLimits:
    return ImportLimits(args.max_gb, args.max_rows, args.max_text)


def _read(name: str) -> str:
    try:
        return Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot be read: {error}", where=name, cure="give a text file in UTF-8") from error


def _export(store: Store, args: Namespace) -> None:
    rule = Rule(args.method, args.min_votes, args.min_agreement, args.without_flagged)
    with store.read() as conn:
        project = projects.get_project(conn, args.project)
    usual, target = WHAT_OF[project.task], Path(args.target)
    with _replacing(target) as out:
        manifest = write_export(store, Wanted(project, args.what or usual, rule, args.at), out)
        left_out = "".join(f"\n  left out  {n} x {why}" for why, n in manifest["left_out"].items())
        if not manifest["rows"]:
            other = (
                f"; --what {usual} is what {project.task} projects give" if args.what not in ("", usual) else ""
            )
            cure = f"wait for answers, or ask for less agreement{other}{left_out}"
            answers = len(read_answers(store, project, args.at)[1])
            raise DataError(f"there is nothing to export of {answers} answers", where=args.project, cure=cure)
    with _replacing(target.with_suffix(".manifest.json")) as out:
        out.write(_json(manifest))
    revision = manifest["revision"]
    with store.write() as conn:
        people.record(
            conn,
            "exported",
            f"{project.slug}/{manifest['what']}",
            by=None,
            revision=revision,
            sha256=manifest["sha256"],
        )
    _say(f"{target}: {manifest['rows']} {manifest['what']} at revision {revision}{left_out}")


def _export_served(args: Namespace) -> None:
    """What people said of served responses as training data, each row with where it comes from."""
    learned: dict[str, ServedWhat] = {
        "": "preferences", "preferences": "preferences", "ratings": "ratings", "kto": "kto",
        "demonstrations": "demonstrations",
    }  # fmt: skip
    if args.what not in learned:
        cure = f"give one of {', '.join(list(learned)[1:])}"
        raise ConfigError(f"a feedback store gives no {args.what}", where="--what", cure=cure)
    lines = read_served([args.project])
    made = records_of(lines, learned[args.what])
    if not made:
        held = ", ".join(sorted({line.verdict or "nothing" for line in lines})) or "no line"
        cure = "preferences: choices, edits, thumbs up and down to one prompt; kto: thumbs; demonstrations: edits"
        what = f"no {learned[args.what]} can be made of {len(lines)} lines, which say: {held}"
        raise DataError(what, where=args.project, cure=cure)
    write_rows([{**to_json(record), "provenance": origin} for record, origin in made], args.target)
    _say(f"{args.target}: {len(made)} {learned[args.what]} of {len(lines)} lines of {args.project}")


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write that gets its name at the end; nothing is left of it where the body fails."""
    # Written beside the target and renamed: a reader sees the whole file or none, also after a full disk.
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as out:
            yield out
        os.replace(partial, path)
    except OSError as error:
        raise DataError(
            f"cannot write: {error.strerror}", where=str(path), cure="choose another name"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def _status(store: Store, args: Namespace) -> None:
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
    _say(f"projects: {len(rows)}, people: {team} \u00b7 {args.db}")


def _backup(store: Store, args: Namespace) -> None:
    store.backup(Path(args.target))
    _say(f"{args.target}: a consistent copy of {args.db}, checked")


def _invite(store: Store, args: Namespace) -> None:
    with store.write() as conn:
        project = projects.get_project(conn, args.project).id if args.project else None
        secret = people.invite(conn, args.role, project)
        people.record(conn, "invited", args.role, by=None, project=args.project)
    where = {"annotator": " of no project yet", "reviewer": " of all projects"}.get(args.role, "")
    if args.project and args.role != "admin":
        where = f" of {args.project}"
    _say(
        f"{args.public_url.rstrip('/')}/join/{secret}\nIt lets one {args.role}{where} in, once, for a week."
    )


def _prioritise(store: Store, args: Namespace) -> None:
    priorities: dict[str, float] = {}
    for number, line in enumerate(_read(args.file).splitlines(), 1):
        try:
            row = json.loads(line)
            priorities[str(row["id"])] = float(row["priority"])
        except (ValueError, KeyError, TypeError) as error:
            cure = 'write lines such as {"id": "a-1", "priority": 0.9}'
            raise DataError(
                f"no id and priority: {line[:60]!r}", where=f"{args.file}:{number}", cure=cure
            ) from error
    with store.write() as conn:
        project = projects.get_project(conn, args.project)
        changed = content.set_priorities(conn, project, priorities)
    _say(f"{args.project}: {changed} items have a new priority, {len(priorities) - changed} ids are not in it")
    if project.settings.strategy != "priority":
        _say("  note  the project does not ask by priority yet: choose that under Settings")


def _judge(store: Store, args: Namespace) -> None:
    # Here and not above: only this action reads tables of rewards.
    from plaudit.annotate.judging import judge_project

    if args.limit < 0:
        raise ConfigError(f"--limit is {args.limit}", where="command line", cure="give 0 or more")
    table = table_of(args.judge, "--judge")
    if not isinstance(table, JudgeTable):
        raise ConfigError(
            f"{args.judge!r} is no judge", where="--judge", cure="write judge:MODEL@http://127.0.0.1:8000/v1"
        )
    done = judge_project(
        store, args.project, table, limit=args.limit, only_calibrate=args.calibrate, anyway=args.anyway, say=_say
    )
    if args.calibrate:
        doubts = done.calibration.doubts
        _say(f"not trusted: {doubts[0]}" if doubts else "trusted: it may answer what is open")
        return
    _say(f"{args.project}: {done.answered} items answered by {done.account}")
    if done.unanswered:
        _say(f"  left out  {done.unanswered} items without an answer; the first: {done.error}")


def _say(text: str) -> None:
    print(text, flush=True)
