"""Cutting a batch into microbatches that fit a token budget."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from plaudit.experience import Batch
from plaudit.functional.prefix import shared_with_previous

PADDED_SHARE = 4
"""Even packed, a microbatch holds at most this many times the budget as padded rows: attention pads."""


def microbatches(batch: Batch, token_budget: int, *, packed: bool = False) -> Iterator[tuple[Tensor, Batch]]:
    """Parts of ``batch`` with at most ``token_budget`` tokens each (a single unit may exceed it).

    Units of one prompt stand together and such of similar length go together: little is padding, much is shared.
    Yields the unit indices and the part.

    Args:
        packed: the model computes no padding and shared beginnings once, so only distinct tokens count.
    """
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
    rows = batch.rows(order)
    tokens, mask = batch.tokens[rows], batch.attention_mask[rows]
    new = mask.sum(-1) - shared_with_previous(tokens, mask)
    units = torch.arange(len(order)).repeat_interleave(
        torch.tensor([len(batch.rows(u)) for u in order.split(1)])
    )
    return new.new_zeros(len(order)).index_add(0, units, new)
