"""algorithms.md 3.1: L1-L3."""

import math

import pytest
import torch

from plaudit.functional.logprobs import at_mask, predicting_states, token_entropy, token_logprobs

LOGITS = torch.tensor([[0.0, math.log(2), math.log(3)]])


@pytest.mark.parametrize(
    ("temperature", "expected", "entropy"),
    [(1.0, [-1.791759, -1.098612, -0.693147], 1.011404), (0.5, [-2.639057, -1.252763, -0.441833], 0.830472)],
)
def test_l1_l2_logprobs_and_entropy(temperature, expected, entropy):
    found = token_logprobs(LOGITS.expand(3, 3), torch.arange(3), temperature)
    assert found.tolist() == pytest.approx(expected, abs=1e-6)
    assert token_entropy(LOGITS, temperature).item() == pytest.approx(entropy, abs=1e-6)


def test_bf16_logits_are_reduced_in_fp32():
    logits = torch.randn(4, 50, generator=torch.Generator().manual_seed(0)).bfloat16()
    found = token_logprobs(logits, torch.zeros(4, dtype=torch.long))
    assert found.dtype == torch.float32
    assert torch.allclose(found, logits.float().log_softmax(-1)[:, 0], atol=1e-6)


def test_states_and_places_are_inverse():
    mask = torch.tensor([[False, True, True, False], [False, False, True, True]])
    hidden = torch.arange(8.0).view(2, 4, 1)
    states = predicting_states(hidden, mask)
    assert states.flatten().tolist() == [0, 1, 5, 6]
    assert at_mask(states.flatten() + 1, mask).tolist() == [[0, 1, 2, 0], [0, 0, 6, 7]]


def test_first_token_cannot_be_trained_on():
    with pytest.raises(AssertionError, match="first token"):
        predicting_states(torch.zeros(1, 2, 1), torch.tensor([[True, True]]))


def test_a_token_that_is_ruled_out_has_no_part_in_the_entropy():
    logits = torch.tensor([[0.0, math.log(3), -torch.inf]], requires_grad=True)
    entropy = token_entropy(logits)
    assert entropy.item() == pytest.approx(2 * math.log(2) - 0.75 * math.log(3), abs=1e-6)
    entropy.sum().backward()
    # -p (log p + H), with p = 1/4, 3/4 and 0
    slope = 0.25 * (math.log(4) - entropy.item())
    assert logits.grad[0].tolist() == pytest.approx([slope, -slope, 0.0], abs=1e-6)
