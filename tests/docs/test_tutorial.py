"""The tutorial, the README and the examples are programs: blocks run, paths exist, links lead somewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pages import ROOT, Block, blocks, broken_links, commands, parse, run_page, tree_paths, unrun

from plaudit.cli.main import COMMANDS
from plaudit.config.foreign import ALIASES
from plaudit.data.reading.names import field_of
from plaudit.errors import PlauditError
from plaudit.records import Prompt, Rollout
from plaudit.rewards.function import FunctionReward, load_function

TUTORIAL = ROOT / "docs" / "tutorial" / "README.md"
PAGES = sorted((ROOT / "docs").rglob("*.md"))
GUIDES = [page for page in PAGES if page.parent.name in ("tutorial", "howto", "algorithms")]
NAMES = [str(path.relative_to(ROOT)) for path in PAGES]


@pytest.fixture
def readme() -> Path:
    path = ROOT / "README.md"
    if not path.is_file():
        pytest.skip("README.md is not there yet")
    return path


def test_the_tutorial_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    run_page(TUTORIAL, monkeypatch, tmp_path)
    for name in ("sft", "reward", "short", "ppo"):
        assert (tmp_path / "runs" / name / "report.html").is_file(), name
    assert (tmp_path / "runs" / "report.html").is_file()
    assert "resumed" in (tmp_path / "runs" / "ppo" / "events.jsonl").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", [p for p in GUIDES if p != TUTORIAL], ids=lambda p: p.name)
def test_blocks_of_the_other_guides_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_page(page, monkeypatch, tmp_path)


def test_commands_that_are_not_run_are_parsed() -> None:
    lines = [(page.name, words) for page in [ROOT / "README.md", *PAGES] for words in unrun(page)]
    assert len(lines) > 70
    wrong = []
    for name, words in lines:
        try:
            parse(words)
        except PlauditError as error:
            wrong.append(f"{name}: {' '.join(words)}: {error.what}; {error.cure}")
    assert wrong == []


def test_python_of_the_readme_runs(readme: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    run_page(readme, monkeypatch, tmp_path, shell=False)


def test_the_tree_of_the_readme_is_true(readme: Path) -> None:
    trees = [block for block in blocks(readme) if re.search(r"^\W*src/", block.text, re.MULTILINE)]
    assert trees, "README.md shows no file tree (a code block with src/ in it)"
    missing = [path for block in trees for path in tree_paths(block) if not (ROOT / path).exists()]
    assert missing == []


def test_links_of_the_readme(readme: Path) -> None:
    assert broken_links(readme) == []


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links(page: Path) -> None:
    assert broken_links(page) == []


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_commands_and_settings_named_in_text_exist(page: Path) -> None:
    named = re.findall(r"`plaudit ([a-z][a-z-]*)", page.read_text(encoding="utf-8"))
    shell = [words[1] for b in blocks(page) if b.language == "bash" for words in commands(b) if words[0] == "plaudit"]
    assert set(named + shell) - set(COMMANDS) == set()


@pytest.mark.parametrize("page", GUIDES, ids=lambda p: p.name)
def test_flags_files_and_metrics_named_in_text_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    reference = "".join((ROOT / "docs" / "reference" / name).read_text("utf-8") for name in ("config.md", "metrics.md"))
    general = {"--help", "--debug", "--dataset", "--kind", "--layout", "--limit", "--no-progress", "--no-tensorboard"}
    general |= {"--repository", "--head"}  # of scripts/release.py and `ray start`
    general |= {"--nodes", "--gpus-per-node", "--signal", "--requeue", "--exclude", "--file", "--tag"}  # sbatch, docker
    parsers = "".join(path.read_text("utf-8") for path in (ROOT / "src" / "plaudit" / "cli").rglob("*.py"))
    parsers += "".join(path.read_text("utf-8") for path in (ROOT / "examples").rglob("*.py"))
    general |= set(re.findall(r'"(--[a-z][a-z-]+)"', parsers))  # of commands that are no training jobs, and examples
    flags = set(re.findall(r"(?<![\w-])--[a-z][\w-]+", text)) - general
    keys = {flag for flag in flags if (key := re.fullmatch(r"--(\w+)-key", flag)) and field_of(key[1])}
    flags -= keys  # other trainers' spelling of --field
    flags = {flag for flag in flags if flag[2:].replace("-", "_") not in ALIASES}
    assert {flag for flag in flags if f"`{flag.replace('_', '-')}`" not in reference} == set()
    roles = "objective|policy|critic|response|reward|reward_model|rollout|eval|throughput"
    metrics = set(re.findall(rf"`((?:{roles})/[a-z_]+)`", text))
    assert {name for name in metrics if f"`{name}`" not in reference} == set()
    files = set(re.findall(r"`((?:src|docs|examples|configs|scripts)/[\w/.-]+\.\w+)`", text))
    modules = re.findall(r"`((?!src/|examples/|scripts/|tests/)(?:\w+/)+\w+\.py)`", text)
    code = {f"src/plaudit/{path}" for path in modules}
    assert {path for path in files | code if not (ROOT / path).exists()} == set()


def test_the_example_of_an_algorithm_learns() -> None:
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT / "src")}
    script = ROOT / "examples" / "custom_algorithm.py"
    done = subprocess.run(
        [sys.executable, str(script)], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    before, after = map(float, re.findall(r"-?\d+\.\d+", done.stdout.splitlines()[-1]))
    assert after > before + 1


def test_the_examples_of_rewards() -> None:
    file = ROOT / "examples" / "custom_reward.py"

    def scores(name: str, *responses: str, answer: str | None = None) -> list[float | None]:
        prompt = Prompt("p", "How was the soup?", answer)
        rollouts = [Rollout.single(prompt, 0, (1,), (2,), (0.0,), response, "stop") for response in responses]
        return [result.value for result in FunctionReward(load_function(f"{file}:{name}"))(rollouts)]

    assert scores("brief_and_warm", "Good, kind.", "bad", "word " * 25) == [2.0, -1.0, -0.5]
    assert scores("right_answer", "It is 42.", "No.", answer="42") == [1.0, 0.0]
    assert scores("right_answer", "It is 42.") == [None]
    assert scores("different_from_each_other", "a b c d", "A b c", "x") == [0.5, 0.5, 1.0]


def test_a_tree_is_read_in_both_notations() -> None:
    text = "src/plaudit/       the package\n  cli/     doors\n    main.py   # the entry\n"
    text += "  api.py  py.typed   both. of them\ndocs/  tests/\n"
    drawn = "src/plaudit/\n├── cli/  doors\n│   └── main.py  # the entry\n└── api.py  py.typed\ndocs/  tests/\n"
    expected = ["src/plaudit/", "src/plaudit/cli/", "src/plaudit/cli/main.py", "src/plaudit/api.py"]
    expected += ["src/plaudit/py.typed", "docs/", "tests/"]
    assert tree_paths(Block("", text, "", 0)) == tree_paths(Block("", drawn, "", 0)) == expected


def test_a_broken_link_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pages.ROOT", tmp_path)
    page = tmp_path / "a.md"
    page.write_text("# Top part\n[a](#top-part) [b](#gone) [c](gone.md) [d](https://x.y) [e](a.md#top-part)\n")
    assert broken_links(page) == ["a.md: #gone", "a.md: gone.md"]
