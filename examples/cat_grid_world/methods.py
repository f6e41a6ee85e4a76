"""Six ways from rewards to a step of the policy, each one idea better than the one before.

    full return    every action is praised for the whole episode             sum_t grad log pi(a_t) R(episode)
    rewards-to-go  ... only for what came after it                           G_t = r_t + gamma G_(t+1)
    mean baseline  ... and only for being better than the average            G_t - mean(G)
    value baseline ... better than what was to be expected in this state     G_t - V(s_t)
    GAE            ... with V instead of luck for the far future             sum_k (gamma lambda)^k delta_(t+k)
    PPO            ... several careful steps from the same episodes          clipped ratio

All arithmetic is Plaudit's own: the functions that train language models, on episodes instead of responses.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from episodes import Episodes
from torch import Tensor

from plaudit.algorithms.ppo import PPO
from plaudit.algorithms.reinforce import REINFORCE
from plaudit.functional.advantages import gae, rewards_to_go
from plaudit.functional.statistics import masked_mean, whiten

Estimator = Callable[[Episodes, Tensor, float], Tensor]
"""Episodes, values ``[B, T]`` and gamma -> advantages ``[B, T]``."""

GAE_LAMBDA = 0.9


def full_return(played: Episodes, values: Tensor, gamma: float) -> Tensor:
    """The return of the episode at each of its steps. Uses no values."""
    return rewards_to_go(played.rewards, played.mask, gamma)[:, :1] * played.mask


def to_go(played: Episodes, values: Tensor, gamma: float) -> Tensor:
    """Rewards from each step on. Uses no values."""
    return rewards_to_go(played.rewards, played.mask, gamma)


def mean_baseline(played: Episodes, values: Tensor, gamma: float) -> Tensor:
    """Rewards-to-go minus their mean over the batch. Uses no values."""
    returns = rewards_to_go(played.rewards, played.mask, gamma)
    return (returns - masked_mean(returns, played.mask)) * played.mask


def value_baseline(played: Episodes, values: Tensor, gamma: float) -> Tensor:
    """Rewards-to-go minus the value of the state: GAE with lambda 1."""
    return gae(played.rewards, values, played.mask, gamma, 1.0)[0]


def generalised(played: Episodes, values: Tensor, gamma: float) -> Tensor:
    """Generalised advantage estimation with `GAE_LAMBDA`."""
    return gae(played.rewards, values, played.mask, gamma, GAE_LAMBDA)[0]


def whitened(played: Episodes, values: Tensor, gamma: float) -> Tensor:
    """GAE with mean 0 and variance 1, as PPO likes it."""
    return whiten(generalised(played, values, gamma), played.mask)


@dataclass(frozen=True)
class Method:
    """An estimator and how it is used: one plain step a batch, or PPO's several clipped ones."""

    name: str
    advantages: Estimator
    critic: bool
    step: Literal["plain", "ppo"] = "plain"


METHODS = (
    Method("full return", full_return, critic=False),
    Method("rewards-to-go", to_go, critic=False),
    Method("mean baseline", mean_baseline, critic=False),
    Method("value baseline", value_baseline, critic=True),
    Method("GAE", generalised, critic=True),
    Method("PPO", whitened, critic=True, step="ppo"),
)

ONE_STEP = REINFORCE(baseline="value")
CAREFUL = PPO(epochs=4, minibatches=2, clip=0.2, value_clip=0.0, target_kl=0.0)
"""The losses are those that train language models. Only their `credit`, with one reward a response, is not used here:
a cat is rewarded at every step."""
