"""Everything the online loop drives, in one value. The loop never asks where a part runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from plaudit.config.sections import SamplingSection
from plaudit.records import Prompt, RewardResult, Rollout
from plaudit.training.learner import Learner, Scorer


class TokenisedPrompt(Protocol):
    """A prompt with its token ids."""

    @property
    def prompt(self) -> Prompt:
        """The prompt as read from the data."""
        ...

    @property
    def ids(self) -> tuple[int, ...]:
        """Its tokens, generation prompt included."""
        ...


class Generator(Protocol):
    """Samples responses; a sample depends on (seed, iteration, prompt id, k) only, never on its batch."""

    policy_version: int

    def generate(
        self, prompts: Sequence[Any], n: int, sampling: SamplingSection, *, seed: int, iteration: int
    ) -> list[Rollout]:
        """``n`` responses to each prompt, prompt by prompt; ``group_id`` is the prompt's place in the call."""
        ...


Reward = Callable[[Sequence[Rollout]], list[RewardResult]]


@dataclass(frozen=True, slots=True)
class Runtime:
    """The parts of one online run."""

    generator: Generator
    policy: Learner
    reference: Scorer
    reward: Reward
    critic: Learner | None = None
    gold: Reward | None = None
    """A second judge that is never trained on: it tells whether the reward is being hacked."""
    full_kl: Scorer | None = None
    """KL(policy || reference) of the next-token laws at each response token, for an algorithm that needs it."""
    shared_trunk: bool = False
    """The critic is a head on the policy's trunk: a step of the policy trains both, a step of the critic the head."""
