"""The admin's pages: people, invitations, projects and their settings, the audit log."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from pathlib import Path
from typing import get_args

from fastapi import APIRouter, Request
from fastapi.responses import Response

from plaudit.annotate.import_data import default_guidelines, import_file, load_within, slug_of
from plaudit.annotate.server.access import Form, Number, Posted, needs
from plaudit.annotate.server.site import project_of, see, site_of, visitor_of
from plaudit.errors import DataError
from plaudit.preferences.annotation import TASKS, Task
from plaudit.preferences.store import leases, people, projects
from plaudit.preferences.store.people import ROLES, UserRole
from plaudit.preferences.store.projects import Project, ProjectSettings, Strategy

router = APIRouter()
SETTINGS = (
    "annotators", "strategy", "gold_share", "repeat_share", "lease_minutes", "axes", "flags", "skips", "edit_best",
)  # fmt: skip
MOST_GUIDELINES = 65_536
UPLOADS = (".jsonl", ".json", ".csv")
"""Endings taken over the web. A file that is packed all the same is unpacked within the limits of imports."""
STRATEGY_SAYS: dict[Strategy, str] = {
    "random": "by chance",
    "least-annotated": "where there are fewest answers",
    "priority": "by priority, the highest first",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Count:
    """A whole number of the form of the settings, in the form's words and units."""

    label: str
    low: int
    high: int


COUNTS = {
    "annotators": Count("Annotators per item", 1, 100),
    "lease_minutes": Count("Minutes until an item is passed on", 1, 7 * 24 * 60),
    "gold_share": Count("Gold items, % of what is asked", 0, 90),
    "repeat_share": Count("Asked again of the same person, %", 0, 90),
}


@router.get("/admin", openapi_extra=needs("admin"))
def people_page(request: Request) -> Response:
    """All people and open invitations, and the form to invite more."""
    return _people(request, "")


@router.post("/admin/invitations", openapi_extra=needs("admin", "role", "project"))
def invite(request: Request, form: Posted) -> Response:
    """Make a link by which one person can join; it is shown once."""
    site, visitor = site_of(request), visitor_of(request)
    role = _role(form.text("role"))
    slug = form.text("project")
    with site.store.write() as conn:
        project = projects.get_project(conn, slug) if slug else None
        secret = people.invite(conn, role, project.id if project else None, visitor.me.id)
        people.record(conn, "invited", role, by=visitor.me.id, address=visitor.address, project=slug)
    return _people(request, f"{site.settings.url}/join/{secret}")


@router.post("/admin/invitations/{number}/end", openapi_extra=needs("admin"))
def end_invitation(request: Request, number: Number) -> Response:
    """End an invitation that nobody has used."""
    visitor = visitor_of(request)
    with site_of(request).store.write() as conn:
        people.end_invitation(conn, number)
        people.record(conn, "invitation ended", str(number), by=visitor.me.id, address=visitor.address)
    return see("/admin")


@router.post(
    "/admin/people/{number}", openapi_extra=needs("admin", "role", "everywhere", "disabled", "project")
)
def change_person(request: Request, number: Number, form: Posted) -> Response:
    """Change a person's role, let a reviewer review all projects, disable them, or add them to a project."""
    site, visitor = site_of(request), visitor_of(request)
    role, disabled, slug = _role(form.text("role")), form.has("disabled"), form.text("project")
    everywhere = role == "reviewer" and form.has("everywhere")
    with site.store.write() as conn:
        people.change_user(conn, number, role=role, disabled=disabled, everywhere=everywhere)
        if slug:
            projects.add_member(conn, projects.get_project(conn, slug).id, number)
        detail = {"role": role, "all projects": everywhere, "disabled": disabled, "added to": slug}
        name = people.get_user(conn, number).name
        people.record(conn, "changed person", name, by=visitor.me.id, address=visitor.address, **detail)
    return see("/admin")


@router.post("/admin/people/{number}/projects/{slug}/remove", openapi_extra=needs("admin"))
def remove_member(request: Request, number: Number, slug: str) -> Response:
    """Remove a person from a project; their answers stay."""
    take_out(request, number)
    return see("/admin")


def take_out(request: Request, number: int) -> None:
    """Remove a person from the project of the path, end their leases there, and record it in the audit log."""
    project, visitor = project_of(request), visitor_of(request)
    with site_of(request).store.write() as conn:
        # Leases first: it takes the lock of the history, which must come before every other lock (no deadlock).
        freed = leases.release_all(conn, project, number)
        projects.remove_member(conn, project, number)
        name, detail = people.get_user(conn, number).name, {"project": project.slug, "items freed": freed}
        people.record(conn, "removed from project", name, by=visitor.me.id, address=visitor.address, **detail)


@router.get("/admin/audit", openapi_extra=needs("admin"))
def audit_page(request: Request) -> Response:
    """The audit log: who did what."""
    site = site_of(request)
    with site.store.read() as conn:
        rows = people.audit_log(conn)
    return site.page(request, "audit.html", rows=rows)


@router.get("/admin/projects/new", openapi_extra=needs("admin"))
def new_project_page(request: Request) -> Response:
    """The form of a new project."""
    return site_of(request).page(request, "new_project.html", tasks=TASKS)


@router.post("/admin/projects", openapi_extra=needs("admin", "slug", "title", "task"))
def new_project(request: Request, form: Posted) -> Response:
    """Make a project, and open its settings."""
    site, visitor = site_of(request), visitor_of(request)
    task = form.text("task")
    if task not in get_args(Task):
        raise DataError(f"there is no task {task[:40]!r}", where="task", cure=f"one of {', '.join(TASKS)}")
    slug, title = form.text("slug").strip(), form.text("title").strip()[:200]
    body = default_guidelines(task)  # type: ignore[arg-type]
    with site.store.write() as conn:
        made = projects.create_project(conn, slug, title, task, projects.new_settings({}), body)  # type: ignore[arg-type]
        people.record(conn, "made project", made.slug, by=visitor.me.id, address=visitor.address)
    return see(f"/p/{made.slug}/settings")


@router.get("/p/{slug}/settings", openapi_extra=needs("admin"))
def settings_page(request: Request, slug: str) -> Response:
    """Settings, guidelines, and adding data."""
    site, project = site_of(request), project_of(request)
    with site.store.read() as conn:
        versions = projects.guideline_versions(conn, project)
    return site.page(
        request,
        "settings.html",
        versions=sorted(versions, reverse=True),
        strategies=STRATEGY_SAYS,
        counts=COUNTS,
        now=_counts(project.settings),
    )


@router.post("/p/{slug}/settings", openapi_extra=needs("admin", "title", "closed", *SETTINGS))
def change_settings(request: Request, slug: str, form: Posted) -> Response:
    """Change the settings of a project."""
    site, project, visitor = site_of(request), project_of(request), visitor_of(request)
    settings = _settings(form, project.settings)
    title = form.text("title").strip()[:200] or project.title
    with site.store.write() as conn:
        projects.change_project(conn, project, title=title, settings=settings, closed=form.has("closed"))
        people.record(
            conn,
            "changed settings",
            slug,
            by=visitor.me.id,
            address=visitor.address,
            settings=_changed(project, settings, title, form.has("closed")),
        )
    return see(f"/p/{slug}/settings")


@router.post("/p/{slug}/guidelines", openapi_extra=needs("admin", "body"))
def change_guidelines(request: Request, slug: str, form: Posted) -> Response:
    """Store a new version of the guidelines, if the text has changed."""
    site, project, visitor = site_of(request), project_of(request), visitor_of(request)
    body = form.text("body").replace("\r\n", "\n").strip()
    if len(body.encode("utf-8", "replace")) > MOST_GUIDELINES:
        raise DataError(f"more than {MOST_GUIDELINES} bytes", where="body", cure="shorten the guidelines")
    if body != project.guidelines:
        with site.store.write() as conn:
            version = projects.change_guidelines(conn, project, body, visitor.me.id)
            people.record(
                conn, "changed guidelines", slug, by=visitor.me.id, address=visitor.address, version=version
            )
    return see(f"/p/{slug}/settings")


@router.post("/p/{slug}/import", openapi_extra=needs("admin", "gold"))
def upload(request: Request, slug: str, form: Posted) -> Response:
    """Add the rows of an uploaded file."""
    site, project, visitor = site_of(request), project_of(request), visitor_of(request)
    sent = form.file("file")
    ending = Path(sent.filename or "").suffix.lower() if sent else ""
    if sent is None or ending not in UPLOADS:
        cure = f"choose a file that ends in {', '.join(UPLOADS)}; for others use `plaudit annotate import`"
        raise DataError("no file that can be read here", where="file", cure=cure)
    with tempfile.TemporaryDirectory() as folder:
        # The name of the upload is the sender's: only its letters and digits become the name of a file here.
        copy = Path(folder) / f"{slug_of(sent.filename or 'upload')}{ending}"
        with sent.file as body, copy.open("wb") as kept:
            shutil.copyfileobj(body, kept)
        loaded = load_within(str(copy), site.settings.imports)
        done = import_file(site.store, loaded, slug=project.slug, task=project.task, gold=form.has("gold"))
    with site.store.write() as conn:
        people.record(
            conn, "uploaded", project.slug, by=visitor.me.id, address=visitor.address, added=done.added
        )
    return site.page(request, "imported.html", done=done)


def _people(request: Request, link: str) -> Response:
    site = site_of(request)
    with site.store.read() as conn:
        everybody = people.list_users(conn)
        all_projects = projects.list_projects(conn)
        invited = people.open_invitations(conn)
        works_on = {user.id: projects.list_projects(conn, user.id) for user in everybody}
    return site.page(
        request,
        "admin.html",
        people=everybody,
        roles=ROLES,
        projects=all_projects,
        works_on=works_on,
        link=link,
        invited=invited,
    )


def _role(name: str) -> UserRole:
    for role in ROLES:
        if name == role:
            return role
    raise DataError(f"there is no role {name[:40]!r}", where="role", cure=f"one of {', '.join(ROLES)}")


def _changed(project: Project, settings: ProjectSettings, title: str, closed: bool) -> dict[str, str]:
    """Each setting that has another value now, as "old -> new"."""

    def shown(value: object) -> str:
        return ", ".join(value) if isinstance(value, tuple) else str(value)

    was = dataclasses.asdict(project.settings) | {"title": project.title, "closed": project.closed}
    now = dataclasses.asdict(settings) | {"title": title, "closed": closed}
    return {
        name: f"{shown(was[name])} -> {shown(value)}" for name, value in now.items() if was[name] != value
    }


def _settings(form: Form, now: ProjectSettings) -> ProjectSettings:
    shown = _counts(now)
    sent = {name: _count(form, name) for name in COUNTS}
    # The form shows some values rounded (seconds as minutes, shares as per cent). A value that nobody changed in
    # the form keeps its exact value.
    changed = {name for name, value in sent.items() if value != shown[name]}
    values = {
        "annotators_per_item": sent["annotators"],
        "strategy": form.text("strategy"),
        "gold_share": sent["gold_share"] / 100 if "gold_share" in changed else now.gold_share,
        "repeat_share": sent["repeat_share"] / 100 if "repeat_share" in changed else now.repeat_share,
        "lease_seconds": sent["lease_minutes"] * 60 if "lease_minutes" in changed else now.lease_seconds,
        "axes": _lines(form.text("axes")) or list(now.axes),
        "flags": _lines(form.text("flags")),
        "skips": _lines(form.text("skips")) or list(now.skips),
        "edit_best": form.has("edit_best"),
    }
    return projects.settings_from(values, now)


def _counts(now: ProjectSettings) -> dict[str, int]:
    """The numbers of the form as it shows them."""
    return {
        "annotators": now.annotators_per_item,
        "lease_minutes": max(1, round(now.lease_seconds / 60)),
        "gold_share": round(100 * now.gold_share),
        "repeat_share": round(100 * now.repeat_share),
    }


def _count(form: Form, name: str) -> int:
    about, text = COUNTS[name], form.text(name).strip()
    cure = f"enter a whole number from {about.low} to {about.high}"
    try:
        value = form.number(name, about.low if about.low == 0 else None)
    except DataError as error:
        raise DataError(f'"{about.label}" is {text[:40]!r}', cure=cure) from error
    if not about.low <= value <= about.high:
        raise DataError(f'"{about.label}" is {value}', cure=cure)
    return value


def _lines(text: str) -> list[str]:
    return [line.strip()[:80] for line in text.splitlines() if line.strip()][:20]
