"""The site: it builds without a warning, every page is in it, and every link and picture of it leads somewhere."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import site_build
from pages import ROOT


class Page(HTMLParser):
    """Links, pictures, scripts and anchors of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.anchors |= {given.get("id") or "", given.get("name") or ""}
        if tag == "a" and given.get("href"):
            self.targets.append(given["href"] or "")
        loads = {"img": "src", "script": "src", "link": "href"}.get(tag, "")
        if given.get(loads) and given.get("rel") != "canonical":
            self.loaded.append(given[loads] or "")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("zensical", reason="the site's builder is not there: pip install 'plaudit[docs]'")
    place = tmp_path_factory.mktemp("build")
    done = site_build.build(place)
    assert done.returncode == 0, done.stdout + done.stderr
    return place / "site"


def lead_nowhere(folder: Path) -> list[str]:
    """Local targets without a file or an anchor, as "page -> target"."""
    pages = {path: Page(path) for path in folder.rglob("*.html")}
    missing = []
    for path, page in pages.items():
        for target in [*page.targets, *page.loaded]:
            parts = urlsplit(target)
            # The page of errors is shown at any address, so its links begin at the root of a server.
            if parts.scheme or path.name == "404.html":
                continue
            file = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            file = file / "index.html" if file.is_dir() else file
            anchor = unquote(parts.fragment)
            there = file.is_file() and (not anchor or file not in pages or anchor in pages[file].anchors)
            missing += [] if there else [f"{path.relative_to(folder)} -> {target}"]
    return missing


def test_every_link_leads_somewhere_and_every_page_is_there(site: Path) -> None:
    assert lead_nowhere(site) == []
    for page in (ROOT / "docs").rglob("*.md"):
        html = site / page.relative_to(ROOT / "docs").with_suffix(".html")
        assert (html.with_name("index.html") if page.name == "README.md" else html).is_file(), page


def test_every_page_is_in_the_navigation(site: Path) -> None:
    menu = set(Page(site / "index.html").targets)
    pages = {site_build.page_of(page).as_posix() for page in (ROOT / "docs").rglob("*.md")}
    wanted = {re.sub(r"README\.html$", "index.html", page.replace(".md", ".html")) for page in pages} - {"index.html"}
    assert wanted - {target.removeprefix("./") for target in menu} == set()


def test_nothing_is_loaded_from_a_network_and_the_search_has_all_pages(site: Path) -> None:
    for path in site.rglob("*.html"):
        assert [target for target in Page(path).loaded if urlsplit(target).scheme in ("http", "https")] == [], path
    index = (site / "search.json").read_text(encoding="utf-8")
    for word in ("tutorial/index.html", "howto/resume.html", "kl-in-force"):
        assert word in index, word


def test_a_link_that_leads_nowhere_is_found(tmp_path: Path) -> None:
    text = '<a id="x" href="b.html"></a><a href="#y"></a><a href="a.html#x"></a><img src="c">'
    (tmp_path / "a.html").write_text(text)
    assert lead_nowhere(tmp_path) == ["a.html -> b.html", "a.html -> #y", "a.html -> c"]


def test_links_out_of_the_pages_become_pages_and_markers_are_told() -> None:
    source = ROOT / "docs" / "algorithms" / "cat.md"
    rest = "[y](ppo.md) ![p](../images/a.png)"
    text, linked = site_build.moved(source, f"[x](../../examples/cat_grid_world/main.py#a) {rest}")
    assert text == f"[x](../files/examples/cat_grid_world/main.py.md#a) {rest}"
    assert linked == {ROOT / "examples" / "cat_grid_world" / "main.py"}
    told = site_build.told("<!-- not run: needs the hub -->\n```bash\nx\n```\n")
    assert told.endswith('```\n\n\n<p class="untested">Not run by the tests: needs the hub.</p>\n')
