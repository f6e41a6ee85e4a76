"""The curves over distance: fits of known curves, their peaks, and what is not predicted."""

import math
import random

import pytest

from plaudit.cli.main import main
from plaudit.evaluation.comparing.distance import Point, Track
from plaudit.evaluation.frontier import fit, peak_of

from .conftest import make_rl


def track(curve, distances=(0.5, 1.0, 1.5, 2.0, 3.0, 4.0), *, noise=0.0, prompts=40, judge="gold"):
    rng = random.Random(0)
    points = [Point(0, 0.0, {str(p): 0.0 for p in range(prompts)})]
    points += [
        Point(step, d * d, {str(p): curve(d) + rng.gauss(0, noise) for p in range(prompts)})
        for step, d in enumerate(distances, 1)
    ]
    return Track(judge, tuple(points))


def test_a_curve_of_reinforcement_learning_is_found_with_its_peak():
    # d (1.5 - 0.8 log d): the peak lies at exp(1.5 / 0.8 - 1) = 2.399, with a gain of 0.8 times that.
    found = fit(track(lambda d: d * (1.5 - 0.8 * math.log(d))))
    assert (found.a, found.b) == pytest.approx((1.5, 0.8))
    assert found.peak == pytest.approx(2.399, abs=1e-3) and found.gain == pytest.approx(0.8 * 2.399, abs=1e-3)
    assert "peak is predicted at a KL of 5.8 nats, with a gain of 1.92" in found.words


def test_a_curve_of_best_of_n():
    # d (2 - 0.4 d): the peak lies at 2 / 0.8 = 2.5, with a gain of 4 / 1.6 = 2.5.
    found = fit(track(lambda d: d * (2 - 0.4 * d)), "best_of_n")
    assert (found.a, found.b, found.peak, found.gain) == pytest.approx((2.0, 0.4, 2.5, 2.5))


def test_the_intervals_hold_the_truth_and_shrink_with_less_noise():
    curve = lambda d: d * (1.5 - 0.8 * math.log(d))  # noqa: E731
    noisy, quiet = (fit(track(curve, noise=noise, prompts=60)) for noise in (0.8, 0.1))
    for one in (noisy, quiet):
        assert one.a_ci[0] < 1.5 < one.a_ci[1] and one.b_ci[0] < 0.8 < one.b_ci[1]
        assert one.peak_ci[0] < 2.399 < one.peak_ci[1]
    assert noisy.a_ci[1] - noisy.a_ci[0] > 4 * (quiet.a_ci[1] - quiet.a_ci[0])


def test_a_peak_far_beyond_what_was_seen_is_not_predicted():
    # d (3 - log d) has its peak at exp(2) = 7.39, and only distances up to 4 were seen: 1.2 times that is 4.8.
    found = fit(track(lambda d: d * (3 - math.log(d))))
    assert found.peak is None and found.gain is None and "no peak is seen up to d = 4.8" in found.words
    assert fit(track(lambda d: d)).peak is None
    assert peak_of(3.0, 1.0, "rl", 8.0) == pytest.approx(math.exp(2))


def test_a_curve_that_bends_upwards_reads_well():
    assert "d (1.00 + 0.20 log d); no peak" in fit(track(lambda d: d * (1 + 0.2 * math.log(d)))).words


def test_too_few_points_are_no_curve():
    assert fit(track(lambda d: d, (0.05, 0.5, 1.0, 2.0))) is None


def test_the_command(tmp_path, capsys):
    run = make_rl(tmp_path / "run")
    assert main(["frontier", str(run)]) == 0
    out = capsys.readouterr().out
    assert "KL, nats" in out and "gold: the gold reward follows d (" in out and "reward: the reward follows d (" in out
    assert main(["frontier", str(make_rl(tmp_path / "short", kl=0.001))]) == 65
    assert "too few to fit a curve" in capsys.readouterr().err
