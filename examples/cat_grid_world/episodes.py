"""Playing: many episodes at once, as the same `Experience` that holds responses of a language model.

An episode is a row and a step a token: ``tokens`` are the actions, the mask is True while the episode lasts.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from world import World

from plaudit.experience import Experience


@dataclass(frozen=True)
class Episodes:
    """What happened: states ``[B, T]`` and the batch with actions, mask and rewards of each step, all ``[B, T]``."""

    states: Tensor
    batch: Experience

    @property
    def mask(self) -> Tensor:
        """``[B, T]`` bool, True at steps that were played."""
        return self.batch.response_mask

    @property
    def rewards(self) -> Tensor:
        """``[B, T]`` reward of each step."""
        assert self.batch.token_rewards is not None
        return self.batch.token_rewards


def play(world: World, policy: Tensor, count: int, steps: int, draw: torch.Generator) -> Episodes:
    """``count`` episodes of a policy ``[S, A]`` from the start, each until its end or for ``steps`` steps."""
    here, going = torch.full((count,), world.start), torch.ones(count, dtype=torch.bool)
    columns: list[tuple[Tensor, ...]] = []
    for _ in range(steps):
        action = torch.multinomial(policy[here], 1, generator=draw).squeeze(1)
        there = torch.multinomial(world.transitions[here, action], 1, generator=draw).squeeze(1)
        columns.append((here, action, going, world.rewards[there].float() * going))
        here, going = torch.where(going, there, here), going & ~world.ends[there]
        if not going.any():
            break
    states, actions, mask, rewards = (torch.stack(column, 1) for column in zip(*columns, strict=True))
    return Episodes(states, Experience(actions, mask, mask, token_rewards=rewards))
