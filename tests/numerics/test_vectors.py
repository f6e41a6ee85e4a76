"""Vectors of algorithms.md that belong to no function of functional/: L3 and Z1."""

import math

import numpy as np
import pytest
import torch

from plaudit.generation.sampling import Distribution, draw
from plaudit.rewards.classifier import rescale


def test_l3_a_nucleus_samples_from_another_law_than_is_trained():
    """Each token that is kept comes 1 / 0.9 times as often as its log-prob says: log-ratios are off by -ln 0.9."""
    probs = torch.tensor([0.5, 0.3, 0.1, 0.06, 0.04])
    u = torch.from_numpy((np.arange(90_000) + 0.5) / 90_000)
    tokens, logprobs = draw(probs.log().expand(len(u), 5), u, Distribution(top_p=0.899))
    shares = torch.bincount(tokens, minlength=5) / len(u)
    assert shares.tolist() == pytest.approx([5 / 9, 3 / 9, 1 / 9, 0, 0], abs=1e-4)
    for token in range(3):
        recorded = float(logprobs[tokens == token][0])
        assert recorded == pytest.approx(math.log(probs[token]), abs=1e-6), "that of the full law"
        assert math.log(shares[token]) - recorded == pytest.approx(0.105361, abs=1e-3)


def test_z1_a_classifiers_score_is_taken_in_fp32_and_as_log_odds():
    logits = [3.171875, -2.609375]
    assert rescale(logits, 0, "prob") == pytest.approx(0.996925, abs=1e-6)
    assert rescale(logits, 0, "log_odds") == pytest.approx(5.78125, abs=1e-6)
    assert rescale(logits, 0, "logit") == 3.171875
    assert float(torch.tensor(logits, dtype=torch.bfloat16).softmax(-1)[0]) == pytest.approx(
        0.996094, abs=1e-6
    )
