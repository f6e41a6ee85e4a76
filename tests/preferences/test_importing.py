import pytest

from plaudit.preferences.annotation import Choice, ItemResponse, Ranks, Scores, Thumbs, check_answer
from plaudit.preferences.importing import items_of
from plaudit.records import (
    Comparison,
    Demonstration,
    Judgement,
    Preference,
    Prompt,
    Ranking,
    Rating,
)


def said(item) -> list:
    return [r.content for r in item.responses]


def test_prompts_and_demonstrations():
    (item,), notes = items_of([Prompt("p", "Say", answer="42")], "demonstration")
    assert (item.key, item.prompt, item.responses, item.meta) == ("p", "Say", (), {"answer": "42"})
    (item,), notes = items_of([Demonstration("d", "Say", "this")], "thumbs")
    assert said(item) == ["this"] and notes == {}


def test_preferences_are_asked_again_or_known():
    records = [Preference("x", "p", "good", "bad")]
    (item,), _ = items_of(records, "pairwise")
    assert sorted(said(item)) == ["bad", "good"] and item.gold is None
    for seed in range(8):
        (item,), _ = items_of(records, "pairwise", gold=True, seed=seed)
        assert item.gold == Choice(-1 if said(item)[0] == "good" else 1)
    assert items_of(records, "ranking", gold=True)[0] == []


def test_the_index_of_a_response_does_not_tell_who_won():
    pairs = [Preference(f"x{i}", "p", "good", "bad") for i in range(400)]
    first = sum(said(item)[0] == "good" for item in items_of(pairs, "pairwise")[0])
    assert 160 < first < 240
    ranked = [Ranking(f"r{i}", "p", ("a", "b", "c"), (1, 2, 3)) for i in range(300)]
    best = [item.gold.ranks.index(1) for item in items_of(ranked, "ranking", gold=True)[0]]
    assert min(best.count(k) for k in range(3)) > 70
    for item in items_of(ranked, "ranking", gold=True)[0]:
        assert dict(zip(said(item), item.gold.ranks, strict=True)) == {
            "a": 1,
            "b": 2,
            "c": 3,
        }


def test_judgements_of_one_pair_are_one_item():
    records = [
        Judgement("x/ann", "p", "1", "2", -2, "m", "n", "ann"),
        Judgement("x/bob", "p", "2", "1", 1, "n", "m", "bob"),
        Judgement("y/ann", "q", "1", "2", 1, "m", "n", "ann"),
        Judgement("y/bob", "q", "1", "2", -1, "m", "n", "bob"),
    ]
    found, notes = items_of(records, "pairwise")
    assert [i.key for i in found] == ["x", "y"]
    assert found[0].responses == (ItemResponse("1", "m"), ItemResponse("2", "n"))
    assert notes == {"further judgements of the same two responses": 2}
    known, notes = items_of(records, "pairwise", gold=True)
    assert [(i.key, i.gold) for i in known] == [("x", Choice(-1))]  # on y they disagree
    assert notes["rows without a known answer for this task, left out"] == 1


def test_rankings_whole_or_in_pairs():
    records = [Ranking("r", "p", ("a", "b", "c"), (1, 3, 3))]
    (item,), _ = items_of(records, "ranking", gold=True)
    assert sorted(zip(said(item), item.gold.ranks, strict=True)) == [("a", 1), ("b", 2), ("c", 2)]
    check_answer(item.gold, "ranking", 3)
    pairs, notes = items_of(records, "pairwise", gold=True)
    assert [i.key for i in pairs] == ["r/0-1", "r/0-2", "r/1-2"]
    for pair in pairs:
        wins = {"a": -1, "b": 0, "c": 0}
        assert pair.gold == Choice(wins[said(pair)[0]] - wins[said(pair)[1]])
    assert notes == {"pairs made of rows with several responses": 3}
    (two,), _ = items_of([Ranking("r", "p", ("a", "b"), (2, 1))], "pairwise", gold=True)
    assert (two.key, two.gold) == ("r", Choice(1 if said(two)[0] == "a" else -1))


def test_generations_keep_who_wrote_them_and_how():
    record = Comparison("c", "p", ("a", "b"), ("one", "two"), ({"seed": 1}, {"seed": 2}))
    (item,), _ = items_of([record], "pairwise")
    assert item.responses == (ItemResponse("a", "one", {"seed": 1}), ItemResponse("b", "two", {"seed": 2}))
    lone, notes = items_of([Comparison("c", "p", ("a",))], "pairwise")
    assert lone == [] and notes == {"rows with fewer than two responses, left out": 1}


@pytest.mark.parametrize(
    ("task", "rewards", "axes", "gold"),
    [
        ("ranking", (3.0, 7.0), {}, Ranks((2, 1))),
        ("thumbs", (1.0, 0.0), {}, Thumbs((True, False))),
        ("thumbs", (1.0, 0.5), {}, None),
        ("rating", (4.0, 4.0), {"accuracy": 4.0}, Scores(({"accuracy": 4}, {"accuracy": 4}))),
        ("rating", (4.0, 4.0), {"accuracy": 4.5}, None),
        ("pairwise", (3.0, 7.0), {}, Choice(1)),
    ],
)
def test_ratings_of_one_prompt_are_one_item(task, rewards, axes, gold):
    records = [Rating(f"r{k}", "p", f"reply {k}", reward, axes) for k, reward in enumerate(rewards)]
    (item,), _ = items_of(records, task)
    assert said(item) == ["reply 0", "reply 1"] and item.gold is None
    known, _ = items_of(records, task, gold=True)
    assert [i.gold for i in known] == ([] if gold is None else [gold])


def test_texts_without_a_prompt_stay_apart():
    found, _ = items_of([Rating("a", "", "one", 1.0), Rating("b", "", "two", 0.0)], "thumbs")
    assert [said(i) for i in found] == [["one"], ["two"]]


def test_a_response_rated_twice_is_shown_once_and_known_where_both_agree():
    same = [Rating("a", "p", "one", 7.0, {"x": 7}), Rating("b", "p", "one", 7.0, {"x": 7})]
    other = Rating("c", "p", "two", 3.0, {"x": 3})
    (item,), notes = items_of([*same, other], "rating", gold=True)
    assert said(item) == ["one", "two"] and item.gold == Scores(({"x": 7}, {"x": 3}))
    assert notes == {"further ratings of the same response": 1}
    (item,), _ = items_of([same[0], Rating("b", "p", "one", 2.0, {"x": 2}), other], "rating")
    assert said(item) == ["one", "two"]
    unsure = [same[0], Rating("b", "p", "one", 2.0, {"x": 2}), other]
    assert items_of(unsure, "rating", gold=True)[0] == []
    (item,), _ = items_of([Rating("a", "", "one", 1.0), Rating("b", "", "one", 1.0)], "thumbs", gold=True)
    assert said(item) == ["one"] and item.gold == Thumbs((True,))
