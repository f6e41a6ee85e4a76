"""The reviewer's pages: figures, conflicts and their adjudication, items with all their answers, exports."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from plaudit.annotate.export_data import ExportQuery, make_export
from plaudit.annotate.pages.figures import COLUMNS, DRAWS, Figures, figures, model_plots, open_disputes
from plaudit.annotate.pages.forms import in_words
from plaudit.annotate.pages.work import view_of, work_context
from plaudit.annotate.server.access import Number, Posted, needs
from plaudit.annotate.server.site import Site, project_of, see, site_of, visitor_of
from plaudit.errors import DataError
from plaudit.preferences.annotation import Annotation, Choice, Item, Ranks, Skip, Task, written_in
from plaudit.preferences.compare import compare
from plaudit.preferences.exporting import What
from plaudit.preferences.store import answers, content, history, people
from plaudit.preferences.store.projects import Project
from plaudit.records import Judgement

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


@router.get("/p/{slug}/review", openapi_extra=needs("reviewer"))
def dashboard(request: Request, slug: str) -> Response:
    """Agreement, bias, pace and gold accuracy."""
    site, project = site_of(request), project_of(request)
    figures = current_figures(site, project)
    edits = project.task == "demonstration" or project.settings.edit_best or figures.edits > 0
    offered = [(w, SAYS[w]) for w in GIVES[project.task] if w != "demonstrations" or edits]
    return site.page(request, "review.html", figures=figures, exports=offered, columns=COLUMNS)


@router.get("/p/{slug}/conflicts", openapi_extra=needs("reviewer"))
def conflicts(request: Request, slug: str) -> Response:
    """The items on which people disagree."""
    site, project = site_of(request), project_of(request)
    with site.store.read() as conn:
        annotations = history.read_annotations(conn, project)
        loaded = content.read_items(conn, project)
    numbers = {item.key: number for number, item in loaded.items()}
    items = {item.key: item for item in loaded.values()}
    rows = [
        (dispute, numbers[dispute.item], items[dispute.item])
        for dispute in open_disputes(annotations, items)[:MOST_CONFLICTS]
    ]
    decided = len({a.item for a in annotations if a.adjudicated})
    return site.page(request, "conflicts.html", rows=rows, decided=decided)


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
        answered = [a for a in history.read_annotations(conn, project) if a.item == work.item.key]
    # Each person saw the responses in another order. Their answers are shown in the letters of the reviewer's order, or
    # "A better" would mean another response in each line.
    context["votes"] = [(a, in_words(a.answer, work.order)) for a in answered if not a.adjudicated]
    return site.page(request, "work.html", **context)


@router.get("/p/{slug}/compare", openapi_extra=needs("reviewer"))
def models(request: Request, slug: str) -> Response:
    """The models compared: win rates, strengths, position bias."""
    site, project = site_of(request), project_of(request)
    made, _ = make_export(site.store, project, "judgements")
    named = [
        r
        for r in made.records
        if isinstance(r, Judgement) and r.model_a and r.model_b and r.model_a != r.model_b
    ]
    standings = compare(named, draws=DRAWS) if named else None
    plots = model_plots(standings) if standings else {}
    return site.page(request, "models.html", standings=standings, plots=plots)


@router.get("/p/{slug}/items", openapi_extra=needs("reviewer"))
def item_list(request: Request, slug: str, page: Page = 0, only: Only = "") -> Response:
    """All items, or those that somebody flagged or left out, a page at a time."""
    site, project = site_of(request), project_of(request)
    with site.store.read() as conn:
        by_item = _by_item(history.read_annotations(conn, project))
        if only:
            wanted = {key for key, own in by_item.items() if any(_is(only, a) for a in own)}
            matching = [one for one in content.read_items(conn, project).items() if one[1].key in wanted]
            shown, total = matching[page * PAGE : (page + 1) * PAGE], len(matching)
        else:
            shown = content.page_of_items(conn, project, page, PAGE)
            total = content.count_items(conn, project)
    rows = [(number, item, by_item.get(item.key, [])) for number, item in shown]
    more = (page + 1) * PAGE < total
    return site.page(request, "items.html", rows=rows, page=page, only=only, total=total, more=more)


def _is(only: str, annotation: Annotation) -> bool:
    return bool(annotation.flags) if only == "flagged" else isinstance(annotation.answer, Skip)


@router.get("/p/{slug}/items/{number}", openapi_extra=needs("reviewer"))
def one_item(request: Request, slug: str, number: Number) -> Response:
    """An item, its answers, and whether it is gold."""
    site, project = site_of(request), project_of(request)
    item = _item(site, project, number)
    with site.store.read() as conn:
        own = _by_item(history.read_annotations(conn, project)).get(item.key, [])
    order = tuple(range(len(item.responses)))
    rows = [(a, in_words(a.answer, order), written_in(a.answer)) for a in own]
    known = in_words(item.gold, order) if item.gold else ""
    shown = list(enumerate(item.responses))
    return site.page(request, "item.html", number=number, item=item, rows=rows, known=known, shown=shown)


@router.post("/p/{slug}/items/{number}/gold", openapi_extra=needs("reviewer", "gold", "revision"))
def change_gold(request: Request, slug: str, number: Number, form: Posted) -> Response:
    """Make one of the answers given the known answer of the item, or make the item ordinary again."""
    site, project, visitor = site_of(request), project_of(request), visitor_of(request)
    item = _item(site, project, number)
    chosen = form.number("revision", 0)
    with site.store.write() as conn:
        own = _by_item(history.read_annotations(conn, project)).get(item.key, [])
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
    made, manifest = make_export(site.store, project, what, wanted.rule(), wanted.at)
    with site.store.write() as conn:
        people.record(
            conn, "exported", f"{slug}/{what}", by=visitor.me.id, address=visitor.address, **_brief(manifest)
        )
    name = f"{slug}-{made.what}-{manifest['revision']}.jsonl"
    headers = {
        "content-disposition": f'attachment; filename="{name}"',
        "x-revision": str(manifest["revision"]),
    }
    return Response(made.to_jsonl(), media_type="application/x-ndjson", headers=headers)


def current_figures(site: Site, project: Project) -> Figures:
    """The figures of the newest revision, computed once for each revision."""
    # Bootstrap intervals take seconds in a large project, and several reviewers look at the same page. Only the last
    # ones are kept: an older revision is not shown again. The number of items is part of the key, because new items
    # make no new revision.
    with site.store.read() as conn:
        revision = history.revision(conn, project)
        key = (project.id, revision, content.count_items(conn, project))
        if key in site.figures:
            return site.figures[key]
        annotations = history.read_annotations(conn, project)
        items = {item.key: item for item in content.read_items(conn, project).values()}
    made = figures(project.task, annotations, items, revision)
    site.figures.clear()
    site.figures[key] = made
    return made


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
