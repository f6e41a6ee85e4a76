"""Drawing tokens: counter-based random numbers and the inverse of the cumulative distribution.

The random number behind token t of a response is a function of (seed of the response, t) and of nothing else,
so a response does not depend on its batch, its neighbours or its worker, and can be drawn again after a
crash.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from plaudit.config.sections import SamplingSection

_BLOCK = 512  # width of the second level of the search; about sqrt(vocabulary) is best


def sample_seed(run_seed: int, iteration: int, prompt_id: str, k: int) -> int:
    """The 64-bit seed of response ``k`` to a prompt in an iteration: BLAKE2b of the four.

    >>> sample_seed(0, 1, "p", 0) == sample_seed(0, 1, "p", 0) != sample_seed(0, 1, "p", 1)
    True
    """
    key = json.dumps(["rollout", run_seed, iteration, prompt_id, k]).encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little")


def uniform(seeds: NDArray[np.uint64], t: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1), 53 bits: output ``t`` of SplitMix64 (Steele et al. 2014) of each seed.

    ``seeds`` and ``t`` broadcast. Any element can be had without those before it.
    """
    with np.errstate(over="ignore"):  # arithmetic modulo 2^64 is meant
        z = seeds + (t + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    u: NDArray[np.float64] = (z >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return u


@dataclass(frozen=True, slots=True)
class Law:
    """The distribution tokens are drawn from, given logits."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0

    @staticmethod
    def of(sampling: SamplingSection) -> Law:
        """The part of the settings that shapes the distribution."""
        return Law(sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p)


def draw(logits: Tensor, u: Tensor, law: Law, banned: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """One token per row by inverse CDF, and its log-prob under the law that is trained.

    That law is softmax(logits / temperature) over the full vocabulary: top-k, top-p, min-p and bans shape what is
    drawn, not the log-prob, which therefore equals what the trainer computes for the same token.

    Args:
        logits: [R, V] fp32.
        u: [R] float64 in [0, 1).
        law: temperature, top-k, top-p, min-p.
        banned: [R, V] bool, tokens that must not be drawn now.

    Returns:
        tokens [R] int64, logprobs [R] fp32 in nats; a non-finite row of logits gives a non-finite log-prob.
    """
    z = logits if law.temperature == 1.0 else logits / law.temperature
    normaliser = None
    if banned is not None or law.top_k or law.top_p < 1.0 or law.min_p > 0.0:
        normaliser = torch.logsumexp(z, -1)
        z = _truncate(z if banned is None else z.masked_fill(banned, -torch.inf), law)
    peak = z.amax(-1, keepdim=True)
    tokens, mass = invert((z - peak).exp_(), u)
    if normaliser is None:
        normaliser = peak[:, 0] + mass.log()
    return tokens, (z.gather(1, tokens[:, None])[:, 0] - normaliser).float()


def invert(weights: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """The token at which the cumulative sum of ``weights`` first exceeds ``u`` times its total.

    Two levels: sums of blocks first, then inside one block; only that block needs a running sum.

    Args:
        weights: [R, V] fp32, non-negative, not all 0.
        u: [R] float64 in [0, 1).

    Returns:
        tokens [R] int64, each with positive weight, and the totals [R] float64.
    """
    vocab = weights.shape[1]
    whole = vocab // _BLOCK * _BLOCK
    sums = weights[:, :whole].view(len(weights), -1, _BLOCK).sum(-1)
    if whole < vocab:
        sums = torch.cat([sums, weights[:, whole:].sum(-1, keepdim=True)], 1)
    running = sums.double().cumsum(1)
    block, share = _locate(running, u)
    column = block[:, None] * _BLOCK + torch.arange(min(_BLOCK, vocab), device=weights.device)
    inside = weights.gather(1, column.clamp(max=vocab - 1)).masked_fill(column >= vocab, 0.0)
    offset, _ = _locate(inside.double().cumsum(1), share)
    return (block * _BLOCK + offset).clamp(max=vocab - 1), running[:, -1]


def _locate(running: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """First index whose running sum [R, N] exceeds ``u`` of the total; how far into it that point lies."""
    total = running[:, -1]
    target = torch.minimum(u * total, torch.nextafter(total, torch.zeros_like(total)))
    index = torch.searchsorted(running, target[:, None], right=True).clamp(max=running.shape[1] - 1)
    end = running.gather(1, index)[:, 0]
    start = torch.where(index[:, 0] > 0, running.gather(1, (index - 1).clamp(min=0))[:, 0], 0.0)
    return index[:, 0], ((target - start) / (end - start)).clamp(0.0, 1.0)


def _truncate(z: Tensor, law: Law) -> Tensor:
    """Logits [R, V], at -inf outside the top k, then outside the nucleus of mass top_p, and below min_p times the best.

    Nucleus: Holtzman et al. 2020; min-p: Nguyen et al. 2024.
    """
    if 0 < law.top_k < z.shape[1]:
        z = z.masked_fill(z < z.topk(law.top_k).values[:, -1:], -torch.inf)
    if law.top_p < 1.0:
        ordered, index = z.sort(-1, descending=True)
        probs = ordered.softmax(-1)
        outside = probs.cumsum(-1) - probs >= law.top_p  # the token that crosses the limit stays in
        z = z.masked_fill(torch.zeros_like(outside).scatter(1, index, outside), -torch.inf)
    if law.min_p > 0.0:
        z = z.masked_fill(z < z.amax(-1, keepdim=True) + math.log(law.min_p), -torch.inf)
    return z
