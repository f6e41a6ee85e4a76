"""The annotator's pages: projects, the next item, answers, undo, history."""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from plaudit.annotate.access import Number, Posted, needs
from plaudit.annotate.forms import STEPS, filled, in_words, read_submission, source
from plaudit.annotate.site import Site, project_of, see, site_of, visitor_of
from plaudit.preferences.store import answers, history, leases, projects
from plaudit.preferences.store.leases import Work
from plaudit.preferences.store.projects import Project

router = APIRouter()


@router.get("/", openapi_extra=needs("person"))
def home(request: Request) -> Response:
    """The projects of the person; the only one there is opens at once."""
    site, me = site_of(request), visitor_of(request).me
    with site.store.read() as conn:
        found = projects.list_projects(conn, None if me.may("reviewer") else me.id)
        rows = [(p, projects.progress(conn, p), history.counts_of(conn, p, me.id)) for p in found]
    if len(found) == 1 and not me.may("admin"):
        return see(f"/p/{found[0].slug}")
    return site.page(request, "home.html", rows=rows)


@router.get("/p/{slug}", openapi_extra=needs("member"))
def overview(request: Request, slug: str) -> Response:
    """What the project asks, how far it is, and where to start."""
    site, project, me = site_of(request), project_of(request), visitor_of(request).me
    with site.store.read() as conn:
        done = projects.progress(conn, project)
        mine = history.counts_of(conn, project, me.id)
        latest = history.latest_of(conn, project, me.id)
    rows = [(number, a, in_words(a.answer, a.order)) for number, a in latest]
    return site.page(request, "project.html", progress=done, mine=mine, latest=rows)


@router.get("/p/{slug}/work", openapi_extra=needs("member"))
def next_item(request: Request, slug: str) -> Response:
    """The item in front of the person, or a new one.

    It writes a lease though it is a GET: asked again it shows the same item, so a page that another site opened, or
    a browser in advance, takes nothing that the person's own next click would not.
    """
    return _show_next(request, fragment=False)


@router.get("/p/{slug}/a/{number}", openapi_extra=needs("member"))
def one_item(request: Request, slug: str, number: Number) -> Response:
    """An item that the person has had, to correct the answer."""
    site, project, me = site_of(request), project_of(request), visitor_of(request).me
    with site.store.read() as conn:
        work = leases.get_work(conn, project, number, me.id)
    return site.page(request, "work.html", **work_context(site, project, me.id, work))


@router.post(
    "/p/{slug}/a/{number}",
    openapi_extra=needs("member", "key", "supersedes", "choice", "text", "base", "flag", "comment", "reason"),
)
def answer(request: Request, slug: str, number: Number, form: Posted) -> Response:
    """Store an answer or a skip, and go on."""
    site, project, me = site_of(request), project_of(request), visitor_of(request).me
    with site.store.read() as conn:
        work = leases.get_work(conn, project, number, me.id)
    sent = read_submission(form, work, project)
    with site.store.write() as conn:
        answers.submit(conn, project, me.id, number, sent)
    if work.round == leases.ADJUDICATION:
        return _go(request, f"/p/{slug}/conflicts")
    return _show_next(request, fragment=True)


@router.post("/p/{slug}/undo", openapi_extra=needs("member", "key"))
def undo(request: Request, slug: str, form: Posted) -> Response:
    """Take the last answer back and show its item again."""
    site, project, me = site_of(request), project_of(request), visitor_of(request).me
    with site.store.write() as conn:
        answers.undo(conn, project, me.id, form.text("key"))
    return _show_next(request, fragment=True)


@router.get("/p/{slug}/guidelines", openapi_extra=needs("member"))
def guidelines(request: Request, slug: str) -> Response:
    """The guidelines on a page of their own."""
    return site_of(request).page(request, "guidelines.html")


def _go(request: Request, path: str) -> Response:
    """To another page, also where htmx asked."""
    if request.headers.get("hx-request"):
        return Response(status_code=204, headers={"HX-Redirect": path})
    return see(path)


def _show_next(request: Request, *, fragment: bool) -> Response:
    site, project, me = site_of(request), project_of(request), visitor_of(request).me
    in_page = bool(request.headers.get("hx-request"))
    if fragment and not in_page:
        return see(f"/p/{project.slug}/work")
    with site.store.write() as conn:
        work = leases.lease(conn, project, me.id, time.time())
    if work is None:
        with site.store.read() as conn:
            mine = history.counts_of(conn, project, me.id)
        return site.page(request, "_done.html" if in_page else "done.html", mine=mine)
    return site.page(
        request, "_work.html" if in_page else "work.html", **work_context(site, project, me.id, work)
    )


def work_context(site: Site, project: Project, user_id: int, work: Work) -> dict[str, Any]:
    """What the template of a task needs."""
    with site.store.read() as conn:
        head = answers.get_head(conn, work.id)
        before = answers.last_answer(conn, project, user_id, work.id)
        mine = history.counts_of(conn, project, user_id)
        done = projects.progress(conn, project)
    shown = [(index, work.item.responses[index]) for index in work.order]
    values = filled(before, work)
    compares = project.task in ("pairwise", "ranking")
    return {
        "work": work,
        "shown": shown,
        "head": head,
        "values": values,
        "editing": compares and (project.settings.edit_best or "text" in values),
        "source": source,
        "given_flags": head.flags if head else (),
        "given_comment": head.comment if head else "",
        "settings": project.settings,
        "steps": STEPS,
        "mine": mine,
        "progress": done,
        "adjudicating": work.round == leases.ADJUDICATION,
        "votes": [],
    }
