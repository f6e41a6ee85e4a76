import math
import random

import numpy as np
import pytest

from plaudit.loop.simulated import SimulatedAnnotator
from plaudit.preferences.reliability import dawid_skene
from plaudit.preferences.votes import Vote
from plaudit.statistics import bradley_terry

RATES = {"good": 0.05, "fair": 0.2, "poor": 0.4, "guess": 0.5}


def simulated_votes(units: int, seed: int) -> tuple[list[Vote], dict[str, int]]:
    """Annotators who err at the known rates, on two responses that clearly differ."""
    people = [SimulatedAnnotator(name, rate, temperature=0.0) for name, rate in RATES.items()]
    draw = random.Random(seed)
    truth, votes = {}, []
    for index in range(units):
        scores = {"a": draw.random(), "b": draw.random()}
        truth[f"u{index}"] = -1 if scores["a"] > scores["b"] else 1
        for person in people:
            verdict = person.judge("", "a", "b", lambda _, r, s=scores: s[r], seed=seed, index=index)
            votes.append(Vote(f"u{index}", person.name, float(np.sign(verdict.strength))))
    return votes, truth


@pytest.mark.parametrize("symmetric", [True, False])
def test_dawid_skene_finds_the_error_rates_and_beats_the_majority(symmetric):
    votes, truth = simulated_votes(1500, seed=1)
    found = dawid_skene(votes, symmetric=symmetric)
    for name, accuracy in found.accuracy().items():
        assert accuracy == pytest.approx(1 - RATES[name], abs=0.05)
    best = [found.labels[k] for k in found.posterior.argmax(1)]
    weighted = np.mean([best[i] == truth[unit] for i, unit in enumerate(found.units)])
    sums = dict.fromkeys(truth, 0.0)
    for vote in votes:
        sums[vote.unit] += vote.label
    majority = np.mean([0.5 if s == 0 else (s > 0) == (truth[u] > 0) for u, s in sums.items()])
    assert weighted > majority + 0.05
    # Nothing does better than the best annotator's rate by much here: 0.95 alone, about 0.95 together.
    assert weighted > 0.93


def test_posterior_is_calibrated():
    votes, truth = simulated_votes(3000, seed=2)
    found = dawid_skene(votes, symmetric=True)
    sure = found.posterior.max(1)
    right = np.array(
        [found.labels[k] == truth[u] for k, u in zip(found.posterior.argmax(1), found.units, strict=True)]
    )
    assert right.mean() == pytest.approx(sure.mean(), abs=0.04)


def test_an_annotator_who_turns_everything_round_is_read_backwards():
    draw = random.Random(3)
    votes = []
    for unit in range(300):
        side = draw.choice((-1.0, 1.0))
        votes += [Vote(str(unit), name, side if draw.random() < 0.85 else -side) for name in "abc"]
        votes.append(Vote(str(unit), "liar", -side))
    accuracy = dawid_skene(votes).accuracy()
    assert accuracy["liar"] < 0.1 and min(accuracy[n] for n in "abc") > 0.75


def test_few_votes_convict_nobody():
    found = dawid_skene([Vote("u", "a", 1.0), Vote("u", "b", 1.0), Vote("u", "c", -1.0)])
    assert found.posterior[0, 1] > 0.5
    assert all(0.2 < a < 0.95 for a in found.accuracy().values())
    with pytest.raises(ValueError, match="no votes"):
        dawid_skene([])


def test_one_label_only():
    for symmetric in (True, False):
        found = dawid_skene([Vote("u", "a", 0.0), Vote("u", "b", 0.0)], symmetric=symmetric)
        assert found.posterior.tolist() == [[1.0]] and found.accuracy()["a"] == pytest.approx(1.0)


# Bradley and Terry


def test_two_players_by_hand():
    assert np.diff(bradley_terry.fit(np.array([[0.0, 1.0], [3.0, 0.0]]), prior=0.0))[0] == pytest.approx(
        math.log(3)
    )
    # One drawn game on top: 1.5 against 3.5.
    assert np.diff(bradley_terry.fit(np.array([[0.0, 1.0], [3.0, 0.0]]), prior=1.0))[0] == pytest.approx(
        math.log(3.5 / 1.5)
    )


def test_likelihood_equations_hold_and_batches_are_fitted_alike():
    rng = np.random.default_rng(0)
    wins = rng.integers(0, 6, (5, 4, 4)).astype(float) * (1 - np.eye(4))
    fitted = bradley_terry.fit(wins, prior=0.5)
    for table, strengths in zip(wins, fitted, strict=True):
        assert bradley_terry.fit(table, prior=0.5) == pytest.approx(strengths, abs=1e-8)
        games = table + table.T
        met = games > 0
        p = 1 / (1 + np.exp(strengths[None, :] - strengths[:, None]))
        expected = ((games + 0.5 * met) * p).sum(1)
        assert expected == pytest.approx((table + 0.25 * met).sum(1), abs=1e-6)
        assert strengths.sum() == pytest.approx(0.0, abs=1e-9)


def test_true_strengths_are_recovered():
    rng = np.random.default_rng(1)
    truth = np.array([1.0, 0.3, -0.2, -1.1])
    wins = np.zeros((4, 4))
    for i in range(4):
        for j in range(i):
            wins[i, j] = rng.binomial(4000, 1 / (1 + math.exp(truth[j] - truth[i])))
            wins[j, i] = 4000 - wins[i, j]
    assert bradley_terry.fit(wins) == pytest.approx(truth - truth.mean(), abs=0.06)


def test_undefeated_players_and_separate_groups_stay_finite():
    wins = np.zeros((5, 5))
    wins[0, 1] = 7
    wins[2, 3] = 1
    strengths = bradley_terry.fit(wins)
    assert np.isfinite(strengths).all() and strengths[4] == 0.0
    assert strengths[0] + strengths[1] == pytest.approx(0) and strengths[2] + strengths[3] == pytest.approx(0)
    assert strengths[0] > strengths[2] > 0
    assert np.isfinite(bradley_terry.fit(wins, prior=0.0)).all()
    games = wins + wins.T
    assert bradley_terry.connected(games) == [[0, 1], [2, 3], [4]]
