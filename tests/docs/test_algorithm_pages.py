"""The pages of the algorithms: names of metrics and files in them exist, every method has a curve."""

from __future__ import annotations

import re

import elsewhere
import pytest
from pages import ROOT, broken_links

from plaudit.tracking.names import METRICS

FOLDER = ROOT / "docs" / "algorithms"
METHODS = ("sft", "reward_model", "reinforce", "rloo", "ppo", "grpo", "dpo", "best_of_n")


def test_our_names_in_the_table_of_names_are_metrics() -> None:
    names = [name for _, here, _ in elsewhere.METRICS for name in re.findall(r"`([^`]+)`", here)]
    assert len(names) > 50 and [name for name in names if name not in METRICS] == []


@pytest.mark.parametrize("method", METHODS)
def test_every_page_has_its_curve_defaults_and_tests(method: str) -> None:
    text = (FOLDER / f"{method}.md").read_text("utf-8")
    assert "arXiv" in text or "arxiv" in text, "the paper"
    assert "default" in text and "## Where" in text and "tests/" in text
    picture = ROOT / "docs" / "images" / "algorithms" / f"{method}.png"
    assert f"images/algorithms/{method}.png" in text
    assert 3_000 < picture.stat().st_size < 60_000


@pytest.mark.parametrize("page", sorted(FOLDER.glob("*.md")), ids=lambda page: page.name)
def test_links_and_paths(page) -> None:
    assert broken_links(page) == []
    paths = re.findall(r"`((?:tests|benchmarks|examples|src)/[\w/.]+\.(?:py|md))`", page.read_text("utf-8"))
    assert [path for path in paths if not (ROOT / path).exists()] == []
