"""algorithms.md 2.6.2: missing end tokens, then scale, then clip."""

import pytest
import torch

from plaudit.functional.controllers import Moments
from plaudit.functional.scores import missing_eos, scale

SCORES = torch.tensor([2.0, -3.0, float("nan")])


def test_missing_eos_leaves_whole_responses_and_failed_rewards_alone():
    cut = torch.tensor([True, False, True])
    for how, expected in (("subtract", 1.0), ("fixed", -1.0)):
        assert missing_eos(SCORES, cut, how, 1.0)[:2].tolist() == [expected, -3.0]
        assert missing_eos(SCORES, cut, how, 1.0)[2].isnan()
    assert missing_eos(SCORES, cut, "mask", 1.0).isnan().tolist() == [True, False, True]


def test_scale_and_normalise_and_clip_in_this_order():
    scores, moments = torch.tensor([1.0, 2.0, 3.0]), Moments().update([1, 2, 3])  # std .816497
    assert scale(scores, moments, "none", 0).tolist() == [1, 2, 3]
    assert scale(scores, moments, "none", 1.5).tolist() == [1, 1.5, 1.5]
    assert scale(scores, moments, "scale", 0).tolist() == pytest.approx(
        [1.224745, 2.449490, 3.674235], abs=1e-6
    )
    assert scale(scores, moments, "normalize", 0).tolist() == pytest.approx(
        [-1.224745, 0, 1.224745], abs=1e-6
    )
    assert scale(scores, moments, "normalize", 0.5).tolist() == pytest.approx([-0.5, 0, 0.5])


def test_one_score_alone_is_not_blown_up():
    assert scale(torch.tensor([13.37]), Moments().update([13.37]), "normalize", 5).item() == pytest.approx(
        0, abs=1e-5
    )
