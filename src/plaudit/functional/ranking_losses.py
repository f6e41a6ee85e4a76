"""Losses on ranked lists and the targets of uncertain comparisons. Scores of all lists are in one tensor.

``scores, ranks, groups [R]``: score, rank (1 is best, ties share one) and list (0 to N - 1) of each response. Each
response is scored once, whatever the number of pairs it is in: K forward passes, not 2 C(K, 2).
"""

from __future__ import annotations

import torch
from torch import Tensor


def ordered_pairs(ranks: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
    """Indices ``[M]`` of the better and of the worse response of every pair of a list that is not a tie.

    >>> ordered_pairs(torch.tensor([1, 2, 2]), torch.zeros(3))
    (tensor([0, 0]), tensor([1, 2]))
    """
    assert ranks.shape == groups.shape and ranks.dim() == 1
    ahead = (groups[:, None] == groups[None, :]) & (ranks[:, None] < ranks[None, :])
    better, worse = ahead.nonzero(as_tuple=True)
    return better, worse


def group_means(values: Tensor, groups: Tensor, count: int) -> Tensor:
    """Mean ``[count]`` of the values of each group; 0 for a group without any.

    >>> group_means(torch.tensor([1.0, 3.0, 5.0]), torch.tensor([0, 0, 2]), 3)
    tensor([2., 0., 5.])
    """
    assert values.shape == groups.shape and values.dim() == 1
    sums = values.new_zeros(count).index_add(0, groups, values)
    return sums / group_sizes(groups, count).clamp(min=1)


def group_sizes(groups: Tensor, count: int) -> Tensor:
    """Members ``[count]`` of each group, int64.

    >>> group_sizes(torch.tensor([0, 0, 2]), 3)
    tensor([2, 0, 1])
    """
    return torch.bincount(groups, minlength=count)


def plackett_luce(scores: Tensor, ranks: Tensor, groups: Tensor, count: int) -> Tensor:
    """Negative log-likelihood ``[count]`` of each order (Plackett 1975): ``-sum_i log softmax(s_i, s_i+1, ...)_i``.

    The best is chosen among all, the next among the rest, and so on. Responses that share a rank are not compared with
    each other: each is compared with those below it. Two responses give the loss of Bradley and Terry.

    >>> s, r, g = torch.tensor([2.0, 1.0, 0.0]), torch.tensor([1, 2, 3]), torch.tensor([0, 0, 0])
    >>> plackett_luce(s, r, g, 1)
    tensor([0.7209])
    """
    assert scores.shape == ranks.shape == groups.shape and scores.dim() == 1
    # The diagonal is each response itself, which belongs into its own denominator. One [R, R] table serves all lists:
    # R is a microbatch, some dozens.
    below = (groups[:, None] == groups[None, :]) & (ranks[:, None] < ranks[None, :])
    rivals = below | torch.eye(len(scores), dtype=torch.bool, device=scores.device)
    return scores.new_zeros(count).index_add(0, groups, _lse(scores, rivals) - scores)


def best_choice(scores: Tensor, ranks: Tensor, groups: Tensor, count: int) -> Tensor:
    """``-log softmax(scores)`` of each list's best response ``[count]`` (Ziegler et al. 2019, arXiv:1909.08593, eq. 1).

    Where several share the best rank, the mean over them. A list in which all share one rank has no signal: 0.

    >>> s, r, g = torch.tensor([2.0, 1.0, 0.0]), torch.tensor([1, 2, 2]), torch.tensor([0, 0, 0])
    >>> best_choice(s, r, g, 1)
    tensor([0.4076])
    """
    assert scores.shape == ranks.shape == groups.shape and scores.dim() == 1
    same = groups[:, None] == groups[None, :]
    losses = _lse(scores, same) - scores
    best = best_rows(ranks, groups)
    means = group_means(losses[best], groups[best], count)
    undecided = group_sizes(groups[best], count) == group_sizes(groups, count)
    return torch.where(undecided, 0.0, means)


def best_rows(ranks: Tensor, groups: Tensor) -> Tensor:
    """``[R]`` bool: nothing in the list ranks better.

    >>> best_rows(torch.tensor([2, 1, 1, 1]), torch.tensor([0, 0, 0, 1]))
    tensor([False,  True,  True,  True])
    """
    same = groups[:, None] == groups[None, :]
    return ~(same & (ranks[None, :] < ranks[:, None])).any(-1)


def smoothed_targets(targets: Tensor, flipped: float) -> Tensor:
    """Probability that chosen is better if a label is wrong with probability ``flipped`` (label smoothing).

    >>> smoothed_targets(torch.tensor([1.0, 0.5]), 0.1)
    tensor([0.9000, 0.5000])
    """
    return targets * (1 - flipped) + (1 - targets) * flipped


def unbiased_targets(targets: Tensor, flipped: float) -> Tensor:
    """Targets with which the mean of a cross-entropy over wrong labels is the loss of the clean ones.

    ``(p - e) / (1 - 2e)``: 1 becomes ``(1 - e) / (1 - 2e)``, above 1, and 0 becomes ``-e / (1 - 2e)``, below 0
    (Natarajan et al. 2013; for preferences arXiv:2403.00409). The loss can be negative.

    >>> unbiased_targets(torch.tensor([1.0, 0.5]), 0.1)
    tensor([1.1250, 0.5000])
    """
    return (targets - flipped) / (1 - 2 * flipped)


def squared_scores(chosen: Tensor, rejected: Tensor) -> Tensor:
    """``s_c^2 + s_r^2``: pulls every score to 0 and not only the mean of a pair, so it shrinks differences as well.

    >>> squared_scores(torch.tensor([2.0]), torch.tensor([1.0]))
    tensor([5.])
    """
    return chosen.square() + rejected.square()


def squared_error(scores: Tensor, targets: Tensor) -> Tensor:
    """``(s - t)^2``, of scores against (standardised) ratings of the same shape.

    >>> squared_error(torch.tensor([0.5]), torch.tensor([2.0]))
    tensor([2.2500])
    """
    assert scores.shape == targets.shape, "a [B] against [B, 1] would broadcast to [B, B]"
    return (scores - targets).square()


def _lse(scores: Tensor, allowed: Tensor) -> Tensor:
    """``[R]`` log-sum-exp of the scores over the allowed columns of each row."""
    return torch.where(allowed, scores[None, :], float("-inf")).logsumexp(-1)
