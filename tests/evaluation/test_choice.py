"""Choice and judgement: the division of the prompts, the decision, and how often it errs (a short look)."""

import sys
from pathlib import Path

import numpy as np
import pytest

from plaudit.evaluation.choice import ENOUGH, clearly, difference, divide, means_of

sys.path.append(str(Path(__file__).parents[2] / "scripts"))
import intervals


def test_prompts_are_divided_in_halves_by_their_words():
    prompts = [f"p{i % 20}" for i in range(30)]
    selection, final = divide(prompts, str)
    assert not set(selection) & set(final) and sorted(selection + final) == sorted(prompts)
    assert len(set(selection)) == len(set(final)) == 10
    again, _ = divide([*prompts[::-1], *prompts[:3]], str)
    assert set(again) == set(selection), "the order and copies do not matter"
    assert divide(["one"], str) == (["one"], ["one"]) and divide([], str) == ([], [])


def test_means_and_differences_are_taken_prompt_by_prompt():
    rows = [{"prompt_id": p, "gold": g} for p, g in (("a", 1.0), ("a", 3.0), ("b", None), ("c", 5.0))]
    assert means_of(rows, "gold") == {"a": 2.0, "c": 5.0}
    found = difference({"a": 2.0, "c": 5.0, "x": 9.0}, {"a": 3.0, "c": 8.0, "y": 0.0})
    # Differences 1 and 3: mean 2, half a width of t(1) = 12.706 times 1.
    assert (found.value, found.n) == (2.0, 2) and found.high == pytest.approx(2 + 12.706205)


def test_a_difference_over_few_prompts_is_never_clear():
    before = {str(i): 0.0 for i in range(ENOUGH)}
    after = {str(i): 1.0 + 0.01 * i for i in range(ENOUGH)}
    assert clearly(difference(before, after))
    del after["0"]
    assert not clearly(difference(before, after))
    assert not clearly(difference(before, before))


@pytest.mark.parametrize("kind", ["normal", "skewed (exponential)", "heavy tails (t with 3 degrees)", "binary"])
@pytest.mark.parametrize("prompts", [10, 32])
def test_intervals_hold_the_truth(kind, prompts):
    # Of 600 intervals of 95 %, the share that holds it has a standard error of 0.9 %.
    assert 0.905 < intervals.coverage(kind, prompts, 4, 600) < 0.985
    assert 0.905 < intervals.win_coverage(prompts, 4, 300) < 0.99
    assert 0.905 < intervals.length_coverage(prompts, 4, 300) < 0.99
    assert 0.905 < intervals.change_coverage(prompts, 4, 300) <= 0.995


def test_a_run_without_effect_is_rarely_called_better_and_a_lost_peak_is_found():
    found = intervals.decisions(intervals.CURVES["no effect"], 16, 600)
    assert found["better"] <= 0.05 and found["worse"] <= 0.05 and found["put back"] < 0.08
    assert intervals.decisions(intervals.CURVES["healthy: rises to +0.5"], 32, 150)["better"] > 0.8
    lost = intervals.decisions(intervals.CURVES["a lost peak: +1.0, ends at +0.5"], 32, 150)
    assert lost["put back"] > 0.7 and lost["better"] > 0.95
    assert np.isclose(sum(lost.values()), lost["better"] + lost["put back"])
