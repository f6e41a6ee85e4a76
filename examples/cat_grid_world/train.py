"""One cat learns: a table of action preferences, a table of values, and a method."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from episodes import Episodes, play
from methods import CAREFUL, ONE_STEP, Method
from torch import Tensor, nn
from world import MOVES, World

from plaudit.experience import Experience, Outputs
from plaudit.functional.advantages import rewards_to_go
from plaudit.functional.logprobs import token_entropy, token_logprobs


@dataclass(frozen=True)
class Plan:
    """How long and how fast to learn."""

    iterations: int = 100
    episodes: int = 64
    steps: int = 60
    policy_lr: float = 0.25
    value_lr: float = 4.0
    value_steps: int = 4


class Cat(nn.Module):
    """A softmax policy and values, both tables over states."""

    def __init__(self, states: int) -> None:
        super().__init__()
        self.preferences = nn.Parameter(torch.zeros(states, len(MOVES)))
        self.value = nn.Parameter(torch.zeros(states))

    @property
    def policy(self) -> Tensor:
        """``[S, A]`` probabilities."""
        return self.preferences.softmax(-1)

    def forward(self, states: Tensor, batch: Experience) -> Outputs:
        """Log-probs of the actions taken, entropies and values, ``[B, T]``; what a language model gives for tokens."""
        logits, mask = self.preferences[states], batch.response_mask
        flat = logits.flatten(0, 1)
        logprobs = token_logprobs(flat, batch.tokens.flatten()).view_as(mask)
        entropy = token_entropy(flat).view_as(mask)
        return Outputs(logprobs=logprobs * mask, entropy=entropy * mask, values=self.value[states] * mask)


@dataclass
class Learning:
    """A cat, what it learned with, and its exact expected return after each iteration."""

    world: World
    method: Method
    plan: Plan
    seed: int
    cat: Cat = field(init=False)
    curve: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.cat = Cat(len(self.world.cells))
        self.draw = torch.Generator().manual_seed(self.seed)
        self.actor = torch.optim.Adam([self.cat.preferences], lr=self.plan.policy_lr)
        self.critic = torch.optim.Adam([self.cat.value], lr=self.plan.value_lr)

    def run(self) -> Learning:
        """Play and learn ``plan.iterations`` times."""
        self.curve.append(float(self.world.expected_return(self.cat.policy.detach())))
        for iteration in range(self.plan.iterations):
            for optimizer, lr in ((self.actor, self.plan.policy_lr), (self.critic, self.plan.value_lr)):
                optimizer.param_groups[0]["lr"] = lr * (1 - iteration / self.plan.iterations)
            played = play(
                self.world, self.cat.policy.detach(), self.plan.episodes, self.plan.steps, self.draw
            )
            self.learn(played)
            self.curve.append(float(self.world.expected_return(self.cat.policy.detach())))
        return self

    def learn(self, played: Episodes) -> None:
        """Signals, then advantages, then steps: the order of the language-model loop."""
        with torch.no_grad():
            out = self.cat(played.states, played.batch)
            assert out.values is not None
            advantages = self.method.advantages(played, out.values, self.world.gamma)
            returns = rewards_to_go(played.rewards, played.mask, self.world.gamma)
        batch = played.batch.replace(
            old_logprobs=out.logprobs, ref_logprobs=out.logprobs, values=out.values,
            advantages=advantages, returns=returns,
        )  # fmt: skip
        if self.method.step == "ppo":
            self._careful_steps(played.states, batch)
        else:
            self._one_step(played.states, batch)

    def _one_step(self, states: Tensor, batch: Experience) -> None:
        """REINFORCE: one step of the policy, and some of the critic where the method has one."""
        batch = ONE_STEP.weights(batch)
        for _ in range(self.plan.value_steps if self.method.critic else 0):
            step(self.critic, ONE_STEP.value_loss(batch, self.cat(states, batch)).value)
        step(self.actor, ONE_STEP.loss(batch, self.cat(states, batch)).value)

    def _careful_steps(self, states: Tensor, batch: Experience) -> None:
        """PPO: some passes over shuffled minibatches."""
        for _ in range(CAREFUL.epochs):
            for rows in torch.randperm(len(batch), generator=self.draw).tensor_split(CAREFUL.minibatches):
                minibatch = CAREFUL.weights(batch.select(rows))
                here = states[rows, : minibatch.tokens.shape[1]]
                step(self.critic, CAREFUL.value_loss(minibatch, self.cat(here, minibatch)).value)
                step(self.actor, CAREFUL.loss(minibatch, self.cat(here, minibatch)).value)


def step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """One optimizer step down the loss."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
