"""Correction for the sampler, as the loop does it after credit."""

import math

import pytest
import torch

from plaudit.config.sections import MismatchSection
from plaudit.experience import Experience
from plaudit.training.signals import correct_mismatch


@pytest.fixture
def batch():
    mask = torch.tensor([[False, True, True, False], [False, True, True, True]])
    gap = torch.tensor([[9.0, 0.9, 0.0, 9.0], [9.0, 0.0, -0.1, 0.1]])
    old = torch.full((2, 4), -1.0)
    return Experience(
        torch.zeros(2, 4, dtype=torch.long), torch.ones(2, 4, dtype=torch.bool), mask,
        old_logprobs=old, sampled_logprobs=old - gap, advantages=torch.ones(2, 4) * mask,
    )  # fmt: skip


def test_q3_tokens_are_truncated_at_2(batch):
    found, metrics = correct_mismatch(batch, MismatchSection())
    assert found.mismatch_weights[0].tolist() == [0, 2.0, 1.0, 0]
    assert found.mismatch_weights[1, 1:].tolist() == pytest.approx([1, math.exp(-0.1), math.exp(0.1)])
    assert metrics["rollout/weight_max"] == pytest.approx(math.exp(0.9))
    assert metrics["rollout/truncated_share"] == pytest.approx(0.2)
    assert torch.equal(found.advantages, batch.advantages) and torch.equal(
        found.response_mask, batch.response_mask
    )


def test_none_measures_only(batch):
    found, metrics = correct_mismatch(batch, MismatchSection(correction="none"))
    assert found.mismatch_weights is None and metrics["rollout/logprob_diff_max"] == pytest.approx(0.9)


def test_mask_and_sequence_forms(batch):
    masked, _ = correct_mismatch(batch, MismatchSection(correction="mask"))
    assert masked.mismatch_weights[0].tolist() == [0, 0.0, 1.0, 0]
    whole, _ = correct_mismatch(batch, MismatchSection(correction="truncate_sequence", weight_high=10.0))
    assert whole.mismatch_weights[0, 1:3].tolist() == pytest.approx([math.exp(0.9)] * 2)


def test_far_responses_are_dropped_whole(batch):
    found, metrics = correct_mismatch(batch, MismatchSection(correction="drop", weight_high=1.5))
    assert not found.response_mask[0].any() and not found.advantages[0].any()
    assert (
        torch.equal(found.response_mask[1], batch.response_mask[1])
        and metrics["rollout/dropped_share"] == 0.5
    )


def test_without_old_logprobs_there_is_nothing_to_compare(batch):
    bare = batch.replace(old_logprobs=None)
    assert correct_mismatch(bare, MismatchSection()) == (bare, {})
