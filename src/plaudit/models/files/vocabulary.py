"""A pad token that is not the end token, and embeddings that have a row for it.

With pad = eos, "the last token that is not padding" is the wrong one, and a model whose end token is masked as padding
never learns to stop. So every tokenizer gets a pad token of its own; no logit of another token changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

HINTS = ("pad", "reserved", "unused", "placeholder", "control")
"""In the names of special tokens that were never trained for anything else."""

NEW_PAD = "<|pad|>"

NEVER = -1e30
"""Logit of an id that is no token. Not -inf: a probability of 0 times -inf would be NaN in an entropy."""


@dataclass(frozen=True)
class Words:
    """The ids that a tokenizer knows, out of those that a model has rows for.

    Models pad their embeddings to a round number of rows. An id without a token decodes to nothing, and another model
    with the same tokenizer may have fewer rows; so such ids have probability 0, where tokens are drawn and where
    log-probs are computed.
    """

    count: int
    """The largest id, plus 1."""
    holes: tuple[int, ...] = ()
    """Ids below it that are no tokens."""

    @classmethod
    def known_to(cls, tokenizer: PreTrainedTokenizerBase) -> Self:
        """Those of a tokenizer, added tokens included."""
        known = set(tokenizer.get_vocab().values())
        count = max(known) + 1
        return cls(count, tuple(i for i in range(count) if i not in known) if len(known) < count else ())

    def of(self, logits: Tensor) -> Tensor:
        """``[..., V]`` -> the logits of ids that are tokens, in their order; those of holes are `NEVER`."""
        logits = logits[..., : self.count]
        if not self.holes:
            return logits
        return logits.index_fill(-1, self._holes.to(logits.device), NEVER)

    @cached_property
    def _holes(self) -> Tensor:
        return torch.tensor(self.holes)


def ensure_pad(tokenizer: PreTrainedTokenizerBase) -> None:
    """Give the tokenizer a pad token used for nothing else: its own, an unused special one, or a new one."""
    # An unused special token is preferred to a new one, because a new one adds an embedding row, and then the saved
    # model has another shape than its base.
    taken = _taken(tokenizer)
    if tokenizer.pad_token is not None and tokenizer.pad_token not in taken:
        return
    added = sorted(tokenizer.added_tokens_decoder.items())
    free = [token.content for _, token in added if token.special and token.content not in taken]
    hinted = [name for hint in HINTS for name in free if hint in name.lower()]
    hinted += [name for name in free if name == tokenizer.unk_token]
    if not hinted:
        tokenizer.add_special_tokens({"pad_token": NEW_PAD})
        return
    tokenizer.pad_token = hinted[0]


def _taken(tokenizer: PreTrainedTokenizerBase) -> set[str]:
    """Tokens with a meaning: end, begin, unknown, mask ..., and every token that the chat template writes."""
    named = {str(value) for name, value in tokenizer.special_tokens_map.items() if name in _NAMED}
    template = str(tokenizer.chat_template or "")  # or several templates by name
    specials = {token.content for token in tokenizer.added_tokens_decoder.values()}
    if tokenizer.unk_token not in (tokenizer.eos_token, tokenizer.bos_token) and _knows_every_byte(tokenizer):
        named.discard(str(tokenizer.unk_token))
    return named | {token for token in specials if token in template}


def _knows_every_byte(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Can it write any text without the unknown token (byte-level BPE, byte fallback)? Then that is free."""
    core = getattr(tokenizer, "backend_tokenizer", None)
    if core is None:
        return False
    splits = core.pre_tokenizer
    return bool(getattr(core.model, "byte_fallback", False)) or (
        # The object has no public way to ask for its type; its state is JSON.
        splits is not None and b'"ByteLevel"' in splits.__getstate__()
    )


_NAMED = frozenset({"bos_token", "eos_token", "unk_token", "sep_token", "cls_token", "mask_token"})


@torch.no_grad()
def fit_vocabulary(model: Any, tokenizer: PreTrainedTokenizerBase) -> None:
    """Set the model's pad (and missing end) token; add embedding rows until every token has one.

    A new token gets the rows of the least likely token, so that it takes next to no probability from the others.
    """
    config = model.config.get_text_config()
    rows = model.get_input_embeddings().weight.shape[0]
    # Not the number of tokens: where some ids are not in use, the largest id is beyond it.
    count = Words.known_to(tokenizer).count
    if count > rows:
        model.resize_token_embeddings(count, mean_resizing=False)
        # Neither zeros nor the mean of all rows: a row of zeros has logit 0, which in models with negative logits is
        # the largest of all, and the mean row has an average logit. Both would change the policy before its first
        # step.
        unlikely = _least_likely(model, rows)
        for embedding in (model.get_input_embeddings(), model.get_output_embeddings()):
            if embedding is not None:
                embedding.weight[rows:] = embedding.weight[unlikely]
                _copy_bias(getattr(embedding, "bias", None), rows, unlikely)
    config.pad_token_id = model.config.pad_token_id = tokenizer.pad_token_id
    if getattr(config, "eos_token_id", None) is None:
        config.eos_token_id = tokenizer.eos_token_id
    generation = getattr(model, "generation_config", None)
    if generation is not None:
        generation.pad_token_id = tokenizer.pad_token_id
        if generation.eos_token_id is None:
            generation.eos_token_id = tokenizer.eos_token_id


def end_ids_of(model: Any) -> tuple[int, ...]:
    """The ids at which ``generate`` of a model stops, without those that its rows have no place for."""
    ends = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    listed = ends if isinstance(ends, (list, tuple)) else [ends]
    rows = model.get_input_embeddings().weight.shape[0]
    return tuple(int(end) for end in listed if end is not None and 0 <= int(end) < rows)


def set_end_ids(model: Any, ends: Sequence[int]) -> None:
    """Let ``generate`` of a model stop at these ids, also when it is saved and loaded again."""
    # Neither config.json nor the tokenizer is changed: the end token of the tokenizer is what its chat template writes
    # as `eos_token`, and `generate` and servers of models read generation_config.json.
    model.generation_config.eos_token_id = list(ends) if len(ends) > 1 else ends[0]


def _copy_bias(bias: Tensor | None, rows: int, source: int) -> None:
    if bias is not None:
        bias[rows:] = bias[source]


def _least_likely(model: Any, rows: int) -> int:
    """Id of the token with the lowest mean logit after a few tokens spread over the vocabulary."""
    if model.get_output_embeddings() is None:
        return rows - 1
    ids = torch.linspace(0, rows - 1, 16, device=model.device).long()[None]
    return int(model(input_ids=ids).logits[0, :, :rows].float().mean(0).argmin())
