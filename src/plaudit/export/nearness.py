"""How near an exported model is to the one that was trained: tokens, next-token distributions, perplexity, ends."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList, PreTrainedModel, PreTrainedTokenizerBase

from plaudit.errors import ModelError
from plaudit.statistics.clustered import ratio_over, share
from plaudit.statistics.intervals import Estimate

FIGURES = {
    "tokens_equal": "share of texts that both tokenizers cut alike",
    "kl": "KL of the exported from the trained model, nats per token",
    "top1": "share of tokens at which both find the same token likeliest",
    "logprob_difference": "largest difference of a token's log-probability in the texts, nats",
    "perplexity_ratio": "perplexity of the exported over that of the trained model",
}
"""Name of a figure -> what it is. All are over the same texts."""
SCORES = {
    "agreement": "share of held-out rows that both reward models decide alike",
    "score_correlation": "correlation of the scores of both reward models",
}
"""The same of a reward model; both are over the rows that its run held out."""
LONGEST = 256
"""Tokens of a text that are read."""


def probes(count: int) -> list[str]:
    """Texts with what tokenizers differ on: digits, contractions, spaces, line ends, accents, scripts, signs.

    >>> len(set(probes(100)))
    100
    """
    parts = (
        "The answer is {0}.", "it's 3{0}4 and they'll   see", "line {0}\n\n  indented\tand tabbed",
        "Grüße aus Köln {0}",
        "数字{0}と文字", "x = [{0}, 'a'] # comment", "Привет, мир {0}!", "emoji 🙂{0}🎉 end",
        " leading and trailing {0} ",
        "UPPER lower CamelCase{0} snake_case",
    )  # fmt: skip
    return [parts[i % len(parts)].format(i * i + i // len(parts)) for i in range(count)]


@dataclass(frozen=True)
class Side:
    """A language model as one program computes it."""

    cut: Callable[[str], list[int]]
    """A text as token ids, with what the tokenizer puts before it."""
    logits: Callable[[list[int]], Tensor]
    """Token ids ``[T]`` -> ``[T, V]``, before the softmax."""

    @classmethod
    def of(cls, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Side:
        """As transformers computes it, on the CPU."""
        return cls(
            cut=lambda text: list(tokenizer(text)["input_ids"]),
            logits=lambda ids: model(input_ids=torch.tensor([ids])).logits[0],
        )


@torch.no_grad()
def nearness(trained: Side, exported: Side, texts: Sequence[str]) -> dict[str, Estimate]:
    """The `FIGURES` of an exported model, with 95 % intervals over texts.

    Args:
        trained, exported: with the same tokens.
        texts: not empty.
    """
    equal, kl, alike, lower, counts, largest = [], [], [], [], [], 0.0
    for text in texts:
        ids = trained.cut(text)[:LONGEST]
        equal.append(float(exported.cut(text)[:LONGEST] == ids))
        if len(ids) < 2:
            continue
        row = torch.tensor([ids])
        p, q = (side.logits(ids)[:-1].float().log_softmax(-1) for side in (trained, exported))
        # A token that one of them never gives has probability 0 there, and 0 log 0 is 0.
        kl.append(float((p.exp() * (p - q)).nan_to_num(0.0).sum()))
        alike.append(float((p.argmax(-1) == q.argmax(-1)).float().sum()))
        said = row[0, 1:, None]
        change = (p.gather(1, said) - q.gather(1, said)).flatten()
        lower.append(float(change.sum()))
        largest = max(largest, float(change.abs().max()))
        counts.append(float(len(ids) - 1))
    ratio = ratio_over(lower, counts)
    return {
        "tokens_equal": share(equal),
        "kl": ratio_over(kl, counts),
        "top1": ratio_over(alike, counts),
        "logprob_difference": Estimate(largest, math.nan, math.nan, len(counts)),
        "perplexity_ratio": Estimate(math.exp(ratio.value), math.exp(ratio.low), math.exp(ratio.high), ratio.n),
    }


class _Forced(LogitsProcessor):
    """Makes one token certain at the third step, and impossible before."""

    def __init__(self, token: int, start: int) -> None:
        self.token, self.last = token, start + 2

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """Scores ``[1, V]`` of the next token."""
        changed = scores.clone()
        if input_ids.shape[1] >= self.last:
            changed.fill_(-math.inf)
            changed[:, self.token] = 0.0
        else:
            changed[:, self.token] = -math.inf
        return changed


def prove_ends(model: Any, ends: Sequence[int]) -> None:
    """Make sure that plain ``generate`` of a saved model stops at each token that ends a response.

    Raises:
        ModelError: it goes on after one.
    """
    free = next(token for token in range(model.config.vocab_size) if token not in ends)
    start = torch.tensor([[free]])
    for end in ends:
        # Every other end is kept out as well, so that only this one can have stopped it.
        others = [[token] for token in ends if token != end] or None
        made = model.generate(
            start, attention_mask=torch.ones_like(start), do_sample=False, max_new_tokens=8, bad_words_ids=others,
            logits_processor=LogitsProcessorList([_Forced(end, 1)]),
        )  # fmt: skip
        if made.shape[1] != 4:
            raise ModelError(
                f"generate goes on after token {end}, which ends a response",
                cure="report it: the generation config that was written is wrong",
            )
