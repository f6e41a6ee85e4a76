"""How much comes in, by every way, and how long texts are shown."""

import gzip
import html
import json
import re
import time
import tracemalloc
from pathlib import Path
from typing import Any

import httpx
import pytest
from annotating import Served, Team, Unlimited, make_project

from plaudit.annotate.import_data import ImportLimits, import_file, load_within
from plaudit.annotate.pages.markup import FIRST_PART, MOST_RENDERED, NEXT_PART
from plaudit.cli.main import main
from plaudit.errors import ConfigError, DataError
from plaudit.preferences.annotation import Item, ItemResponse
from plaudit.preferences.store.engine import Store
from plaudit.records import Message

TIGHT = ImportLimits(max_gb=0.01, max_rows=5, max_text=1000)


def rows(n: int, length: int = 10) -> bytes:
    return b"".join(
        json.dumps({"prompt": f"Say {k}", "chosen": "y" * length, "rejected": "n"}).encode() + b"\n" for k in range(n)
    )


TOO_MUCH = {
    "rows": (rows(6), "more than 5 rows", "raise --max-rows"),
    "text": (rows(2, 1001), "a text of 1,001 characters", "raise --max-text"),
    "bytes": (gzip.compress(rows(3, 4 << 20)), "MB", "raise --max-gb"),
}


def test_the_command_refuses_what_is_too_much(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    flags = ["--max-gb", "0.01", "--max-rows", "5", "--max-text", "1000"]
    for name, (data, what, cure) in TOO_MUCH.items():
        Path(f"{name}.jsonl").write_bytes(data)
        assert main(["annotate", "import", f"{name}.jsonl", *flags]) == 65
        said = capsys.readouterr().err
        assert what in said and cure in said and f"{name}.jsonl" in said
    Path("fine.jsonl").write_bytes(rows(5, 1000))
    assert main(["annotate", "import", "fine.jsonl", *flags]) == 0
    assert main(["annotate", "import", "fine.jsonl", "--max-rows", "0"]) == 78


def test_an_upload_refuses_what_is_too_much(team: Team) -> None:
    with Served(team.store, limiter=Unlimited(), imports=TIGHT) as served, served.client(
        cookies=team.cookies("admin"), headers={"x-csrf-token": team.csrf("admin")}
    ) as client:
        for name, (data, what, cure) in TOO_MUCH.items():
            said = client.post("/p/demo/import", files={"file": (f"{name}.jsonl", data)})
            assert said.status_code == 422 and what in html.unescape(said.text) and cure in said.text
        packed = client.post("/p/demo/import", files={"file": ("fine.jsonl", gzip.compress(rows(5, 1000)))})
        assert packed.status_code == 200 and "5 new items" in packed.text, "a packed file within the limits is read"


def test_the_api_refuses_what_is_too_much(served: Served, team: Team) -> None:
    """Its limits are those of its bodies, and stand in its description."""
    item = {"key": "k", "prompt": "p", "responses": [{"content": "a"}, {"content": "b"}]}
    long = {**item, "responses": [{"content": "a" * 65_537}, {"content": "b"}]}
    with served.client(headers=team.headers("admin")) as client:
        for items in ([long], [{**item, "key": f"k{n}"} for n in range(1001)]):
            assert client.post("/api/v1/projects/demo/items", json={"items": items}).status_code == 422
        assert client.post("/api/v1/projects/demo/items", json={"items": [item]}).status_code == 201


def test_an_upload_is_not_held_in_memory_a_second_time(team: Team, tmp_path: Path) -> None:
    """A file that is refused for its first line costs far less memory than it is long."""
    with Served(team.store, limiter=Unlimited(), imports=ImportLimits(max_rows=1)) as served, served.client(
        cookies=team.cookies("admin"), headers={"x-csrf-token": team.csrf("admin")}
    ) as client:
        path = tmp_path / "large.jsonl"
        path.write_bytes(rows(24, 1 << 20))
        client.get("/p/demo/settings")
        tracemalloc.start()
        with path.open("rb") as stream:
            said = client.post("/p/demo/import", files={"file": ("large.jsonl", stream)})
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert said.status_code == 422 and "more than 1 rows" in said.text
    assert most < 16 << 20, f"{most} bytes for a file of {path.stat().st_size}"


def test_limits_that_let_nothing_in_are_refused() -> None:
    for limits in ({"max_gb": 0.0}, {"max_rows": 0}, {"max_text": -1}, {"max_gb": float("nan")}):
        with pytest.raises(ConfigError, match="--max-"):
            ImportLimits(**limits)  # type: ignore[arg-type]


def test_texts_of_chats_count_whole(sqlite_store: Store, tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "u" * 600}, {"role": "assistant", "content": "a" * 401}]
    path = tmp_path / "chats.jsonl"
    path.write_text(json.dumps({"prompt": [*chat, chat[0]], "chosen": "y", "rejected": "n"}))
    with pytest.raises(DataError, match="1,601 characters"):
        import_file(sqlite_store, load_within(str(path), TIGHT))
    assert import_file(sqlite_store, path).added == 1


LONG = "".join(f"<line {k}>\n" for k in range(90_000))
"""More than a megabyte, all of it to be escaped."""
SHOWN = re.compile(r'<pre class="plain"[^>]*>(.*?)</pre>', re.S)
MORE = re.compile(r'hx-get="([^"]+)"')


def add_long(team: Team) -> None:
    chat = (Message("assistant", "short"), Message("user", LONG[: MOST_RENDERED + 9]))
    said = (ItemResponse(LONG), ItemResponse(chat))
    make_project(team.store, "long", items=[Item("i", "p", said)], edit_best=True, seed=3)


def read_on(client: httpx.Client, page: str) -> str:
    """The text of the first place that has more, followed to its end."""
    found = MORE.search(page)
    assert found
    place, text = html.unescape(found[1]), ""
    while place:
        part = client.get(place, headers={"hx-request": "true"})
        assert part.status_code == 200 and len(part.text) < 2 * len(html.escape(LONG[:NEXT_PART]))
        text += "".join(html.unescape(shown) for shown in SHOWN.findall(part.text))
        further = MORE.search(part.text)
        place = html.unescape(further[1]) if further else ""
    return text


def test_long_texts_are_shown_in_parts(as_person: Any, team: Team) -> None:
    add_long(team)
    admin = as_person("admin")
    page = admin.get("/p/long/work").text
    assert len(page) < 200_000, "a page of a long response is small"
    assert len(MORE.findall(page)) == 2, "a long turn of a chat is folded as well"
    assert "data-source" not in page and "data-copy" not in page, "what is too long for an answer is not edited"
    texts = {read_on(admin, f'hx-get="{address}"') for address in MORE.findall(page)}
    assert texts == {LONG[FIRST_PART:], LONG[FIRST_PART : MOST_RENDERED + 9]}
    said = [admin.get(html.unescape(address)) for address in re.findall(r'href="([^"]+whole=1)"', page)]
    assert {len(one.text) for one in said} == {len(LONG), MOST_RENDERED + 9}
    assert {one.headers["content-type"] for one in said} == {"text/plain; charset=utf-8"}
    item = admin.get("/p/long/items")
    number = re.findall(r"/p/long/items/(\d+)", item.text)[0]
    shown = admin.get(f"/p/long/items/{number}").text
    assert len(shown) < 200_000 and read_on(admin, shown) == LONG[FIRST_PART:]


def test_nobody_reads_texts_that_were_not_shown_to_them(as_person: Any, team: Team) -> None:
    add_long(team)
    admin, other = as_person("admin"), as_person("annotator")
    address = html.unescape(MORE.findall(admin.get("/p/long/work").text)[0])
    assert admin.get(address).status_code == 200
    assert other.get(address).status_code == 404
    for wrong in ("?turn=9", "?start=99999999", "?turn=x", "?other=1"):
        assert admin.get(address.partition("?")[0] + wrong).status_code in (404, 422)
    assert admin.get(address.replace("/text/A", "/text/Z").replace("/text/B", "/text/Z")).status_code == 404


def test_a_long_response_is_read_and_judged(visit: Any, local: Served, sqlite_store: Store) -> None:
    """The page holds little of it, more comes on demand, and the answer is sent."""
    make_project(sqlite_store, "job", items=[Item("i", "p", (ItemResponse(LONG), ItemResponse("short")))], seed=3)
    page = visit("/p/job/work")
    held = page.evaluate("document.querySelector('.responses').textContent.length")
    assert held < 2 * FIRST_PART
    page.get_by_role("button", name="Show more").click()
    page.get_by_role("button", name="Show more").first.wait_for()
    deadline = time.monotonic() + 60  # wait_for_function would need eval, which the page forbids
    while page.evaluate("document.querySelector('.responses').textContent.length") <= NEXT_PART:
        assert time.monotonic() < deadline, "more text comes"
        page.wait_for_timeout(50)
    page.keyboard.press("1")
    page.keyboard.press("Enter")
    page.get_by_text("That is all for now").wait_for()
