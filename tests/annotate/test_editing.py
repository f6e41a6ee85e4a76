"""Editing the best response after a comparison or a ranking, in a real browser: by mouse, by keys, on a phone."""

from typing import Any

import pytest
from annotating import DESKTOP, PHONE, make_project, one_of, stored

from plaudit.cli.main import main
from plaudit.data.load import load_records
from plaudit.preferences.annotation import Annotation, Choice, Item, ItemResponse, Ranks, written_in
from plaudit.preferences.store import history, projects
from plaudit.preferences.store.engine import Store

pytestmark = pytest.mark.browser


def only(store: Store) -> Annotation:
    (found,) = stored(store, "job")
    return found


def finish(page: Any) -> None:
    page.get_by_text("That is all for now").wait_for()


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_by_mouse_from_a_comparison_to_a_demonstration(
    visit: Any, sqlite_store: Store, size: dict[str, int], tmp_path: Any
) -> None:
    one_of(sqlite_store, "pairwise", 2, edit_best=True)
    page = visit("/p/job/work", size)
    assert not page.get_by_role("button", name="Edit").first.is_visible(), "first say which one is best"
    page.locator("label", has_text="B much better").click()
    assert not page.get_by_role("button", name="Edit A").is_visible()
    page.get_by_role("button", name="Edit B").click()
    text = page.get_by_label("Response B, edited")
    before = text.input_value()
    text.fill(before + "\nand why")
    page.get_by_role("button", name="Send").click()
    finish(page)
    found = only(sqlite_store)
    assert found.answer == Choice(
        2 if found.order == (0, 1) else -2,
        edit=type(written_in(found.answer))(before + "\nand why", found.order[1]),
    )
    page.goto(page.url.split("/p/")[0] + "/p/job/items/1")
    page.locator(".written").get_by_text("and why", exact=True).wait_for()
    out = tmp_path / "sft.jsonl"
    db = str(tmp_path / "store.db")
    assert main(["annotate", "export", "job", str(out), "--what", "demonstrations", "--db", db]) == 0
    (record,) = load_records(str(out), "demonstration").records
    assert record.response == before + "\nand why"
    assert main(["annotate", "export", "job", str(tmp_path / "p.jsonl"), "--db", db]) == 0, "a preference too"


def test_by_keys_with_undo_and_correction(visit: Any, sqlite_store: Store) -> None:
    one_of(sqlite_store, "pairwise", 2, items=2, edit_best=True)
    page = visit("/p/job/work")
    first = page.locator("#work").get_attribute("data-assignment")
    page.keyboard.press("e")
    page.keyboard.press("1")
    page.keyboard.press("e")
    page.keyboard.press("Control+End")
    page.keyboard.type(" 1 2 u s e")
    page.keyboard.press("Control+Enter")
    page.wait_for_function("b => document.querySelector('#work').dataset.assignment !== b", arg=first)
    page.keyboard.press("u")
    page.wait_for_function("b => document.querySelector('#work').dataset.assignment === b", arg=first)
    text = page.get_by_label("Response A, edited")
    assert text.input_value().endswith(" 1 2 u s e"), "undo shows the edit again"
    assert stored(sqlite_store, "job") == [], "and takes it back with the answer"
    page.keyboard.press("w")
    page.keyboard.press("Control+End")
    page.keyboard.type("!")
    page.keyboard.press("Escape")
    page.keyboard.press("2")
    page.keyboard.press("Enter")
    page.wait_for_function("b => document.querySelector('#work').dataset.assignment !== b", arg=first)
    found = only(sqlite_store)
    assert abs(found.answer.strength) == 1  # type: ignore[union-attr]
    assert written_in(found.answer).text.endswith(" 1 2 u s e!")  # type: ignore[union-attr]
    with sqlite_store.read() as conn:
        rows = history.raw_rows(conn, projects.get_project(conn, "job"))
    assert [bool(row["answer"] and row["answer"].get("edit")) for row in rows] == [True, False, True]


def test_an_edit_of_what_is_no_longer_best_is_not_sent(visit: Any, sqlite_store: Store) -> None:
    one_of(sqlite_store, "pairwise", 2, edit_best=True)
    page = visit("/p/job/work")
    page.keyboard.press("1")
    page.get_by_role("button", name="Edit A").click()
    page.get_by_label("Response A, edited").fill("mine")
    page.locator("label", has_text="B better").click()
    assert not page.locator("#editor").is_visible()
    page.locator("label", has_text="A better").click()
    assert page.get_by_label("Response A, edited").input_value() == "mine", "it waits"
    page.locator("label", has_text="B better").click()
    page.get_by_role("button", name="Send").click()
    finish(page)
    assert only(sqlite_store).answer in (Choice(1), Choice(-1))


@pytest.mark.parametrize("way", ["unchanged", "discarded"])
def test_what_was_not_changed_is_no_edit(visit: Any, sqlite_store: Store, way: str) -> None:
    said = tuple(ItemResponse(f"\n first {k}\n\n  indented  \n") for k in range(2))
    make_project(sqlite_store, "job", "pairwise", [Item("i", "p", said)], edit_best=True)
    page = visit("/p/job/work")
    page.keyboard.press("3")
    page.keyboard.press("e")
    page.keyboard.press("Escape")
    page.keyboard.press("e")
    assert page.get_by_label("Response B, edited").is_visible(), "of equals, the key goes to the next one"
    if way == "discarded":
        page.get_by_label("Response B, edited").fill("something else")
        page.get_by_role("button", name="Discard the edit").click()
        assert not page.locator("#editor").is_visible()
    page.get_by_role("button", name="Send").click()
    finish(page)
    assert only(sqlite_store).answer == Choice(0)


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_after_a_ranking(visit: Any, sqlite_store: Store, size: dict[str, int]) -> None:
    one_of(sqlite_store, "ranking", 3, edit_best=True)
    page = visit("/p/job/work", size)
    for key in ("2", "=", "3"):
        page.keyboard.press(key)
    assert not page.locator("#editing").is_visible(), "not before all are ranked"
    page.keyboard.press("1")
    assert [page.get_by_role("button", name=f"Edit {x}").is_visible() for x in "ABC"] == [False, True, True]
    page.get_by_role("button", name="Edit C").click()
    page.get_by_label("Response C, edited").fill("the best there is")
    page.get_by_label("Response C, edited").press("Control+Enter")
    finish(page)
    found = only(sqlite_store)
    assert isinstance(found.answer, Ranks) and found.answer.edit is not None
    assert (found.answer.edit.text, found.answer.edit.base) == ("the best there is", found.order[2])


def test_nobody_is_asked_where_the_project_does_not_want_it(visit: Any, sqlite_store: Store) -> None:
    one_of(sqlite_store, "pairwise", 2)
    page = visit("/p/job/work")
    page.keyboard.press("1")
    assert page.locator("#editing").count() == 0
    page.goto(page.url.replace("/work", "/settings"))
    page.get_by_label("best response can be edited").check()
    page.get_by_role("button", name="Save settings").click()
    page.goto(page.url.replace("/settings", "/work"))
    page.keyboard.press("1")
    page.get_by_role("button", name="Edit A").wait_for()
