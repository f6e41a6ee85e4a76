"""What an annotator finds who comes back: after a reload, on a phone on its side, by keys, when all items are held."""

import re
import time
from typing import Any

import pytest
from annotating import Team, make_people, make_project, one_of, responses, stored

from plaudit.preferences.annotation import Choice, Item, Ranks
from plaudit.preferences.store import leases
from plaudit.preferences.store.engine import Store

LANDSCAPE = {"width": 844, "height": 390}
IN_SIGHT = """element => {
  const box = element.getBoundingClientRect(), x = box.left + box.width / 2, y = box.top + box.height / 2;
  const found = y < innerHeight && y > 0 ? document.elementFromPoint(x, y) : null;
  return Boolean(found) && (element === found || element.contains(found));
}"""


def lines_in_sight(page: Any) -> int:
    """Pixels of the page, from top to bottom, at which a text to be judged is what is seen."""
    return int(page.evaluate("""
      [...Array(innerHeight).keys()].filter(y => {
        const found = document.elementFromPoint(innerWidth * 0.25, y);
        return found && found.closest('.content');
      }).length"""))


def test_a_reload_keeps_all_that_was_entered(visit: Any, sqlite_store: Store) -> None:
    one_of(sqlite_store, "pairwise", 2, items=2, edit_best=True)
    page = visit("/p/job/work")
    page.locator("label", has_text="B much better").click()
    page.locator("#more > summary").click()
    page.get_by_label("Comment").fill("for a reason")
    page.get_by_label("harmful").check()
    page.get_by_role("button", name="Edit B").click()
    page.locator("#text").fill("better still")
    for _ in range(2):
        page.reload()
        assert page.locator("input[name=choice]:checked").input_value() == "2"
        assert page.get_by_label("Comment").input_value() == "for a reason", "in sight, not folded away"
        assert page.get_by_label("harmful").is_checked() and page.locator("#text").input_value() == "better still"
    page.get_by_role("button", name="Send").click()
    page.get_by_text("1 by you").wait_for()
    page.reload()
    assert page.locator("input[name=choice]:checked").count() == 0, "of another item nothing is known"
    (found,) = stored(sqlite_store, "job")
    assert (found.comment, found.flags) == ("for a reason", ("harmful",))
    assert isinstance(found.answer, Choice) and found.answer.edit is not None


def test_a_reload_keeps_a_ranking_that_has_begun(visit: Any, sqlite_store: Store) -> None:
    one_of(sqlite_store, "ranking", 4)
    page = visit("/p/job/work")
    for key in ("3", "1", "=", "4"):
        page.keyboard.press(key)
    before = page.locator("#ranks").inner_text()
    page.reload()
    assert page.locator("#ranks").inner_text() == before
    page.keyboard.press("2")
    page.keyboard.press("Enter")
    page.get_by_text("That is all for now").wait_for()
    (found,) = stored(sqlite_store, "job")
    assert isinstance(found.answer, Ranks)
    assert [found.answer.ranks[i] for i in found.order] == [2, 3, 1, 2]


def test_a_correction_starts_from_what_is_stored(visit: Any, sqlite_store: Store) -> None:
    """A draft of the answer that was sent is none of its correction."""
    one_of(sqlite_store, "pairwise", 2)
    page = visit("/p/job/work")
    page.locator("label", has_text="B much better").click()
    page.get_by_role("button", name="Send").click()
    page.get_by_text("That is all for now").wait_for()  # whoever leaves before may have sent nothing
    page.get_by_role("link", name="Overview").first.click()
    page.get_by_role("link", name="i0").click()
    assert page.locator("input[name=choice]:checked").input_value() == "2"
    page.locator("label", has_text="A much better").click()
    page.reload()
    assert page.locator("input[name=choice]:checked").input_value() == "-2"


@pytest.mark.parametrize("task", ["pairwise", "ranking", "rating", "thumbs", "demonstration"])
def test_a_phone_on_its_side_sees_the_text_and_send(visit: Any, sqlite_store: Store, task: Any) -> None:
    text = "\n\n".join(f"Paragraph {k} of a prompt that is long." for k in range(30))
    make_project(sqlite_store, "job", task, [Item("i", text, responses(2))])
    page = visit("/p/job/work", LANDSCAPE, has_touch=True, is_mobile=True)
    assert page.locator("#send").evaluate(IN_SIGHT)
    assert lines_in_sight(page) > 100, "at the top: the prompt"
    page.locator(".response .content").first.scroll_into_view_if_needed()
    page.locator(".response").first.evaluate("e => e.scrollIntoView({block: 'start'})")
    assert page.locator("#send").evaluate(IN_SIGHT) and lines_in_sight(page) > 60, "further down: a response"


@pytest.mark.parametrize("task", ["pairwise", "ranking", "rating", "thumbs", "demonstration"])
def test_the_answer_is_a_few_keys_away(visit: Any, sqlite_store: Store, task: Any) -> None:
    """From where a new item puts the focus, past any number of links in its texts."""
    links = " ".join(f"[link {k}](https://example.org/{k})" for k in range(20))
    make_project(sqlite_store, "job", task, [Item("i", links, responses(2))])
    page = visit("/p/job/work")
    for key in ("Tab", "Enter", "Tab"):
        page.keyboard.press(key)
    inside = "document.activeElement.matches('#answer input, #answer textarea, #answer button, #ranks *')"
    assert page.evaluate(inside), page.evaluate("document.activeElement.outerHTML")


def test_who_has_all_for_now_reads_when_more_comes(as_person: Any, team: Team) -> None:
    project = make_project(team.store, "few", items=[Item(f"i{k}", "p", responses(2)) for k in range(2)])
    (holder,) = make_people(team.store, 1)
    with team.store.write() as conn:
        assert leases.lease(conn, project, holder.id, time.time() - 600)  # of 30 minutes
    overseer = as_person("overseer")
    page = overseer.get("/p/few/work").text
    while "That is all for now" not in page:  # what nobody holds is answered first
        number = re.search(r'data-assignment="(\d+)"', page)
        key = re.search(r'name="key" value="(\w+)"', page)
        assert number and key
        overseer.post(f"/p/few/a/{number[1]}", data={"choice": "1", "key": key[1]})
        page = overseer.get("/p/few/work").text
    assert re.search(r"comes back in (20|21) minutes at the earliest \(\d{4}-", page)


def test_nothing_is_promised_where_nothing_is_held(as_person: Any, team: Team) -> None:
    make_project(team.store, "none", items=[])
    page = as_person("overseer").get("/p/none/work").text
    assert "That is all for now" in page and "comes back" not in page
