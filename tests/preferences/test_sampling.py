import math

import numpy as np
import pytest

from plaudit.preferences.sampling import (
    as_priorities,
    by_score,
    disagreement,
    diverse_best,
    farthest_first,
    random_order,
    small_margin,
)

KEYS = [f"item-{k}" for k in range(200)]


def test_orders_do_not_depend_on_where_items_lie():
    assert random_order(KEYS, seed=1) == random_order(KEYS[::-1], seed=1) != random_order(KEYS, seed=2)
    few = random_order(KEYS[:50], seed=1)
    assert [k for k in random_order(KEYS, seed=1) if k in few] == few
    assert sorted(random_order(KEYS, seed=1)) == sorted(KEYS)


def test_chance_is_even():
    first = [random_order(KEYS[:4], seed=s)[0] for s in range(2000)]
    for key in KEYS[:4]:
        assert first.count(key) == pytest.approx(500, abs=90)


def test_highest_score_first_and_unknown_last():
    assert by_score({"a": 1.0, "b": math.nan, "c": 3.0, "d": -math.inf}, seed=0) == ["c", "a", "d", "b"]


def test_small_margin_by_hand():
    found = small_margin(np.array([0.0, math.log(3), -math.log(3), 60.0]))
    quarter = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    assert found == pytest.approx([math.log(2), quarter, quarter, 0.0], abs=1e-12)


def test_disagreement_by_hand():
    # Probabilities (3/4, 1/4): the mean is a toss-up, each member is fairly sure.
    three = math.log(3)
    found = disagreement(np.array([[three, 0.0, three], [-three, 0.0, three]]))
    quarter = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    assert found == pytest.approx([math.log(2) - quarter, 0.0, 0.0], abs=1e-12)
    assert np.isfinite(disagreement(np.array([[1e4, -1e4], [-1e4, -1e4]]))).all()
    with pytest.raises(ValueError, match="two members"):
        disagreement(np.array([[1.0, 2.0]]))


def test_farthest_first_by_hand():
    line = np.array([[0.0], [1.0], [2.0], [10.0], [6.0]])
    assert farthest_first(line, 3, covered=np.array([[0.0]])) == [3, 4, 2]
    assert sorted(farthest_first(line, 99)) == [0, 1, 2, 3, 4]
    assert farthest_first(line, 0) == [] and farthest_first(np.zeros((0, 2)), 3) == []


def test_farthest_first_takes_one_of_each_cluster():
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(8, 5)) * 20
    rows = np.concatenate([c + rng.normal(size=(30, 5)) for c in centers])
    for seed in range(5):
        assert {i // 30 for i in farthest_first(rows, 8, seed=seed)} == set(range(8))


def test_farthest_first_never_repeats_among_copies():
    assert sorted(farthest_first(np.ones((6, 2)), 6)) == list(range(6))


def test_a_diverse_batch_avoids_the_same_question_again():
    scores = np.array([9.0, 8.9, 8.8, 5.0, 4.0, 0.1])
    features = np.array([[0.0], [0.0], [0.0], [7.0], [3.0], [99.0]])
    assert diverse_best(scores, features, 2, among=1) == [0, 1]
    assert diverse_best(scores, features, 3, among=5 / 3) == [0, 3, 4]  # row 5 is not among the best five
    assert diverse_best(scores, features, 0) == [] and diverse_best(np.array([]), np.zeros((0, 1)), 2) == []
    assert len(diverse_best(scores, features, 99)) == 6


def test_priorities_follow_the_order():
    order = random_order(KEYS, seed=0)
    assert by_score(as_priorities(order), seed=5) == order
    assert min(as_priorities(order).values()) > 0
