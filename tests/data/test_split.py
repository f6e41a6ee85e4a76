"""No prompt is on both sides, and a prompt stays where it is."""

from __future__ import annotations

import pytest

from plaudit.data.split import epoch_order, split_by_prompt
from plaudit.records import Demonstration, Message, Preference, Prompt, Ranking, Rating


def demonstrations(n):
    return [Demonstration(str(i), f"question {i // 3}", f"answer {i}") for i in range(n)]


def test_no_prompt_is_on_both_sides():
    train, heldout = split_by_prompt(demonstrations(600), 0.2, seed=1)
    assert len(train) + len(heldout) == 600
    assert not {r.prompt for r in train} & {r.prompt for r in heldout}
    assert 0.1 < len(heldout) / 600 < 0.3
    assert [int(r.id) for r in train] == sorted(int(r.id) for r in train), "order is kept"


def test_split_depends_on_words_and_seed_alone():
    few, _ = split_by_prompt(demonstrations(300), 0.2, seed=1)
    many, _ = split_by_prompt(demonstrations(600)[::-1], 0.2, seed=1)
    other, _ = split_by_prompt(demonstrations(300), 0.2, seed=2)
    assert {r.prompt for r in few} == {r.prompt for r in many} & {r.prompt for r in demonstrations(300)}
    assert {r.prompt for r in few} != {r.prompt for r in other}


def test_case_and_spaces_make_no_new_prompt():
    records = [
        Prompt(str(i), text) for i, text in enumerate(["Why?", " why? ", (Message("user", "WHY?"),), "How?"])
    ]
    for seed in range(20):
        sides = split_by_prompt(records, 0.5, seed)
        assert sorted(len(side) for side in sides) == [1, 3]


@pytest.mark.parametrize("fraction", [0.001, 0.5, 0.999])
@pytest.mark.parametrize("n", [2, 3, 5])
def test_neither_side_is_empty_with_two_prompts(fraction, n):
    records = [Prompt(str(i), f"prompt {i}") for i in range(n)]
    for seed in range(10):
        train, heldout = split_by_prompt(records, fraction, seed)
        assert train and heldout


def test_no_fraction_and_no_choice():
    assert split_by_prompt(demonstrations(3), 0.0, 0) == (demonstrations(3), [])
    for seed in range(10):
        assert split_by_prompt(demonstrations(3), 0.9, seed) == (demonstrations(3), []), "one prompt is trained on"
    assert split_by_prompt([], 0.5, 0) == ([], [])


def test_texts_without_a_prompt_are_told_apart_by_their_words():
    kinds = [
        [Rating(str(i), "", f"text {i}", 1.0) for i in range(50)],
        [Demonstration(str(i), "", f"text {i}") for i in range(50)],
        [Preference(str(i), (), f"a {i}", f"b {i}") for i in range(50)],
        [Ranking(str(i), "", (f"a {i}", f"b {i}"), (1, 2)) for i in range(50)],
    ]
    for records in kinds:
        train, heldout = split_by_prompt(records, 0.5, 0)
        assert 10 < len(heldout) < 40


def test_order_of_an_epoch():
    order = epoch_order(100, seed=1, epoch=0)
    assert sorted(order) == list(range(100)) and order == epoch_order(100, seed=1, epoch=0)
    assert order != epoch_order(100, seed=1, epoch=1) and order != epoch_order(100, seed=2, epoch=0)
    assert epoch_order(5, seed=0, epoch=0) == (2, 4, 3, 0, 1), "the same on every machine"
    assert epoch_order(0, 0, 0) == ()
