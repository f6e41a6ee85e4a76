"""The annotator's pages: projects, the next item, answers, undo, history."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict

from plaudit.annotate.pages.forms import LETTERS, STEPS, filled, in_words, read_submission, source
from plaudit.annotate.pages.markup import next_part, turns
from plaudit.annotate.server.access import MOST_NUMBER, Number, Posted, needs
from plaudit.annotate.server.site import project_of, see, site_of, visitor_of
from plaudit.preferences.annotation import Answer, unsigned
from plaudit.preferences.store import answers, history, leases, projects
from plaudit.preferences.store.answers import Head
from plaudit.preferences.store.leases import Work
from plaudit.preferences.store.people import User
from plaudit.preferences.store.projects import Progress, Project
from plaudit.preferences.store.transaction import NotFound, Transaction
from plaudit.records import Content

router = APIRouter()
MOST_TYPED = 65_000
"""Characters that the fields for written texts take."""


class TextQuery(BaseModel):
    """Which part of a long text is wanted."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    turn: Annotated[int, Query(ge=0, le=MOST_NUMBER)] = 0
    """Of a chat, from 0."""
    start: Annotated[int, Query(ge=0, le=MOST_NUMBER)] = 0
    """The first character."""
    whole: bool = False
    """The whole turn as plain text."""


PartOfText = Annotated[TextQuery, Query()]


@router.get("/", openapi_extra=needs("person"))
def home(request: Request) -> Response:
    """The projects of the person. If there is only one, it opens at once; an admin sees the list, to add others."""
    site, me = site_of(request), visitor_of(request).me
    with site.store.read() as conn:
        mine = projects.list_projects(conn, None if me.sees_all else me.id)
        rows = [(p, projects.progress(conn, p), history.counts_of(conn, p, me.id)) for p in mine]
    if len(mine) == 1 and not me.may("admin"):
        return see(f"/p/{mine[0].slug}")
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


# Items are shown, answered, skipped and taken back by jobs of the batched threads (``server/batches.py``), as over the
# API. All that the database is asked for one request is one job. The page is rendered in a thread of its own, because a
# hostile text may take a fraction of a second, and other people's answers must not wait for that.


@router.get("/p/{slug}/work", openapi_extra=needs("member"))
async def next_item(request: Request, slug: str) -> Response:
    """The item that the person has leased, or a new one."""
    # It writes a lease although it is a GET. That is safe: called again it shows the same item, so another site that
    # opens this page, or a browser that loads it in advance, does no more than the person's own next click.
    site, project, me = site_of(request), project_of(request), visitor_of(request).me
    return await _show(request, await site.writer.run(lambda conn: view_next(conn, project, me)))


@router.get("/p/{slug}/a/{number}", openapi_extra=needs("member"))
async def one_item(request: Request, slug: str, number: Number) -> Response:
    """An item that the person was shown before, to correct the answer."""
    site, project, me = site_of(request), project_of(request), visitor_of(request).me

    def find(conn: Transaction) -> WorkView:
        return view_of(conn, project, me, leases.get_work(conn, project, number, me.id))

    return await _show(request, await site.reader.run(find))


@router.get("/p/{slug}/a/{number}/text/{place}", openapi_extra=needs("member"))
async def rest_of_text(request: Request, slug: str, number: Number, place: str, wanted: PartOfText) -> Response:
    """A part of a text that is too long to be shown at once, of an item that the person was shown."""
    site, project, me = site_of(request), project_of(request), visitor_of(request).me
    work = await site.reader.run(lambda conn: leases.get_work(conn, project, number, me.id))
    shown = [unsigned(work.item.responses[index].content) for index in work.order]
    return await run_in_threadpool(text_part, request, work.item.prompt, shown, place, wanted)


@router.post(
    "/p/{slug}/a/{number}",
    openapi_extra=needs(
        "member", "key", "supersedes", "guidelines", "choice", "text", "base", "flag", "comment", "reason"
    ),
)
async def answer(request: Request, slug: str, number: Number, form: Posted) -> Response:
    """Store an answer or a skip, and show the next item."""
    site, project, me = site_of(request), project_of(request), visitor_of(request).me
    in_page = _in_page(request)

    def store(conn: Transaction) -> tuple[bool, WorkView | None]:
        # The form is read inside the job, because its fields mean nothing without the item: how many responses there
        # are, and in which order they were shown.
        work = leases.get_work(conn, project, number, me.id)
        sent = read_submission(form, work, project)
        answers.submit(conn, project, me.id, number, sent, decides=me.may("reviewer"))
        is_verdict = work.round == leases.ADJUDICATION
        return is_verdict, view_next(conn, project, me) if in_page and not is_verdict else None

    is_verdict, view = await site.writer.run(store)
    if is_verdict:
        return _go(request, f"/p/{slug}/conflicts")
    return see(f"/p/{slug}/work") if view is None else await _show(request, view)


@router.post("/p/{slug}/undo", openapi_extra=needs("member", "key"))
async def undo(request: Request, slug: str, form: Posted) -> Response:
    """Take the last answer back and show its item again."""
    site, project, me = site_of(request), project_of(request), visitor_of(request).me
    key, in_page = form.text("key"), _in_page(request)

    def take_back(conn: Transaction) -> WorkView | None:
        answers.undo(conn, project, me.id, key)
        return view_next(conn, project, me) if in_page else None

    view = await site.writer.run(take_back)
    return see(f"/p/{slug}/work") if view is None else await _show(request, view)


@router.get("/p/{slug}/guidelines", openapi_extra=needs("member"))
def guidelines(request: Request, slug: str) -> Response:
    """The guidelines on their own page."""
    return site_of(request).page(request, "guidelines.html")


def text_part(
    request: Request, prompt: Content, shown: Sequence[Content], place: str, wanted: TextQuery
) -> Response:
    """The next part of the prompt or of a response, or the whole of one turn as plain text.

    Raises:
        NotFound: there is no such text.
    """
    texts = {"prompt": prompt, **dict(zip(LETTERS, shown, strict=False))}
    part = next_part(texts[place], wanted.turn, wanted.start) if place in texts else None
    if part is None:
        raise NotFound("there is no more of this text", cure="load the page again")
    if wanted.whole:
        words = turns(texts[place])[wanted.turn][1]
        return Response(words.encode("utf-8", "replace"), media_type="text/plain; charset=utf-8")
    return site_of(request).page(request, "part.html", shown=part, more=request.url.path)


def _go(request: Request, path: str) -> Response:
    """Send the browser to another page, also after a request of htmx, which would load a redirect into the page."""
    if request.headers.get("hx-request"):
        return Response(status_code=204, headers={"HX-Redirect": path})
    return see(path)


def _in_page(request: Request) -> bool:
    """Whether htmx made the request, which wants a part of the page."""
    return bool(request.headers.get("hx-request"))


@dataclass(frozen=True, slots=True)
class WorkView:
    """What the page of an item needs from the database; ``work`` is None if there is no item to show."""

    work: Work | None
    counts: dict[str, int]
    """How many of the person's assignments are in each state."""
    head: Head | None = None
    """The newest row of the assignment."""
    before: Answer | None = None
    """The answer that the form starts from."""
    back_at: float | None = None
    """Without an item: when the first one that somebody else holds can be shown."""


def view_of(conn: Transaction, project: Project, me: User, work: Work | None) -> WorkView:
    """Everything that the page of an item needs to know of the person and the item."""
    counts = history.counts_of(conn, project, me.id)
    if work is None:
        return WorkView(None, counts, back_at=leases.comes_back(conn, project, me.id))
    head = answers.get_head(conn, work.id)
    before = head.answer if head else None
    if head and before is None:  # taken back: the form starts from the answer before that
        before = answers.last_answer(conn, project, me.id, work.id)
    return WorkView(work, counts, head, before)


def view_next(conn: Transaction, project: Project, me: User) -> WorkView:
    """The item that the person has leased, or a new one, which is leased to them now."""
    return view_of(conn, project, me, leases.lease(conn, project, me.id, time.time()))


async def _show(request: Request, view: WorkView) -> Response:
    return await run_in_threadpool(_page, request, view)


def _page(request: Request, view: WorkView) -> Response:
    name = "done" if view.work is None else "work"
    # A minute more than is left, so that whoever comes back then finds the item.
    minutes = None if view.back_at is None else max(1, int((view.back_at - time.time()) // 60) + 1)
    context = (
        {"mine": view.counts, "minutes": minutes, "back_at": view.back_at}
        if view.work is None
        else work_context(request, view)
    )
    return site_of(request).page(request, f"{'_' * _in_page(request)}{name}.html", **context)


def _progress(request: Request) -> Progress | None:
    """How far the project is; None for annotators."""
    # Annotators could find out by it which items are gold: gold answers do not count. And since it counts every answer
    # of the project it is read here, in the page's own thread, and not in a batch, where others would wait for it.
    if not visitor_of(request).me.may("reviewer"):
        return None
    with site_of(request).store.read() as conn:
        return projects.progress(conn, project_of(request))


def work_context(request: Request, view: WorkView) -> dict[str, Any]:
    """The values that the template of a task needs; the view must have an item."""
    project, work, head = project_of(request), view.work, view.head
    assert work is not None, "there is an item to show"
    values = filled(view.before, work.order)
    shown = [unsigned(work.item.responses[index].content) for index in work.order]
    compares = project.task in ("pairwise", "ranking")
    editing = compares and (project.settings.edit_best or "text" in values)
    # What is longer than an answer may be cannot be edited.
    short = [letter for letter, content in zip(LETTERS, shown, strict=False) if len(source(content)) <= MOST_TYPED]
    return {
        "work": work,
        "shown": list(zip(LETTERS, shown, strict=False)),
        "head": head,
        "values": values,
        "editing": editing,
        "editable": short if editing or project.task == "demonstration" else [],
        "texts": f"/p/{project.slug}/a/{work.id}/text/",
        "source": source,
        "given_flags": head.flags if head else (),
        "given_comment": head.comment if head else "",
        "settings": project.settings,
        "steps": STEPS,
        "mine": view.counts,
        "fragment": _in_page(request),
        "progress": _progress(request),
        "adjudicating": work.round == leases.ADJUDICATION,
        "votes": [],
    }
