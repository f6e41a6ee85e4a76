"""Frozen lower layers, computed once: with adapters in the last layers only, everything below them never changes.

Policy, reference and critic on one backbone, every epoch over the same rollouts and every pass over a data set need the
same states of the lower layers. They are stored here, row by row, and a forward pass starts above them.

The trunk is cut by running it with a part of its layers: the lower ones with a hook that stores their output, the upper
ones with a hook that replaces their input by it. `LowerStates.of` tries that on a few tokens and returns None where the
result is not that of the whole trunk.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import Tensor, nn

from plaudit.models.forward.packing import Packing, pack, packed_forward, spread

GIGABYTE = 2**30


class LowerStates:
    """The states ``[T, D]`` of rows of tokens after the first ``depth`` layers; the least recently used leave first.

    One object may serve several trunks, as long as their lower layers are the same tensors.
    """

    # The key of a row is its token ids as bytes, nothing else: in a causal trunk the states of a row are a function of
    # its tokens, because the layers are frozen, dropout is off (`silence_dropout`) and positions count from the row's
    # own start. So neither the batch nor the policy version is part of the key, and nothing ever has to be invalidated.

    def __init__(self, depth: int, gigabytes: float) -> None:
        self.depth, self.limit, self.size = depth, int(gigabytes * GIGABYTE), 0
        self._rows: OrderedDict[bytes, Tensor] = OrderedDict()

    @classmethod
    def of(cls, trunk: nn.Module, gigabytes: float) -> Self | None:
        """For a trunk whose lower layers are frozen; None where there are none, or where it cannot be cut exactly."""
        depth = frozen_depth(trunk)
        if not depth or gigabytes <= 0:
            return None
        trial = cls(depth, gigabytes)
        vocabulary = int(trunk.config.get_text_config().vocab_size)  # type: ignore[union-attr, operator]
        device = next(trunk.parameters()).device
        # Two rows with a shared start and of unequal lengths: sharing, packing and the cut are all part of the trial.
        tokens = torch.tensor([[0, vocabulary - 1, vocabulary // 2], [0, vocabulary - 1, 0]], device=device)
        mask = torch.tensor([[True] * 3, [True, True, False]], device=device)
        packing = pack(tokens, mask)
        assert packing is not None, "two rows share two tokens"
        with torch.no_grad():
            try:
                cut = trial.states(trunk, packing, tokens, mask)
            except (TypeError, ValueError, RuntimeError, AttributeError):
                return None  # layers of an unknown form
            whole = spread(packed_forward(trunk, packing), packing)
        exact = torch.allclose(cut[mask], whole[mask], rtol=1e-5, atol=1e-5 * float(whole[mask].abs().max()))
        return cls(depth, gigabytes) if exact else None  # a new one: without the rows of the trial

    def states(self, trunk: nn.Module, packing: Packing, tokens: Tensor, attention_mask: Tensor) -> Tensor:
        """Last hidden states ``[B, T, D]``, as `packed_states` gives them.

        Args:
            trunk: a causal trunk whose first ``depth`` layers are those that the stored states come from.
            packing: of these rows.
            tokens, attention_mask: ``[B, T]``, padded on the right.
        """
        lengths = attention_mask.sum(-1).tolist()
        keys = [row[:n].numpy().tobytes() for row, n in zip(tokens.cpu(), lengths, strict=True)]
        missing = [i for i, key in enumerate(keys) if key not in self._rows]
        if missing:
            self._fill(trunk, tokens[missing], attention_mask[missing], [keys[i] for i in missing])
        # Rows are dropped only after this batch has been put together, so a limit smaller than one batch still works:
        # nothing is kept then, but nothing that is needed is missing either.
        lower = self._packed(keys, lengths, packing)
        self._forget()
        # The trunk still embeds the tokens and builds masks and position encodings; only the input of its first upper
        # layer is replaced. Gradients start there: `lower` was computed without any.
        with _layers(trunk, slice(self.depth, None)) as upper, _fed(upper[0], lower):
            return spread(packed_forward(trunk, packing), packing)

    @torch.no_grad()
    def _fill(self, trunk: nn.Module, tokens: Tensor, attention_mask: Tensor, keys: list[bytes]) -> None:
        # Always packed: the missing rows alone may have too little in common to be worth it, but their states are
        # stored without padding in any case.
        packing = pack(tokens, attention_mask, always=True)
        assert packing is not None, "packed always"
        caught: list[Tensor] = []
        with _layers(trunk, slice(self.depth)) as lower, _caught(lower[-1], caught):
            packed_forward(trunk, packing)
        for key, place, mask in zip(keys, packing.place, attention_mask, strict=True):
            # A copy, although a view would do for the values: a view would keep the whole batch in memory for as long
            # as one of its rows is stored, and `size` would be wrong. Equal rows of one batch are counted once.
            row = caught[0][0].index_select(0, place[mask])
            if key not in self._rows:
                self.size += row.numel() * row.element_size()
            self._rows[key] = row

    def _packed(self, keys: list[bytes], lengths: list[int], packing: Packing) -> Tensor:
        """``[1, N, D]``: the states of the distinct tokens, each from the row in which it comes first."""
        # packing.first is the flat index b * T + t of a token's first occurrence; the stored rows have no padding, so
        # row b starts at the sum of the lengths before it.
        width = packing.place.shape[1]
        starts = torch.tensor([0, *lengths[:-1]]).cumsum(0).to(packing.first.device)
        rows = torch.cat([self._rows[key] for key in keys])
        for key in keys:
            self._rows.move_to_end(key)
        index = starts[packing.first // width] + packing.first % width
        return rows.index_select(0, index)[None]

    def _forget(self) -> None:
        while self.size > self.limit and self._rows:
            _, row = self._rows.popitem(last=False)
            self.size -= row.numel() * row.element_size()


def frozen_depth(trunk: nn.Module) -> int:
    """How many layers from the bottom, embeddings included, have nothing to train; 0 if all have nothing."""
    layers = _layer_list(trunk)
    if layers is None:
        return 0
    # The norm after the last layer is above the cut: it may be trained. Trained embeddings are below every layer, so
    # nothing would be constant.
    inside = {id(p) for p in layers.parameters()}
    embeddings = [p for name, p in trunk.named_parameters() if id(p) not in inside and "norm" not in name]
    if any(p.requires_grad for p in embeddings):
        return 0
    trained = [i for i, layer in enumerate(layers) if any(p.requires_grad for p in layer.parameters())]
    return trained[0] if trained else 0


def _layer_list(trunk: nn.Module) -> nn.ModuleList | None:
    """The one list of layers of a decoder whose layers are all of one type."""
    # Layers of several types (sliding and full attention) get different masks by their index in the list; a trunk with
    # a part of the list would hand layer i the mask of layer i - depth.
    config: Any = getattr(trunk, "config", None)
    lists = [child for child in trunk.children() if isinstance(child, nn.ModuleList)]
    types = set(getattr(config, "layer_types", None) or ())
    return lists[0] if len(lists) == 1 and len(types) <= 1 else None


@contextmanager
def _layers(trunk: nn.Module, part: slice) -> Iterator[list[nn.Module]]:
    """Within it the trunk has only some of its layers."""
    name = next(name for name, child in trunk.named_children() if isinstance(child, nn.ModuleList))
    whole: Any = getattr(trunk, name)
    chosen = list(whole)[part]
    setattr(trunk, name, nn.ModuleList(chosen))
    try:
        yield chosen
    finally:
        setattr(trunk, name, whole)


@contextmanager
def _caught(layer: nn.Module, into: list[Tensor]) -> Iterator[None]:
    """Within it, what ``layer`` gives is put into a list."""

    def hook(_: nn.Module, __: Any, output: Any) -> None:
        into.append(output[0] if isinstance(output, tuple) else output)

    handle = layer.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _fed(layer: nn.Module, states: Tensor) -> Iterator[None]:
    """Within it, ``layer`` reads ``states`` instead of its first input."""

    def hook(_: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        # Architectures differ in whether a layer gets its states as first argument or by name.
        if args:
            return (states, *args[1:]), options
        return args, options | {"hidden_states": states}

    handle = layer.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()
