import json
import math
import random

import numpy as np
import pytest

from plaudit.errors import DataError
from plaudit.preferences.compare import as_text, compare, versus
from plaudit.records import Judgement, Message
from plaudit.statistics.intervals import wilson

TRUE = {"base": -0.8, "sft": 0.0, "ppo": 0.8}


def judged(prompt, a: str, b: str, strength: int, annotator: str = "ann") -> Judgement:
    return Judgement("", prompt, f"{a} says", f"{b} says", strength, a, b, annotator)


def tournament(prompts: int, seed: int, *, bias: float = 0.0, annotators: int = 1) -> list[Judgement]:
    """Every two models on every prompt, in random order; ``bias`` favours the first in logits."""
    draw = random.Random(seed)
    found = []
    for prompt in range(prompts):
        for one, other in (("base", "sft"), ("base", "ppo"), ("sft", "ppo")):
            for k in range(annotators):
                a, b = (one, other) if draw.random() < 0.5 else (other, one)
                p = 1 / (1 + math.exp(TRUE[b] - TRUE[a] - bias))
                found.append(judged(f"prompt {prompt}", a, b, -1 if draw.random() < p else 1, f"p{k}"))
    return found


def test_win_rate_by_hand_ties_half_and_a_prompt_counts_once():
    judgements = [
        judged("p", "x", "y", -2),
        judged("p", "y", "x", 1, "bob"),  # x again: two judgements, one prompt
        judged("q", "x", "y", 0),
        judged("r", "y", "x", -1),
        judged("r", "z", "x", -1),  # another pair
    ]
    found = versus(judgements, "x", "y")
    assert (found.wins, found.ties, found.losses) == (2, 1, 1)
    assert found.win_rate.value == pytest.approx((1 + 0.5 + 0) / 3)
    assert found.win_rate.interval == pytest.approx(wilson(1.5, 3))
    other = versus(judgements, "y", "x")
    assert other.win_rate.value == pytest.approx(0.5) and (other.wins, other.losses) == (1, 2)


def test_neither_of_two_responses_that_are_the_same_wins():
    """Three models of which two said the same: someone who has to rank them all puts one first."""
    judgements = [
        Judgement("", "p", "yes", "yes", -1, "x", "y", "ann"),
        Judgement("", "p", "yes", "no", -1, "x", "z", "ann"),
        Judgement("", "q", "yes", "yes", 0, "y", "x", "ann"),
    ]
    found = versus(judgements, "x", "y")
    assert (found.win_rate.value, found.wins, found.ties, found.losses) == (0.5, 0, 2, 0)
    everything = compare(judgements)
    assert everything.notes[0].startswith("1 judgements prefer one of two responses that are the same")
    assert everything.position.first.n == 2, "whom they preferred tells of the place"
    assert not compare(judgements[1:]).notes


def test_chats_are_prompts_as_well():
    chat = (Message("user", "Hi"),)
    assert versus([judged(chat, "x", "y", -1), judged(chat, "x", "y", 1)], "x", "y").win_rate.n == 1


def test_strengths_of_a_tournament_are_the_true_ones():
    found = compare(tournament(2000, seed=0), draws=300)
    assert [s.model for s in found.models] == ["ppo", "sft", "base"]
    for standing in found.models:
        assert standing.strength.value == pytest.approx(TRUE[standing.model], abs=0.1)
        assert standing.strength.low < TRUE[standing.model] < standing.strength.high
        assert (standing.strength.n, standing.judgements) == (2000, 4000)
    assert [(v.model, v.other) for v in found.versus] == [("ppo", "sft"), ("ppo", "base"), ("sft", "base")]
    for v in found.versus:
        truth = 1 / (1 + math.exp(TRUE[v.other] - TRUE[v.model]))
        assert v.win_rate.low < truth < v.win_rate.high


@pytest.mark.slow
def test_intervals_cover_the_truth_about_95_of_100_times():
    found = [compare(tournament(150, seed=s), draws=300) for s in range(150)]
    strength = [s.strength for f in found for s in f.models if s.model == "ppo"]
    assert 0.89 <= np.mean([s.low <= TRUE["ppo"] <= s.high for s in strength]) <= 0.99
    truth = 1 / (1 + math.exp(-1.6))
    rates = [v.win_rate for f in found for v in f.versus if {v.model, v.other} == {"ppo", "base"}]
    assert 0.89 <= np.mean([r.low <= truth <= r.high for r in rates]) <= 0.99


def test_more_annotators_of_the_same_prompts_do_not_make_more_prompts():
    one, many = compare(tournament(100, 1), draws=100), compare(tournament(100, 1, annotators=5), draws=100)
    assert one.prompts == many.prompts == 100 and many.annotators == 5
    assert {v.win_rate.n for v in many.versus} == {100}


def test_position_bias_is_found_and_said():
    assert compare(tournament(300, 2), draws=50).position.p_value > 0.01
    biased = compare(tournament(300, 2, bias=0.7), draws=50)
    assert biased.position.first.value > 0.55 and biased.position.p_value < 1e-4
    assert any("shown first won" in note for note in biased.notes)


def test_three_who_saw_the_same_order_are_no_evidence_of_bias():
    thrice = [j for j in tournament(8, 0) for _ in range(3)]
    assert compare(thrice, draws=20).position == compare(thrice[::3], draws=20).position


def test_groups_that_never_met_and_undefeated_models_stay_finite():
    found = compare(
        [judged("p", "a", "b", -1), judged("q", "a", "b", -2), judged("p", "c", "d", 1)], draws=50
    )
    assert all(math.isfinite(s.strength.value) for s in found.models)
    assert any("2 groups of models were never compared" in note for note in found.notes)
    assert len(found.versus) == 2
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["prompts"] == 2


def test_judgements_without_models_are_left_out_and_said():
    judgements = [judged("p", "x", "y", -1), judged("p", "", "y", 1), judged("p", "x", "x", 1)]
    found = compare(judgements, draws=20)
    assert found.judgements == 1 and "2 judgements without two different models" in found.notes[0]
    with pytest.raises(DataError, match="none of the 2 judgements"):
        compare(judgements[1:])


def test_text_says_everything():
    text = as_text(compare(tournament(50, 3), draws=50))
    for words in ("150 judgements of 50 prompts by 1 annotator\n", "ppo over base", "shown first won"):
        assert words in text
