"""A Hugging Face decoder, one token at a time: trunk, key/value cache and output head."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig
from transformers.cache_utils import DynamicCache

from plaudit.errors import ConfigError, ModelError
from plaudit.functional.precision import without_gradients
from plaudit.generation.cache import SlotCache, attention_dtype
from plaudit.models.forward.trunk import bare

_LAYERS = {"full_attention", "sliding_attention", "attention"}


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
    """

    def __init__(self, lm: nn.Module, precision: torch.dtype = torch.float32) -> None:
        self.lm = lm
        inner = bare(lm)
        self._inner: Any = inner
        self._trunk: Any = getattr(inner, inner.base_model_prefix, inner)
        self._head: Any = inner.get_output_embeddings()
        self._precision = precision
        self._weight: Tensor | None = None  # of the head, fp32, while generating
        # Can trunk and head be used apart? Found out at the first use, because the answer needs a forward pass.
        self._split: bool | None = None
        if self._trunk is inner or self._head is None:
            raise ModelError(
                f"{type(inner).__name__} is not a decoder with an output head",
                cure="use a causal language model (GPT-2, Llama, Qwen2, ...)",
            )
        # Layers with a state of their own (Mamba, linear attention) cannot be put into slots: rows leave and move
        # between steps, and such a state has no columns that could be masked.
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
        # Flags are kept for each module and not for the whole: policies train in eval mode, others may have a part of
        # their modules in train mode.
        training = [m for m in self.lm.modules() if m.training]
        self.lm.eval()
        try:
            with without_gradients(self.lm, self._precision, self.device):
                if self._split is None:
                    self._split = self._head_is_all()
                # Cast once for all tokens. With fp32 weights this is the weight itself and takes no memory; it is
                # dropped at the end because the next update changes a bf16 weight without changing its copy.
                self._weight = self._head.weight.float() if type(self._head) is nn.Linear else None
                yield
        finally:
            self._weight = None
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
            return Prefill(cache, self._trunk(**inputs, use_cache=True).last_hidden_state[rows, last])
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
        hidden_columns = columns > positions[:, None]
        dtype = attention_dtype(self._head.weight.dtype, self.device)
        # An additive mask must have the type of the queries, which under autocast is not that of the weights.
        mask = torch.zeros(hidden_columns.shape, dtype=dtype, device=self.device)
        mask.masked_fill_(hidden_columns, torch.finfo(mask.dtype).min)
        inputs = {
            "input_ids": tokens[:, None],
            "position_ids": positions[:, None],
            "attention_mask": mask[:, None, None],
            "past_key_values": cache,
        }
        if self._split:
            state: Tensor = self._trunk(**inputs, use_cache=True).last_hidden_state[:, -1]
        else:
            state = self._inner(**inputs, use_cache=True).logits[:, -1]
        return state

    def logits(self, state: Tensor) -> Tensor:
        """Logits [R, V] in fp32, whatever the precision of the trunk.

        States are hidden states [R, D]; or already logits, where the architecture does more to them than its
        head (soft caps, scales).
        """
        # Log-probs are recorded from these logits and compared with the trainer's, which computes its head in fp32 too
        # (`models/forward/head.py`): both round alike.
        if not self._split:
            return state.float()
        with torch.autocast(state.device.type, enabled=False):
            if self._weight is not None:
                bias = None if self._head.bias is None else self._head.bias.float()
                return nn.functional.linear(state.float(), self._weight, bias)
            logits: Tensor = self._head(state.to(self._head.weight.dtype))
        return logits.float()

    def _head_is_all(self) -> bool:
        """Whether the logits of two tokens are the head applied to the hidden states, and nothing more."""
        ids = torch.tensor([[0, self._head.weight.shape[0] // 2]], device=self.device)
        model_logits = self._inner(input_ids=ids, use_cache=False).logits[0].float()
        hidden = self._trunk(input_ids=ids, use_cache=False).last_hidden_state[0]
        head_logits = self._head(hidden).float()
        exact = attention_dtype(self._head.weight.dtype, self.device) == torch.float32
        tolerance = 1e-4 if exact else 0.02
        # A diverged model has NaN here; that is reported with its prompt when a token is drawn, not as a failed test.
        scale = model_logits.abs().max().nan_to_num(0.0, 0.0).clamp(min=1e-6)
        return torch.allclose(head_logits / scale, model_logits / scale, rtol=0.0, atol=tolerance, equal_nan=True)


def _longest(config: PretrainedConfig) -> int:
    """Tokens the model can read: its position table, or its attention window where it has one."""
    limit = int(getattr(config, "max_position_embeddings", None) or 2**31)
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    windowed = "sliding_attention" in kinds if kinds is not None else True
    return min(limit, int(window)) if window and windowed else limit
