"""Keeping length out of a score while it is trained: a second head takes it (ODIN, Chen et al. 2024, arXiv:2402.07319).

Two linear heads read the same state: ``q``, the quality, which is the score; and ``l``, the length. Their sum ranks
the responses. ``|corr(q, n)| - corr(l, n)`` over the responses of a step, with ``n`` their lengths, drives length out
of the first and into the second.
"""

from __future__ import annotations

import torch
from torch import Tensor


def correlation(x: Tensor, y: Tensor) -> Tensor:
    """Pearson's correlation of two ``[N]`` tensors; 0, with a gradient of 0, where one of them never differs.

    >>> correlation(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 4.0, 6.0]))
    tensor(1.)
    """
    assert x.shape == y.shape and x.dim() == 1
    x, y = x - x.mean(), y - y.mean()
    unit = x.square().sum() * y.square().sum()
    # Not 0 / 0: the gradient of a root at 0 is not finite, and `where` would multiply it by 0.
    return (x * y).sum() / unit.sqrt() if float(unit.detach()) > 0 else (x * y).sum() * 0.0


def length_term(heads: Tensor, lengths: Tensor) -> Tensor:
    """``|corr(q, n)| - corr(l, n)`` (eq. 4): -1 where length is all in the second head.

    Args:
        heads: ``[N, 2]`` quality and length of each response.
        lengths: ``[N]`` its tokens.

    >>> length_term(torch.tensor([[1.0, 1.0], [1.0, 2.0]]), torch.tensor([5, 9]))
    tensor(-1.)
    """
    quality, length = heads.unbind(-1)
    tokens = lengths.to(heads.dtype)
    return correlation(quality, tokens).abs() - correlation(length, tokens)


def length_pulls(heads: Tensor, lengths: Tensor) -> Tensor:
    """``[N, 2]``: the gradient of `length_term` by each output, without a graph.

    A correlation does not add up over parts of a step. Its gradient by the outputs does: with ``c`` the pulls of the
    whole step, ``sum(c * heads)`` over any part has the gradient of that part's share, so a step gives the same however
    it is cut.

    >>> length_pulls(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([5, 9]))
    tensor([[0., 0.],
            [0., 0.]])
    """
    with torch.enable_grad():
        free = heads.detach().clone().requires_grad_()
        (pulls,) = torch.autograd.grad(length_term(free, lengths), free)
    return pulls


def overlap(heads: Tensor) -> Tensor:
    """``|cos|`` of the weights of two linear heads, ``[2, D]``: 0 where they read different directions (eq. 5).

    >>> overlap(torch.tensor([[1.0, 0.0], [3.0, 4.0]]))
    tensor(0.6000)
    """
    quality, length = heads.unbind(0)
    return torch.nn.functional.cosine_similarity(quality, length, dim=0).abs()
