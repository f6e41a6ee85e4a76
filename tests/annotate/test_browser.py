"""A real browser: each kind of task by mouse and by keys, desktop and phone, accessibility, hostile texts."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from annotating import (
    DESKTOP,
    PASSWORD,
    PHONE,
    Served,
    Unlimited,
    make_project,
    make_team,
    one_of,
    pairs,
    responses,
    stored,
)  # fmt: skip

from plaudit.preferences.annotation import (
    Annotation,
    Choice,
    Item,
    ItemResponse,
    Ranks,
    Scores,
    Thumbs,
    Written,
)
from plaudit.preferences.store import answers, history, leases, people, projects
from plaudit.preferences.store.answers import Submission
from plaudit.preferences.store.engine import Store

pytestmark = pytest.mark.browser
AXE = Path(__file__).parent / "vendor" / "axe.min.js"
PAYLOADS = json.loads((Path(__file__).parent / "xss_payloads.json").read_text(encoding="utf-8"))


NOTHING_ACTIVE = """
[...document.querySelectorAll('.content *')].every(e =>
  !'SCRIPT IFRAME OBJECT EMBED IMG SVG FORM STYLE LINK META BASE'.split(' ').includes(e.tagName.toUpperCase())
  && [...e.attributes].every(a => !a.name.startsWith('on') && !a.name.startsWith('hx-') && a.name !== 'style'))
"""


def answer(store: Store, wanted: int = 1) -> Annotation:
    found = stored(store, "job")
    assert len(found) == wanted
    return found[-1]


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_pairwise_by_mouse(visit: Any, sqlite_store: Store, size: dict[str, int]) -> None:
    one_of(sqlite_store, "pairwise", 2)
    page = visit("/p/job/work", size)
    page.locator("label", has_text="B much better").click()
    page.get_by_role("button", name="Send").click()
    page.get_by_text("That is all for now").wait_for()
    found = answer(sqlite_store)
    assert found.answer == Choice(2 if found.order == (0, 1) else -2), (
        "what was seen on the right is what was stored"
    )


def test_pairwise_by_keys(visit: Any, sqlite_store: Store) -> None:
    one_of(sqlite_store, "pairwise", 2, items=4)
    page = visit("/p/job/work")
    for key in ("1", "3", "6", "7"):
        page.keyboard.press(key)
        before = page.locator("#work").get_attribute("data-assignment")
        page.keyboard.press("Enter")
        page.wait_for_function("b => document.querySelector('#work').dataset.assignment !== b", arg=before)
    page.get_by_text("That is all for now").wait_for()
    said = [a.answer for a in stored(sqlite_store, "job")]
    assert said[0] in (Choice(-2), Choice(2))
    assert said[1:] == [Choice(0), Choice(0, "both_bad"), Choice(0, "cannot_judge")]


def test_new_guidelines_come_with_the_next_item(visit: Any, sqlite_store: Store) -> None:
    one_of(sqlite_store, "pairwise", 2, items=2)
    page = visit("/p/job/work")
    page.keyboard.press("g")
    with sqlite_store.write() as conn:
        projects.change_guidelines(conn, projects.get_project(conn, "job"), "Be **kind** now.", None)
    for key in ("1", "3"):
        before = page.locator("#work").get_attribute("data-assignment")
        page.keyboard.press(key)
        page.keyboard.press("Enter")
        page.wait_for_function("b => document.querySelector('#work').dataset.assignment !== b", arg=before)
    assert page.locator("#guide-text").text_content() == "Be kind now.\n"
    assert page.locator("#guide-text").count() == 1
    with sqlite_store.read() as conn:
        rows = history.read_annotations(conn, projects.get_project(conn, "job"))
    assert [a.guideline_version for a in rows] == [1, 2]


def test_keys_pressed_as_soon_as_an_item_is_there_are_answered_in_the_page(
    visit: Any, sqlite_store: Store
) -> None:
    """The next item's form belongs to htmx from the moment it can be seen: no key sends it as a plain form."""
    one_of(sqlite_store, "pairwise", 2, items=3)
    page = visit("/p/job/work")
    loads: list[str] = []
    page.on("request", lambda r: loads.append(r.url) if r.is_navigation_request() else None)
    page.evaluate(
        "document.addEventListener('htmx:afterSwap', e => { if (e.target.id === 'work') setTimeout(() => {"
        " document.querySelector('input[data-digit=\"3\"]')?.click(); document.querySelector('#send')?.click() }, 0) })"
    )
    page.keyboard.press("3")
    page.keyboard.press("Enter")
    page.get_by_text("That is all for now").wait_for()
    assert len(stored(sqlite_store, "job")) == 3
    assert loads == []


def test_buttons_do_once_what_they_say_on_every_item(visit: Any, sqlite_store: Store) -> None:
    one_of(sqlite_store, "ranking", 4, items=3)
    page = visit("/p/job/work")
    for plain in (True, False, True):
        page.keyboard.press("p")
        assert ("plain-mode" in page.locator("body").get_attribute("class")) is plain
        page.get_by_role("button", name="Move D up").click()
        letters = page.locator("#ranks li").evaluate_all("rows => rows.map(r => r.dataset.letter).join('')")
        assert letters == "ABDC"
        before = page.locator("#work").get_attribute("data-assignment")
        page.get_by_role("button", name="Send").click()
        page.wait_for_function("b => document.querySelector('#work').dataset.assignment !== b", arg=before)


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_ranking_by_arrows_and_by_drag(visit: Any, sqlite_store: Store, size: dict[str, int]) -> None:
    one_of(sqlite_store, "ranking", 3)
    page = visit("/p/job/work", size)
    page.get_by_role("button", name="Send").click()
    page.get_by_text("some responses have no rank yet").wait_for()
    page.get_by_role("button", name="Move C up").click()
    page.get_by_role("button", name="Move C up").click()
    handles = page.locator("#ranks .grip")
    handles.nth(2).scroll_into_view_if_needed()
    start, end = handles.nth(2).bounding_box(), handles.nth(1).bounding_box()
    page.mouse.move(start["x"] + 6, start["y"] + 8)
    page.mouse.down()
    page.mouse.move(start["x"] + 6, start["y"] - 2, steps=4)
    page.mouse.move(end["x"] + 6, end["y"] + 2, steps=10)
    page.mouse.up()
    letters = page.locator("#ranks li").evaluate_all("rows => rows.map(r => r.dataset.letter).join('')")
    assert letters == "CBA"
    page.get_by_role("button", name="B shares the place").click()
    page.get_by_role("button", name="Send").click()
    page.get_by_text("That is all for now").wait_for()
    found = answer(sqlite_store)
    by_letter = dict(zip("ABC", (found.answer.ranks[i] for i in found.order), strict=True))  # type: ignore[union-attr]
    assert by_letter == {"C": 1, "B": 1, "A": 2}


def test_ranking_by_keys(visit: Any, sqlite_store: Store) -> None:
    one_of(sqlite_store, "ranking", 4)
    page = visit("/p/job/work")
    for key in ("2", "4", "=", "1", "3", "Enter"):
        page.keyboard.press(key)
    page.get_by_text("That is all for now").wait_for()
    found = answer(sqlite_store)
    assert isinstance(found.answer, Ranks)
    assert [found.answer.ranks[i] for i in found.order] == [2, 1, 3, 2]


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_rating_by_mouse(visit: Any, sqlite_store: Store, size: dict[str, int]) -> None:
    one_of(sqlite_store, "rating", 1)
    page = visit("/p/job/work", size)
    for group, number in (("helpfulness", "9"), ("harmlessness", "10"), ("accuracy", "2")):
        page.get_by_role("group", name=group).get_by_text(number, exact=True).click()
    page.get_by_role("button", name="Send").click()
    page.get_by_text("That is all for now").wait_for()
    assert answer(sqlite_store).answer == Scores(({"helpfulness": 9, "harmlessness": 10, "accuracy": 2},))


def test_rating_by_keys(visit: Any, sqlite_store: Store) -> None:
    one_of(sqlite_store, "rating", 2)
    page = visit("/p/job/work")
    for key in ("1", "2", "3", "4", "5", "0", "ArrowUp", "6", "Enter"):
        page.keyboard.press(key)
    page.get_by_text("That is all for now").wait_for()
    found = answer(sqlite_store)
    assert isinstance(found.answer, Scores)
    seen = [tuple(found.answer.scores[i].values()) for i in found.order]
    assert seen == [(1, 2, 3), (4, 6, 10)]


def test_the_scale_that_a_key_answers_is_in_sight(visit: Any, sqlite_store: Store) -> None:
    """The panel at the foot of the window covers what would be behind it."""
    said = tuple(ItemResponse("line\n\n" * n) for n in (14, 4))
    make_project(sqlite_store, "job", "rating", [Item("i", "p\n\n" * 9, said)])
    page = visit("/p/job/work", {"width": 1280, "height": 700})
    for _ in range(4):
        page.keyboard.press("5")
        shown, panel = page.locator(".line.current").bounding_box(), page.locator(".panel").bounding_box()
        assert shown["y"] >= 0 and shown["y"] + shown["height"] <= panel["y"] + 1


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_thumbs_by_mouse_and_keys(visit: Any, sqlite_store: Store, size: dict[str, int]) -> None:
    one_of(sqlite_store, "thumbs", 1, items=2)
    page = visit("/p/job/work", size)
    page.locator("label", has_text="Bad").click()
    before = page.locator("#work").get_attribute("data-assignment")
    page.get_by_role("button", name="Send").click()
    page.wait_for_function("b => document.querySelector('#work').dataset.assignment !== b", arg=before)
    page.keyboard.press("1")
    page.keyboard.press("Enter")
    page.get_by_text("That is all for now").wait_for()
    assert [a.answer for a in stored(sqlite_store, "job")] == [Thumbs((False,)), Thumbs((True,))]


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_writing_by_mouse(visit: Any, sqlite_store: Store, size: dict[str, int]) -> None:
    one_of(sqlite_store, "demonstration", 2)
    page = visit("/p/job/work", size)
    page.get_by_role("button", name="Start from A").click()
    text = page.get_by_label("Your response")
    text.fill(text.input_value() + " and more")
    page.get_by_role("button", name="Send").click()
    page.get_by_text("That is all for now").wait_for()
    found = answer(sqlite_store)
    assert isinstance(found.answer, Written) and found.answer.text.endswith("and more")
    assert found.answer.base == found.order[0], "which response was edited is stored"


def test_writing_and_editing(visit: Any, sqlite_store: Store) -> None:
    one_of(sqlite_store, "demonstration", 2)
    page = visit("/p/job/work")
    page.keyboard.press("w")
    page.keyboard.type("my own words, 1 2 u s")
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Start from B").click()
    assert "```python" in page.get_by_label("Your response").input_value()
    page.get_by_label("Your response").fill("better words")
    page.reload()
    assert page.get_by_label("Your response").input_value() == "better words", "a draft outlives the page"
    page.get_by_label("Your response").press("Control+Enter")
    page.get_by_text("That is all for now").wait_for()
    assert isinstance(answer(sqlite_store).answer, Written)
    found = answer(sqlite_store)
    assert found.answer.text == "better words"  # type: ignore[union-attr]
    assert found.answer.base == found.order[1], "the reload keeps what was edited"  # type: ignore[union-attr]


def test_keys_to_start_from_a_response_are_listed_where_there_are_responses(
    visit: Any, sqlite_store: Store
) -> None:
    for slug, n in (("bare", 0), ("full", 2)):
        make_project(sqlite_store, slug, "demonstration", [Item("i", "Write.", responses(n))])
    for slug, listed in (("bare", False), ("full", True)):
        page = visit(f"/p/{slug}/work")
        page.keyboard.press("?")
        page.get_by_role("dialog").wait_for()
        assert page.get_by_text("start from response").is_visible() is listed
        assert page.get_by_text("Esc leaves the text").is_visible()


def test_undo_skip_flags_and_correction(visit: Any, sqlite_store: Store) -> None:
    one_of(sqlite_store, "pairwise", 2, items=2)
    page = visit("/p/job/work")
    first = page.locator("#work").get_attribute("data-assignment")
    page.keyboard.press("f")
    page.get_by_label("harmful").check()
    page.get_by_label("Comment").fill("B is made up")
    page.locator("label", has_text="A better").click()
    page.get_by_role("button", name="Send").click()
    page.wait_for_function("b => document.querySelector('#work').dataset.assignment !== b", arg=first)
    page.keyboard.press("u")
    page.wait_for_function("b => document.querySelector('#work').dataset.assignment === b", arg=first)
    assert page.get_by_label("harmful").is_checked() and page.locator("input[value='-1']").is_checked()
    page.keyboard.press("5")
    page.keyboard.press("Enter")
    page.wait_for_function("b => document.querySelector('#work').dataset.assignment !== b", arg=first)
    page.keyboard.press("s")
    page.get_by_role("button", name="The task is unclear").click()
    page.get_by_text("That is all for now").wait_for()
    found = stored(sqlite_store, "job")
    assert len(found) == 2 and found[0].flags == ("harmful",) and found[0].comment == "B is made up"
    assert abs(found[0].answer.strength) == 2  # type: ignore[union-attr]
    with sqlite_store.read() as conn:
        assert len(history.raw_rows(conn, projects.get_project(conn, "job"))) == 4


def test_an_answer_survives_a_lost_server(visit: Any, local: Served, sqlite_store: Store) -> None:
    one_of(sqlite_store, "pairwise", 2)
    page = visit("/p/job/work")
    page.context.set_offline(True)
    page.keyboard.press("1")
    page.keyboard.press("Enter")
    page.get_by_text("the server cannot be reached").wait_for()
    page.context.set_offline(False)
    page.keyboard.press("Enter")
    page.get_by_text("That is all for now").wait_for()
    assert len(stored(sqlite_store, "job")) == 1


def test_a_new_annotator_joins_and_works(chromium: Any, sqlite_store: Store) -> None:
    team = make_team(sqlite_store)
    with sqlite_store.write() as conn:
        secret = people.invite(conn, "annotator", team.project.id)
    with Served(sqlite_store) as served:
        context = chromium.new_context(viewport=PHONE)
        page = context.new_page()
        page.goto(f"{served.url}/join/{secret}")
        page.get_by_label("Name").fill("Noor")
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Start").click()
        page.get_by_role("link", name="Start").click()
        page.locator("label", has_text="A much better").click()
        page.get_by_role("button", name="Send").click()
        page.get_by_text("1 by you").wait_for()
        page.goto(served.url + "/p/demo/review")
        assert "this is for a reviewer" in page.content()
        context.close()


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_a_new_annotator_joins_and_works_by_keys_alone(
    chromium: Any, sqlite_store: Store, size: dict[str, int]
) -> None:
    """From the invitation to an answer, a skip and an undo without a pointer: Tab, typing, Enter, single keys."""
    team = make_team(sqlite_store)
    with sqlite_store.write() as conn:
        secret = people.invite(conn, "annotator", team.project.id)
    with Served(sqlite_store, limiter=Unlimited()) as served:
        context = chromium.new_context(viewport=size)
        context.set_default_timeout(300_000)
        page = context.new_page()
        page.goto(f"{served.url}/join/{secret}")
        tab_to(page, "Name")
        page.keyboard.type("Kim")
        tab_to(page, "Password")
        page.keyboard.type(PASSWORD)
        page.keyboard.press("Enter")
        page.get_by_role("link", name="Start").wait_for()
        tab_to(page, "Start")
        page.keyboard.press("Enter")
        page.locator("#work").wait_for()
        page.wait_for_load_state()  # its keys work from then on
        for key, said in (("2", "1 by you"), ("s", "")):
            before = page.locator("#work").get_attribute("data-assignment")
            page.keyboard.press(key)
            page.keyboard.press("Enter")
            page.wait_for_function(
                "b => document.querySelector('#work').dataset.assignment !== b", arg=before
            )
            page.get_by_text(said or "1 by you").wait_for()
        page.keyboard.press("?")
        page.get_by_role("dialog").wait_for()
        page.keyboard.press("Escape")
        before = page.locator("#work").get_attribute("data-assignment")
        page.keyboard.press("u")
        page.wait_for_function("b => document.querySelector('#work').dataset.assignment !== b", arg=before)
        context.close()
    found = [a for a in stored(sqlite_store, "demo") if a.annotator == "Kim"]
    assert len(found) == 1 and abs(found[0].answer.strength) == 1  # type: ignore[union-attr]


def tab_to(page: Any, name: str) -> None:
    """Press Tab until the element of this name has the focus."""
    named = (
        "() => { const e = document.activeElement; const l = e.labels && e.labels[0];"
        " return (e.getAttribute('aria-label') || (l || e).textContent || '').trim() }"
    )
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate(named).startswith(name):
            return
    raise AssertionError(f"Tab never comes to {name!r}")


def test_hostile_texts_do_nothing(visit: Any, sqlite_store: Store) -> None:
    """50 payloads as prompt, response, model, key, comment, title and guidelines: nothing runs or is fetched."""
    assert len(PAYLOADS) >= 50
    groups = [PAYLOADS[k : k + 4] for k in range(0, len(PAYLOADS), 4)]
    items = []
    for k, group in enumerate(groups):
        said = tuple(ItemResponse(text, p) for p in group for text in (p, f"```html\n{p}\n```"))
        items.append(Item(f"{k} {group[0]}", "\n\n".join(group), said))
    make_project(sqlite_store, "job", "ranking", items)
    with sqlite_store.write() as conn:
        project = projects.get_project(conn, "job")
        projects.change_guidelines(conn, project, "\n\n".join(PAYLOADS), None)
        projects.change_project(conn, project, title=PAYLOADS[0], settings=project.settings, closed=False)
        user = people.add_user(conn, "Ada", "annotator")
        for k, group in enumerate(groups):
            work = leases.lease(conn, project, user.id, time.time())
            assert work is not None
            ranks = Ranks(tuple(range(1, 1 + len(work.item.responses))))
            sent = Submission(f"comment-{k}", ranks, comment="\n".join(group).replace("\x00", ""))
            answers.submit(conn, project, user.id, work.id, sent)
    page = visit("/p/job/work")
    strange: list[str] = []
    page.on("dialog", lambda dialog: (strange.append(dialog.message), dialog.dismiss()))
    page.on(
        "request", lambda r: None if r.url.startswith((page.url[:21], "data:")) else strange.append(r.url)
    )
    for number in range(1, len(groups) + 1):
        page.goto(page.url.split("/p/")[0] + f"/p/job/items/{number}")
        page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        assert page.evaluate("window.hacked") is None, groups[number - 1]
        assert page.evaluate(NOTHING_ACTIVE), groups[number - 1]
        for link in page.locator(".content a").evaluate_all("links => links.map(a => a.href)"):
            assert link.startswith(("http://", "https://", "mailto:")), link
    for path in (
        "/p/job",
        "/p/job/work",
        "/p/job/items",
        "/p/job/review",
        "/p/job/compare",
        "/p/job/conflicts/1",
        "/",
    ):
        page.goto(page.url.split("/p/")[0].rstrip("/") + path)
        assert page.evaluate("window.hacked") is None, path
    assert strange == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_pages_are_accessible_and_fit(
    visit: Any, sqlite_store: Store, scheme: str, size: dict[str, int]
) -> None:
    """axe-core finds nothing serious, and no page is wider than the screen."""
    if not AXE.exists():
        pytest.skip(f"axe-core is not there: {AXE}")
    make_project(sqlite_store, "two", "pairwise", pairs(4, gold=1), annotators_per_item=2)
    for task, n in (("ranking", 3), ("rating", 2), ("thumbs", 1), ("demonstration", 2)):
        make_project(sqlite_store, task, task, [Item("i", "p " * 50, responses(n))])  # type: ignore[arg-type]
    page = visit("/", size, color_scheme=scheme)
    page.goto(page.url + "p/two/work")
    page.keyboard.press("2")
    page.keyboard.press("Enter")
    page.get_by_text("1 by you").wait_for()
    root = page.url.split("/p/")[0]
    paths = [
        "/",
        "/p/two",
        "/p/two/work",
        "/p/ranking/work",
        "/p/rating/work",
        "/p/thumbs/work",
        "/p/demonstration/work",
    ]
    paths += [
        f"/p/two/{name}"
        for name in (
            "review",
            "conflicts",
            "conflicts/1",
            "items",
            "items?only=flagged",
            "items/1",
            "compare",
            "settings",
        )
    ]
    paths += ["/admin", "/admin/audit", "/admin/projects/new", "/account", "/docs/api", "/nothing-here"]
    faults = []
    for path in paths:
        page.goto(root + path)
        wide = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        if wide > 0:
            faults.append((path, "wider than the screen by", wide))
        page.evaluate(AXE.read_text(encoding="utf-8"))
        found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        faults += [(path, v["id"], v["impact"], v["nodes"][0]["html"][:160]) for v in found["violations"]]
    assert faults == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_pages_where_people_log_in_are_accessible_and_fit(
    chromium: Any, sqlite_store: Store, scheme: str, size: dict[str, int]
) -> None:
    """Login, invitation, account with a token, people with a link: what local mode does not show."""
    if not AXE.exists():
        pytest.skip(f"axe-core is not there: {AXE}")
    team = make_team(sqlite_store)
    with sqlite_store.write() as conn:
        secret = people.invite(conn, "annotator", team.project.id)
    with Served(sqlite_store, limiter=Unlimited()) as served:
        context = chromium.new_context(viewport=size, color_scheme=scheme, reduced_motion="reduce")
        context.set_default_timeout(300_000)
        page = context.new_page()
        faults = []
        paths = (
            "/login",
            f"/join/{secret}",
            "/join/nothing",
            "/docs/api",
            "/account",
            "/admin",
            "/admin/audit",
        )
        for path in paths:
            if path == "/account":
                session = {"name": "plaudit_session", "value": team.sessions["admin"], "url": served.url}
                context.add_cookies([session])
            page.goto(served.url + path)
            assert page.url == served.url + path, "nobody was sent elsewhere"
            if page.evaluate("document.documentElement.scrollWidth > window.innerWidth"):
                faults.append((path, "wider than the screen"))
            page.evaluate(AXE.read_text(encoding="utf-8"))
            found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
            faults += [(path, v["id"], v["impact"], v["nodes"][0]["html"][:160]) for v in found["violations"]]
        context.close()
    assert faults == []
