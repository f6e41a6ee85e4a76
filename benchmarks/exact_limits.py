"""Where methods end in the world of words, without noise: by a closed form, by induction, or by the exact gradient."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations_with_replacement, pairwise

import torch
import word_world as world
from torch import Tensor
from word_world import ALL, END, LENGTH, OFFSETS, REFERENCE, REWARDS, START, Table

from plaudit.functional.groups import Scale, group_advantages
from plaudit.functional.kl import kl_loss

VALUES, VALUE_OF = REWARDS.double().unique(return_inverse=True)


def distance(policy: Tensor, other: Tensor) -> float:
    """Total variation: the most by which the probability of any set of words differs."""
    return float((policy - other).abs().sum() / 2)


def optimum(coefficient: float) -> Tensor:
    """``ref exp(r / coefficient)``, normalised: the best policy under a KL with this weight."""
    return (REFERENCE.log() + REWARDS.double() / coefficient).softmax(-1)


def place_by_place(coefficient: float) -> Tensor:
    """Where a KL in the loss leads: at each place it is weighed against the reward alone, not against the later KL.

    Each token's distribution is ``ref exp(Q / coefficient)``, normalised, with Q the expected *reward* after the token.
    In the optimum the value of what follows is its reward less its own KL; that is the only difference.
    """
    log_ref = START.double().log_softmax(-1)
    found: dict[tuple[int, ...], Tensor] = {}

    def expected(beginning: tuple[int, ...], code: int) -> float:
        after = []
        for letter in range(END + 1):
            word = (*beginning, letter)
            ends = letter == END or len(word) == LENGTH
            after.append(world.worth(world.spelt(word)) if ends else expected(word, 3 * code + letter))
        rewards = torch.tensor(after, dtype=torch.float64)
        logprobs = (log_ref[OFFSETS[len(beginning)] + code] + rewards / coefficient).log_softmax(-1)
        found[beginning] = logprobs
        return float((logprobs.exp() * rewards).sum())

    expected((), 0)
    sums = [sum(float(found[word[:t]][word[t]]) for t in range(len(word))) for word in world.WORDS]
    return torch.tensor(sums, dtype=torch.float64).exp()


def best_of(n: int) -> Tensor:
    """The distribution of the best of n words of the reference; of equal ones the first counts."""
    share = torch.zeros(len(VALUES), dtype=torch.float64).index_add(0, VALUE_OF, REFERENCE)
    edges = [0.0, *share.cumsum(0).tolist()]
    best = torch.tensor([high**n - low**n for low, high in pairwise(edges)], dtype=torch.float64)
    return REFERENCE * (best / share)[VALUE_OF]


def best_word() -> Tensor:
    """All on the word with the highest reward."""
    return torch.nn.functional.one_hot(REWARDS.argmax(), len(REWARDS)).double()


def mean_advantages(size: int, scale: Scale) -> Callable[[Tensor], Tensor]:
    """The function from a policy ``[W]`` to the mean advantage of each word among ``size - 1`` others of the policy."""
    combinations = torch.tensor(list(combinations_with_replacement(range(len(VALUES)), size - 1)))
    counts = torch.nn.functional.one_hot(combinations, len(VALUES)).sum(1)
    orders = torch.lgamma(torch.tensor(float(size))) - torch.lgamma(counts.double() + 1).sum(-1)
    others = VALUES[combinations].repeat(len(VALUES), 1)
    own = VALUES.repeat_interleave(len(combinations))[:, None]
    groups = torch.cat([own, others], -1)
    ids = torch.arange(len(groups)).repeat_interleave(size)
    found = group_advantages(groups.flatten(), ids, torch.ones(groups.numel(), dtype=torch.bool), scale)
    advantages = found.double().view(-1, size)[:, 0].view(len(VALUES), len(combinations))

    def of(policy: Tensor) -> Tensor:
        share = torch.zeros(len(VALUES), dtype=torch.float64).index_add(0, VALUE_OF, policy)
        chances = (orders + (counts * share.clamp(min=1e-300).log()).sum(-1)).exp()
        return (advantages @ chances)[VALUE_OF]

    return of


def grpo(
    coefficient: float,
    scale: Scale,
    *,
    paper: bool = False,
    unequal_only: bool = False,
    size: int = 8,
    steps: int = 4000,
) -> Tensor:
    """Where GRPO's expected gradient leads: all words, weighted by their probability, in place of a sample.

    Args:
        paper: the mean of each response over its tokens, and k3 as it stands.
        unequal_only: groups of equal scores are left out (dynamic sampling), and the KL of their words with them.
    """
    table = Table(START.double())
    optimizer = torch.optim.Adam(table.parameters(), lr=0.05)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
    reference = Table(START.double())(ALL).logprobs.detach()
    tokens = ALL.response_mask / (ALL.response_mask.sum(-1, keepdim=True) if paper else 1)
    advantages_of = mean_advantages(size, scale)
    for _ in range(steps):
        logprobs = table(ALL).logprobs
        policy = logprobs.detach().sum(-1).exp()
        kl = kl_loss(logprobs, logprobs.detach(), reference, "k3", "naive" if paper else "unbiased")
        shares = torch.zeros(len(VALUES), dtype=torch.float64).index_add(0, VALUE_OF, policy)
        kept = 1 - shares[VALUE_OF] ** (size - 1) if unequal_only else torch.ones_like(policy)
        reward_part = advantages_of(policy) * (tokens * logprobs).sum(-1)
        loss = (policy * (coefficient * kept * (tokens * kl).sum(-1) - reward_part)).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return world.law(table)
