"""The protocols of machines: everything that a run drives, wherever it runs.

A backend builds what stands behind these protocols and owns it; loops and stages know nothing else of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor

from plaudit.config.sections import SamplingSection
from plaudit.experience import Batch, Loss, Outputs
from plaudit.records import Prompt, RewardResult, Rollout

Progress = Callable[[int, int], None]
"""Called now and then with (responses finished, responses in all)."""
LossFunction = Callable[[Batch, Outputs], Loss]
"""The loss of one microbatch, from the batch and the outputs of the model."""
SignalName = Literal["logprobs", "values", "scores", "features", "full_kl"]
"""What a model can say of a batch: ``[B, T]``; "scores" and "features" are ``[B]`` and ``[B, F]``."""


@dataclass(frozen=True, slots=True)
class TokenPrompt:
    """A prompt and its token ids, template and beginning-of-sequence token included."""

    prompt: Prompt
    ids: tuple[int, ...]


class Generator(Protocol):
    """Draws responses. A response depends on the weights, the seeds and its prompt, and on nothing else."""

    policy_version: int
    """Copied into every rollout; whoever changes the weights raises it."""

    def generate(
        self,
        prompts: Sequence[TokenPrompt],
        n: int,
        sampling: SamplingSection,
        *,
        seed: int,
        iteration: int,
        progress: Progress | None = None,
    ) -> list[Rollout]:
        """``n`` responses to each prompt; rollout ``i * n + k`` is response ``k`` to ``prompts[i]``.

        Args:
            prompts: ids must differ, because the seed of a response is made from the id of its prompt.
            n: responses per prompt; the rollouts of ``prompts[i]`` have ``group_id`` i.
            sampling: temperature, limits, stop texts.
            seed: the seed of the run.
            iteration: the same prompt gets other responses in another iteration.
            progress: told how many responses are finished.
        """
        ...


class Reward(Protocol):
    """Scores rollouts. It never makes up a number: what could not be scored has value None and an error."""

    name: str
    """What it is called in metrics and in ``reward_parts``."""

    def __call__(self, rollouts: Sequence[Rollout]) -> list[RewardResult]:
        """One result per rollout, in their order."""
        ...


class Scorer(Protocol):
    """A frozen model that fills in one signal of a batch."""

    def score(self, batch: Batch) -> Tensor:
        """``[B, T]`` log-probs or values, or ``[B]`` scores; no gradient."""
        ...


class Learner(Scorer, Protocol):
    """A model that learns."""

    step: int
    total_steps: int

    def read(self, batch: Batch, *signals: SignalName) -> list[Tensor]:
        """As `score`, of several signals from one pass."""
        ...

    def update(
        self, batch: Batch, loss: LossFunction, further: Sequence[tuple[Batch, LossFunction]] = ()
    ) -> dict[str, float]:
        """One optimizer step on the whole batch; the metrics of the loss, plus ``lr`` and ``grad_norm``.

        ``further`` batches, each with its own loss and weights, add to the same step.
        """
        ...

    def weights(self) -> dict[str, Tensor]:
        """A copy of the trainable weights, on the CPU."""
        ...

    def restore(self, weights: dict[str, Tensor]) -> None:
        """Go back to weights that `weights` gave; the optimizer stays as it is."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """Everything a checkpoint must keep as tensors: trainable weights and optimizer moments."""
        ...

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Inverse of `tensors`; a missing or unexpected name is an error."""
        ...


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
    """KL(policy || reference) of the next-token distributions at each response token, where an algorithm needs it."""
    shared_trunk: bool = False
    """The critic is a head on the policy's trunk: a step of the policy trains both, a step of the critic the head."""
