"""Bytes of live tensors, counted operation by operation: of a real computation, or of one rehearsed on outlines.

PyTorch hands every operation to a dispatch mode. The mode here notes the storage of each result, and takes it off again
when the storage is freed. Nothing about a model has to be known for that, so it holds for every architecture, with
adapters, recomputation, packing and autocast as they are. What a single operation allocates and frees inside itself is
not seen.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from plaudit.models.files.outline import is_fake

_aten = torch.ops.aten
_AT_PLACES = (_aten.index.Tensor, _aten.index_put.default, _aten.index_put_.default)


class LiveBytes(TorchDispatchMode):
    """Within it, bytes of tensors are counted.

    With outlines it also answers what cannot be known without values: a number is 0, two tensors are alike, a mask that
    is known chooses as many rows as it has.

    Attributes:
        now: bytes alive that were seen so far.
        peak: the most at any time since `mark`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._sizes: dict[int, int] = {}

    def mark(self) -> int:
        """Begin a new peak from what is alive now, which is given back."""
        self.peak = self.now
        return self.now

    def hold(self, module: nn.Module) -> None:
        """Count the tensors of a model, which were made outside."""
        for tensor in (*module.parameters(), *module.buffers()):
            self._note(tensor)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """One operation: see the class."""
        kwargs = kwargs or {}
        if any(is_fake(value) for value in tree_leaves((args, kwargs))):
            if func is _aten.allclose.default:
                return True
            if func is _aten._local_scalar_dense.default:
                return 0.0 if args[0].is_floating_point() else 0
            if func is _aten._grouped_mm.default:
                return self._grown(_grouped(*args, **kwargs))
            if func in _AT_PLACES:
                args = (args[0], _places(args[1]), *args[2:])
        return self._grown(func(*args, **kwargs))

    def _grown(self, result: Any) -> Any:
        """The result of an operation, whose tensors are noted."""
        for value in tree_leaves(result):
            if isinstance(value, Tensor):
                self._note(value)
        return result

    def _note(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._sizes:
            return
        self._sizes[key] = size = storage.nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self.now -= self._sizes.pop(key)


def _grouped(a: Tensor, b: Tensor, offsets: Tensor | None = None, *_: Any, **__: Any) -> Tensor:
    """The result of a product of groups of rows (mixtures of experts), whose shape PyTorch knows in bf16 only."""
    if a.dim() == 2 and b.dim() == 2:
        assert offsets is not None, "groups along what is summed over"
        return a.new_empty(len(offsets), a.shape[0], b.shape[1])
    rows = a.shape[:-1] if a.dim() == 2 or b.dim() == 3 else a.shape[1:-1]
    return a.new_empty(*rows, b.shape[-1])


def _places(index: list[Tensor | None]) -> list[Tensor | None]:
    """An index in which masks are the places that they choose."""
    # How many rows a mask chooses depends on its values. Fake tensors cannot say it, and the mask itself is real.
    found: list[Tensor | None] = []
    for part in index:
        if part is not None and part.dtype == torch.bool and not is_fake(part):
            found.extend(part.nonzero().unbind(1))
        else:
            found.append(part)
    return found


@dataclass(frozen=True, slots=True)
class Groups:
    """Bytes of a model's parts: its layers, and what is outside of them (embeddings, head, the last norm)."""

    root: int
    layer: int
    """The largest layer."""
    learned_root: int
    """The largest tensor outside of the layers that is trained: its gradient is there from the first moment on."""
    learned_layer: int

    @classmethod
    def of(cls, module: nn.Module) -> Groups:
        """Those of a model; the list with most in it is that of the layers."""
        lists = [m for m in module.modules() if isinstance(m, nn.ModuleList)]
        layers = max(lists, key=_bytes, default=nn.ModuleList())
        inside = {id(p) for p in layers.parameters()}
        outside = [p for p in module.parameters() if id(p) not in inside]
        return cls(
            root=sum(p.nbytes for p in outside),
            layer=max((_bytes(layer) for layer in layers), default=0),
            learned_root=max((p.nbytes for p in outside if p.requires_grad), default=0),
            learned_layer=max((_bytes(layer, learned=True) for layer in layers), default=0),
        )


def _bytes(module: nn.Module, *, learned: bool = False) -> int:
    return sum(p.nbytes for p in module.parameters() if p.requires_grad or not learned)
