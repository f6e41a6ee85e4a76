"""Packed forward passes: no padding, and what rows share at their start is computed once.

A padded batch ``[B, T]`` spends its time on padding, and on the same prompt once for each response to it. Here the
distinct tokens are put side by side in one row ``[1, N]``; all operations on single tokens run on these N.
Only attention works on rows: its queries, keys and values are gathered back to rows, those of similar length
together, and run through the causal kernel that padded batches use. Causal attention makes both exact: a token's
states depend on nothing after it, so rows that begin alike have the same states there.

It works with every transformers decoder whose attention goes through the library's attention interface; `can_pack`
tries it on a few tokens, and a trunk whose states then differ from those of a padded batch is run padded.

`pack` and `spread` are the two ends; `_packed_attention` is where rows appear in between.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from plaudit.errors import ModelError
from plaudit.functional.prefix import shared_with_previous
from plaudit.models.forward.attention import attention_fp32, is_better_exact
from plaudit.models.forward.reading import NARROW

_NAME = "plaudit_packed"
_WORTH_IT = 0.95
"""Share of the padded tokens above which packing would only add its gathers."""
_ALIKE = 0.75
"""Rows at least this share of the longest of a bucket go into it: attention costs the square of the width."""


@dataclass(frozen=True, slots=True)
class Packing:
    """Places of the N distinct real tokens of rows ``[B, T]``."""

    tokens: Tensor  # [N]
    positions: Tensor  # [N] place of each token in its row
    place: Tensor  # [B, T] index of the token among the N; 0 at padding
    first: Tensor  # [N] flat index b * T + t of each token's first occurrence
    buckets: tuple[Tensor, ...]  # rows of `place` [b, w] by length, longest first, each w tokens wide
    bucket_first: Tensor  # [N] `first` in the buckets' flat indices, one bucket after the other


def pack(tokens: Tensor, attention_mask: Tensor, *, always: bool = False) -> Packing | None:
    """The packing of rows ``[B, T]`` padded on the right; None where it would save less than 5 % of the tokens.

    A row shares what it has in common with the row before it, so rows that begin alike should be neighbours.

    Args:
        tokens: ``[B, T]`` int64; attention_mask: ``[B, T]`` bool.
        always: give a packing also where it saves nothing.

    >>> tokens = torch.tensor([[5, 6, 7, 8], [5, 6, 9, 0]])
    >>> packing = pack(tokens, torch.tensor([[True] * 4, [True] * 3 + [False]]))
    >>> packing.tokens.tolist(), packing.place.tolist()
    ([5, 6, 7, 8, 9], [[0, 1, 2, 3], [0, 1, 4, 0]])
    """
    rows, width = tokens.shape
    shared = shared_with_previous(tokens, attention_mask)
    columns = torch.arange(width, device=tokens.device).expand(rows, width)
    new = attention_mask & (columns >= shared[:, None])
    count = int(new.sum())
    if count > _WORTH_IT * tokens.numel() and not always:
        return None
    # Only neighbours are compared: B - 1 comparisons instead of B (B - 1) / 2. Rollouts of one prompt stand side by
    # side anyway, and so do the two responses of a pair.
    place = torch.zeros(rows, width, dtype=torch.int64, device=tokens.device)
    place[new] = torch.arange(count, device=tokens.device)
    # In order, because sharing is passed on: row 2 may share with row 1 what row 1 itself took from row 0.
    for row, length in enumerate(shared.tolist()):
        if length:
            place[row, :length] = place[row - 1, :length]
    first = new.flatten().nonzero().squeeze(-1)
    buckets, starts = _buckets(place, attention_mask.sum(-1))
    return Packing(tokens[new], columns[new], place, first, buckets, starts[first // width] + first % width)


def _buckets(place: Tensor, lengths: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
    """Rows of similar length side by side, and ``[B]`` the flat index at which each row starts in them."""
    # The causal kernel takes a rectangle, and its time grows with the square of the width: one long row among short
    # ones would make each of them as expensive as itself. A kernel for ragged rows would need no buckets, but it
    # exists on some GPUs only, and its rounding differs from that of the kernel that generation and padded batches
    # use.
    ordered, order = lengths.sort(descending=True, stable=True)
    widths = ordered.tolist()
    ends, widest = [], widths[0]
    for i, width in enumerate(widths):
        if width < _ALIKE * widest:
            ends.append(i)
            widest = width
    starts = torch.zeros_like(lengths)
    buckets, offset = [], 0
    for begin, end in pairwise([0, *ends, len(widths)]):
        rows, width = order[begin:end], max(widths[begin], 1)  # a row without tokens needs a column too
        buckets.append(place[rows, :width])
        starts[rows] = offset + width * torch.arange(end - begin, device=place.device)
        offset += width * (end - begin)
    return tuple(buckets), starts


def packed_states(trunk: nn.Module, packing: Packing) -> Tensor:
    """Last hidden states ``[B, T, D]`` of a causal trunk. At padding it is the state of some real token: mask it."""
    return spread(packed_forward(trunk, packing), packing)


def packed_forward(trunk: nn.Module, packing: Packing) -> Tensor:
    """Last hidden states ``[N, D]`` of the distinct tokens."""
    # Positions are passed explicitly: in the one row of N tokens the trunk would count from 0 to N - 1.
    with _attention(trunk, packing):
        states: Tensor = trunk(
            input_ids=packing.tokens[None], position_ids=packing.positions[None], use_cache=False
        ).last_hidden_state[0]
    return states


def spread(states: Tensor, packing: Packing) -> Tensor:
    """``[N, D]`` -> ``[B, T, D]``: the state of each token at every place of the token."""
    # The backward pass of index_select adds up the gradients of all places, as it must: a shared prompt token acts on
    # the loss through every row that begins with it.
    rows, width = packing.place.shape
    return states.index_select(0, packing.place.flatten()).view(rows, width, -1)


def can_pack(trunk: nn.Module) -> bool:
    """Are packed states those of a padded batch? Tried on two rows that share two of three tokens, and a short one."""
    # A trial and not a list of architectures: a trunk that computes its masks itself, has another order of positions or
    # keeps a state between tokens (Mamba) may accept the call and still give other states.
    config: Any = getattr(trunk, "config", None)
    weight = next(trunk.parameters())
    if (
        config is None
        or weight.device.type == "meta"
        or not getattr(trunk, "_supports_attention_backend", False)
    ):
        return False
    # A user who loaded the model with eager or flash attention chose that kernel: it is not replaced by another one
    # here. The kernel used here has no soft cap on attention scores (Gemma 2).
    if config._attn_implementation != "sdpa" or getattr(config, "attn_logit_softcapping", None):
        return False
    last = int(config.get_text_config().vocab_size) - 1
    tokens = torch.tensor([[0, last, last // 2], [0, last, last // 3], [last, 0, 0]], device=weight.device)
    mask = torch.tensor([[1, 1, 1], [1, 1, 1], [1, 0, 0]], dtype=torch.bool, device=weight.device)
    packing = pack(tokens, mask)
    assert packing is not None, "six of nine tokens are distinct"
    positions = torch.arange(3, device=weight.device)[None]
    with torch.no_grad():
        try:
            packed = packed_states(trunk, packing)[mask].float()
        except (TypeError, ValueError, RuntimeError, ModelError):
            return False  # an architecture that wants other inputs
        padded = (
            trunk(input_ids=tokens, position_ids=positions, use_cache=False).last_hidden_state[mask].float()
        )
    # The order of sums differs, so equality is up to rounding: about 1e-6 in fp32, 1e-2 with the 8 bits of bf16.
    tolerance = 1e-4 if weight.dtype == torch.float32 else 5e-2
    return torch.allclose(packed, padded, rtol=tolerance, atol=tolerance * float(padded.abs().max()))


def fits_window(trunk: nn.Module, width: int) -> bool:
    """Does every layer attend to a whole row of ``width`` tokens? Packed attention ignores all but causal masks."""
    config: Any = trunk.config
    text = config.get_text_config()
    limits = [getattr(text, name, None) for name in (*NARROW, "index_topk")]
    return all(width <= int(limit) for limit in limits if isinstance(limit, int) and limit)


# transformers calls attention from inside its layers and passes on no argument of ours, so the packing of the forward
# pass in progress is found here. A ContextVar and not a global: threads have one each.
_current: ContextVar[Packing] = ContextVar("packing")


@contextmanager
def _attention(trunk: nn.Module, packing: Packing) -> Iterator[None]:
    # The config is switched for this one call and back, so that generation, padded batches and `save_pretrained` see
    # the model as it was loaded.
    config: Any = trunk.config
    before = config._attn_implementation
    token = _current.set(packing)
    config._attn_implementation = _NAME
    try:
        yield
    finally:
        config._attn_implementation = before
        _current.reset(token)


def _packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Causal attention within rows. ``query [1, heads, N, d]``, likewise key and value -> ``[1, N, heads, d]``."""
    # transformers builds no mask for an attention function of another name. Within the rows below, causal order is all
    # the mask that is needed: padding is on the right, where no real token looks. A mask is the model's own (Doge).
    packing = _current.get()
    if attention_mask is not None:
        raise ModelError("the model makes attention masks of its own", cure="set compute.packing = false")

    def rows_of(x: Tensor, place: Tensor) -> Tensor:
        return x[0].index_select(1, place.flatten()).unflatten(1, place.shape).transpose(0, 1)

    kernel = attention_fp32 if is_better_exact(query.device) else sdpa_attention_forward
    outs = []
    for place in packing.buckets:
        q, k, v = (rows_of(x, place) for x in (query, key, value))
        # In grouped-query attention keys have fewer heads than queries; this function repeats them, as for padded rows.
        out, _ = kernel(module, q, k, v, None, is_causal=True, scaling=options.get("scaling"))
        outs.append(out.flatten(0, 1))
    # Shared tokens were computed once for each row that they are in, with equal results; the first one is taken.
    return torch.cat(outs).index_select(0, packing.bucket_first)[None], None


AttentionInterface.register(_NAME, _packed_attention)
