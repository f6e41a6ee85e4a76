"""Cutting a batch into microbatches that fit a token budget."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from plaudit.experience import Batch


def microbatches(batch: Batch, token_budget: int) -> Iterator[tuple[Tensor, Batch]]:
    """Parts of ``batch`` with at most ``token_budget`` padded tokens each (a single unit may exceed it).

    Units of similar length go together, so little is padding. Yields the unit indices and the part.
    """
    lengths = batch.lengths
    part: list[int] = []
    for unit in lengths.argsort(descending=True, stable=True).tolist():
        # Sorted by length: the first unit of a part is its longest and sets the padded width.
        if part and (len(part) + 1) * int(lengths[part[0]]) > token_budget:
            yield torch.tensor(part), batch.select(torch.tensor(part))
            part = []
        part.append(unit)
    if part:
        yield torch.tensor(part), batch.select(torch.tensor(part))
