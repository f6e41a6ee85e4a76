"""The page of kills is what its script makes of the saved figures, and says what is missing."""

import copy
import json

import pytest
from kills_page import FIGURES, PAGE, missing, page


@pytest.fixture
def figures():
    return json.loads(FIGURES.read_text(encoding="utf-8"))


def test_the_page_is_made_of_the_figures(figures):
    assert PAGE.read_text(encoding="utf-8") == page(figures), "python scripts/kills_page.py"


def test_what_was_not_equal_or_not_tried_is_said(figures):
    other = copy.deepcopy(figures)
    row = other["kills"]["rows"][0]
    name, kills = row["trainer"], row["kills"]
    row["wrong"].append("SFT, 1 threads: other content in model")
    row["equal"] -= 1
    assert any("other content in model" in text for text in missing(other))
    assert f"{kills - 1} of {kills}" in page(other)
    other["kills"]["rows"] = [row for row in other["kills"]["rows"] if row["trainer"] != name]
    assert any(text.startswith("Not killed at random with 1 thread:") and name in text for text in missing(other))
