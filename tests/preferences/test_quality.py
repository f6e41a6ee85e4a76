import math
import random

import pytest
from scipy import stats

from plaudit.preferences.annotation import (
    Annotation,
    Choice,
    Item,
    ItemResponse,
    Ranks,
    Scores,
    Skip,
    Thumbs,
    Written,
)
from plaudit.preferences.quality import (
    annotator_cards,
    binomial_test,
    credit,
    position_bias,
    robust_scores,
)


def item(key: str, gold=None, characters: int = 100, n: int = 2) -> Item:
    responses = tuple(ItemResponse("x" * (characters // n)) for _ in range(n))
    return Item(key, "", responses, gold)


def answered(key: str, name: str, answer, **more) -> Annotation:
    return Annotation(0, key, name, answer, more.pop("order", (0, 1)), **more)


@pytest.mark.parametrize(("wins", "n"), [(0, 1), (9, 10), (5, 10), (3, 17), (480, 1000), (2000, 3000)])
def test_binomial_test_is_scipys(wins, n):
    assert binomial_test(wins, n) == pytest.approx(stats.binomtest(wins, n).pvalue, rel=1e-6)


def test_position_bias_follows_the_order_shown():
    # Response 0 wins; shown first, then second; a tie and a skip say nothing.
    answers = [
        answered("a", "x", Choice(-1), order=(0, 1)),
        answered("b", "x", Choice(-2), order=(1, 0)),
        answered("c", "x", Choice(1), order=(1, 0)),
        answered("d", "x", Choice(0), order=(0, 1)),
        answered("e", "x", Skip("no idea"), order=(0, 1)),
        answered("f", "x", Ranks((2, 1, 3)), order=(2, 1, 0)),  # shown first: response 2, worse than the last
    ]
    bias = position_bias(answers)
    assert (bias.first.value, bias.first.n) == (0.5, 4)
    always = position_bias([answered(str(i), "x", Choice(-1)) for i in range(12)])
    assert always.first.value == 1.0 and always.p_value == pytest.approx(2 * 0.5**12)
    assert math.isnan(position_bias([]).first.value)


def test_credit():
    assert credit(Choice(-2), Choice(-1)) == 1.0
    assert credit(Choice(-2), Choice(1)) == 0.0
    assert credit(Choice(0), Choice(0, "both_bad")) == 0.0
    assert credit(Choice(0, "both_bad"), Choice(0, "both_bad")) == 1.0
    assert credit(Choice(1), Choice(0, "cannot_judge")) is None
    # Known order 1 < 2 = 2 asks for two pairs; the answer has one of them right.
    assert credit(Ranks((1, 2, 2)), Ranks((2, 1, 3))) == 0.5
    assert credit(Ranks((1, 1)), Ranks((1, 2))) is None
    assert credit(Scores(({"a": 5, "b": 5},)), Scores(({"a": 6, "b": 8},))) == 0.5
    assert credit(Thumbs((True, False)), Thumbs((True, True))) == 0.5
    assert credit(Written("x"), Written("x")) is None


def test_cards_count_gold_repeats_and_peers():
    items = {k: item(k, gold=Choice(-1) if k < "c" else None) for k in "abcd"}
    answers = [
        answered("a", "ann", Choice(-2)),
        answered("b", "ann", Choice(1)),
        answered("b", "ann", Choice(2), round=1),
        answered("c", "ann", Choice(1)),
        answered("c", "ann", Choice(-1), round=1),
        answered("c", "bob", Choice(-1)),
        answered("c", "cyd", Choice(-1)),
        answered("d", "bob", Skip("odd")),
        answered("d", "cyd", Choice(0, "cannot_judge")),
        answered("c", "eve", Choice(-2), adjudicated=True),
        answered("gone", "ann", Choice(1)),
    ]
    ann, bob, cyd = annotator_cards(answers, items)
    assert [c.annotator for c in (ann, bob, cyd)] == ["ann", "bob", "cyd"]
    assert (ann.answers, ann.gold.value, ann.gold.n) == (3, 0.5, 2)
    assert (ann.repeats.value, ann.repeats.n) == (0.5, 2)
    assert (ann.peers.value, ann.peers.n) == (0.0, 1)
    assert bob.peers.n == 0  # the others, ann and cyd, cancel out
    assert (bob.skipped, cyd.cannot_judge) == (1, 1)
    assert math.isnan(bob.gold.value) and bob.gold.interval == (0.0, 1.0)


def test_a_hurried_annotator_stands_out_and_long_items_are_no_excuse():
    draw = random.Random(0)
    items = {f"i{k}": item(f"i{k}", characters=100 * (1 + k % 50)) for k in range(200)}
    answers = []
    for key, one in items.items():
        size = sum(len(str(r.content)) for r in one.responses)
        for name in ("calm", "steady"):
            answers.append(answered(key, name, Choice(1), seconds=size / 20 * math.exp(draw.gauss(0, 0.3))))
        answers.append(
            answered(key, "hurried", Choice(1), seconds=size / 20 / 100 if draw.random() < 0.4 else size / 20)
        )
    cards = {c.annotator: c for c in annotator_cards(answers, items)}
    assert cards["hurried"].pace.fast.value == pytest.approx(0.4, abs=0.08)
    assert cards["hurried"].pace.unread.value == pytest.approx(cards["hurried"].pace.fast.value, abs=0.03)
    assert cards["calm"].pace.fast.value < 0.02 and cards["calm"].pace.unread.value < 0.02
    assert cards["hurried"].pace.median_seconds < cards["calm"].pace.median_seconds
    edited = Choice(1, edit=Written("better", 1))
    more = [*answers, *(answered(key, "writer", edited, seconds=0.01) for key in items)]
    writer = next(c for c in annotator_cards(more, items) if c.annotator == "writer")
    assert writer.answers == 200 and math.isnan(writer.pace.median_seconds), (
        "the time of writing is no pace of judging"
    )


def test_robust_scores_of_equal_values_are_nothing_special():
    assert robust_scores([]) == [] and robust_scores([2.0, 2.0, 2.0, 9.0]) == [0.0] * 4
