"""Drawing tokens: counter-based random numbers and the inverse of the cumulative distribution.

The random number for token t of a response is a function of (seed of the response, t) and of nothing else, so a
response does not depend on its batch, its neighbours or its worker, and can be drawn again after a crash.
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
from plaudit.functional.precision import in_float64

# Width b of the second level of the search in `invert`. After one pass for the sums of blocks it needs running sums of
# V / b and of b numbers, together least near b = sqrt(V); 512 suits vocabularies of up to some 260 000 words.
_BLOCK = 512


def sample_seed(run_seed: int, iteration: int, prompt_id: str, k: int) -> int:
    """The 64-bit seed of response ``k`` to a prompt in an iteration: BLAKE2b of the four.

    >>> sample_seed(0, 1, "p", 0) == sample_seed(0, 1, "p", 0) != sample_seed(0, 1, "p", 1)
    True
    """
    # A hash and not a sum of the four: neighbouring seeds, iterations and k must not meet (seed 1, k 2 and seed 2, k
    # 1). "rollout" keeps these seeds apart from others made of the same numbers; JSON keeps ("a", 1) and ("a1",)
    # apart. BLAKE2b and not Python's hash(), which differs from process to process.
    key = json.dumps(["rollout", run_seed, iteration, prompt_id, k]).encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little")


def uniform(seeds: NDArray[np.uint64], t: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1), 53 bits: output ``t`` of SplitMix64 (Steele et al. 2014) of each seed.

    ``seeds`` and ``t`` broadcast. Each element is computed without those before it.
    """
    # A generator with a state would have to be stored for each response in a checkpoint, and moved forward by rows that
    # leave and enter. SplitMix64 mixes a counter, so its state is the pair (seed, t). It is written in numpy because
    # torch has no wrapping uint64 arithmetic; the same integers come out on every machine.
    with np.errstate(over="ignore"):  # arithmetic modulo 2^64 is meant
        z = seeds + (t + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    # The upper 53 bits fill the mantissa of a double exactly, so u is never rounded up to 1.
    u: NDArray[np.float64] = (z >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return u


@dataclass(frozen=True, slots=True)
class Distribution:
    """How logits become the distribution that tokens are drawn from; the defaults leave softmax(logits)."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0

    @staticmethod
    def of(sampling: SamplingSection) -> Distribution:
        """The part of the settings that shapes the distribution."""
        return Distribution(sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p)


def draw(
    logits: Tensor, u: Tensor, shape: Distribution, banned: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """One token per row by inverse CDF, and its log-prob under the next-token distribution that is trained.

    That distribution is softmax(logits / temperature) over the full vocabulary. Top-k, top-p, min-p and bans change
    what is drawn but not the log-prob, which therefore equals what the trainer computes for the same token.

    Args:
        logits: [R, V] fp32.
        u: [R] float64 in [0, 1), on the CPU.
        shape: temperature, top-k, top-p, min-p.
        banned: [R, V] bool, tokens that must not be drawn now.

    Returns:
        tokens [R] int64, logprobs [R] fp32 in nats; a non-finite row of logits gives a non-finite log-prob.
    """
    z = logits if shape.temperature == 1.0 else logits / shape.temperature
    normaliser = None
    if banned is not None or shape.top_k or shape.top_p < 1.0 or shape.min_p > 0.0:
        # Before anything is cut: log-probs are those of the full vocabulary. Without a cut the sum that the draw needs
        # anyway serves, and this pass over [R, V] is saved.
        normaliser = torch.logsumexp(z, -1)
        z = _truncate(z if banned is None else z.masked_fill(banned, -torch.inf), shape)
    # Relative to the largest logit exp cannot overflow, and the sum is at least 1.
    peak = z.amax(-1, keepdim=True)
    tokens, mass = invert((z - peak).exp_(), u)
    chosen = z.gather(1, tokens[:, None])[:, 0]
    if normaliser is None:
        return tokens, (in_float64(chosen) - (in_float64(peak[:, 0]) + mass.log())).float().to(z.device)
    return tokens, (chosen - normaliser).float()


def invert(weights: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """The token at which the cumulative sum of ``weights`` first exceeds ``u`` times its total.

    In two levels: first over the sums of blocks of tokens, then inside one block.

    Args:
        weights: [R, V] fp32, non-negative, not all 0.
        u: [R] float64 in [0, 1), on the CPU.

    Returns:
        tokens [R] int64, each with positive weight, and the totals [R] float64, where `in_float64` puts them.
    """
    # `torch.multinomial` would draw from PyTorch's global state, in an order that depends on the batch. A plain
    # cumulative sum over the vocabulary would do, but in fp32 it loses words of small probability at its far end, and
    # in fp64 it costs a pass over [R, V] doubles; only the block sums and one block of each row are doubles here.
    vocab = weights.shape[1]
    whole = vocab // _BLOCK * _BLOCK
    sums = weights[:, :whole].view(len(weights), -1, _BLOCK).sum(-1)
    if whole < vocab:
        sums = torch.cat([sums, weights[:, whole:].sum(-1, keepdim=True)], 1)
    running = in_float64(sums).cumsum(1)
    block, share = _locate(running, u.to(running))
    # The point's share of its block is spread over that block again, so no second random number is needed.
    column = block[:, None].to(weights.device) * _BLOCK + torch.arange(min(_BLOCK, vocab), device=weights.device)
    inside = weights.gather(1, column.clamp(max=vocab - 1)).masked_fill(column >= vocab, 0.0)
    offset, _ = _locate(in_float64(inside).cumsum(1), share)
    return (block * _BLOCK + offset).clamp(max=vocab - 1).to(weights.device), running[:, -1]


def _locate(running: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """First index whose running sum [R, N] exceeds ``u`` of the total; how far into its step (0 to 1) that is."""
    # On the second level u may be 1, a share that was rounded up, and no running sum exceeds the total; the next
    # smaller double is exceeded by that of the last token of positive weight. ``right=True`` steps over tokens of
    # weight 0, whose running sum equals the one before: they must never be drawn.
    total = running[:, -1]
    target = torch.minimum(u * total, torch.nextafter(total, torch.zeros_like(total)))
    index = torch.searchsorted(running, target[:, None], right=True).clamp(max=running.shape[1] - 1)
    end = running.gather(1, index)[:, 0]
    start = torch.where(index[:, 0] > 0, running.gather(1, (index - 1).clamp(min=0))[:, 0], 0.0)
    return index[:, 0], ((target - start) / (end - start)).clamp(0.0, 1.0)


def _truncate(z: Tensor, shape: Distribution) -> Tensor:
    """Logits [R, V], -inf outside the top k, then outside the nucleus of mass top_p, and below min_p times the largest.

    Nucleus: Holtzman et al. 2020; min-p: Nguyen et al. 2024.
    """
    if 0 < shape.top_k < z.shape[1]:
        z = z.masked_fill(z < z.topk(shape.top_k).values[:, -1:], -torch.inf)
    if shape.top_p < 1.0:
        ordered, index = z.sort(-1, descending=True)
        probs = ordered.softmax(-1)
        # The mass before a token is compared, so the token that crosses the limit stays in, and the first one always.
        outside = probs.cumsum(-1) - probs >= shape.top_p
        z = z.masked_fill(torch.zeros_like(outside).scatter(1, index, outside), -torch.inf)
    if shape.min_p > 0.0:
        # p < min_p * p_max, in logits: no softmax is needed for a comparison of two probabilities.
        z = z.masked_fill(z < z.amax(-1, keepdim=True) + math.log(shape.min_p), -torch.inf)
    return z
