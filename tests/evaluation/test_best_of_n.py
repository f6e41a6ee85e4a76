"""The card of best-of-n: the reward that chose proves nothing, and the gold reward decides."""

import random

import pytest

from plaudit.evaluation import kinds
from plaudit.evaluation.report import write_report
from plaudit.runs.files import read_lines

from .conftest import BAD, GOOD, write_lines, write_run


def make(run, *, prompts=40, gold=None, gold_on=1.0, response=None, finish="stop", spread=1.0, by_length=0.0):
    """``gold``: how much of the reward's differences the gold reward has; None: there is no gold reward."""
    draw = random.Random(0)
    rows, pairs, texts = [], [], GOOD + BAD
    for i in range(prompts):
        lengths = [draw.randint(10, 30) for _ in range(4)]
        scores = [spread * draw.gauss(0, 1) + by_length * length for length in lengths]
        best = max(range(4), key=scores.__getitem__)
        row = {
            "prompt_id": f"p{i}", "prompt": "say", "response": response or texts[i % 6], "reward": scores[best],
            "finish_reason": finish, "scores": scores, "lengths": lengths, "best": best,
            "one_score": spread * draw.gauss(0, 1),
        }  # fmt: skip
        if gold is not None:
            known = draw.random() < gold_on
            values = [gold * score + draw.gauss(0, 0.3) if known else None for score in scores]
            row |= {"gold_scores": values, "one_gold": gold * row["one_score"] if known else None}
        rows.append(row)
        pairs.append({"id": f"p{i}", "chosen": row["response"], "rejected": texts[i % 5], "margin": 1.0})
    write_run(run, "best-of-n", [{"step": prompts, "time": 1.76e9, "rs/mean": 0.0}])
    write_lines(run / "best.jsonl", rows)
    write_lines(run / "pairs.jsonl", pairs if spread else [])
    return run


def read(run):
    card = kinds.card(run)
    loaded = kinds.load_run(run)
    kind = kinds.kind_of(loaded)
    return card, kind.verdict(loaded), kind.warnings(loaded), kind.unchecked(loaded)


def test_the_reward_that_chose_does_not_show_that_the_best_is_better(tmp_path):
    card, verdict, found, missing = read(make(tmp_path / "r"))
    assert card["verdict"] is None and card["reward_gain_ci"][0] > 0
    assert verdict.tone == "flat" and verdict.headline == "The best of 4 has more of the reward that chose it."
    assert "so whatever it pays for" in verdict.evidence and found == []
    assert missing == ["whether the best is better, or exploits the reward (there is no gold reward: --gold)"]
    page = write_report(tmp_path / "r").read_text("utf-8")
    assert "No warning signs were found in what could be checked." in page


@pytest.mark.parametrize(
    ("gold", "verdict", "tone", "headline"),
    [
        (0.5, "better", "good", "The best of 4 is better than one sample."),
        (0.0, "no_change", "flat", "The best of 4 may be no better than one sample."),
        (-0.5, "worse", "bad", "The best of 4 is worse than one sample."),
    ],
)
def test_the_gold_reward_decides(tmp_path, gold, verdict, tone, headline):
    card, found, warnings, missing = read(make(tmp_path / "r", gold=gold))
    assert (card["verdict"], found.tone, found.headline) == (verdict, tone, headline)
    assert "the gold reward, by which nothing was chosen, changed by" in found.evidence and missing == []
    assert [w.split(":")[0] for w in warnings] == (["Over-optimised"] if gold < 0 else [])


def test_a_gold_reward_on_few_prompts_or_that_never_differs_decides_nothing(tmp_path):
    card, verdict, warnings, _ = read(make(tmp_path / "few", gold=0.5, gold_on=0.2))
    assert card["gold_prompts"] < 10 and card["verdict"] == "too_few"
    assert verdict.headline == "Too few prompts to say."
    assert f"Over {card['gold_prompts']} of 40 prompts" in verdict.evidence
    assert any(warning.startswith("The gold reward failed on") for warning in warnings)
    run = make(tmp_path / "constant", gold=0.5)
    same = {"gold_scores": [0.5] * 4, "one_gold": 0.5}
    write_lines(run / "best.jsonl", [row | same for row in read_lines(run / "best.jsonl")])
    card, verdict, _, missing = read(run)
    assert verdict.tone == "flat" and "the gold reward gave all responses to a prompt the same value" in missing[0]


def test_what_the_reward_pays_for_is_named(tmp_path):
    phrase = "It was fine. There is not much more to say."
    _, _, found, _ = read(make(tmp_path / "phrase", response=phrase))
    assert any("stands in 40 of 40 responses; among the worst it stood in 0 of 40" in words for words in found)
    assert read(make(tmp_path / "gold", gold=0.5, response=phrase))[2] == [], "the gold reward has decided"
    card, _, found, _ = read(make(tmp_path / "length", gold=0.5, by_length=1.0))
    assert card["length_correlation"] > 0.9 and found[0].startswith("The reward goes by length")
    card, _, found, missing = read(make(tmp_path / "tied", spread=0.0, finish="length"))
    assert card["tied_share"] == 1.0 and card["length_correlation"] is None
    assert [words.split(" ")[0] for words in found] == ["On", "100\u202f%"]
    assert "fewer than 24 prompts had a best and a worst response" in missing[1]
    _, _, _, missing = read(make(tmp_path / "small", prompts=5, gold=0.5))
    assert "fewer than 10 prompts judge it" in missing[0]
