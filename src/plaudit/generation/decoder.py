"""A Hugging Face decoder, one token at a time: trunk, key/value cache and output head."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache

from plaudit.errors import ConfigError, ModelError
from plaudit.functional.precision import without_gradients
from plaudit.generation.cache import SlotCache, attention_dtype
from plaudit.generation.direct import DirectStep, Product, Products
from plaudit.models.files.vocabulary import Words
from plaudit.models.forward.attention import exact_attention
from plaudit.models.forward.reading import (
    ANY,
    OTHERS,
    UNRUNNABLE,
    close,
    narrowed,
    rotary_switch,
    row_limit,
)
from plaudit.models.forward.trunk import bare, body, is_encoder

MOST_TOKENS = 16384
"""Tokens of one forward pass over whole rows: bounds its memory, whatever the number of rows."""
WINDOWED = {"sliding_attention": "sliding_window", "chunked_attention": "attention_chunk_size"}
"""Layers in which a token attends to a part of what is before it, and the setting that says how much."""
PLAIN = {"full_attention", "attention"}


@dataclass(frozen=True, slots=True)
class Prefill:
    """Prompts after one forward pass."""

    cache: DynamicCache
    state: Tensor  # [M, D] at the last token of each prompt, or [M, V]; see Decoder.logits


class Decoder:
    """Forward passes without gradients over any decoder-only model, peft-wrapped or not; weights are shared.

    Args:
        lm: Hugging Face causal LM, or a peft model around one (its active adapters count).
        precision: bfloat16 runs the trunk under autocast; the output head is always fp32 where its weight is.
        words: the ids that are tokens; no other is drawn. None: all are.
    """

    def __init__(
        self, lm: nn.Module, precision: torch.dtype = torch.float32, words: Words | None = None
    ) -> None:
        self.lm, self.words = lm, words
        inner = bare(lm)
        if is_encoder(lm):
            raise ModelError(
                f"{inner.config.model_type} is an encoder, not a decoder: it cannot write text", cure=OTHERS
            )
        self._inner: Any = inner
        self._trunk: Any = body(inner)
        self._head: Any = inner.get_output_embeddings()
        self._config: Any = inner.config.get_text_config()
        self._kinds = _kinds(self._config)
        floats = (p.dtype for p in inner.parameters() if p.is_floating_point())
        self._dtype = next(floats) if self._head is None else self._head.weight.dtype
        self._precision = precision
        self._project: Product | None = None  # states to logits, while generating
        self._direct: DirectStep | None = None  # while generating, where the model has that form
        # Can trunk and head be used apart? How long may rows be that are decoded in slots? Found out at the first use,
        # because the answers need forward passes.
        self._split: bool | None = None
        self._in_slots, self._has_direct = 0, False

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        weight: Tensor = next(self._inner.parameters())
        return weight.device

    @contextlib.contextmanager
    def ready(self, rows: int = 1, tokens: int = 1) -> Iterator[None]:
        """No gradients, no dropout, chosen precision; every training flag is as before afterwards.

        Args:
            rows: most that are decoded side by side.
            tokens: most that are drawn of each. Both decide whether it pays to lay weights out anew.

        Raises:
            ModelError: the model cannot be run on token ids alone.
        """
        # Flags are kept for each module and not for the whole: policies train in eval mode, others may have a part of
        # their modules in train mode.
        training = [m for m in self.lm.modules() if m.training]
        self.lm.eval()
        try:
            with (
                without_gradients(self.lm, self._precision, self.device),
                exact_attention(self._trunk, self.device),
            ):
                if self._split is None:
                    self._project = self._head_by(Products(torch.float32, packed=False))
                    self._split = self._head_is_all()
                    self._in_slots = self._longest_in_slots()
                    self._has_direct = self._tried_direct()
                # Cast and laid out once for all tokens; dropped at the end because the next update changes the weights
                # and not these copies of them.
                products = Products.suited(self._inner, self._product_dtype, rows, tokens)
                self._project = self._head_by(products)
                self._direct = DirectStep(self._trunk, products) if self._has_direct else None
                yield
        finally:
            self._project = self._direct = None
            for module in training:
                module.training = True

    def in_slots(self, capacity: int) -> bool:
        """May rows of up to ``capacity`` tokens be decoded side by side in a cache? Known once it was `ready`."""
        return capacity <= self._in_slots

    @property
    def note(self) -> str:
        """What a run should say of how the model is sampled; empty where there is nothing to say."""
        if self._in_slots >= ANY:
            return ""
        which = f"rows of more than {self._in_slots} tokens" if self._in_slots else "responses"
        return (
            f"sampling: {which} are drawn without a cache, by a forward pass over the whole row for each token, since"
            f" {self._inner.config.model_type} cannot keep rows of different length in one cache; this is slower"
        )

    def check_length(self, longest_prompt: int, max_new_tokens: int) -> None:
        """Refuse prompts and responses that together exceed what the model can attend to."""
        total = longest_prompt + max_new_tokens
        limit, reason = self._limit()
        if total > limit:
            raise ConfigError(
                f"the longest prompt has {longest_prompt} tokens and max_new_tokens is {max_new_tokens},"
                f" together {total}; {type(self._inner).__name__} can read {limit}{reason}",
                where="sampling.max_new_tokens",
                cure=f"lower max_new_tokens to {max(limit - longest_prompt, 1)} or shorten the prompts",
            )

    @property
    def vocabulary(self) -> int:
        """Ids that the model can read are below it."""
        weight: Tensor = self._inner.get_input_embeddings().weight
        return int(weight.shape[0])

    @property
    def longest(self) -> int:
        """Most tokens of a row that the model can attend to."""
        return self._limit()[0]

    def _limit(self) -> tuple[int, str]:
        """Most tokens of a row, and why, where it is not the number of positions."""
        limit = int(getattr(self._config, "max_position_embeddings", None) or ANY)
        row = row_limit(self._inner)
        return (row[0], f", since {row[1]}") if row and row[0] <= limit else (limit, "")

    def whole(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """States [R, D] (or [R, V]) after whole rows of token ids: rows of equal length together, without a cache."""
        lengths = [len(row) for row in rows]
        states: dict[int, Tensor] = {}
        for length in sorted(set(lengths)):
            alike = [i for i, n in enumerate(lengths) if n == length]
            for index in torch.tensor(alike).split(max(1, MOST_TOKENS // length)):
                ids = torch.tensor([list(rows[i]) for i in index.tolist()], device=self.device)
                states.update(zip(index.tolist(), self._last(ids), strict=True))
        return torch.stack([states[i] for i in range(len(rows))])

    def _last(self, ids: Tensor) -> Tensor:
        """States at the last token of rows [R, T], without a cache and without a mask."""
        if self._split:
            state: Tensor = self._trunk(input_ids=ids, use_cache=False)[0][:, -1]
            return state
        keep = {"logits_to_keep": 1} if "logits_to_keep" in signature(self._inner.forward).parameters else {}
        logits: Tensor = self._inner(input_ids=ids, use_cache=False, **keep).logits[:, -1]
        return logits

    def prefill(self, prompts: Sequence[Sequence[int]]) -> Prefill:
        """One forward pass over whole prompts (token ids), padded on the right."""
        # Padded on the right, because in causal attention no token depends on the padding after it: no mask is needed,
        # and column c of the cache is position c, as `SlotCache` wants it. What padding leaves in the cache lies beyond
        # the row's length and is overwritten or masked.
        lengths = torch.tensor([len(p) for p in prompts])
        width = int(lengths.max())
        ids = torch.zeros(len(prompts), width, dtype=torch.int64)
        for row, prompt in zip(ids, prompts, strict=True):
            row[: len(prompt)] = torch.tensor(prompt)
        positions = torch.arange(width, device=self.device)[None]
        cache = DynamicCache()
        inputs = {"input_ids": ids.to(self.device), "position_ids": positions, "past_key_values": cache}
        rows, last = torch.arange(len(prompts), device=self.device), (lengths - 1).to(self.device)
        if self._split:
            return Prefill(cache, self._trunk(**inputs, use_cache=True)[0][rows, last])
        # Where trunk and head cannot be used apart, the model gives logits; only at the columns where some prompt ends,
        # since [M, T, V] for whole prompts could be larger than everything else together.
        kept, index = last.unique(return_inverse=True)
        logits = self._inner(**inputs, use_cache=True, logits_to_keep=kept).logits
        return Prefill(cache, logits[rows, index])

    def step(self, tokens: Tensor, lengths: list[int], cache: SlotCache) -> Tensor:
        """One forward pass over one more token of each row: ``tokens`` [R] at positions ``lengths``; states [R, D]."""
        positions = torch.tensor(lengths, device=self.device)
        same = min(lengths) == max(lengths)
        cache.aim(positions, max(lengths) + 1, lengths[0] if same else None)
        return self.read(tokens, positions, cache)

    def read(self, tokens: Tensor, positions: Tensor, cache: SlotCache) -> Tensor:
        """One step after `SlotCache.aim`: ``tokens`` and ``positions`` [R] to states [R, D]."""
        # What this does on the device depends on shapes alone, never on values (no .item(), no mask of varying size),
        # so that `fixed_shapes` can record it once and replay it with other values.
        width, _ = cache.get_mask_sizes(1, 0)
        columns = torch.arange(width, device=self.device)
        dtype = attention_dtype(self._dtype, self.device)
        if self._direct is not None:
            with torch.autocast(self.device.type, enabled=False):
                mask = self._mask(self._kinds[0], columns, positions[:, None], dtype)
                return self._direct(tokens, positions, cache, mask)
        masks = {kind: self._mask(kind, columns, positions[:, None], dtype) for kind in self._kinds}
        inputs = {
            "input_ids": tokens[:, None],
            "position_ids": positions[:, None],
            # Layers of one kind take a mask, layers of several kinds take one for each by name.
            "attention_mask": masks if len(masks) > 1 else next(iter(masks.values())),
            "past_key_values": cache,
        }
        if self._split:
            state: Tensor = self._trunk(**inputs, use_cache=True)[0][:, -1]
        else:
            state = self._inner(**inputs, use_cache=True).logits[:, -1]
        return state

    def _mask(self, kind: str, columns: Tensor, positions: Tensor, dtype: torch.dtype) -> Tensor:
        """Additive mask [R, 1, 1, width] for one kind of layer: what comes after a row's token, and before its window.

        Args:
            columns: [width]; positions: [R, 1], of the tokens.
            dtype: that of the queries, which under autocast is not that of the weights.
        """
        unseen = columns > positions
        if kind in WINDOWED:
            size = int(getattr(self._config, WINDOWED[kind]))
            sliding = kind == "sliding_attention"
            unseen = unseen | (
                columns <= positions - size if sliding else columns // size != positions // size
            )
        mask = torch.zeros(unseen.shape, dtype=dtype, device=self.device)
        return mask.masked_fill_(unseen, torch.finfo(dtype).min)[:, None, None]

    def logits(self, state: Tensor) -> Tensor:
        """Logits [R, V] in fp32 of all ids that are tokens, whatever the precision of the trunk.

        States are hidden states [R, D]; or already logits, where the architecture does more to them than its
        head (soft caps, scales).
        """
        # Log-probs are recorded from these logits and compared with the trainer's, which computes its head in fp32 too
        # (`models/forward/head.py`): both round alike.
        logits = state.float() if not self._split else self._applied(state)
        return logits if self.words is None else self.words.of(logits)

    def _applied(self, state: Tensor) -> Tensor:
        """The head on states [R, D]."""
        with torch.autocast(state.device.type, enabled=False):
            if self._project is not None:
                return self._project(state).float()
            logits: Tensor = self._head(state.to(self._head.weight.dtype))
        return logits.float()

    def _head_by(self, products: Products) -> Product | None:
        """The head's product over the ids that are tokens; None where the head is no plain layer."""
        if type(self._head) is not nn.Linear:
            return None
        return products.of(self._head, first=self.words.count if self.words else None)

    @property
    def _product_dtype(self) -> torch.dtype:
        """Of the products of a step."""
        return self._precision if self.device.type == "cpu" else torch.float32

    def _tried_direct(self) -> bool:
        """Does the step that is written out give the model's own states?"""
        plain = self._dtype == torch.float32 and self.device.type == "cpu" and self._kinds == ["full_attention"]
        if not (plain and self._split and self._in_slots):
            return False
        try:
            self._direct = DirectStep(self._trunk, Products(torch.float32, packed=False))
            with torch.autocast(self.device.type, enabled=False):
                return self._slots_agree()
        except UNRUNNABLE:
            return False
        finally:
            self._direct = None

    def _head_is_all(self) -> bool:
        """Whether the logits of two tokens are the head applied to the hidden states, and nothing more."""
        if self._trunk is self._inner or self._head is None:
            return False
        ids = torch.tensor([[0, self._head.weight.shape[0] // 2]], device=self.device)
        try:
            model_logits = self._inner(input_ids=ids, use_cache=False).logits[0].float()
            hidden = self._trunk(input_ids=ids, use_cache=False)[0][0]
            head_logits = self._head(hidden).float()
        except UNRUNNABLE:
            return False
        exact = attention_dtype(self._head.weight.dtype, self.device) == torch.float32
        tolerance = 1e-4 if exact else 0.02
        # A diverged model has NaN here; that is reported with its prompt when a token is drawn, not as a failed test.
        scale = model_logits.abs().max().nan_to_num(0.0, 0.0).clamp(min=1e-6)
        return head_logits.shape == model_logits.shape and torch.allclose(
            head_logits / scale, model_logits / scale, rtol=0.0, atol=tolerance, equal_nan=True
        )

    def _longest_in_slots(self) -> int:
        """How long rows may be whose keys and values are kept in a `SlotCache`; 0: not at all."""
        # A trial and not a list of architectures. Layers with a state of their own (Mamba, linear attention) have no
        # columns that could be masked, some build their masks from the number of columns (ALiBi, local attention of
        # GPT-Neo), some have no cache.
        with torch.autocast(self.device.type, enabled=False):
            if not self._decodes_in_slots():
                return 0
            limits = [rotary_switch(self._inner) or ANY, _band(self._inner)]
            windows = [WINDOWED[kind] for kind in self._kinds if kind in WINDOWED]
            # Windows are wider than a few tokens, so they are tried at a width of two. A model that takes them from
            # somewhere else fails, and only rows that fit the window are decoded in slots.
            with narrowed(self._inner, windows):
                works = not windows or self._decodes_in_slots()
            if not works:
                limits.extend(int(getattr(self._config, name)) for name in windows)
        return min(limits)

    def _decodes_in_slots(self) -> bool:
        """Do two rows of unequal length in slots get the logits of forward passes over each of them?"""
        try:
            return self._slots_agree()
        except UNRUNNABLE:
            return False

    def _slots_agree(self) -> bool:
        last = self._head.weight.shape[0] - 1 if self._head is not None else int(self._config.vocab_size) - 1
        rows = [[last, last // 2, last // 3, last // 5, last], [last // 2, last // 3, last]]
        try:
            wanted = [self.logits(self.whole([row[: len(row) - k] for row in rows])) for k in (2, 1, 0)]
        except UNRUNNABLE as error:
            raise ModelError(
                f"{self._inner.config.model_type} cannot write text from token ids alone: {type(error).__name__}:"
                f" {' '.join(str(error).split())[:200]}",
                cure=OTHERS,
            ) from error
        if not set(self._kinds) <= PLAIN | WINDOWED.keys():
            return False
        prefill = self.prefill([row[:-2] for row in rows])
        cache = SlotCache(len(rows), len(rows[0]))
        cache.admit(prefill.cache, torch.arange(len(rows), device=self.device), 0)
        found = [self.logits(prefill.state)]
        for k in (2, 1):
            tokens = torch.tensor([row[-k] for row in rows], device=self.device)
            found.append(self.logits(self.step(tokens, [len(row) - k for row in rows], cache)))
        return all(close(a, b) for a, b in zip(found, wanted, strict=True))


def _kinds(config: Any) -> list[str]:
    """The kinds of the layers' attention, as a model's config tells them."""
    kinds = getattr(config, "layer_types", None)
    if kinds is not None:
        known = sorted(set(kinds))
        return ["full_attention"] if set(known) <= PLAIN else known
    return [kind for kind, size in WINDOWED.items() if getattr(config, size, None)] or ["full_attention"]


def _band(model: nn.Module) -> int:
    """The narrowest table of who attends to whom that a model keeps (local attention of GPT-Neo): columns of a row."""
    # Such a table is read by column and not by position, so it is right only where it hides nothing.
    narrowest = ANY
    for table in model.buffers():
        if table.dtype == torch.bool and table.dim() >= 2 and table.shape[-1] == table.shape[-2] > 1:
            width = int(table.flatten(0, -2)[-1].sum())
            narrowest = width if width < table.shape[-1] else narrowest
    return narrowest
