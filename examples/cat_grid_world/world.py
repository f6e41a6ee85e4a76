"""The cat's world: a grid with meat (+100, end), a tub (-10, end), brooms (-1) and walls; a plain move costs nothing.

A move into a wall or off the grid leaves the cat where it is. The cat is drunk: with probability ``drunk`` it stumbles
in a random direction instead of the one it chose. Rewards are discounted, so sooner is better.

The world is small enough for exact answers, which is what makes it a test: value iteration gives the best policy,
a linear equation the value of any policy, and its derivative the gradient that sampling can only estimate.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

MAP = (
    "C.B.BB",
    "B#BB#B",
    ".BT.BB",
    "BBB#BM",
)
"""C cat's start, M meat, T tub, B broom, # wall, . floor."""

REWARDS = {"M": 100.0, "T": -10.0, "B": -1.0}
ENDS = "MT"
MOVES = {"up": (-1, 0), "right": (0, 1), "down": (1, 0), "left": (0, -1)}


@dataclass(frozen=True)
class World:
    """States are the S cells of the map row by row (walls included, never entered); the A = 4 actions are `MOVES`."""

    rows: tuple[str, ...] = MAP
    drunk: float = 0.1
    gamma: float = 0.95

    @property
    def width(self) -> int:
        """Cells in a row."""
        return len(self.rows[0])

    @cached_property
    def cells(self) -> str:
        """All cells, row by row."""
        return "".join(self.rows)

    @cached_property
    def start(self) -> int:
        """The state in which every episode begins."""
        return self.cells.index("C")

    @cached_property
    def ends(self) -> Tensor:
        """``[S]`` bool: the episode is over here."""
        return torch.tensor([cell in ENDS for cell in self.cells])

    @cached_property
    def rewards(self) -> Tensor:
        """``[S]``: what the cat gets for the cell in which a step leaves it."""
        return torch.tensor([REWARDS.get(cell, 0.0) for cell in self.cells], dtype=torch.float64)

    @cached_property
    def transitions(self) -> Tensor:
        """``[S, A, S]`` probability of the next state."""
        aimed = torch.zeros(len(self.cells), len(MOVES), len(self.cells), dtype=torch.float64)
        for state in range(len(self.cells)):
            for action, move in enumerate(MOVES.values()):
                aimed[state, action, self._landing(state, move)] = 1
        return (1 - self.drunk) * aimed + self.drunk * aimed.mean(1, keepdim=True)

    def _landing(self, state: int, move: tuple[int, int]) -> int:
        row, column = state // self.width + move[0], state % self.width + move[1]
        inside = 0 <= row < len(self.rows) and 0 <= column < self.width
        return row * self.width + column if inside and self.rows[row][column] != "#" else state

    def action_values(self, values: Tensor) -> Tensor:
        """``Q[S, A] = sum_s' P(s' | s, a) (r(s') + gamma V(s'))``; 0 where the episode is over."""
        future = self.transitions @ (self.rewards + self.gamma * values)
        return torch.where(self.ends[:, None], torch.zeros_like(future), future)

    def best(self, tolerance: float = 1e-10) -> tuple[Tensor, Tensor]:
        """Value iteration: the optimal values ``[S]`` and the (deterministic) optimal policy ``[S, A]``."""
        values = torch.zeros(len(self.cells), dtype=torch.float64)
        while True:
            better = self.action_values(values).amax(1)
            if (better - values).abs().max() < tolerance:
                greedy = self.action_values(better).argmax(1)
                return better, torch.nn.functional.one_hot(greedy, len(MOVES)).to(torch.float64)
            values = better

    def values(self, policy: Tensor) -> Tensor:
        """Exact values ``[S]`` of a policy ``[S, A]``: the solution of ``V = r_pi + gamma P_pi V``. Differentiable."""
        policy = policy.to(torch.float64) * ~self.ends[:, None]
        walk = torch.einsum("sa,saz->sz", policy, self.transitions)
        identity = torch.eye(len(self.cells), dtype=torch.float64)
        return torch.linalg.solve(identity - self.gamma * walk, walk @ self.rewards)

    def expected_return(self, policy: Tensor) -> Tensor:
        """Expected discounted return of a policy from the start, exact. Differentiable."""
        return self.values(policy)[self.start]
