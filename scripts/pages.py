"""Reads the documents: code blocks with their markers, links, and the file tree."""

from __future__ import annotations

import re
import shlex
import sys
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from plaudit.cli.main import COMMANDS, main
from plaudit.cli.parser import chosen, parse_flags, split_files
from plaudit.config.load import Layer
from plaudit.jobs.registry import COMMANDS as TRAINING

ROOT = Path(__file__).resolve().parents[1]
FENCE = re.compile(
    r"(?:^<!--\s*(?P<marker>[^\n]*?)\s*-->\n\n?)?^```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^```\s*$",
    re.MULTILINE | re.DOTALL,
)
SHELL = ("bash", "console", "sh")
PATH = re.compile(r"(?:[\w.-]+/)+|(?:[\w-]+/)*[\w-]*\.\w[\w.]*|Makefile|LICENSE")
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """One fenced code block. The marker is an HTML comment right above it:

    ``not run: why``; ``parsed: why`` (nor is this run, but its commands and flags are checked); ``file: NAME`` (written
    to disk before it is run); ``exit code: N`` (of its last command).
    """

    language: str
    text: str
    marker: str
    line: int

    def option(self, name: str) -> str:
        """What the marker says after ``name:``; empty if it says nothing of it."""
        key, _, value = self.marker.partition(":")
        return value.strip() if key.strip() == name else ""

    @property
    def is_run(self) -> bool:
        """Whether nothing says that it is not."""
        return not self.marker.startswith(("not run", "parsed"))


def blocks(path: Path) -> list[Block]:
    """The code blocks of a page, in order."""
    page = path.read_text(encoding="utf-8")
    return [
        Block(m["language"], m["text"], m["marker"] or "", page.count("\n", 0, m.start("text")))
        for m in FENCE.finditer(page)
    ]


def commands(block: Block) -> list[list[str]]:
    """The commands of a shell block; in a console block those after ``$``, the rest being output."""
    text = re.sub(r"\\\n\s*", " ", block.text)
    lines = [line.strip() for line in text.splitlines()]
    if block.language == "console":
        lines = [line[1:] for line in lines if line.startswith("$")]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def unrun(path: Path) -> list[list[str]]:
    """The `plaudit` commands of a page that `run_page` does not run: marked so, without a language, or indented."""
    page = path.read_text(encoding="utf-8")
    texts = [b.text for b in blocks(path) if not b.is_run or b.language in ("", "console")]
    texts += re.findall(r"(?:^    .*\n)+", FENCE.sub("", page), re.MULTILINE)
    lines = [line.strip() for text in texts for line in re.sub(r"\\\n\s*", " ", text).splitlines()]
    starts = [re.sub(r"^(\$ )?(\.venv/bin/)?(?=plaudit )", "", line) for line in lines]
    commands = [part.strip() for line in starts if line.startswith("plaudit ") for part in line.split("&&")]
    return [shlex.split(line, comments=True) for line in commands if line.startswith("plaudit ")]


def parse(words: list[str]) -> None:
    """Check a command line without running it: the command, and the flags and files of one that trains.

    Raises:
        ConfigError: what the command itself would say.
    """
    if words[1] == "doctor" and len(words) > 2 and words[2] in TRAINING:
        words = words[1:]
    assert words[1] in COMMANDS, shlex.join(words)
    if words[1] not in TRAINING or "--help" in words or "..." in words:
        return
    files, flags = split_files([word for word in words[2:] if word != "--json"])
    layers = [Layer.read(ROOT / file) for file in files if (ROOT / file).is_file()]
    parse_flags(words[1], chosen(TRAINING[words[1]].job, layers, flags), flags)


def run_page(path: Path, monkeypatch: Any, folder: Path, *, shell: bool = True) -> None:
    """Run every block of a page in one namespace and in ``folder``; an error names its line in the page."""
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    namespace: dict[str, Any] = {"__name__": "__main__"}
    before = set(sys.modules)
    try:
        for block in blocks(path):
            if not block.is_run:
                continue
            if name := block.option("file"):
                (folder / name).write_text(block.text, encoding="utf-8")
            if block.language == "python":
                # The blank lines in front give tracebacks the line numbers of the page.
                exec(compile("\n" * block.line + block.text, str(path), "exec"), namespace)
            elif block.language in SHELL and shell:
                _run_shell(path, block)
    finally:
        for name in set(sys.modules) - before:
            file = getattr(sys.modules[name], "__file__", None) or ""
            if file.startswith(str(folder)):
                del sys.modules[name]


def _run_shell(path: Path, block: Block) -> None:
    wanted = int(block.option("exit code") or 0)
    where = f"{path.relative_to(ROOT)}:{block.line}"
    for words in commands(block):
        assert words[0] == "plaudit", f"{where}: {words[0]} is not run by the test; mark the block `not run: why`"
        # As `python -m plaudit.cli.main` would, without importing torch once for every line.
        found = main(words[1:])
        assert found == wanted, f"{where}: `{shlex.join(words)}` left with {found}, the page says {wanted}"


def broken_links(path: Path) -> list[str]:
    """Relative links that lead nowhere, and anchors that no heading has."""
    page = FENCE.sub("", path.read_text(encoding="utf-8"))
    broken = []
    for first, second in LINK.findall(page):
        target, _, anchor = (first or second).partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        file = (path.parent / target).resolve() if target else path
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors(file)):
            broken.append(f"{path.relative_to(ROOT)}: {first or second}")
    return broken


def anchors(path: Path) -> set[str]:
    """What headings can be linked as."""
    page = FENCE.sub("", path.read_text(encoding="utf-8"))
    titles = re.findall(r"^#+\s+(.*?)\s*$", page, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def tree_paths(block: Block) -> list[str]:
    """The paths of a file tree, by indentation or with box-drawing lines; a comment may follow the names of a line."""
    found: list[str] = []
    parents: list[tuple[int, str]] = []
    for line in block.text.splitlines():
        bare = re.sub(r"[│├└─|`]", " ", line)
        names = list(takewhile(PATH.fullmatch, bare.split("#")[0].split()))
        depth = len(bare) - len(bare.lstrip())
        parents = [(at, parent) for at, parent in parents if at < depth]
        above = parents[-1][1] if parents else ""
        found += [above + name for name in names]
        if len(names) == 1 and names[0].endswith("/"):
            parents.append((depth, above + names[0]))
    return found
