"""Build the documentation site from docs/ into build/site, without a network. Any warning ends it with exit code 1.

Files of the project that pages link to (examples, configs, notebooks) become pages of the site, so that every link
works there. What a test does with a block of code stands below the block.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

from pages import FENCE, LINK, ROOT

CONFIG = ROOT / "zensical.toml"
FOLDERS = {"tutorial": "Tutorial", "howto": "How-to", "algorithms": "Algorithms", "reference": "Reference"}
"""Folder of docs/ -> the section to which a page of it is added that the navigation does not name."""
LAST = {"why": "Why"}
"""The same, of the folder whose pages come after those that are named."""
HIDDEN = "files"
"""Where pages of linked files of the project are."""
CSS = """\
.md-typeset table:not([class]) { font-size: .7rem; }
.md-typeset .untested { font-size: .64rem; color: var(--md-default-fg-color--light); margin-top: -.6em; }
"""
COLOURS = re.compile(r"\x1b\[[\d;]*m")
LANGUAGES = {".py": "python", ".toml": "toml", ".json": "json", ".jsonl": "json", ".sh": "bash", ".yaml": "yaml"}


def stage(place: Path) -> None:
    """Copy docs/ to ``place``, and every file of the project that a page links to, as a page."""
    shutil.copytree(ROOT / "docs", place)
    (place / "site.css").write_text(CSS, encoding="utf-8")
    waiting = sorted((ROOT / "docs").rglob("*.md"))
    done: set[Path] = set()
    while waiting:
        source = waiting.pop()
        done.add(source)
        text, linked = moved(source, _text(source))
        target = place / page_of(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
        waiting += sorted(linked - done - set(waiting))


def page_of(source: Path) -> Path:
    """Where the page of a file is, below the folder of pages."""
    path = source.relative_to(ROOT)
    if path.parts[0] == "docs":
        return path.relative_to("docs")
    return HIDDEN / (path if path.suffix == ".md" else path.with_name(path.name + ".md"))


def _text(source: Path) -> str:
    text = source.read_text(encoding="utf-8")
    name = source.relative_to(ROOT).as_posix()
    if source.suffix == ".md":
        return told(text) if source.is_relative_to(ROOT / "docs") else text
    if source.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        parts = [(cell["cell_type"], "".join(cell["source"])) for cell in cells]
        return "\n\n".join(part if kind == "markdown" else f"```python\n{part}\n```" for kind, part in parts)
    return f"# {name}\n\n````{LANGUAGES.get(source.suffix, '')}\n{text}\n````\n"


def told(text: str) -> str:
    """The markers of blocks that are not run, as a sentence below the block."""

    def sentence(match: re.Match[str]) -> str:
        kind, _, why = (match["marker"] or "").partition(":")
        if kind not in ("not run", "parsed"):
            return match[0]
        said = "Not run by the tests" if kind == "not run" else "The tests only parse this"
        return f'{match[0]}\n\n<p class="untested">{said}: {why.strip()}.</p>\n'

    return FENCE.sub(sentence, text)


def moved(source: Path, text: str) -> tuple[str, set[Path]]:
    """The text with links to files outside docs/ led to their pages, and those files."""
    linked: set[Path] = set()
    here = page_of(source).parent

    def led(match: re.Match[str]) -> str:
        target, hash_, anchor = (match[1] or match[2]).partition("#")
        file = (source.parent / target).resolve()
        if not target or re.match(r"[a-z]+:", target) or not file.is_relative_to(ROOT):
            return match[0]
        if file.is_dir():
            file = file / "README.md"
        inside = file.is_relative_to(ROOT / "docs")
        if not file.is_file() or (inside and file.suffix != ".md" and source.is_relative_to(ROOT / "docs")):
            return match[0]
        if match[2] or inside:  # a picture, or a page that is there already
            page = file.relative_to(ROOT / "docs") if inside else page_of(file)
        else:
            linked.add(file)
            page = page_of(file)
        path = Path(os.path.relpath(page, here)).as_posix()
        return match[0].replace(f"({match[1] or match[2]})", f"({path}{hash_}{anchor})")

    # Only outside of code: a fence may hold what looks like a link.
    parts = re.split(r"(^```.*?^```\s*$)", text, flags=re.MULTILINE | re.DOTALL)
    return "".join(part if n % 2 else LINK.sub(led, part) for n, part in enumerate(parts)), linked


def navigation(pages: list[Path]) -> list[dict[str, Any]]:
    """The navigation of zensical.toml, with every page that it does not name added to the section of its folder."""
    nav: list[dict[str, Any]] = tomllib.loads(CONFIG.read_text("utf-8"))["project"]["nav"]
    sections = {title: inside for entry in nav for title, inside in entry.items()}
    named = set(_named(nav))
    for page in sorted(page for page in pages if page.as_posix() not in named):
        folder = page.parts[0]
        if folder != HIDDEN:
            sections[(FOLDERS | LAST).get(folder, "Reference")].append({_title(ROOT / "docs" / page): page.as_posix()})
    return nav


def _named(nav: list[dict[str, Any]]) -> list[str]:
    inside = [value for entry in nav for value in entry.values()]
    return [page for value in inside for page in ([value] if isinstance(value, str) else _named(value))]


def _title(page: Path) -> str:
    heading = re.search(r"^# (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return heading[1].replace("`", "") if heading else page.stem


def _toml(nav: list[dict[str, Any]]) -> str:
    rows = [
        f"{{ {json.dumps(title)} = {json.dumps(value) if isinstance(value, str) else _toml(value)} }}"
        for entry in nav
        for title, value in entry.items()
    ]
    return "[" + ", ".join(rows) + "]"


def build(place: Path) -> subprocess.CompletedProcess[str]:
    """Build into ``place/site``; zensical's output says what is wrong."""
    shutil.rmtree(place / "pages", ignore_errors=True)
    shutil.rmtree(place / "site", ignore_errors=True)
    place.mkdir(parents=True, exist_ok=True)
    stage(place / "pages")
    nav = navigation([page_of(page) for page in (ROOT / "docs").rglob("*.md")])
    text = re.sub(r"^nav = \[.*?^\]$", lambda _: f"nav = {_toml(nav)}", CONFIG.read_text("utf-8"), flags=re.M | re.S)
    config = place / "zensical.toml"
    config.write_text(text, encoding="utf-8")
    words = [sys.executable, "-m", "zensical", "build", "--strict", "--clean", "--config-file", str(config)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    done.stdout = COLOURS.sub("", done.stdout)
    return done


def main() -> int:
    """Build, and say where it is or what is wrong."""
    done = build(ROOT / "build")
    if done.returncode:
        print(done.stdout, done.stderr.partition("Traceback")[0], file=sys.stderr)
        return 1
    print(f"The site is in build/site. To read it: {Path(sys.executable).name} -m http.server --directory build/site")
    return 0


if __name__ == "__main__":
    sys.exit(main())
