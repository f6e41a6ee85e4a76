"""Reward models and classifiers as rewards, their sum, and when failing rewards stop a run."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from plaudit.errors import ConfigError, RewardError
from plaudit.records import Content, FinishReason, Prompt, RewardResult, Rollout
from plaudit.rewards.classifier import ClassifierReward, rescale
from plaudit.rewards.combine import WeightedReward, check_rewards
from plaudit.rewards.function import FunctionReward
from plaudit.rewards.model import ModelReward


class Recording:
    """A scorer that writes down what it is given and answers with prepared scores."""

    shortened: Sequence[bool] = ()

    def __init__(self, *scores: float) -> None:
        self.scores = list(scores)
        self.rows: list[list[int]] = []
        self.texts: list[tuple[Content, str]] = []

    def score_tokens(self, rows: Sequence[Sequence[int]], prompt_lengths: Sequence[int]) -> list[float]:
        self.rows, self.prompt_lengths = [list(row) for row in rows], list(prompt_lengths)
        return self.scores

    def score_texts(
        self, prompts: Sequence[Content], responses: Sequence[str], truncated: Sequence[bool]
    ) -> list[float]:
        self.texts, self.truncated = list(zip(prompts, responses, strict=True)), list(truncated)
        return self.scores


class Labels:
    """A classifier with prepared logits."""

    labels = ("negative", "positive", "mixed")
    shortened: Sequence[bool] = ()

    def __init__(self, *rows: list[float]) -> None:
        self.rows = list(rows)

    def logits(self, prompts: Sequence[Content], responses: Sequence[str]) -> list[list[float]]:
        return self.rows


def rollout(ids: tuple[int, ...], finish: FinishReason, text: str = "text") -> Rollout:
    return Rollout.single(Prompt("p", "Hi"), 0, (1, 5), ids, (0.0,) * len(ids), text, finish)


END = 2


def test_token_ids_are_scored_as_sampled_with_the_end_token_only_where_one_was_drawn() -> None:
    scorer = Recording(0.5, -1.0)
    results = ModelReward(scorer)([rollout((7, END), "stop"), rollout((7, 8), "length")])
    assert scorer.rows == [[1, 5, 7, END], [1, 5, 7, 8]] and not scorer.texts
    assert scorer.prompt_lengths == [2, 2]
    assert [r.value for r in results] == [0.5, -1.0]
    assert results[0].parts == {"reward_model": 0.5}


def test_a_foreign_tokenizer_gets_texts() -> None:
    scorer = Recording(1.0, 2.0)
    both = [rollout((7, END), "stop", "Good"), rollout((7, 8), "length", "Go")]
    ModelReward(scorer, same_tokenizer=False)(both)
    assert scorer.texts == [("Hi", "Good"), ("Hi", "Go")] and not scorer.rows
    assert scorer.truncated == [False, True]


def test_scores_that_are_not_finite_are_errors() -> None:
    results = ModelReward(Recording(math.nan, math.inf, 2.0), "rm")([rollout((7,), "length")] * 3)
    assert [r.value for r in results] == [None, None, 2.0] and "rm returned nan" in results[0].error


def test_a_wrong_number_of_scores_stops() -> None:
    with pytest.raises(RewardError, match="1 scores for 2"):
        ModelReward(Recording(1.0))([rollout((7,), "length")] * 2)


def test_log_odds_of_a_label() -> None:
    # p = e / (1 + e + 1): log(p / (1 - p)) = 1 - ln 2
    result = ClassifierReward(Labels([0.0, 1.0, 0.0]), "positive")([rollout((7,), "length")])[0]
    assert result.value == pytest.approx(1 - math.log(2), abs=1e-12)
    assert result.parts.keys() == {"classifier/positive"}


def test_scales_agree_and_survive_large_logits() -> None:
    assert rescale([0.0, 1.0, 0.0], 1, "logit") == 1.0
    assert rescale([0.0, 1.0, 0.0], 1, "prob") == pytest.approx(math.e / (2 + math.e), abs=1e-12)
    assert rescale([3000.0, 0.0], 1, "log_odds") == -3000.0
    assert rescale([3000.0, 0.0], 1, "prob") == 0.0
    assert rescale([0.0, 3000.0], 1, "prob") == 1.0
    assert math.isnan(rescale([math.inf, 0.0], 1, "log_odds"))


def test_a_label_that_does_not_exist_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'positive'"):
        ClassifierReward(Labels(), "positiv")
    with pytest.raises(ConfigError, match="no label 3"):
        ClassifierReward(Labels(), 3)


def test_classifier_with_wrong_rows_stops() -> None:
    with pytest.raises(RewardError, match="3 logits for each of 1"):
        ClassifierReward(Labels([0.0, 1.0]), 0)([rollout((7,), "length")])


def test_the_sum_is_weighted_and_its_parts_are_not() -> None:
    size = FunctionReward(lambda p, r: len(r), "size")
    total = WeightedReward([(ModelReward(Recording(2.0)), 0.5), (size, -1.0)])
    result = total([rollout((7,), "length", "abc")])[0]
    assert result.value == pytest.approx(0.5 * 2 - 3)
    assert result.parts == {"reward_model": 2.0, "size": 3.0}


def test_an_error_of_a_part_is_an_error_of_the_sum_unless_it_is_only_watched() -> None:
    broken = FunctionReward(lambda p, r: None, "broken")
    model = ModelReward(Recording(2.0))
    failed = WeightedReward([(model, 1.0), (broken, 0.1)])([rollout((7,), "length")])[0]
    watched = WeightedReward([(model, 1.0), (broken, 0.0)])([rollout((7,), "length")])[0]
    assert failed.value is None and "broken returned None" in failed.error
    assert failed.parts == {"reward_model": 2.0}
    assert watched.value == 2.0 and watched.error == ""


def test_rewards_of_one_name_are_numbered_and_keep_their_own_parts() -> None:
    inner = WeightedReward([(ModelReward(Recording(1.0), "a"), 1.0)], name="sum")
    total = WeightedReward(
        [(ModelReward(Recording(1.0)), 1.0), (ModelReward(Recording(3.0)), 1.0), (inner, 1.0)]
    )
    parts = total([rollout((7,), "length")])[0].parts
    assert parts == {"reward_model": 1.0, "reward_model_2": 3.0, "sum": 1.0, "sum/a": 1.0}


def test_weights_must_be_numbers() -> None:
    with pytest.raises(ConfigError, match="weight of reward_model is nan"):
        WeightedReward([(ModelReward(Recording()), math.nan)])
    with pytest.raises(ConfigError, match="no reward"):
        WeightedReward([])


def test_a_fifth_may_fail_and_no_more() -> None:
    good, bad = RewardResult(1.0), RewardResult(None, error="judge raised KeyError")
    check_rewards([bad] + [good] * 4)
    check_rewards([])
    with pytest.raises(RewardError, match="2 of 5 rewards failed; the first: judge raised KeyError"):
        check_rewards([bad] * 2 + [good] * 3)


def test_the_cure_fits_what_failed() -> None:
    broken, silent = RewardResult(None, error="Shop failed"), RewardResult(None, error="None", abstains=True)
    with pytest.raises(RewardError, match="1 of 1 rewards failed") as error:
        check_rewards([broken])
    assert error.value.where == "reward" and "server" in error.value.cure
    with pytest.raises(RewardError, match="1 of 1 rollouts failed; the first: Shop failed") as error:
        check_rewards([broken], aborted=1)
    assert error.value.where == "environment" and "reply(rollout)" in error.value.cure
    with pytest.raises(RewardError) as error:
        check_rewards([silent])
    assert "give one more" in error.value.cure
