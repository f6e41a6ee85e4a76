"""Cutting a batch into microbatches that fit a token budget."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from plaudit.experience import Batch
from plaudit.functional.prefix import shared_with_previous

PADDED_SHARE = 4
"""Most padded tokens of a packed microbatch, in units of the budget: attention works on padded rows."""


def microbatches(batch: Batch, token_budget: int, *, packed: bool = False) -> Iterator[tuple[Tensor, Batch]]:
    """Parts of ``batch`` with at most ``token_budget`` tokens each (a single unit may exceed it).

    Yields the unit indices ``[units]`` and the part.

    Args:
        packed: the model computes no padding, and common prefixes once, so only distinct tokens count.
    """
    # By tokens and not by a number of rows: memory follows tokens, and with a number of rows the longest ones decide
    # how small it has to be for all. The split does not change the gradient, because losses are sums whose weights
    # were fixed for the whole step (`functional/weights.py`); so units may be reordered to save padding.
    order = _order(batch)
    lengths = batch.lengths[order].tolist()
    fresh = _fresh_tokens(batch, order).tolist() if packed else lengths
    part: list[int] = []
    used = widest = 0
    for unit, length, new in zip(order.tolist(), lengths, fresh, strict=True):
        # The first unit of a part shares with nothing before it.
        widest, padded = max(widest, length), (len(part) + 1) * max(widest, length)
        cost = used + new if packed else padded
        if part and (cost > token_budget or padded > PADDED_SHARE * token_budget):
            yield torch.tensor(part), batch.select(torch.tensor(part))
            part, used, widest = [], 0, length
        used += new if part else length
        part.append(unit)
    if part:
        yield torch.tensor(part), batch.select(torch.tensor(part))


def _order(batch: Batch) -> Tensor:
    """Units by the longest of their group, then by group, then by length; longest first."""
    # Responses of one prompt stay neighbours even if their lengths differ, because a packed forward pass shares
    # prefixes between neighbours only. Groups follow each other by their longest row, so parts have little padding,
    # and the largest part is the first one: a step that does not fit into memory fails at once.
    #
    # A function of the batch alone, and every sort is stable: gradients are added up in fp32 in this order, and another
    # order rounds otherwise. A resumed run, and a learner in another process, add them up alike because of this.
    lengths = batch.lengths
    groups = getattr(batch, "group_ids", None)
    by_length = lengths.argsort(descending=True, stable=True)
    if groups is None:
        return by_length
    _, index = groups.unique(return_inverse=True)
    longest = torch.zeros(int(index.max()) + 1, dtype=lengths.dtype).scatter_reduce_(
        0, index, lengths, "amax"
    )
    by_group = by_length[index[by_length].argsort(stable=True)]
    return by_group[longest[index[by_group]].argsort(descending=True, stable=True)]


def _fresh_tokens(batch: Batch, order: Tensor) -> Tensor:
    """``[units]`` real tokens of each unit, in this order, that do not repeat the beginning of the row before it."""
    # A unit may have several rows (a pair, a ranking), and the rows of one unit share their prompt as well.
    rows = batch.rows(order)
    tokens, mask = batch.tokens[rows], batch.attention_mask[rows]
    new = mask.sum(-1) - shared_with_previous(tokens, mask)
    units = torch.arange(len(order)).repeat_interleave(
        torch.tensor([len(batch.rows(u)) for u in order.split(1)])
    )
    return new.new_zeros(len(order)).index_add(0, units, new)
