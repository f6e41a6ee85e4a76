import math

import pytest

from plaudit.statistics.bag_of_words import WordModel, fit_words, word_counts, word_difference


def test_the_weight_of_one_word_by_hand():
    # Of ten pairs the word is in the chosen response of nine and in the rejected one of the tenth. With the penalty p
    # the weight w solves 0.9 sigmoid(-w) - 0.1 sigmoid(w) = 2 p w, that is 0.9 - sigmoid(w) = 2 p w.
    rows = [{"fine": 1.0}] * 9 + [{"fine": -1.0}]
    model = fit_words(rows, [1.0] * 10, [f"p{i}" for i in range(10)], penalties=(0.01,))
    w = model.weights["fine"]
    assert 0.9 - 1 / (1 + math.exp(-w)) == pytest.approx(0.02 * w, abs=1e-4)
    assert model.score({"fine": 2, "other": 5}) == pytest.approx(2 * w)


def test_a_share_of_people_is_a_target_like_any_other():
    rows = [{"fine": 1.0}] * 8
    half = fit_words(rows, [0.5] * 8, range(8), penalties=(0.01,))
    assert half.weights["fine"] == pytest.approx(0.0, abs=1e-6)


def test_the_penalty_is_that_of_the_best_loss_on_prompts_that_were_left_out():
    # The words say nothing: whatever is fitted to them is wrong elsewhere, so the strongest penalty is best.
    noise = [{"a": 1.0 if i % 2 else -1.0, "b": 1.0 if i % 3 else -1.0} for i in range(48)]
    groups = [i // 4 for i in range(48)]
    targets = [float((i // 4) % 2) for i in range(48)]
    assert fit_words(noise, targets, groups, penalties=(0.001, 10.0)).penalty == 10.0
    signal = [{"a": 1.0 if target else -1.0} for target in targets]
    assert fit_words(signal, targets, groups, penalties=(0.001, 10.0)).penalty == 0.001


def test_rare_words_have_no_weight_and_too_little_gives_no_model():
    rows = [{"often": 1.0, **({"once": 1.0} if i == 0 else {})} for i in range(6)]
    assert set(fit_words(rows, [1.0] * 6, range(6)).weights) == {"often"}
    assert fit_words(rows, [1.0] * 6, ["one prompt"] * 6) is None
    assert fit_words([{"once": 1.0}], [1.0], ["p"]) is None and fit_words([], [], []) is None


def test_words_are_counted_whatever_their_case_and_marks_are_words():
    assert word_counts("Yes, YES! Straße") == {"yes": 2, ",": 1, "!": 1, "strasse": 1}
    assert word_difference("a b", "b a") == {}
    assert WordModel({"no": -1.0}, 0.1).score(word_difference("no no", "no")) == -1.0
