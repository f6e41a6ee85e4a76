"""How much does each estimator of the policy gradient scatter? Same policy, same episodes, and the truth is known.

    gradient = E[ sum_t gamma^t grad log pi(a_t, given s_t) A_t ]

With the exact values, which this world has, every one of these estimators has this expectation (GAE with any lambda
included); what differs is the variance. That of N episodes is that of one, divided by N.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from episodes import Episodes, play
from methods import Estimator, Method, full_return
from torch import Tensor
from world import World

from plaudit.functional.logprobs import token_logprobs

STEPS = 200
"""Long enough that hardly any episode is cut off: gamma^200 is 0.00004."""


@dataclass(frozen=True)
class Spread:
    """Of one episode's estimate: variance (summed over parameters), its standard error, and how far off the mean is."""

    variance: float
    error: float
    miss: float
    """Distance of the mean estimate from the exact gradient; about 1 in units of its own expected size if unbiased."""


def exact_gradient(world: World, preferences: Tensor) -> Tensor:
    """``[S, A]`` derivative of the expected return from the start."""
    preferences = preferences.detach().clone().requires_grad_()
    return torch.autograd.grad(world.expected_return(preferences.softmax(-1)), preferences)[0]


def estimates(world: World, preferences: Tensor, advantages: Estimator, played: Episodes) -> Tensor:
    """``[B, S, A]`` gradient estimated from each episode alone, exact values given."""
    rows = len(played.states)
    values = world.values(preferences.softmax(-1)).float()[played.states] * played.mask
    credit = advantages(played, values, world.gamma)
    if advantages is not full_return:  # the return of the whole episode is discounted to its start already
        credit = credit * world.gamma ** torch.arange(credit.shape[1])
    own = preferences.repeat(
        rows, 1, 1
    ).requires_grad_()  # a copy for each episode, so that gradients stay apart
    logits = own[torch.arange(rows)[:, None], played.states].flatten(0, 1)
    logprobs = token_logprobs(logits, played.batch.tokens.flatten()).view_as(credit)
    return torch.autograd.grad((credit * logprobs).sum(), own)[0]


def spreads(
    world: World, preferences: Tensor, methods: tuple[Method, ...], *, episodes: int, seed: int
) -> dict[str, Spread]:
    """The spread of each method's estimator; all see the same episodes."""
    preferences = preferences.detach()
    truth = exact_gradient(world, preferences)
    draw = torch.Generator().manual_seed(seed)
    played = play(world, preferences.softmax(-1), episodes, STEPS, draw)
    return {
        method.name: _spread(estimates(world, preferences, method.advantages, played), truth)
        for method in methods
    }


def _spread(gradients: Tensor, truth: Tensor) -> Spread:
    count, mean = len(gradients), gradients.mean(0)
    distances = (gradients - mean).square().sum((1, 2))
    variance = float(distances.sum()) / (count - 1)
    miss = float((mean - truth).square().sum().sqrt()) / (variance / count) ** 0.5
    return Spread(variance, float(distances.std()) / count**0.5, miss)
