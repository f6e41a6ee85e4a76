"""How an encoder reads a prompt with its response: as a pair of texts, ``<s>prompt</s></s>response</s>``."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import nn
from transformers import PreTrainedTokenizerBase

from plaudit.models.forward.reading import ANY
from plaudit.models.forward.trunk import bare, position_limit


class Pair(NamedTuple):
    """A pair of texts as token ids."""

    ids: list[int]
    response: int
    """How many of them belong to the response, separators included."""
    cut: bool
    """Whether a part of the texts was left out."""


def longest_text(model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> int:
    """Tokens of the longest text that a classifier reads: its positions, or an earlier end that its tokenizer sets."""
    config: Any = bare(model).config.get_text_config()
    positions = position_limit(model) or getattr(config, "max_position_embeddings", None) or ANY
    return min(int(positions), int(tokenizer.model_max_length))


def encoded_pair(tokenizer: PreTrainedTokenizerBase, prompt: str, response: str, limit: int) -> Pair:
    """Token ids of the pair. One that is too long loses the beginning of its prompt, then the end of its response.

    Args:
        tokenizer: the encoder's own.
        prompt, response: plain texts; an empty prompt gives the response alone.
        limit: most tokens, special ones included.
    """
    if not prompt:
        whole: list[int] = tokenizer(response, truncation=False)["input_ids"]
        if len(whole) <= limit:
            return Pair(whole, len(whole), False)
        ids: list[int] = tokenizer(response, truncation=True, max_length=limit)["input_ids"]
        return Pair(ids, len(ids), True)
    read = tokenizer(prompt, response, truncation=False)
    excess = len(read["input_ids"]) - limit
    if excess <= 0:
        return Pair(read["input_ids"], _from_response(list(read.sequence_ids())), False)
    # The library's own truncation cuts the longer text, or the end of the prompt. The last turn of a dialogue and the
    # response decide the reward, so the beginning goes. The text is cut and encoded again, because a piece in the
    # middle of a text is not always encoded as the same piece at its start.
    offsets = tokenizer(prompt, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    kept = prompt[offsets[excess][0] :] if excess < len(offsets) else ""
    return encoded_pair(tokenizer, kept, response, limit)._replace(cut=True)


def _from_response(parts: list[int | None]) -> int:
    """Tokens from the end of the first text on; all of them where there is none."""
    return parts[::-1].index(0) if 0 in parts else len(parts)
