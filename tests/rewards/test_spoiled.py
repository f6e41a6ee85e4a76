"""Responses after other prompts and with their tokens in another order, and what a reward model makes of them."""

from dataclasses import replace

import pytest

from plaudit.records import Prompt, Rollout
from plaudit.rewards.combine import EnsembleReward, WeightedReward
from plaudit.rewards.model import ModelReward
from plaudit.rewards.spoiled import gaps, models_of, shuffled, swapped


def rollout(i, prompt=None, ids=(5, 6, 7, 8, 9, 2)):
    content = f"prompt {i}" if prompt is None else prompt
    return Rollout.single(
        Prompt(f"p{i}", content), i, (10 + i,), ids, (0.0,) * len(ids), "one two three four five", "stop"
    )


class Reads:
    """Scores rows: a point for the right prompt, a point for tokens in their order."""

    shortened = (False,) * 8

    def __init__(self):
        self.calls = 0

    def score_tokens(self, rows, prompt_lengths):
        self.calls += 1
        return [float(row[0] == row[-2] + 0) + float(list(row[1:-2]) == sorted(row[1:-2])) for row in rows]


def rows():
    """The last token but one names the prompt that the response belongs to."""
    return [rollout(i, ids=(1, 2, 3, 4, 10 + i, 2)) for i in range(4)]


def test_a_swapped_response_follows_the_next_other_prompt():
    made = [rollout(0), rollout(1, "prompt 0"), rollout(2)]
    assert [copy.tokens[0] for copy in swapped(made)] == [12, 12, 10]
    assert all(copy.response_ids == made[0].response_ids for copy in swapped(made))
    assert [copy.prompt.content for copy in swapped(made)] == ["prompt 2", "prompt 2", "prompt 0"]
    assert swapped([rollout(0), rollout(1, "prompt 0")]) == [], "there is no other prompt"


def test_a_shuffled_response_keeps_its_prompt_its_tokens_and_its_end():
    [copy] = shuffled([rollout(3)])
    plain = rollout(3)
    assert copy.prompt_ids == plain.prompt_ids and copy.response_ids[-1] == plain.response_ids[-1]
    assert sorted(copy.response_ids) == sorted(plain.response_ids) and copy.response_ids != plain.response_ids
    assert sorted(copy.response.split()) == sorted(plain.response.split())
    assert shuffled([rollout(3)]) == [copy], "the same every time"


def scored(made):
    return [replace(row, reward=result.value) for row, result in zip(made, ModelReward(Reads())(made), strict=True)]


def test_gaps_are_what_a_model_gives_more_to_the_response_as_it_is():
    model = Reads()
    found = gaps(ModelReward(model), scored(rows()))
    assert model.calls == 2, "what has been scored is not scored again"
    assert [gap["gap_swapped"] for gap in found] == [1.0] * 4
    assert all(gap["gap_shuffled"] in (0.0, 1.0, 2.0) for gap in found) and any(gap["gap_shuffled"] for gap in found)


def test_only_models_are_asked_again():
    def function(rollouts):
        raise AssertionError("a call may cost money")

    function.name = "function"
    assert models_of(function) is None and gaps(function, rows()) == [{}] * 4
    both = WeightedReward([(ModelReward(Reads()), 2.0), (function, 1.0)])
    assert [gap["gap_swapped"] for gap in gaps(both, rows())] == [2.0] * 4
    watched = WeightedReward([(function, 1.0), (ModelReward(Reads()), 0.0)])
    assert gaps(watched, rows()) == [{}] * 4, "a model that is only watched is not the reward"
    assert models_of(EnsembleReward([ModelReward(Reads())] * 2)) is not None


def test_what_cannot_be_scored_has_no_gap():
    class Fails(Reads):
        def score_tokens(self, rows, prompt_lengths):
            return [float("nan")] * len(rows)

    assert gaps(ModelReward(Fails()), rows()) == [{}] * 4
    assert gaps(ModelReward(Reads()), []) == []


@pytest.mark.parametrize("ids", [(2,), ()])
def test_short_responses_are_no_trouble(ids):
    [copy] = shuffled([rollout(0, ids=ids)])
    assert copy.response_ids == ids
