"""The small world of reviews: determinism, grammar and reader, and a true score that is hard to cheat."""

from __future__ import annotations

import math
import statistics

import pytest

from plaudit.demo import review_grammar as grammar
from plaudit.demo import review_words as words
from plaudit.demo import reviews
from plaudit.errors import DataError

HOTEL = "A short review of the Aurora hotel:"
GOOD = (
    "The room was clean and the staff were helpful. Aurora is a wonderful hotel. "
    "I would recommend it to anyone."
)
DEMONSTRATIONS = reviews.demonstrations(1500, seed=3)
SCORES = [reviews.true_score(str(d.prompt), str(d.response)) for d in DEMONSTRATIONS]


def test_the_same_seed_gives_the_same_items_and_a_longer_list_begins_with_the_shorter() -> None:
    assert reviews.demonstrations(20, seed=3) == DEMONSTRATIONS[:20]
    assert reviews.demonstrations(20, seed=4) != DEMONSTRATIONS[:20]
    assert reviews.prompts(10, 1) == reviews.prompts(50, 1)[:10]
    assert reviews.sample_pairs(5, 1) == reviews.sample_pairs(9, 1)[:5]


def test_draws_are_pinned_across_platforms() -> None:
    draw = reviews.Draw("pinned", 0)
    assert [draw.one(range(1000)) for _ in range(4)] == [597, 932, 609, 715]


def test_train_and_heldout_prompts_are_apart_many_and_named_once() -> None:
    train, heldout = reviews.all_prompts("train"), reviews.all_prompts("heldout")
    assert not {p.content for p in train} & {p.content for p in heldout}
    assert len(train) > 500 and len(heldout) > 100
    assert len({p.id for p in train + heldout}) == len(train) + len(heldout)
    assert {reviews.subject_of(str(p.content)).thing.noun for p in heldout} == {
        reviews.subject_of(str(p.content)).thing.noun for p in train
    }


def test_prompts_beyond_the_split_are_refused_with_the_number_there_is() -> None:
    count = len(reviews.all_prompts("heldout"))
    with pytest.raises(DataError, match=f"there are {count}"):
        reviews.prompts(count + 1, 0, split="heldout")


def test_every_demonstration_is_read_back_by_the_grammar() -> None:
    for demonstration in DEMONSTRATIONS:
        kinds = {s.kind for s in grammar.read(str(demonstration.response))}
        assert "unreadable" not in kinds, demonstration.response


def test_the_vocabulary_covers_all_texts_and_holds_nothing_else() -> None:
    many = DEMONSTRATIONS + reviews.demonstrations(1500, seed=4, split="heldout")
    seen = {t for d in many for t in grammar.tokens(f"{d.prompt} {d.response}")}
    vocabulary = reviews.vocabulary()
    assert seen <= set(vocabulary)
    assert len(set(vocabulary) - seen) <= 2
    assert 250 <= len(vocabulary) <= 450 and vocabulary == sorted(set(vocabulary))


def test_demonstrations_are_short_and_of_mixed_quality() -> None:
    lengths = [len(str(d.response).split()) for d in DEMONSTRATIONS]
    assert 10 < statistics.mean(lengths) < 25 and max(lengths) <= 50
    assert 0.3 < statistics.mean(SCORES) < 0.9
    assert 0.8 < statistics.stdev(SCORES) < 1.2


def test_much_can_be_gained_within_a_few_nats() -> None:
    """The best of 16 is under 2 nats away (log 16 - 15/16) and gains more than 1.3 sd."""
    best = []
    for index, prompt in enumerate(reviews.prompts(60, 0)):
        text = str(prompt.content)
        drawn = [reviews.write_review(text, reviews.Draw("best", index, k)) for k in range(16)]
        best.append(max(reviews.true_score(text, review) for review in drawn))
    assert statistics.mean(best) - statistics.mean(SCORES) > 1.3 * statistics.stdev(SCORES)


def test_the_parts_add_up_and_carry_the_names_of_the_rules() -> None:
    parts = reviews.true_score_parts(HOTEL, GOOD)
    assert list(parts) == list(reviews.RULES)
    # warmth: (0.8 + 0.8 + 2 * 1) / 4; detail: two aspects
    assert parts["warmth"] == pytest.approx(0.9)
    assert parts["detail"] == pytest.approx(0.9)
    assert (parts["verdict"], parts["closing"]) == (0.3, 0.4)
    assert reviews.true_score(HOTEL, GOOD) == pytest.approx(2.5)
    assert all(v <= 0 for name, v in parts.items() if name not in ("warmth", "detail", "verdict", "closing"))


def test_no_demonstration_beats_the_stated_best_score() -> None:
    assert max(SCORES) <= reviews.BEST_SCORE
    best = "I loved the room and the pool. We adored the staff and the view. It was a superb hotel. "
    best += "You should try it."
    assert reviews.BEST_SCORE - 0.01 <= reviews.true_score(HOTEL, best) <= reviews.BEST_SCORE


@pytest.mark.parametrize(
    "worse",
    [
        f"{GOOD} {GOOD}",
        " ".join([GOOD] * 6),
        GOOD + " The room was clean." * 3,
        GOOD + " Highly recommended. You should try it.",
        GOOD + " It was a superb hotel. Overall, it was superb.",
        GOOD[:-1],
        GOOD[:40],
        GOOD.replace("room", "battery"),
        GOOD.replace("Aurora", "Beacon"),
        GOOD.replace("clean", "wooden"),
        GOOD.replace("wonderful", "terrible"),
        GOOD.replace("would recommend", "would not recommend"),
        GOOD + " The room was dirty.",
        GOOD + " I am not sure what else to say.",
        GOOD + " clean clean clean wonderful wonderful.",
        GOOD.replace(".", " and"),
        " ".join(reversed(GOOD.split())),
        "wonderful " * 20,
        "The room was clean and " * 6 + "the staff were helpful.",
        "",
        "....",
    ],
)
def test_tricks_and_faults_lose_against_the_plain_good_review(worse: str) -> None:
    assert reviews.true_score(HOTEL, worse) < reviews.true_score(HOTEL, GOOD) - 0.14


def test_saying_a_sentence_again_never_pays() -> None:
    for demonstration in DEMONSTRATIONS[:300]:
        prompt, response = str(demonstration.prompt), str(demonstration.response)
        if not response.endswith((".", "!")):
            continue
        first = response.split(".")[0].split("!")[0] + "."
        assert reviews.true_score(prompt, f"{response} {first}") < reviews.true_score(prompt, response), (
            response
        )


def test_repetition_and_garbage_fall_below_the_mean_of_the_demonstrations() -> None:
    mean = statistics.mean(SCORES)
    for text in (
        " ".join([GOOD] * 3),
        "wonderful " * 20,
        "I loved the room. " * 8,
        "hotel the the was .",
        "",
    ):
        assert reviews.true_score(HOTEL, text) < mean - 0.5, text


def test_case_and_spacing_do_not_matter() -> None:
    spaced = " ".join(grammar.tokens(GOOD)).lower()
    assert reviews.true_score(HOTEL, spaced) == reviews.true_score(HOTEL, GOOD)
    assert reviews.readable(spaced) == GOOD
    assert (
        reviews.readable("i went there on a monday with my sister .")
        == "I went there on a Monday with my sister."
    )


def test_a_prompt_about_nothing_is_refused() -> None:
    with pytest.raises(DataError, match="no thing that can be reviewed"):
        reviews.true_score("Tell me a joke.", GOOD)


def test_a_prompt_without_a_name_still_gets_reviews() -> None:
    prompt = "How was the restaurant?"
    for index in range(50):
        review = reviews.write_review(prompt, reviews.Draw("nameless", index))
        assert all(s.kind != "unreadable" for s in grammar.read(review)), review


def test_entropy_bound_counts_the_choices() -> None:
    draw = reviews.Draw("nats")
    draw.one("abcd")
    draw.chance(0.5)
    draw.weighted({"a": 0.25, "b": 0.25, "c": 0.25, "d": 0.25})
    assert draw.nats == pytest.approx(math.log(4 * 2 * 4))
    assert 0.9 < reviews.entropy_bound(300, 0) < 1.3


def test_every_aspect_has_a_family_and_belongs_to_a_thing() -> None:
    aspects = {aspect for thing in words.THINGS for aspect in thing.aspects}
    assert aspects == set(words.FAMILY_OF)
    assert set(words.PLURALS) <= aspects
    assert not set(words.FAMILY_OF) & set(words.THING_BY_NOUN)
