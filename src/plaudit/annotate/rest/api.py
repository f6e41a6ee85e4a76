"""The API for programs: JSON, bearer tokens, described in /api/openapi.json. Refusals are problem+json (RFC 9457)."""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from plaudit.annotate.export_data import ExportQuery
from plaudit.annotate.pages.admin import take_out
from plaudit.annotate.pages.review import exported
from plaudit.annotate.rest.bodies import (
    ANSWERED,
    LINE,
    PROGRESS,
    PROJECT,
    REFUSED,
    ROW,
    WORK,
    AnswerBody,
    Assignment,
    ItemBody,
    ItemsBody,
    KeyBody,
    Person,
    PrioritiesBody,
    ProjectBody,
    Since,
    Slug,
    UpTo,
    What,
    shows,
)
from plaudit.annotate.server.access import needs
from plaudit.annotate.server.site import project_of, site_of, visitor_of
from plaudit.preferences.annotation import (
    Item,
    ItemResponse,
    answer_from_json,
    unsigned,
)
from plaudit.preferences.store import answers, content, history, leases, people, projects
from plaudit.preferences.store.answers import Submission
from plaudit.preferences.store.leases import Work
from plaudit.preferences.store.people import User
from plaudit.preferences.store.projects import Project
from plaudit.preferences.store.transaction import Transaction
from plaudit.records import content_from_json, to_json

FOR_ANNOTATORS = ("lease_seconds", "axes", "flags", "skips", "edit_best")
"""Settings that an answer needs. How many questions are gold or asked again is not among them."""
router = APIRouter(prefix="/api/v1", tags=["api"], responses=REFUSED)


@router.get("/me", responses=shows({"name": "Ada", "role": "annotator"}), openapi_extra=needs("person"))
def me(request: Request) -> dict[str, Any]:
    """Whose token it is."""
    user = visitor_of(request).me
    return {"name": user.name, "role": user.role}


@router.get("/projects", responses=shows([PROJECT]), openapi_extra=needs("person"))
def list_projects(request: Request) -> list[dict[str, Any]]:
    """The projects that the person may see."""
    user = visitor_of(request).me
    with site_of(request).store.read() as conn:
        visible = projects.list_projects(conn, None if user.sees_all else user.id)
    return [_project_json(p, user) for p in visible]


@router.post("/projects", status_code=201, responses=shows(PROJECT, status=201), openapi_extra=needs("admin"))
def create_project(request: Request, body: ProjectBody) -> dict[str, Any]:
    """Make a project."""
    site, visitor = site_of(request), visitor_of(request)
    settings = projects.new_settings(body.settings)
    with site.store.write() as conn:
        made = projects.create_project(conn, body.slug, body.title, body.task, settings, body.guidelines)
        people.record(conn, "made project", made.slug, by=visitor.me.id, address=visitor.address)
    return _project_json(made, visitor.me)


@router.get(
    "/projects/{slug}",
    responses=shows({**PROJECT, "mine": {"done": 12, "skipped": 1}, "progress": PROGRESS, "revision": 1200}),
    openapi_extra=needs("member"),
)
def one_project(request: Request, slug: Slug) -> dict[str, Any]:
    """A project and the person's own counts; for reviewers also how far it is, and the newest revision."""
    project, user = project_of(request), visitor_of(request).me
    with site_of(request).store.read() as conn:
        counts = history.counts_of(conn, project, user.id)
        mine = {state: counts.get(state, 0) for state in ("done", "skipped")}
        # Answers to gold items are not counted, and revisions are: whoever reads either before and after an answer
        # could tell which items are gold.
        whole = (
            {"progress": to_json(projects.progress(conn, project)), "revision": history.revision(conn, project)}
            if user.may("reviewer")
            else {}
        )
    return {**_project_json(project, user), "mine": mine, **whole}


@router.get(
    "/projects/{slug}/members",
    responses=shows([{"number": 3, "name": "Ada", "role": "annotator", "disabled": False}]),
    openapi_extra=needs("admin"),
)
def list_members(request: Request, slug: Slug) -> list[dict[str, Any]]:
    """The people who were added to the project; reviewers of all projects and admins need not be."""
    with site_of(request).store.read() as conn:
        ids = set(projects.member_ids(conn, project_of(request)))
        members = [user for user in people.list_users(conn) if user.id in ids]
    return [{"number": u.id, "name": u.name, "role": u.role, "disabled": u.disabled} for u in members]


@router.delete("/projects/{slug}/members/{number}", status_code=204, openapi_extra=needs("admin"))
def remove_member(request: Request, slug: Slug, number: Person) -> None:
    """Remove a person from the project. Their answers stay; items that they have not answered go to others."""
    take_out(request, number)


@router.post(
    "/projects/{slug}/items",
    status_code=201,
    responses=shows({"added": 1, "there_already": 0, "changed": []}, status=201),
    openapi_extra=needs("admin"),
)
def add_items(request: Request, slug: Slug, body: ItemsBody) -> dict[str, int | list[str]]:
    """Add items. Keys that the project has with other texts are listed as changed; their items stay as they are."""
    site, project, visitor = site_of(request), project_of(request), visitor_of(request)
    new = [_item(item) for item in body.items]
    with site.store.write() as conn:
        done = content.add_items(conn, project, new)
        people.record(conn, "added items", slug, by=visitor.me.id, address=visitor.address, added=done.new)
    return {"added": done.new, "there_already": done.same, "changed": list(done.changed)}


@router.put("/projects/{slug}/priorities", responses=shows({"changed": 1}), openapi_extra=needs("admin"))
def set_priorities(request: Request, slug: Slug, body: PrioritiesBody) -> dict[str, int]:
    """Set which items are shown first."""
    with site_of(request).store.write() as conn:
        return {"changed": content.set_priorities(conn, project_of(request), body.priorities)}


@router.post("/projects/{slug}/next", responses=shows(WORK), openapi_extra=needs("member"))
async def next_item(request: Request, slug: Slug) -> dict[str, Any]:
    """The item that the person has leased, or a new one; ``work`` is null when nothing is left."""
    project, user = project_of(request), visitor_of(request).me
    work = await site_of(request).writer.run(lambda conn: leases.lease(conn, project, user.id, time.time()))
    return {"work": _work_json(work)}


@router.post(
    "/projects/{slug}/assignments/{number}/answer", responses=shows(ANSWERED), openapi_extra=needs("member")
)
async def answer(request: Request, slug: Slug, number: Assignment, body: AnswerBody) -> dict[str, Any]:
    """Store an answer. When the reply arrives, the answer is on the disk."""
    project, user = project_of(request), visitor_of(request).me
    sent = Submission(
        body.key,
        answer_from_json(body.answer),
        tuple(body.flags),
        body.comment,
        body.supersedes,
        body.guideline_version,
        as_seen=True,
    )

    def store(conn: Transaction) -> tuple[int, Work | None]:
        revision = answers.submit(conn, project, user.id, number, sent, decides=user.may("reviewer"))
        return revision, leases.lease(conn, project, user.id, time.time()) if body.next else None

    revision, work = await site_of(request).writer.run(store)
    return {"revision": revision, **({"work": _work_json(work)} if body.next else {})}


@router.post("/projects/{slug}/undo", responses=shows(WORK), openapi_extra=needs("member"))
async def undo(request: Request, slug: Slug, body: KeyBody) -> dict[str, Any]:
    """Take the last answer back; ``work`` is its item, or null if there was no answer."""
    project, user = project_of(request), visitor_of(request).me
    work = await site_of(request).writer.run(lambda conn: answers.undo(conn, project, user.id, body.key))
    return {"work": _work_json(work)}


@router.get("/projects/{slug}/judgements", responses=shows([ROW]), openapi_extra=needs("reviewer"))
def judgements(request: Request, slug: Slug, since: Since = 0, at: UpTo = 0) -> list[dict[str, Any]]:
    """The raw history after revision ``since`` (and up to ``at``), with corrections and answers taken back."""
    with site_of(request).store.read() as conn:
        return history.raw_rows(conn, project_of(request), at or None, since)


@router.get(
    "/projects/{slug}/export/{what}",
    response_class=Response,
    responses=shows(LINE, kind="application/x-ndjson"),
    openapi_extra=needs("reviewer"),
)
def export(
    request: Request,
    slug: Slug,
    what: What,
    wanted: Annotated[ExportQuery, Query()],
) -> Response:
    """An export as JSON lines; the header x-revision names the revision of the history."""
    response, _ = exported(site_of(request), project_of(request), what, wanted)
    return response


def _project_json(project: Project, user: User) -> dict[str, Any]:
    settings = to_json(project.settings)
    if not user.may("admin"):
        del settings["seed"]  # with it one can compute which of two imported responses was preferred
    if not user.may("reviewer"):
        settings = {name: settings[name] for name in FOR_ANNOTATORS}
    return {
        "slug": project.slug,
        "title": project.title,
        "task": project.task,
        "closed": project.closed,
        "guideline_version": project.guideline_version,
        "settings": settings,
    }


def _item(body: ItemBody) -> Item:
    responses = tuple(
        ItemResponse(content_from_json(r.model_dump()["content"]), r.model, r.provenance)
        for r in body.responses
    )
    gold = answer_from_json(body.gold) if body.gold is not None else None
    return Item(
        body.key, content_from_json(body.model_dump()["prompt"]), responses, gold, body.priority, body.meta
    )


def _work_json(work: Work | None) -> dict[str, Any] | None:
    """The part of an assignment that an annotator may know."""
    # Left out on purpose: the models (answers would not be blind), the known answer, and the item's key and round, by
    # which gold and repeated items could be told from others. The responses are in the order drawn for this person: in
    # that of the item, those of one model often come first.
    if work is None:
        return None
    return {
        "assignment": work.id,
        "prompt": to_json(work.item.prompt),
        "responses": [to_json(unsigned(work.item.responses[index].content)) for index in work.order],
    }
