"""A decoding step of Llama-shaped models, written out: fewer calls, and weights laid out for products of few rows.

transformers' own layers ask PyTorch for some eighty operations each, and copy the keys of grouped-query attention for
every query head. With one token a row that can cost more than the products. Here it is some fifty, and keys are read
where they are. It serves Llama, Mistral, Qwen2, Qwen3, SmolLM and whatever else has their layers; `Decoder` tries it
against the model's own step and takes it only where both give the same states.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self, cast

import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn
from torch.nn.functional import linear, rms_norm, scaled_dot_product_attention

from plaudit.functional.precision import packs
from plaudit.generation.cache import SlotCache

Product = Callable[[Tensor], Tensor]

PACKED_FROM_BYTES = 2**26
"""Weights smaller than this stay in a processor's cache, and their layout matters little."""
PACKED_FROM_ROWS, PACKED_FROM_TOKENS = 2, 24
"""A product with one row reads each weight once in whatever layout. Laying weights out costs what eight steps of 32
rows or twenty of 8 rows gain by it. All by `benchmarks/products.py`, on a processor without bf16."""
PACKED_TO_BYTES = 2**31
"""Weights laid out are a second copy: larger models would take more memory for it than a laptop can spare."""


@dataclass(frozen=True, slots=True)
class Products:
    """How weights are multiplied: in which type, and whether laid out for it.

    Args:
        dtype: of the products; bf16 weights are cast once, here.
        packed: in oneDNN's own layout, those with the same input side by side as one product.
    """

    dtype: torch.dtype
    packed: bool

    @classmethod
    def suited(cls, model: nn.Module, dtype: torch.dtype, rows: int, tokens: int) -> Self:
        """For ``tokens`` steps of ``rows`` rows of a model."""
        # bf16 weights are copied in any case, and a product that finds them as they are packs them in every call.
        half = dtype == torch.bfloat16
        size = sum(p.numel() * dtype.itemsize for p in model.parameters())
        pays = half or (PACKED_FROM_BYTES <= size <= PACKED_TO_BYTES and rows >= PACKED_FROM_ROWS)
        return cls(dtype, pays and tokens >= PACKED_FROM_TOKENS and packs(dtype, next(model.parameters()).device))

    def of(self, *layers: nn.Module, first: int | None = None) -> Product:
        """``x [R, in]`` to the outputs of these layers side by side, ``[R, out]`` in ``dtype``.

        Args:
            first: only so many of the outputs.

        Raises:
            AttributeError: a layer is of a kind that is not known here.
        """
        if not self.packed:
            return _plain([_Beside.of(layer, first, self.dtype) for layer in layers], self.dtype)
        weights = [weight_of(layer)[:first].to(self.dtype) for layer in layers]
        biases = [None if b is None else b[:first].to(self.dtype) for b in map(_bias_of, layers)]
        bias = None if biases[0] is None else torch.cat([b for b in biases if b is not None])
        return _packed(torch.cat(weights) if len(weights) > 1 else weights[0], bias, self.dtype)


@dataclass(frozen=True, slots=True)
class _Beside:
    """A linear layer whose adapters stay beside its weight: merged, they would be a copy of all weights."""

    weight: Tensor
    bias: Tensor | None
    adapters: Sequence[tuple[Tensor, Tensor]]

    @classmethod
    def of(cls, layer: nn.Module, first: int | None, dtype: torch.dtype) -> Self:
        bias = _bias_of(layer)
        return cls(
            _base_of(layer)[:first].to(dtype),
            None if bias is None else bias[:first].to(dtype),
            [(down.to(dtype), up[:first].to(dtype) * scale) for down, up, scale in _adapters_of(layer)],
        )

    def __call__(self, x: Tensor) -> Tensor:
        out = linear(x, self.weight, self.bias)
        for down, up in self.adapters:
            out = out + linear(linear(x, down), up)
        return out


def _plain(layers: Sequence[_Beside], dtype: torch.dtype) -> Product:
    # Not put together into one weight: that would be a copy of all weights in each generation, and gains nothing.
    def product(x: Tensor) -> Tensor:
        x = x.to(dtype)
        outs = [layer(x) for layer in layers]
        return outs[0] if len(outs) == 1 else torch.cat(outs, -1)

    return product


def _packed(weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Product:
    ops = torch.ops.mkldnn
    laid_out = ops._reorder_linear_weight(weight, 32)

    def product(x: Tensor) -> Tensor:
        out: Tensor = ops._linear_pointwise(x.to(dtype), laid_out, bias, "none", [], "")
        return out

    return product


def weight_of(layer: Any) -> Tensor:
    """The weight that a linear layer multiplies by, its active adapters included.

    Raises:
        AttributeError: the layer is of a kind that is not known here.
    """
    weight = _base_of(layer)
    for down, up, scale in _adapters_of(layer):
        weight = weight + scale * (up @ down)
    return weight


def _base_of(layer: Any) -> Tensor:
    weight: Tensor = _checked(layer).weight.detach()
    return weight


def _checked(layer: Any) -> nn.Linear:
    """The layer itself, or the one below its adapters."""
    if type(layer) is nn.Linear:
        return layer
    base = getattr(layer, "base_layer", None)
    plain = type(layer) is LoraLinear and type(base) is nn.Linear
    if not plain or any(layer.lora_bias.values()) or layer.lora_variant:
        raise AttributeError(f"{type(layer).__name__} is no plain linear layer")
    return cast("nn.Linear", base)


def _adapters_of(layer: Any) -> list[tuple[Tensor, Tensor, float]]:
    """``[rank, in]``, ``[out, rank]`` and scale of each adapter that is on and not in the weight already."""
    if type(layer) is nn.Linear or layer.disable_adapters or layer.merged:
        return []
    names = [name for name in layer.active_adapters if name in layer.lora_A]
    return [
        (layer.lora_A[name].weight.detach(), layer.lora_B[name].weight.detach(), float(layer.scaling[name]))
        for name in names
    ]


def _bias_of(layer: Any) -> Tensor | None:
    bias = _checked(layer).bias
    return None if bias is None else bias.detach()


@dataclass(frozen=True, slots=True)
class _Norm:
    """Root mean square norm in fp32."""

    weight: Tensor
    eps: float

    @classmethod
    def of(cls, module: Any) -> Self:
        return cls(module.weight.detach().float(), float(module.variance_epsilon))

    def __call__(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight.shape, self.weight, self.eps)


@dataclass(frozen=True, slots=True)
class _Layer:
    before: _Norm
    queries_keys_values: Product
    of_queries: _Norm | None
    of_keys: _Norm | None
    out: Product
    between: _Norm
    gate_up: Product
    activation: Product
    down: Product
    scale: float

    @classmethod
    def of(cls, layer: Any, products: Products) -> Self:
        attention, mlp = layer.self_attn, layer.mlp
        # Qwen3 norms each query and key; the others have no such modules.
        inner = [_Norm.of(m) if (m := getattr(attention, name, None)) else None for name in ("q_norm", "k_norm")]
        return cls(
            _Norm.of(layer.input_layernorm),
            products.of(attention.q_proj, attention.k_proj, attention.v_proj),
            inner[0],
            inner[1],
            products.of(attention.o_proj),
            _Norm.of(layer.post_attention_layernorm),
            products.of(mlp.gate_proj, mlp.up_proj),
            mlp.act_fn,
            products.of(mlp.down_proj),
            float(attention.scaling),
        )


class DirectStep:
    """One more token of each row, for weights as they are now: made anew in each generation.

    Args:
        trunk: body of a Llama-shaped model.
        products: how its weights are multiplied.

    Raises:
        AttributeError: the trunk has other parts.
    """

    def __init__(self, trunk: Any, products: Products) -> None:
        attention = trunk.layers[0].self_attn
        self._width = int(attention.head_dim)
        self._queries, self._keys = (
            int(weight.shape[0]) // self._width
            for weight in map(_base_of, (attention.q_proj, attention.k_proj))
        )
        self._embed, self._rotary = trunk.embed_tokens, trunk.rotary_emb
        self._layers = [_Layer.of(layer, products) for layer in trunk.layers]
        self._norm = _Norm.of(trunk.norm)

    def __call__(self, tokens: Tensor, positions: Tensor, cache: SlotCache, mask: Tensor) -> Tensor:
        """States ``[R, D]`` in fp32 of ``tokens [R]`` at ``positions [R]``; the cache is aimed at them.

        Args:
            mask: additive, ``[R, 1, 1, width]``.
        """
        # Residual stream, norms, rotations and attention are fp32 whatever the products are, as in training.
        x: Tensor = self._embed(tokens).float()
        cos, sin = self._rotary(x[:, None], positions[:, None])
        half = self._width // 2
        # rotate_half(q) = [-q2, q1] is a roll by half whose first half changes its sign; the sign goes into the sine.
        sin = torch.cat([-sin[..., :half], sin[..., half:]], -1)
        for i, layer in enumerate(self._layers):
            x = x + layer.out(self._attend(layer, i, layer.before(x), (cos, sin), cache, mask))
            gate, up = layer.gate_up(layer.between(x)).chunk(2, -1)
            x = x + layer.down(layer.activation(gate) * up)
        return self._norm(x)

    def _attend(
        self, layer: _Layer, i: int, x: Tensor, rotation: tuple[Tensor, Tensor], cache: SlotCache, mask: Tensor
    ) -> Tensor:
        """What the heads read, ``[R, heads * width]``."""
        heads = layer.queries_keys_values(x).float().view(len(x), -1, self._width)
        turned, values = heads[:, : self._queries + self._keys], heads[:, self._queries + self._keys :]
        if layer.of_queries is not None and layer.of_keys is not None:
            queries, keys = turned[:, : self._queries], turned[:, self._queries :]
            turned = torch.cat([layer.of_queries(queries), layer.of_keys(keys)], 1)
        cos, sin = rotation
        turned = torch.addcmul(turned * cos, turned.roll(self._width // 2, -1), sin)
        keys, values = cache.update(turned[:, self._queries :, None], values[:, :, None], i)
        # The query heads that read one key head stand where the tokens of a row would: keys are not repeated.
        queries = turned[:, : self._queries].unflatten(1, (self._keys, -1))
        read = scaled_dot_product_attention(queries, keys, values, mask, scale=layer.scale)
        return read.reshape(len(x), -1)
