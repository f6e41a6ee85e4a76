"""Keys and values of all rows being decoded, in memory that is allocated once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer


class SlotCache(Cache):
    """One slot per response being decoded. Column c of a slot belongs to position c of that response.

    A layer is one tensor [2, rows, heads, capacity, head_dim]: keys, then values. Live rows fill the slots
    from 0 on without gaps, so that attention reads a view of the store: a step copies nothing but the new
    keys and values. Rows have different lengths; what lies beyond a row's length is stale and must be masked
    out.
    """

    def __init__(self, rows: int, capacity: int) -> None:
        super().__init__(layers=[])
        self._rows, self._capacity = rows, capacity
        self._store: list[Tensor] = []
        self._slots = self._positions = torch.empty(0, dtype=torch.int64)
        self._column: int | None = None
        self._live, self._width = 0, 0

    def admit(self, prompts: DynamicCache, source: Tensor, start: int) -> None:
        """Fill slots ``start``, ``start + 1`` ... with the rows ``source`` [m] of a prefilled cache."""
        for i, layer in enumerate(prompts.layers):
            assert isinstance(layer, DynamicLayer), "every layer attends to everything before it"
            keys, values = layer.keys, layer.values
            assert keys is not None and values is not None, "a prefill fills every layer"
            if i == len(self._store):
                shape = (2, self._rows, keys.shape[1], self._capacity, keys.shape[3])
                # zeros and not empty: a masked column has weight 0, but 0 * NaN would be NaN
                self._store.append(torch.zeros(shape, dtype=keys.dtype, device=keys.device))
            rows = slice(start, start + len(source))
            self._store[i][0, rows, :, : keys.shape[2]] = keys[source]
            self._store[i][1, rows, :, : keys.shape[2]] = values[source]

    def move(self, source: Tensor, target: Tensor, width: int) -> None:
        """Copy the first ``width`` columns of some slots [m] over other slots [m]."""
        for store in self._store:
            store[:, target, :, :width] = store[:, source, :, :width]

    def aim(self, positions: Tensor, lengths: list[int]) -> None:
        """Say where the next token of live row i goes: column ``positions[i]``, which is ``lengths[i]``."""
        self._live, self._width = len(lengths), max(lengths) + 1
        self._column = lengths[0] if min(lengths) == max(lengths) else None
        self._positions = positions
        self._slots = torch.arange(self._live, device=positions.device)

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write new keys and values [R, heads, 1, head_dim]; give back views [R, heads, width, head_dim]."""
        keys, values = self._store[layer_idx].unbind(0)
        if self._column is not None:
            keys[: self._live, :, self._column] = key_states[:, :, 0]
            values[: self._live, :, self._column] = value_states[:, :, 0]
        else:
            keys[self._slots, :, self._positions] = key_states[:, :, 0]
            values[self._slots, :, self._positions] = value_states[:, :, 0]
        return keys[: self._live, :, : self._width], values[: self._live, :, : self._width]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Columns filled before this step, in the longest row."""
        return self._width - 1

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        """Width of the mask, and its offset."""
        return self._width, 0
