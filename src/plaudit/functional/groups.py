"""Statistics of the responses to one prompt. A group is the rows of one id, wherever they are; sums are in fp64."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Scale = Literal["group", "batch", "none"]
EPSILON = 1e-4
"""Added to a standard deviation that is divided by."""
EQUAL = 1e-6
"""Scores of a group that differ by no more than this share of their mean (or of 1) are the same score."""


@dataclass(frozen=True, slots=True)
class Groups:
    """Scores compared with those of the same group; all tensors are ``[B]``, float64 except ``equal``."""

    centred: Tensor
    """Score minus the mean of its group; exactly 0 where the whole group scored the same, and for rows left out."""
    counts: Tensor
    """Rows of the group that count."""
    std: Tensor
    """Sample standard deviation of the group; exactly 0 where the whole group scored the same."""
    equal: Tensor
    """bool: the whole group scored the same, so it has no signal about which response is better."""


def compare(scores: Tensor, group_ids: Tensor, valid: Tensor) -> Groups:
    """Each score against its group.

    Args:
        scores: ``[B]``; values where not ``valid`` are never used, NaN included.
        group_ids: ``[B]`` int64.
        valid: ``[B]`` bool; the others take no part in mean and spread.

    >>> compare(torch.tensor([1.0, 0, 0, 1]), torch.tensor([7, 7, 7, 7]), torch.ones(4, dtype=torch.bool)).centred
    tensor([ 0.5000, -0.5000, -0.5000,  0.5000], dtype=torch.float64)
    """
    assert scores.shape == group_ids.shape == valid.shape and scores.dim() == 1, "all must be [B]"
    # By id and not by reshaping to [groups, size]: rewards that failed, microbatches and dropped prompts leave groups
    # of unequal size and in any order.
    names, index = group_ids.unique(return_inverse=True)
    x = torch.where(valid, scores.double(), 0.0)

    def total(values: Tensor) -> Tensor:
        return x.new_zeros(len(names)).index_add(0, index, torch.where(valid, values, 0.0))

    counts = total(torch.ones_like(x))
    mean = total(x) / counts.clamp(min=1)
    infinite = torch.full_like(mean, torch.inf)
    highest = (-infinite).scatter_reduce(0, index, torch.where(valid, x, -torch.inf), "amax")
    lowest = infinite.scatter_reduce(0, index, torch.where(valid, x, torch.inf), "amin")
    # Equal up to rounding: a reward model gives the same text scores that differ by 1e-7 from batch to batch, and
    # divided by a deviation of that size they would become an advantage. Within EQUAL the whole group has advantage 0
    # exactly.
    equal = highest - lowest <= EQUAL * mean.abs().clamp(min=1)
    centred = torch.where(valid & ~equal[index], x - mean[index], 0.0)
    std = (total(centred.square()) / (counts - 1).clamp(min=1)).sqrt()
    return Groups(centred, counts[index], std[index], equal[index])


def group_advantages(scores: Tensor, group_ids: Tensor, valid: Tensor, scale: Scale = "group") -> Tensor:
    """``(R - mean_g) / (std + 1e-4)``, ``[B]`` fp32 (GRPO, arXiv:2402.03300, sec. 4.1.2); 0 for rows left out.

    Args:
        scale: what to divide by. group: the sample standard deviation of the group, which weighs very easy and very
            hard prompts more. batch: that of all scores. none: nothing (Dr. GRPO, arXiv:2503.20783).

    >>> ids, everyone = torch.zeros(4, dtype=torch.long), torch.ones(4, dtype=torch.bool)
    >>> group_advantages(torch.tensor([1.0, 0, 0, 1]), ids, everyone)
    tensor([ 0.8659, -0.8659, -0.8659,  0.8659])
    """
    groups = compare(scores, group_ids, valid)
    if scale == "none":
        return groups.centred.float()
    return (groups.centred / _divisors(groups, scores, valid, scale)).float()


def reward_per_advantage(scores: Tensor, group_ids: Tensor, valid: Tensor, scale: Scale) -> float | None:
    """How much of the score one unit of `group_advantages` stands for; None where no score differs in its group.

    A KL in the loss with weight c, beside such advantages, is a KL of c times this in units of the score:

    - The mean of a group has the response itself in it. So n responses have (n - 1) / n of the gradient of the expected
      score, and all of the KL's.
    - What the scores are divided by, the KL is not. With scale "group" that is another number in each group; then it is
      the one number whose advantages are nearest to the real ones (least squares over the scores).

    >>> ids, everyone = torch.zeros(4, dtype=torch.long), torch.ones(4, dtype=torch.bool)
    >>> scores = torch.tensor([1.0, 0, 0, 1])
    >>> [round(reward_per_advantage(scores, ids, everyone, how), 4) for how in ("none", "group")]  # 4/3, 4/3 * 0.5775
    [1.3333, 0.7699]
    """
    groups = compare(scores, group_ids, valid)
    own = ((groups.counts - 1) / groups.counts)[valid].sum()
    if own <= 0:
        return None
    factor = float(valid.sum() / own)
    if scale == "none":
        return factor
    squares = groups.centred.square()
    divided = (squares / _divisors(groups, scores, valid, scale)).sum()
    return factor * float(squares.sum() / divided) if divided > 0 else None


def _divisors(groups: Groups, scores: Tensor, valid: Tensor, scale: Literal["group", "batch"]) -> Tensor:
    """What centred scores are divided by: ``[B]``, or one number."""
    # One valid score has no sample deviation (0 / 0); correction 0 makes it 0.
    counted = scores[valid].double()
    spread = groups.std if scale == "group" else counted.std(correction=min(1, max(len(counted) - 1, 0)))
    return spread + EPSILON


def leave_one_out(scores: Tensor, group_ids: Tensor, valid: Tensor) -> Tensor:
    """Score minus the mean of the others of its group, ``n/(n-1) (R - mean_g)``; ``[B]`` (arXiv:2402.14740, eq. 8).

    0 for rows left out, and for a row whose group has no other that counts: it has no baseline.

    >>> ids, everyone = torch.zeros(4, dtype=torch.long), torch.ones(4, dtype=torch.bool)
    >>> leave_one_out(torch.tensor([1.0, 0, 0, 1]), ids, everyone)
    tensor([ 0.6667, -0.6667, -0.6667,  0.6667])
    """
    groups = compare(scores, group_ids, valid)
    return (groups.centred * groups.counts / (groups.counts - 1).clamp(min=1)).float()


def overlong_penalty(lengths: Tensor, limits: Tensor, buffer: float) -> Tensor:
    """DAPO's soft penalty on length, ``[B]`` from 0 to -1 (arXiv:2503.14476, eq. 13).

    Args:
        lengths: ``[B]`` tokens of the responses; limits: ``[B]`` tokens that were allowed.
        buffer: share of the limit, at its end, in which the penalty grows from 0 to 1.

    >>> overlong_penalty(torch.tensor([80, 90, 100]), torch.tensor([100, 100, 100]), 0.2)
    tensor([ 0.0000, -0.5000, -1.0000])
    """
    # A limit of a few tokens has a buffer below one token; at least 1, so that nothing is divided by 0.
    room = (limits * buffer).clamp(min=1)
    return ((limits - room - lengths) / room).clamp(-1.0, 0.0)
