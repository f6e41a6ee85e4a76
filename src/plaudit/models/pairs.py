"""How an encoder reads a prompt with its response: as a pair of texts, ``<s>prompt</s></s>response</s>``."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

from plaudit.errors import ModelError

POSITIONS = 512
"""What encoders of the BERT family can read."""


def pair_ids(tokenizer: PreTrainedTokenizerBase, prompt: str, response: str, limit: int = POSITIONS) -> list[int]:
    """Token ids of the pair. One that is too long loses the beginning of its prompt, never of its response.

    Args:
        tokenizer: the encoder's own.
        prompt, response: plain texts; an empty prompt gives the response alone.
        limit: most tokens, special ones included.

    Raises:
        ModelError: the response alone is too long.
    """
    limit = min(limit, int(tokenizer.model_max_length))
    if not prompt:
        ids: list[int] = tokenizer(response, truncation=False)["input_ids"]
        excess = len(ids) - limit
    else:
        ids = tokenizer(prompt, response, truncation=False)["input_ids"]
        excess = len(ids) - limit
        # The library's own truncation cuts the longer text, or the end of the prompt. The last turn of a dialogue and
        # the response decide the reward, so the beginning goes. The text is cut and encoded again, because a piece in
        # the middle of a text is not always encoded as the same piece at its start.
        if excess > 0:
            offsets = tokenizer(prompt, add_special_tokens=False, return_offsets_mapping=True)[
                "offset_mapping"
            ]
            kept = prompt[offsets[excess][0] :] if excess < len(offsets) else ""
            return pair_ids(tokenizer, kept, response, limit)
    if excess > 0:
        raise ModelError(
            f"a response of {len(ids)} tokens does not fit into the {limit} that this encoder reads",
            cure="lower max_new_tokens (or --max-length), or use a decoder as reward model",
        )
    return ids


def response_part(tokenizer: PreTrainedTokenizerBase, prompt: str, response: str) -> int:
    """Tokens of a pair from the end of its prompt on, separators included; all of them where there is no prompt."""
    if not prompt:
        return len(tokenizer(response, truncation=False)["input_ids"])
    parts = list(tokenizer(prompt, response, truncation=False).sequence_ids())
    return parts[::-1].index(0) if 0 in parts else len(parts)
