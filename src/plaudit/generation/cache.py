"""Keys and values of all rows being decoded, in memory that is allocated once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from plaudit.models.forward.attention import is_better_exact


class SlotCache(Cache):
    """One slot per response being decoded. Column c of a slot belongs to position c of that response.

    A layer is two tensors [rows, heads, capacity, head_dim]: keys and values. Live rows fill the slots from 0 on
    without gaps. Rows have different lengths; what lies beyond a row's length is left over from earlier responses and
    must be masked out.
    """

    # transformers' DynamicCache appends by concatenation, which copies all keys and values of all rows for each new
    # token. Here memory is allocated once, and since live rows have no gaps between them, attention reads a view: a
    # step writes one column and copies nothing.

    def __init__(self, rows: int, capacity: int) -> None:
        super().__init__(layers=[])
        self._rows, self._capacity = rows, capacity
        self._store: list[tuple[Tensor, Tensor]] = []
        self._slots = self._positions = torch.empty(0, dtype=torch.int64)  # [rows], [live rows]
        self._column: int | None = None
        self._live, self._width = 0, 0

    def admit(self, prompts: DynamicCache, source: Tensor, start: int) -> None:
        """Fill slots ``start``, ``start + 1`` ... with the rows ``source`` [m] of a prefilled cache."""
        # One prompt fills the slots of its whole group: `source` names its row once for each response.
        for i, layer in enumerate(prompts.layers):
            assert isinstance(layer, DynamicLayer), "every layer attends to everything before it"
            assert layer.keys is not None and layer.values is not None, "a prefill fills every layer"
            # Allocated at the first prompt: only then are heads, head size and type of this model's cache known.
            if i == len(self._store):
                self._store.append((self._allocate(layer.keys), self._allocate(layer.values)))
            rows, width = slice(start, start + len(source)), layer.keys.shape[2]
            self._reach(width, start)
            for stored, new in zip(self._store[i], (layer.keys, layer.values), strict=True):
                stored[rows, :, :width] = new[source].to(stored.dtype)

    def move(self, source: Tensor, target: Tensor, width: int) -> None:
        """Copy the first ``width`` columns of the slots ``source`` [m] over the slots ``target`` [m]."""
        for layer in self._store:
            for stored in layer:
                stored[target, :, :width] = stored[source, :, :width]

    def aim(self, positions: Tensor, width: int, column: int | None = None) -> None:
        """Set where the next tokens go, and how many columns of the store the step attends to.

        Args:
            positions: [live rows] int64, the column of each row's token.
            width: columns that the step attends to, more than the largest position.
            column: the position of all rows, if it is the same.
        """
        # Set here and not passed to `update`, which transformers calls from inside each layer without our arguments.
        if self._slots.device != positions.device or not len(self._slots):
            self._slots = torch.arange(self._rows, device=positions.device)
        self._live, self._width, self._column, self._positions = len(positions), width, column, positions
        self._reach(width, self._live)

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write new keys and values [R, heads, 1, head_dim]; give back views [R, heads, width, head_dim]."""
        # With one common position a slice is written, which is faster than an indexed write; with many, each row writes
        # its own column.
        keys, values = self._store[layer_idx]
        rows = slice(self._live) if self._column is not None else self._slots[: self._live]
        columns = self._positions if self._column is None else self._column
        keys[rows, :, columns] = key_states[:, :, 0].to(keys.dtype)
        values[rows, :, columns] = value_states[:, :, 0].to(values.dtype)
        return keys[: self._live, :, : self._width], values[: self._live, :, : self._width]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Columns filled before this step, in the longest row; transformers asks for it."""
        return self._width - 1

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        """Width of the mask, and its offset."""
        return self._width, 0

    def _reach(self, width: int, live: int) -> None:
        """Grow to at least ``width`` columns; the first ``live`` rows keep what they hold."""
        # Doubled, so that a row of n tokens is copied log n times. One layer after the other, so that only one of them
        # is there twice.
        if width <= self._capacity:
            return
        old, self._capacity = self._capacity, max(width, 2 * self._capacity)
        for i, pair in enumerate(self._store):
            grown = tuple(self._allocate(stored) for stored in pair)
            for new, stored in zip(grown, pair, strict=True):
                new[:live, :, :old] = stored[:live]
            self._store[i] = (grown[0], grown[1])

    def _allocate(self, like: Tensor) -> Tensor:
        """Room for keys or values [M, heads, T, head_dim] of all rows, in the type of attention."""
        shape = (self._rows, like.shape[1], self._capacity, like.shape[3])
        # Zeros and not empty: a masked column has weight 0, but 0 * NaN would be NaN.
        return torch.zeros(shape, dtype=attention_dtype(like.dtype, like.device), device=like.device)


def attention_dtype(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """The type in which attention over tensors of ``dtype`` is computed: autocast's where it is on, else ``dtype``."""
    if is_better_exact(device):
        return torch.float32
    return torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else dtype
