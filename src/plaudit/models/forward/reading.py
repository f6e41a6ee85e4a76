"""How a trunk may read rows of different length: found by trial, because architectures do not say it.

Most decoders give a row the same states whatever stands beside it and behind it; their rows are padded into one batch,
or packed. Some do not: positions that are counted from the padding, frequencies that depend on the longest row. Their
rows are read in groups of equal length, without padding, which is slower and always right.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import signature
from typing import Any, Self

import torch
from torch import Tensor, nn

from plaudit.errors import ModelError

ANY = 2**31
"""Longer than every row."""
UNRUNNABLE = (TypeError, ValueError, RuntimeError, AttributeError, KeyError, IndexError, AssertionError)
"""What architectures raise where they cannot do what is tried."""
NARROW = ("sliding_window", "attention_chunk_size")
"""Settings of architectures in which a token attends to a part of what is before it only: at most so many tokens."""
OTHERS = "use a decoder such as Llama, Qwen, Mistral, Gemma or GPT-2"


@dataclass(frozen=True, slots=True)
class Reading:
    """What a trunk was found to do."""

    together: int
    """Longest rows that may be read side by side with others; 0: only rows of equal length, without padding."""
    width: int
    """Size of its states."""
    longest: int = ANY
    """Longest row that it reads at all; see `row_limit`."""

    @classmethod
    def of(cls, trunk: nn.Module) -> Self:
        """Try a trunk on two short rows.

        Raises:
            ModelError: its states depend on later tokens, it cannot read token ids alone, or it has no gradients.
        """
        config: Any = trunk.config
        weight = next(trunk.parameters())
        text = config.get_text_config()
        if weight.device.type == "meta":  # a model without values, made to count parameters
            return cls(ANY, int(text.hidden_size))
        # Ids spread over the vocabulary in an order without a pattern; the second row is the beginning of the first.
        ids = torch.arange(12, device=weight.device) ** 2 * 7919 % int(text.vocab_size)
        mask = torch.arange(12, device=weight.device) < torch.tensor([[12], [7]], device=weight.device)
        tokens = ids.expand(2, 12) * mask
        # Where a token attends to a part of its row, real widths are too long to try: a width of two tokens is tried.
        tried = [_tried(trunk, tokens, mask)]
        with narrowed(trunk) as names:
            if names:
                tried.append(_tried(trunk, tokens, mask))
        _check_gradients(trunk, tokens)
        # What changes with the length of a row does so beyond the few tokens that were tried.
        limit = row_limit(trunk)
        longest = limit[0] if limit else ANY
        together = min(rotary_switch(trunk) or ANY, longest) if all(same for same, _ in tried) else 0
        return cls(together, tried[0][1], longest)

    def note(self, name: str) -> str:
        """What a run should say of it; empty where there is nothing to say."""
        if self.together == self.longest:
            return ""
        which = f"rows of more than {self.together} tokens" if self.together else "rows"
        return (
            f"{name}: {which} are read in groups of equal length, without padding or packing, which is slower"
        )


@torch.no_grad()
def _tried(trunk: nn.Module, tokens: Tensor, mask: Tensor) -> tuple[bool, int]:
    """Are the states of padded rows those of each row alone? And their size."""
    family = str(trunk.config.model_type)  # type: ignore[union-attr]
    try:
        apart = rows_apart(trunk, tokens, mask)
    except UNRUNNABLE as error:
        raise _unreadable(family, error) from error
    if not close(apart[1][mask[1]], apart[0][mask[1]]):
        raise ModelError(
            f"{family}: the states of a token depend on the tokens after it, so it cannot write from left to right",
            cure=OTHERS,
        )
    try:
        padded = run(trunk, tokens, **positions_of(trunk, tokens.shape[1]))
    except UNRUNNABLE:
        return False, int(apart.shape[-1])
    return padded.shape == apart.shape and close(padded[mask], apart[mask]), int(apart.shape[-1])


def _check_gradients(trunk: nn.Module, tokens: Tensor) -> None:
    """Refuse a trunk that cannot be trained as it is read, without dropout: Reformer's layers need training mode.

    Raises:
        ModelError: its forward or backward pass fails where gradients are wanted.
    """
    trained = next((p for p in trunk.parameters() if p.requires_grad), None)
    if trained is None:
        return
    try:
        with torch.enable_grad():
            torch.autograd.grad(run(trunk, tokens[:1]).float().sum(), trained, allow_unused=True)
    except UNRUNNABLE as error:
        family, text = str(trunk.config.model_type), " ".join(str(error).split())  # type: ignore[union-attr]
        what = f"{family} cannot be trained here: {type(error).__name__}: {text[:200]}"
        raise ModelError(what, cure=OTHERS) from error


@contextmanager
def narrowed(model: nn.Module, names: Sequence[str] = NARROW) -> Iterator[list[str]]:
    """Within it a model attends to two tokens where it attends to a part of a row; yields the settings that say so."""
    text = model.config.get_text_config()  # type: ignore[union-attr, operator]
    present = [name for name in names if _is_size(getattr(text, name, None))]
    holders = [(text, name) for name in present]
    holders += [(m, name) for m in model.modules() for name in present if _is_size(getattr(m, name, None))]
    before = [getattr(holder, name) for holder, name in holders]
    try:
        for holder, name in holders:
            setattr(holder, name, 2)
        yield present
    finally:
        for (holder, name), value in zip(holders, before, strict=True):
            setattr(holder, name, value)


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def run(trunk: nn.Module, tokens: Tensor, **options: Any) -> Tensor:
    """Last hidden states ``[B, T, D]`` of ``tokens [B, T]``: one forward pass without a cache."""
    states: Tensor = trunk(input_ids=tokens, use_cache=False, **options)[0]
    return states


def rows_apart(trunk: nn.Module, tokens: Tensor, mask: Tensor) -> Tensor:
    """States ``[B, T, D]``, each row as if it were alone; 0 at padding, on whichever side.

    Raises:
        ModelError: a row beyond `row_limit`.
    """
    lengths = mask.sum(-1)
    switch, limit, longest = rotary_switch(trunk), row_limit(trunk), int(lengths.max())
    if limit is not None and longest > limit[0]:
        raise ModelError(
            f"a row has {longest} tokens; with more than {limit[0]} the model does not read a row as it reads the row's"
            f" beginning: {limit[1]}",
            cure=f"use at most {limit[0]} tokens in all (--max-length), or another architecture",
        )
    places, states = [], []
    for length in lengths.unique().tolist():
        if not length:
            continue
        chosen = (lengths == length)[:, None] & mask
        group = tokens[chosen].view(-1, length)
        found = run(trunk, group)
        # Up to the switch the states are those of the shorter row, as they were when the next token was drawn.
        if switch is not None and switch < length:
            found = torch.cat([run(trunk, group[:, :switch]), found[:, switch:]], 1)
        places.append(chosen.flatten().nonzero()[:, 0])
        states.append(found.flatten(0, 1))
    together = torch.cat(states)
    whole = together.new_zeros(tokens.numel(), together.shape[-1])
    return whole.index_copy(0, torch.cat(places), together).unflatten(0, tokens.shape)


def positions_of(trunk: nn.Module, width: int) -> dict[str, Tensor]:
    """The argument ``position_ids [1, width]`` of a trunk that takes it, for rows padded on the right."""
    # BLOOM and MPT have no positions (ALiBi) and would refuse the argument.
    if "position_ids" not in signature(trunk.forward).parameters:
        return {}
    return {"position_ids": torch.arange(width, device=next(trunk.parameters()).device)[None]}


def rotary_switch(model: nn.Module) -> int | None:
    """The length of a row above which all of its rotary positions change (LongRoPE, arXiv:2402.13753); None: none."""
    for module in model.modules():
        kinds = _rotary_kinds(module)
        if "longrope" in kinds:
            table: Any = module.config.rope_parameters  # type: ignore[union-attr]
            parts = [table, *(part for part in table.values() if isinstance(part, dict))]
            return min(
                int(p["original_max_position_embeddings"])
                for p in parts
                if "original_max_position_embeddings" in p
            )
    return None


def row_limit(model: nn.Module) -> tuple[int, str] | None:
    """The longest row that a model reads as it reads the beginning of one, and why; None: there is no such limit."""
    for module in model.modules():
        if any("dynamic" in kind for kind in _rotary_kinds(module)):
            limit = int(module.original_max_seq_len)  # type: ignore[arg-type]
            return limit, "its rotary frequencies (dynamic NTK) depend on the length of the row"
    # The tokens that a sparse layer attends to are the best of the whole row, later ones included.
    chosen = getattr(model.config.get_text_config(), "index_topk", None)  # type: ignore[union-attr, operator]
    return (
        (int(chosen), "its sparse attention (index_topk) chooses among later tokens too") if chosen else None
    )


def close(found: Tensor, wanted: Tensor) -> bool:
    """Are states equal up to the order of sums: about 1e-6 in fp32, 1e-2 with the 8 bits of bf16?"""
    tolerance = 1e-4 if wanted.dtype == torch.float32 else 5e-2
    scale = float(wanted.float().abs().max().nan_to_num(0.0, 0.0))
    # A diverged model has NaN on both sides; that is reported where a token is drawn.
    return torch.allclose(
        found.float(), wanted.float(), rtol=tolerance, atol=tolerance * scale, equal_nan=True
    )


def _rotary_kinds(module: nn.Module) -> tuple[str, ...]:
    """What transformers calls the rotary positions of a module; one name, or one for each type of layer."""
    kind: Any = getattr(module, "rope_type", ())
    return (
        (kind,)
        if isinstance(kind, str)
        else tuple(map(str, kind.values() if isinstance(kind, dict) else kind))
    )


def _unreadable(family: str, error: Exception) -> ModelError:
    text = " ".join(str(error).split())
    return ModelError(
        f"{family} cannot be run on token ids alone, as a language model is: {type(error).__name__}: {text[:200]}",
        cure=OTHERS,
    )
