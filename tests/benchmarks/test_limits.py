"""The limits of the methods: by induction and by the exact gradient they agree, and the page is what was measured."""

import json
import sys
from pathlib import Path

import pytest
import torch

from plaudit.algorithms.grpo import GRPO
from plaudit.functional.groups import group_advantages

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def exact():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    import exact_limits

    yield exact_limits
    sys.path.remove(str(ROOT / "benchmarks"))


def test_the_optimum_is_that_of_the_world(exact):
    assert exact.distance(exact.optimum(exact.world.BETA), exact.world.OPTIMUM) < 1e-9
    assert exact.distance(exact.optimum(1e6), exact.REFERENCE) < 1e-4
    assert exact.distance(exact.optimum(0.01), exact.best_word()) < 1e-9


def test_place_by_place_is_another_policy_and_the_limit_of_the_exact_gradient(exact):
    induced = exact.place_by_place(0.5 * 8 / 7)
    assert float(induced.sum()) == pytest.approx(1)
    assert exact.distance(induced, exact.optimum(0.5 * 8 / 7)) > 0.1
    assert exact.distance(exact.grpo(0.5, "none", steps=300), induced) < 0.01


def test_mean_advantages_are_those_of_many_groups(exact):
    """Of 20 000 sampled groups of 4, the mean advantage of the words with each reward."""
    size, draw = 4, torch.Generator().manual_seed(0)
    rows = torch.multinomial(exact.REFERENCE, 20_000 * size, replacement=True, generator=draw)
    ids = torch.arange(20_000).repeat_interleave(size)
    sampled = group_advantages(exact.REWARDS[rows], ids, torch.ones(len(rows), dtype=torch.bool), "group")
    expected = exact.mean_advantages(size, "group")(exact.REFERENCE)
    for number in range(4):  # the highest reward is rare
        of_value = exact.VALUE_OF.eq(number)
        mean = float(sampled[of_value[rows]].mean())
        assert float(expected[of_value][0]) == pytest.approx(mean, abs=0.03)


def test_best_of_n_by_hand(exact):
    assert exact.distance(exact.best_of(1), exact.REFERENCE) < 1e-9
    top = float(exact.REFERENCE[exact.REWARDS.argmax()])
    assert float(exact.best_of(8).max()) >= 1 - (1 - top) ** 8 - 1e-9
    assert float(exact.best_of(8)[exact.REWARDS.argmax()]) == pytest.approx(1 - (1 - top) ** 8)


def test_the_page_is_what_was_measured(exact):
    import limits_page

    results = json.loads((ROOT / "docs" / "algorithms" / "limits.json").read_text("utf-8"))
    text = (ROOT / "docs" / "algorithms" / "limits.md").read_text("utf-8")
    assert limits_page.page(results) == text, "run benchmarks/limits.py --page"
    assert all(len(row["to_optimum"]) == 3 for row in results["methods"])
    by_name = {(row["name"], row["settings"]): row for row in results["methods"]}
    default, group = by_name["GRPO", ""], by_name["GRPO", "scale group"]
    assert default["in_force"] == [round(8 / 7 * results["world"]["beta"], 4)] * 3
    assert max(default["to_limit"]) < 0.05 < min(group["to_optimum"])
    assert GRPO().scale == "none"


def test_seeds_that_agree_are_one_number(exact):
    import limits_page

    assert limits_page.span([0.25, 0.2501]) == "0.25" and limits_page.span([None, None]) == "-"
    assert limits_page.span([0.31, 0.29]) == "0.29 to 0.31"
