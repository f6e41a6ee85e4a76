"""What best-of-n keeps of the responses to one prompt, and of all rounds."""

from dataclasses import replace

import pytest

from plaudit.algorithms.best_of_n import BestOfN, distinct
from plaudit.errors import ConfigError
from plaudit.records import Prompt, Rollout


def rollout(response, reward, *, finish="stop", length=2, prompt=1):
    prompt_ids, ids = (prompt,), tuple(range(length))
    made = Rollout.single(Prompt(f"p{prompt}", "say"), 0, prompt_ids, ids, (-1.0,) * length, response, finish)
    return replace(made, reward=reward)


GROUP = [rollout("a", 1.0), rollout("b", 4.0), rollout("c", 2.0), rollout("b ", 4.0), rollout("d", None)]


def words(rollouts):
    return [r.response for r in rollouts]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, ["b"]),
        ({"keep_best": 2}, ["b"]),  # b twice is one response, and c is under the mean of 2.75
        ({"keep_best": 5}, ["b"]),
        ({"threshold": 4.5}, []),
        ({"threshold": 4.0}, ["b"]),
    ],
)
def test_keep(settings, expected):
    assert words(BestOfN(**settings).keep(GROUP)) == expected


def test_top_k_ties_and_penalty():
    group = [rollout("cut", 3.0, finish="length"), rollout("x", 2.5), rollout("y", 2.5), rollout("z", 0.0)]
    assert words(BestOfN().ranked(group)) == ["x", "y", "cut", "z"], (
        "the first of equals; the penalty comes first"
    )
    assert words(BestOfN(keep_best=3, group_size=4).keep(group)) == ["x", "y", "cut"]
    assert words(BestOfN(missing_eos_penalty=0.0).keep(group)) == ["cut"]


def test_nothing_scored_keeps_nothing():
    assert BestOfN().keep([rollout("a", None)]) == []


def test_one_response_is_its_own_mean():
    assert words(BestOfN(group_size=1).keep([rollout("a", -3.0)])) == ["a"]


def test_pool():
    earlier = [rollout("old", 5.0), rollout("same", 2.0), rollout("other", 0.0, prompt=2)]
    new = [rollout("same", 2.0), rollout("new", 3.0)]
    both = BestOfN(max_per_prompt=2).pool(earlier, new)
    assert words(both) == ["old", "new", "other"]
    assert words(BestOfN(accumulate=False).pool(earlier, new)) == ["new", "same"]


def test_distinct_keeps_the_first():
    assert words(distinct([rollout(" a", 1.0), rollout("a", 2.0), rollout("b", 0.0)])) == [" a", "b"]


@pytest.mark.parametrize(
    "wrong", [{"keep_best": 9}, {"keep_best": 0}, {"group_size": 0}, {"max_per_prompt": 0}, {"margin": -1}]
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ConfigError):
        BestOfN(**wrong)
