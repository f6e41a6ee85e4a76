"""The figures of a reward model's card, each worked out by hand."""

import math

import pytest

from plaudit.evaluation.kinds.reward_card import ranked
from plaudit.evaluation.reward_model.breakdown import best_of_k, by_category, by_size, members_agree
from plaudit.evaluation.reward_model.certainty import tempered
from plaudit.evaluation.reward_model.shortcuts import of_swaps, spoiled, words_rule
from plaudit.statistics.clustered import share


def pair(chosen, rejected, **more):
    lengths = {"chosen_length": 10, "rejected_length": 10}
    return {"id": "x", "prompt_id": "p", "chosen_score": chosen, "rejected_score": rejected} | lengths | more


def test_accuracy_by_category_has_the_interval_of_its_own_prompts():
    rows = [{"category": "code"}] * 3 + [{"category": "chat"}] * 2 + [{}]
    right, prompts = [1, 0, 1, 1, 1, 0], ["a", "a", "b", "c", "d", "e"]
    found = by_category(rows, right, prompts)
    assert [(g["group"], g["accuracy"], g["n"], g["prompts"]) for g in found] == [
        ("code", pytest.approx(2 / 3), 3, 2), ("chat", 1.0, 2, 2), ("without one", 0.0, 1, 1)
    ]  # fmt: skip
    assert found[0]["accuracy_ci"] == list(share([1, 0, 1], ["a", "a", "b"]).interval)


def test_small_categories_are_put_together_and_ids_are_no_categories():
    names = [f"c{i:02}" for i in range(14) for _ in range(3 if i < 11 else 2)]
    found = by_category([{"category": name} for name in names], [1.0] * len(names), range(len(names)))
    assert len(found) == 12 and found[-1]["group"] == "all others" and found[-1]["n"] == 6
    assert by_category([{"category": str(i)} for i in range(40)], [1.0] * 40, range(40)) == []
    assert by_category([{"category": "one"}] * 3, [1.0] * 3, range(3)) == []


def test_accuracy_by_size_leaves_out_what_has_none():
    found = by_size([2.0, None, 1.0, 2.0, 1.0], [1, 0, 0, 1, 1], list("abcde"))
    assert [(g["group"], g["low"], g["high"], g["accuracy"], g["n"]) for g in found] == [
        ("1", 1.0, 1.0, 0.5, 2), ("2", 2.0, 2.0, 1.0, 2)
    ]  # fmt: skip
    assert by_size([1.0, 1.0, None], [1, 1, 0], list("abc")) == []
    assert [g["n"] for g in by_size([2 / 3, 1 - 1 / 3, 1.0], [1, 1, 0], list("abc"))] == [2, 1]


def test_the_best_of_k_of_rankings_by_hand():
    lists = [
        {"prompt_id": "a", "scores": [3, 2, 1], "ranks": [1, 2, 3]},  # found: 1, by chance 1/3
        {"prompt_id": "b", "scores": [1, 2], "ranks": [1, 2]},  # missed: 0, by chance 1/2
        {"prompt_id": "c", "scores": [5, 5, 1, 0], "ranks": [1, 2, 2, 1]},  # two tied, one is best: 1/2, by chance 1/2
        {"prompt_id": "d", "scores": [5, 5], "ranks": [1, 1]},  # nothing to find
    ]
    found = best_of_k(lists, [])
    assert found["best_of_k_hit_rate"] == 0.5 and found["best_of_k_lists"] == 3 and found["best_of_k_mean_k"] == 3
    assert found["best_of_k_chance"] == pytest.approx((1 / 3 + 1 / 2 + 1 / 2) / 3)
    assert found["best_of_k_gain"] == pytest.approx(0.5 - (1 / 3 + 1 / 2 + 1 / 2) / 3)
    assert found["best_of_k_from"] == "rankings"


def test_the_best_of_k_of_pairs_that_share_a_prompt():
    def met(better, worse, prompt="p"):
        scores = {"a": 1.0, "b": 3.0, "c": 2.0}
        ids = {"chosen_id": better, "rejected_id": worse, "prompt_id": prompt}
        return pair(scores[better], scores[worse], **ids)

    # "a" lost nothing, and "b" has the highest score: missed. Of three one is best.
    found = best_of_k([], [met("a", "b"), met("a", "c"), met("b", "c")])
    assert (found["best_of_k_hit_rate"], found["best_of_k_lists"]) == (0.0, 1)
    assert found["best_of_k_chance"] == pytest.approx(1 / 3) and found["best_of_k_from"] == "pairs"
    # "b" and "a" lost nothing: the highest score is one of the best.
    assert best_of_k([], [met("a", "c"), met("b", "c")])["best_of_k_hit_rate"] == 1.0
    assert best_of_k([], [met("a", "b")]) == {}, "two responses are a pair"


def test_members_that_agree_by_hand():
    rows = [{"members": [1.0, 2.0, 0.5]}, {"members": [1.0, -1.0, 2.0]}, {"members": [0.0, 1.0, 1.0]}]
    found = members_agree(rows, [1.0, 0.0, 1.0], list("abc"))
    # All three couples agree; one of three; and a tie is half a vote: (1 + 1/2 + 1/2) / 3.
    assert found["ensemble_agreement"] == pytest.approx((1 + 1 / 3 + 2 / 3) / 3)
    groups = {g["group"]: (g["accuracy"], g["n"]) for g in found["accuracy_by_members"]}
    assert groups == {"all members agree": (1.0, 1), "members differ": (0.5, 2)}
    assert members_agree([{}], [1.0], ["a"]) == {}


def test_a_bag_of_words_is_compared_pair_by_pair():
    found = words_rule([1.0, 1.0, -1.0, 0.0], [1.0, 1.0, 1.0, 0.0], list("abcd"))
    assert found["words_baseline_accuracy"] == 2.5 / 4 and found["over_words_baseline"] == 0.5 / 4
    assert words_rule([1.0, None], [1.0, 1.0], list("ab")) == {}


def test_spoiled_responses_by_hand():
    def line(prompt, how, own, score, other):
        return {"prompt_id": prompt, "how": how, "own_score": own, "score": score, "other_score": other}

    found = spoiled([
        line("a", "doubled", 1.0, 2.0, 0.0), line("b", "doubled", 1.0, 0.0, 0.5), line("c", "doubled", 1.0, 1.0, None),
        line("a", "swapped", 1.0, -1.0, 0.0),
    ])  # fmt: skip
    doubled, swapped = found["spoiled"]
    assert (doubled["how"], doubled["n"], doubled["change"]) == ("doubled", 3, 0.0)
    assert doubled["above_itself"] == 0.5, "one above, one below, a tie"
    assert doubled["above_rejected"] == 0.5, "of two that have a rejected one"
    assert swapped["above_itself"] == 0.0 and found["prompt_swap_accuracy"] == 1.0
    assert found["prompt_swap_accuracy_ci"][1] == 1.0
    old = spoiled(of_swaps([{"prompt_id": "a", "own_score": 0.0, "other_score": 1.0}]))
    assert old["prompt_swap_accuracy"] == 0.0 and old["spoiled"][0]["above_rejected"] is None
    assert spoiled([]) == {}


def test_a_temperature_is_judged_on_rows_it_was_not_fitted_on():
    # In one half of the prompts everything is right, in the other half everything wrong: each half's temperature is
    # the worst there is for the other, and the loss rises although the fit on all rows would lower it.
    from plaudit.evaluation.choice import divide

    prompts = [str(i) for i in range(40)]
    first = set(divide(prompts, str)[0])
    gaps = [1.0 if prompt in first else -1.0 for prompt in prompts]
    found = tempered(gaps, prompts)
    assert found["nll_tempered"] > 10 and found["nll_tempered_difference"] > 10
    assert tempered(gaps[:10], prompts[:10]) == {}
    right = tempered([3.0, 3.0, 3.0, -3.0] * 10, prompts)
    assert right["temperature"] == pytest.approx(3 / math.log(3), rel=1e-3)


def test_length_within_prompts_and_given_what_people_chose():
    rows = [pair(gap, 0.0, chosen_length=10 + longer, prompt_id=str(i)) for i, (gap, longer) in enumerate(
        [(1.0, 1), (2.0, 0), (3.0, 3), (2.0, 0)]
    )]  # fmt: skip
    found = ranked(rows)
    assert found["score_length_within"] == pytest.approx(10 / math.sqrt(180))
    assert found["score_length_partial"] == pytest.approx(2 / math.sqrt(12))
    assert found["score_length_partial_ci"][0] <= found["score_length_partial"] <= found["score_length_partial_ci"][1]
