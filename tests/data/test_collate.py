"""Masks come from lengths, rows of a pair lie side by side, nothing depends on the padding token."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from plaudit.data.chat import Encoded
from plaudit.data.collate import (
    collate_demonstrations,
    collate_pairs,
    collate_ratings,
    collate_rollouts,
)
from plaudit.records import Prompt, Rollout

PAD = 9
SHORT = Encoded([1, 2, PAD], [False, True, True], 1)
LONG = Encoded([1, 3, 4, 5], [False, True, False, True], 1)


def test_demonstrations():
    batch = collate_demonstrations([SHORT, LONG], PAD)
    assert batch.tokens.tolist() == [[1, 2, PAD, PAD], [1, 3, 4, 5]]
    assert batch.attention_mask.tolist() == [[True, True, True, False], [True] * 4]
    assert batch.response_mask.tolist() == [[False, True, True, False], [False, True, False, True]]
    assert batch.tokens.dtype == torch.int64 and batch.attention_mask.dtype == torch.bool


def test_the_first_column_is_masked():
    batch = collate_demonstrations([Encoded([1, 2], [True, True], 0)], PAD)
    assert batch.response_mask.tolist() == [[False, True]]


def test_pairs_lie_side_by_side():
    pairs = collate_pairs([SHORT, LONG], [LONG, SHORT], [None, 2.0], [1.0, 0.75], PAD)
    assert pairs.tokens[:, 1].tolist() == [2, 3, 3, 2]
    assert pairs.margins.tolist() == [0.0, 2.0] and pairs.targets.tolist() == [1.0, 0.75]
    assert len(pairs) == 2


def test_ratings():
    assert collate_ratings([SHORT, LONG], [1, 0.5], PAD).rewards.tolist() == [1.0, 0.5]
    with pytest.raises(AssertionError):
        collate_ratings([SHORT, LONG], [1.0], PAD)


def rollout(prompt, response, **more):
    fields = {
        "group_id": 0,
        "logprobs": tuple(-0.5 for _ in response),
        "response": "",
        "finish_reason": "stop",
    }
    reward = more.pop("reward", None)
    made = Rollout.single(Prompt("p", "q"), prompt_ids=prompt, response_ids=response, **(fields | more))
    return replace(made, reward=reward)


def test_rollouts():
    rollouts = [
        rollout((1, 2), (3, PAD), group_id=4, reward=2.0),
        rollout((1,), (5,), group_id=4, finish_reason="length"),
        rollout((1, 2, 3), (), finish_reason="abort"),
    ]
    batch = collate_rollouts(rollouts, PAD)
    assert batch.tokens.tolist() == [[1, 2, 3, PAD], [1, 5, PAD, PAD], [1, 2, 3, PAD]]
    assert batch.response_mask.sum(-1).tolist() == [2, 1, 0]
    assert batch.lengths.tolist() == [4, 2, 3]
    assert batch.sampled_logprobs.tolist() == [[0, 0, -0.5, -0.5], [0, -0.5, 0, 0], [0, 0, 0, 0]]
    assert batch.rewards.isnan().tolist() == [False, True, True]
    assert batch.truncated.tolist() == [False, True, False]
    assert batch.group_ids.tolist() == [4, 4, 0]
