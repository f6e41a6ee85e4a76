"""A Hugging Face decoder, one token at a time: trunk, key/value cache and output head."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PretrainedConfig
from transformers.cache_utils import DynamicCache

from plaudit.errors import ConfigError, ModelError
from plaudit.generation.cache import SlotCache

_LAYERS = {"full_attention", "sliding_attention", "attention"}


@dataclass(frozen=True, slots=True)
class Prefill:
    """Prompts after one forward pass."""

    cache: DynamicCache
    hidden: Tensor  # [M, D] at the last token of each prompt


class Decoder:
    """Forward passes without gradients over any decoder-only model, peft-wrapped or not; weights are shared.

    Args:
        lm: Hugging Face causal LM, or a peft model around one (its active adapters count).
        precision: bfloat16 runs the trunk under autocast; the output head is always fp32 where its weight is.
    """

    def __init__(self, lm: Any, precision: torch.dtype = torch.float32) -> None:
        self.lm = lm
        inner = lm.get_base_model() if hasattr(lm, "get_base_model") else lm
        self._inner: Any = inner
        self._trunk: Any = getattr(inner, inner.base_model_prefix, inner)
        self._head: Any = inner.get_output_embeddings()
        self._precision = precision
        self._checked = False
        if self._trunk is inner or self._head is None:
            raise ModelError(
                f"{type(inner).__name__} is not a decoder with an output head",
                cure="use a causal language model (GPT-2, Llama, Qwen2, ...)",
            )
        unknown = set(getattr(inner.config, "layer_types", None) or ()) - _LAYERS
        if unknown:
            raise ModelError(
                f"{type(inner).__name__} has layers without a plain cache: {', '.join(sorted(unknown))}",
                cure="use a model in which every layer is attention (GPT-2, Llama, Qwen2, ...)",
            )

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        weight: Tensor = self._head.weight
        return weight.device

    @contextlib.contextmanager
    def ready(self) -> Iterator[None]:
        """No gradients, no dropout, chosen precision; every training flag is as before afterwards."""
        training = [m for m in self.lm.modules() if m.training]
        autocast = torch.autocast(
            self.device.type, dtype=torch.bfloat16, enabled=self._precision == torch.bfloat16
        )
        self.lm.eval()
        try:
            with torch.no_grad(), autocast:
                self._check_head()
                yield
        finally:
            for module in training:
                module.training = True

    def check_length(self, longest_prompt: int, max_new_tokens: int) -> None:
        """Refuse prompts and responses that together exceed what the model can attend to."""
        total = longest_prompt + max_new_tokens
        limit = _longest(self._inner.config)
        if total > limit:
            raise ConfigError(
                f"the longest prompt has {longest_prompt} tokens and max_new_tokens is {max_new_tokens},"
                f" together {total}; {type(self._inner).__name__} can read {limit}",
                where="sampling.max_new_tokens",
                cure=f"lower max_new_tokens to {max(limit - longest_prompt, 1)} or shorten the prompts",
            )

    def prefill(self, prompts: Sequence[Sequence[int]]) -> Prefill:
        """Read whole prompts, padded on the right: in causal attention no token sees the padding after it."""
        lengths = torch.tensor([len(p) for p in prompts])
        width = int(lengths.max())
        ids = torch.zeros(len(prompts), width, dtype=torch.int64)
        for row, prompt in zip(ids, prompts, strict=True):
            row[: len(prompt)] = torch.tensor(prompt)
        positions = torch.arange(width, device=self.device)[None]
        cache = DynamicCache()
        out = self._trunk(
            input_ids=ids.to(self.device), position_ids=positions, past_key_values=cache, use_cache=True
        )
        last = (lengths - 1).to(self.device)
        rows = torch.arange(len(prompts), device=self.device)
        return Prefill(cache, out.last_hidden_state[rows, last])

    def step(self, tokens: Tensor, lengths: list[int], cache: SlotCache) -> Tensor:
        """Read one more token of each row: ``tokens`` [R] at positions ``lengths``; hidden states [R, D]."""
        positions = torch.tensor(lengths, device=self.device)
        cache.aim(positions, lengths)
        columns = torch.arange(max(lengths) + 1, device=self.device)
        hidden_columns = columns > positions[:, None]
        mask = torch.zeros(hidden_columns.shape, dtype=self._mask_dtype(), device=self.device)
        mask.masked_fill_(hidden_columns, torch.finfo(mask.dtype).min)
        out = self._trunk(
            input_ids=tokens[:, None],
            position_ids=positions[:, None],
            attention_mask=mask[:, None, None],
            past_key_values=cache,
            use_cache=True,
        )
        hidden: Tensor = out.last_hidden_state[:, -1]
        return hidden

    def logits(self, hidden: Tensor) -> Tensor:
        """[R, D] -> [R, V] fp32."""
        with torch.autocast(hidden.device.type, enabled=False):
            logits: Tensor = self._head(hidden.to(self._head.weight.dtype))
        return logits.float()

    def _mask_dtype(self) -> torch.dtype:
        dtype: torch.dtype = self._head.weight.dtype
        return self._precision if self._precision == torch.bfloat16 else dtype

    def _check_head(self) -> None:
        """Make sure once that the logits are the head applied to the hidden states, and nothing more."""
        if self._checked:
            return
        ids = torch.tensor([[0, 1]], device=self.device)
        expected = self._inner(input_ids=ids, use_cache=False).logits[0, -1].float()
        found = self.logits(self._trunk(input_ids=ids, use_cache=False).last_hidden_state[:, -1])[0]
        tolerance = 0.05 if self._precision == torch.bfloat16 or expected.dtype != torch.float32 else 1e-3
        if not torch.allclose(found, expected, rtol=tolerance, atol=tolerance, equal_nan=True):
            raise ModelError(
                f"{type(self._inner).__name__} changes its logits after the output head (soft cap or scale)",
                cure="use an architecture whose logits are its head's plain output (GPT-2, Llama, Qwen2)",
            )
        self._checked = True


def _longest(config: PretrainedConfig) -> int:
    """Tokens the model can read: its position table, or its attention window where it has one."""
    limit = int(getattr(config, "max_position_embeddings", None) or 2**31)
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    windowed = "sliding_attention" in kinds if kinds is not None else True
    return min(limit, int(window)) if window and windowed else limit
