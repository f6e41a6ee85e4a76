"""The reviewer's pages: figures, conflicts and their adjudication, items with all their answers, exports."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections import defaultdict
from dataclasses import replace
from hashlib import blake2b
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import FileResponse, Response
from starlette.background import BackgroundTask

from plaudit.annotate.export_data import ExportQuery, Wanted, export_parts, kind_of, write_export
from plaudit.annotate.pages.figures import COLUMNS, DRAWS, Figures, figures, model_plots
from plaudit.annotate.pages.forms import in_words
from plaudit.annotate.pages.work import PartOfText, text_part, view_of, work_context
from plaudit.annotate.server.access import Number, Posted, needs
from plaudit.annotate.server.newest import Known
from plaudit.annotate.server.site import Site, project_of, see, site_of, visitor_of
from plaudit.errors import DataError
from plaudit.preferences.aggregate import Survey
from plaudit.preferences.annotation import Annotation, Choice, Item, Ranks, Task, written_in
from plaudit.preferences.compare import Standings, compare
from plaudit.preferences.exporting import What
from plaudit.preferences.store import answers, content, digest, history, people
from plaudit.preferences.store.projects import Project
from plaudit.records import Judgement, to_json

router = APIRouter()
PAGE = 50
GIVES: dict[Task, tuple[What, ...]] = {
    "pairwise": ("preferences", "judgements", "rankings", "demonstrations", "annotations"),
    "ranking": ("rankings", "preferences", "judgements", "demonstrations", "annotations"),
    "rating": ("ratings", "annotations"),
    "thumbs": ("kto", "annotations"),
    "demonstration": ("demonstrations", "annotations"),
}
"""What the answers to a task can be exported as, the usual one first; demonstrations of comparisons are edits."""
SAYS: dict[What, str] = {
    "preferences": "one chosen and one rejected response a row, as the votes say",
    "rankings": "all responses of an item in order, as the votes say",
    "ratings": "the mean score of each response, on each scale and over all",
    "kto": "good or bad for each response, as the votes say",
    "demonstrations": "texts that people wrote, for SFT",
    "judgements": "each person's verdict on each two responses",
    "annotations": "every answer as it was given, skips and gold items too",
}
Page = Annotated[int, Query(ge=0, le=10**6)]
Only = Annotated[Literal["", "flagged", "skipped"], Query()]
MOST_CONFLICTS = 200
SMALL = 2000
"""Rows of a history whose figures are computed while the page waits; those of a longer one in the background."""
BREATH = 0.002
"""Seconds between two parts of a long piece of work."""


@router.get("/p/{slug}/review", openapi_extra=needs("reviewer"))
def dashboard(request: Request, slug: str) -> Response:
    """Agreement, bias, pace and gold accuracy."""
    site, project = site_of(request), project_of(request)
    known = current_figures(site, project)
    is_read = read_on(site, project)
    edits = project.task == "demonstration" or project.settings.edit_best or (known.value and known.value.edits > 0)
    offered = [(w, SAYS[w]) for w in GIVES[project.task] if w != "demonstrations" or edits]
    with site.store.read() as conn:
        disputed = digest.count_disputes(conn, project)
    return site.page(
        request,
        "review.html",
        figures=known.value,
        fresh=known.fresh and is_read,
        disputed=disputed,
        exports=offered,
        columns=COLUMNS,
    )


@router.get("/p/{slug}/conflicts", openapi_extra=needs("reviewer"))
def conflicts(request: Request, slug: str) -> Response:
    """The items on which people disagree."""
    site, project = site_of(request), project_of(request)
    fresh = read_on(site, project)
    with site.store.read() as conn:
        found = digest.open_disputes(conn, project, MOST_CONFLICTS)
        items = content.read_items(conn, project, [number for number, _ in found])
        decided = digest.count_decided(conn, project)
    rows = [(dispute, number, items[number]) for number, dispute in found]
    return site.page(request, "conflicts.html", rows=rows, decided=decided, fresh=fresh)


def read_on(site: Site, project: Project) -> bool:
    """Read the newest answers into the table of disputed items; False while more are read in the background."""
    if digest.catch_up(site.store, project, parts=2):
        return True
    with site.store.read() as conn:
        newest = history.revision(conn, project)

    def read_all() -> bool:
        while not digest.catch_up(site.store, project):
            time.sleep(BREATH)
        return True

    return site.newest.get(("disputes", project.id), newest, read_all, wait=False).fresh


@router.get("/p/{slug}/conflicts/{number}", openapi_extra=needs("reviewer"))
def adjudicate_page(request: Request, slug: str, number: Number) -> Response:
    """One item with everybody's answers, to be decided by the reviewer."""
    # It writes an assignment although it is a GET; opening it again writes nothing new.
    site, project, me = site_of(request), project_of(request), visitor_of(request).me
    with site.store.write() as conn:
        work = answers.open_adjudication(conn, project, me.id, number)
        view = view_of(conn, project, me, work)
    context = work_context(request, view)
    with site.store.read() as conn:
        answered = history.read_annotations(conn, project, items=[number])
    # Each person saw the responses in another order. Their answers are shown in the letters of the reviewer's order, or
    # "A better" would mean another response in each line.
    context["votes"] = [(a, in_words(a.answer, work.order)) for a in answered if not a.adjudicated]
    return site.page(request, "work.html", **context)


@router.get("/p/{slug}/compare", openapi_extra=needs("reviewer"))
def models(request: Request, slug: str) -> Response:
    """The models compared: win rates, strengths, position bias."""
    site, project = site_of(request), project_of(request)
    version, small = _version(site, project)
    known = site.newest.get(("models", project.id), version, lambda: _standings(site, project), wait=small)
    standings = known.value
    plots = model_plots(standings) if standings else {}
    return site.page(request, "models.html", standings=standings, plots=plots, fresh=known.fresh)


def _standings(site: Site, project: Project) -> Standings | None:
    with site.store.read() as conn:
        wanted = Wanted(project, "judgements", at=history.revision(conn, project))
    named = [
        _without_texts(r)
        for _, part in export_parts(site.store, wanted, Survey(wanted.rule, frozenset()))
        for r in part.records
        if isinstance(r, Judgement) and r.model_a and r.model_b and r.model_a != r.model_b
    ]
    return compare(named, draws=DRAWS) if named else None


def _without_texts(judgement: Judgement) -> Judgement:
    """The judgement with a fingerprint for each text: comparisons ask only which texts are the same."""
    prompt, a, b = (
        blake2b(json.dumps(to_json(text)).encode(), digest_size=12).hexdigest()
        for text in (judgement.prompt, judgement.response_a, judgement.response_b)
    )
    return replace(judgement, prompt=prompt, response_a=a, response_b=b)


@router.get("/p/{slug}/items", openapi_extra=needs("reviewer"))
def item_list(request: Request, slug: str, page: Page = 0, only: Only = "") -> Response:
    """All items, or those that somebody flagged or left out, a page at a time."""
    site, project = site_of(request), project_of(request)
    with site.store.read() as conn:
        if only:
            numbers, total = history.marked_items(conn, project, only, page, PAGE)
            shown = list(content.read_items(conn, project, numbers).items())
        else:
            shown = content.page_of_items(conn, project, page, PAGE)
            total = content.count_items(conn, project)
        by_item = _by_item(history.read_annotations(conn, project, items=[number for number, _ in shown]))
    rows = [(number, item, by_item.get(item.key, [])) for number, item in shown]
    more = (page + 1) * PAGE < total
    return site.page(request, "items.html", rows=rows, page=page, only=only, total=total, more=more)


@router.get("/p/{slug}/items/{number}", openapi_extra=needs("reviewer"))
def one_item(request: Request, slug: str, number: Number) -> Response:
    """An item, its answers, and whether it is gold."""
    site, project = site_of(request), project_of(request)
    item = _item(site, project, number)
    with site.store.read() as conn:
        own = history.read_annotations(conn, project, items=[number])
    order = tuple(range(len(item.responses)))
    rows = [(a, in_words(a.answer, order), written_in(a.answer)) for a in own]
    known = in_words(item.gold, order) if item.gold else ""
    shown = list(enumerate(item.responses))
    texts = f"/p/{slug}/items/{number}/text/"
    return site.page(
        request, "item.html", number=number, item=item, rows=rows, known=known, shown=shown, texts=texts
    )


@router.get("/p/{slug}/items/{number}/text/{place}", openapi_extra=needs("reviewer"))
def rest_of_text(request: Request, slug: str, number: Number, place: str, wanted: PartOfText) -> Response:
    """A part of a text that is too long to be shown at once."""
    item = _item(site_of(request), project_of(request), number)
    return text_part(request, item.prompt, [response.content for response in item.responses], place, wanted)


@router.post("/p/{slug}/items/{number}/gold", openapi_extra=needs("reviewer", "gold", "revision"))
def change_gold(request: Request, slug: str, number: Number, form: Posted) -> Response:
    """Make one of the answers given the known answer of the item, or make the item ordinary again."""
    site, project, visitor = site_of(request), project_of(request), visitor_of(request)
    item = _item(site, project, number)
    chosen = form.number("revision", 0)
    with site.store.write() as conn:
        own = history.read_annotations(conn, project, items=[number])
        answer = next((a.answer for a in own if a.revision == chosen), None)
        if chosen and answer is None:
            raise DataError(
                f"answer {chosen} is not of this item", where="revision", cure="load the page again"
            )
        # The known answer is the choice; the text that one person wrote besides is no standard for others.
        if isinstance(answer, (Choice, Ranks)):
            answer = replace(answer, edit=None)
        content.set_gold(conn, project, number, item, answer)
        action = "made gold" if answer else "made ordinary"
        people.record(conn, action, f"{slug}/{item.key}", by=visitor.me.id, address=visitor.address)
    return see(f"/p/{slug}/items/{number}")


@router.get("/p/{slug}/export/{what}.jsonl", openapi_extra=needs("reviewer"))
def download(
    request: Request,
    slug: str,
    what: str,
    wanted: Annotated[ExportQuery, Query()],
) -> Response:
    """An export as a file."""
    # It writes although it is a GET: the audit log records who took which data out.
    site, project, visitor = site_of(request), project_of(request), visitor_of(request)
    response, manifest = exported(site, project, what, wanted)
    with site.store.write() as conn:
        people.record(
            conn, "exported", f"{slug}/{what}", by=visitor.me.id, address=visitor.address, **_brief(manifest)
        )
    name = f"{slug}-{manifest['what']}-{manifest['revision']}.jsonl"
    response.headers["content-disposition"] = f'attachment; filename="{name}"'
    return response


def exported(site: Site, project: Project, what: str, query: ExportQuery) -> tuple[Response, dict[str, Any]]:
    """The response that sends an export, and its manifest."""
    # Through a file, for its digest goes first, in a header, and the rows of a large project fill the memory. Between
    # two parts the thread sleeps, so that answers are stored meanwhile.
    wanted = Wanted(project, kind_of(what), query.rule(), query.at)
    handle, name = tempfile.mkstemp(prefix="plaudit-export-")
    try:
        with os.fdopen(handle, "wb") as out:
            manifest = write_export(site.store, wanted, out, lambda share: time.sleep(BREATH))
    except BaseException:
        os.unlink(name)
        raise
    headers = {"x-revision": str(manifest["revision"]), "x-sha256": manifest["sha256"]}
    gone = BackgroundTask(os.unlink, name)
    return FileResponse(name, media_type="application/x-ndjson", headers=headers, background=gone), manifest


def current_figures(site: Site, project: Project) -> Known[Figures]:
    """The figures of the newest revision, computed once for each; in a large project the last ones meanwhile."""
    # Bootstrap intervals take seconds in a large project, and several reviewers look at the same page. Only the last
    # ones are kept: an older revision is not shown again.

    def make() -> Figures:
        with site.store.read() as conn:
            revision = history.revision(conn, project)
            annotations = history.read_annotations(conn, project, revision)
            briefs = content.read_briefs(conn, project)
        return figures(project.task, annotations, briefs, revision)

    version, small = _version(site, project)
    return site.newest.get(("figures", project.id), version, make, wait=small)


def _version(site: Site, project: Project) -> tuple[tuple[int, int, int], bool]:
    """What changes with the answers and items of a project, and whether they are few."""
    # The number of items is part of it, because new items make no new revision; that of gold items, because it changes
    # what counts.
    with site.store.read() as conn:
        newest = history.revision(conn, project)
        version = (newest, content.count_items(conn, project), len(content.gold_keys(conn, project)))
        small = not history.has_more_rows(conn, project, SMALL)
    return version, small


def _by_item(annotations: list[Annotation]) -> dict[str, list[Annotation]]:
    grouped: dict[str, list[Annotation]] = defaultdict(list)
    for annotation in annotations:
        grouped[annotation.item].append(annotation)
    return grouped


def _item(site: Site, project: Project, number: int) -> Item:
    with site.store.read() as conn:
        return content.get_item(conn, project, number)


def _brief(manifest: dict[str, Any]) -> dict[str, Any]:
    return {name: manifest[name] for name in ("revision", "rows", "sha256")}
