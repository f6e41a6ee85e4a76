"""The source keeps to the rules of the house, and each check notices when it does not."""

import re
from pathlib import Path

import house
import pytest

ROOT = Path(__file__).parents[2]

# Sizes over a limit that are tolerated for now. This list may only get shorter.
WAIVERS: dict[str, int] = {}
MOST_WAIVERS = 0


@pytest.fixture(scope="module")
def tree() -> house.Tree:
    return house.Tree.read(ROOT / "src")


def make_tree(root: Path, **files: str) -> house.Tree:
    """A package from ``data__load="source"`` style arguments."""
    for name, text in {"__init__": "", **files}.items():
        path = root / "plaudit" / (name.replace("__", "/") if name != "__init__" else name)
        path = path.with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return house.Tree.read(root)


def test_imports_only_go_down(tree: house.Tree) -> None:
    assert house.floors(tree) == []


def test_third_party_packages_stay_behind_their_fences(tree: house.Tree) -> None:
    assert house.fences(tree) == []


def test_stages_know_the_runtime_and_no_backend(tree: house.Tree) -> None:
    assert house.past_the_runtime(tree) == []


@pytest.mark.parametrize(
    "line",
    ["from plaudit.models import policy", "import plaudit.generation.native", "from plaudit.backends import local"],
)
def test_reaching_past_the_runtime_is_noticed(tmp_path: Path, line: str) -> None:
    parts = {"models__policy": "", "generation__native": "", "backends__local": "", "cli__x": line}
    assert len(house.past_the_runtime(make_tree(tmp_path, **parts, stages__x=line))) == 1


def test_there_are_no_import_cycles(tree: house.Tree) -> None:
    assert house.cycles(tree) == []


def test_nothing_that_runs_code_from_files(tree: house.Tree) -> None:
    assert house.banned(tree) == []


def test_no_folder_is_crowded(tree: house.Tree) -> None:
    assert house.crowds(tree) == []


def test_no_file_makes_sense_beside_one_other_only(tree: house.Tree) -> None:
    assert house.lonely(tree) == []


def test_contributing_shows_the_floors() -> None:
    """CONTRIBUTING draws each floor on one line: its number, its name, its parts."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    drawn: dict[str, int] = {}
    for number, parts in re.findall(r"^    (\d) \w+ +(.+)$", text, re.MULTILINE):
        drawn |= dict.fromkeys(re.findall(r"(\w+)(?:/|\.py)", parts), int(number))
    there = {name.split(".")[1] for name in house.Tree.read(ROOT / "src").modules if "." in name}
    assert drawn == {part: floor for part, floor in house.FLOORS.items() if part in there}


def test_sizes_are_within_limits(tree: house.Tree) -> None:
    over = house.sizes(tree)
    assert {where: size for where, size in over.items() if size > WAIVERS.get(where, 0)} == {}
    assert [where for where in WAIVERS if where not in over] == [], "no longer needed: take it off the list"
    assert len(WAIVERS) <= MOST_WAIVERS


@pytest.mark.parametrize(
    ("here", "line"),
    [
        ("data__load", "from plaudit.training.learner import x"),
        ("data__load", "def f():\n    import plaudit.stages.rl"),
        ("data__load", "from plaudit.tracking import names"),
        ("models__policy", "from plaudit.generation.native import x"),
        ("stages__rl", "from plaudit.cli import main"),
        ("data__load", "from ..training import learner"),
        ("novelty__x", "import json"),
    ],
)
def test_floors_notices(tmp_path: Path, here: str, line: str) -> None:
    names = "training__learner stages__rl tracking__names generation__native cli__main data__load"
    modules = dict.fromkeys(names.split(), "")
    packages = {f"{name.split('__')[0]}____init__": "" for name in modules}
    assert house.floors(make_tree(tmp_path, **{**modules, **packages, here: line})) != []


def test_floors_allows_downward_and_inside(tmp_path: Path) -> None:
    tree = make_tree(
        tmp_path, errors="", data__a="from plaudit.data import b\nimport plaudit.errors", data__b=""
    )
    assert house.floors(tree) == []


@pytest.mark.parametrize(
    ("here", "line"),
    [
        ("data__load", "import torch"),
        ("algorithms__ppo", "from transformers import AutoModel"),
        ("training__x", "def f():\n    import ray"),
        ("evaluation__report", "import torch.nn as nn"),
        ("data__load", "from urllib.request import urlopen"),
        ("rewards__rules", "from http import client"),
        ("stages__sft", "from plaudit.models.policy import Policy"),
        ("stages__online__rl", "def f():\n    import plaudit.generation.native"),
        ("stages__sft", "from plaudit.backends.local.learner import LocalLearner"),
        ("stages__sft", "from ..backends import local"),
    ],
)
def test_fences_notices(tmp_path: Path, here: str, line: str) -> None:
    assert len(house.fences(make_tree(tmp_path, **{here: line}))) == 1


def test_fences_allows_inside(tmp_path: Path) -> None:
    own = {"rewards____init__": "", "rewards__remote__transport": "import http.client"}
    own |= {"stages__sft": "from plaudit import backends\nfrom plaudit.backends import open_policy"}
    own |= {"backends__local__online": "from plaudit.backends.local import learner\nimport plaudit.models.policy"}
    tree = make_tree(tmp_path, data__collate="import torch", models__load="from peft import x", **own)
    assert house.fences(tree) == []


def test_cycles_notices_lazy_ones_and_long_ones(tmp_path: Path) -> None:
    tree = make_tree(
        tmp_path,
        data__a="from plaudit.data.b import x",
        data__b="def f():\n    from plaudit.data import c",
        data__c="import plaudit.data.a",
        data__d="from plaudit.data.a import y",
    )
    assert house.cycles(tree) == ["import cycle: plaudit.data.a, plaudit.data.b, plaudit.data.c"]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("\n" * 401, "file"),
        ("def f():\n" + "    x = 1\n" * 60, "function"),
        ("def f(a, b, c, d, *, e, f, g, **h): ...", "parameters"),
        ("class C:\n    def f(self):\n        for a in b:\n            if a:\n                with a:\n"
         "                    while a:\n                        pass", "nesting"),
        ("def f():\n    if a:\n        pass\n    else:\n        if b:\n            if c:\n"
         "                if d:\n                    pass\n        e()", "nesting"),
    ],
)  # fmt: skip
def test_sizes_notices(tmp_path: Path, text: str, what: str) -> None:
    assert [where.split()[0] for where in house.sizes(make_tree(tmp_path, data__x=text))] == [what]


def test_sizes_allows_what_is_within(tmp_path: Path) -> None:
    chain = "def f(self, a, b, c, d, e, f, g):\n    if a:\n        pass\n"
    chain += "".join(f"    elif a == {i}:\n        pass\n" for i in range(9))
    assert house.sizes(make_tree(tmp_path, data__x=chain)) == {}


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "def f():\n    from joblib import load",
        "x = eval('1')",
        "import torch\nx = torch.load('a')",
        "import yaml\nyaml.load(f)",
        "import subprocess\nsubprocess.run('ls', shell=True)",
        "AutoModel.from_pretrained(x, trust_remote_code=True)",
    ],
)
def test_banned_notices(tmp_path: Path, text: str) -> None:
    assert len(house.banned(make_tree(tmp_path, models__x=text))) == 1


def test_banned_allows_methods_called_eval(tmp_path: Path) -> None:
    assert house.banned(make_tree(tmp_path, models__x="model.eval()\nimport json\njson.load(f)")) == []


def test_crowds_notices(tmp_path: Path) -> None:
    many = {f"data__f{i}": "" for i in range(house.FOLDER + 1)}
    kinds = {f"cli__f{i}": "" for i in range(house.FOLDER + 1)}
    assert house.crowds(make_tree(tmp_path, **many, **kinds)) == ["plaudit.data: 13 files, at most 12"]


def test_lonely_notices_small_files_with_one_reader_in_their_folder(tmp_path: Path) -> None:
    reader = "from plaudit.data import part, long, shared\n"
    files = {"data__part": "", "data__long": "\n" * house.SMALL, "data__shared": "", "data__load": reader}
    tree = make_tree(tmp_path, **files, models__policy="import plaudit.data.shared")
    assert house.lonely(tree) == ["plaudit.data.part: 0 lines, read by plaudit.data.load only"]
