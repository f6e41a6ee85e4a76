"""What an algorithm is: a frozen value that is its own config, made of pure functions on batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, Self, TypeVar, runtime_checkable

from torch import Tensor

from plaudit.experience import Batch, Experience, Loss, Outputs, Pairs
from plaudit.functional.controllers import Carry
from plaudit.records import Kind

Signal = Literal[
    "old_logprobs",
    "ref_logprobs",
    "some_ref_logprobs",
    "full_kl",
    "values",
    "last_values",
    "greedy_rewards",
    "mismatched_kl",
]


@dataclass(frozen=True, slots=True)
class Credit:
    """What `credit` gives back: what is learned from, the next iteration's carry, metrics of the whole batch."""

    batch: Experience | Pairs
    """With advantages; or pairs of the responses."""
    carry: Carry
    metrics: dict[str, float]


@runtime_checkable
class Algorithm(Protocol):
    """Anything that a command can train with: a frozen dataclass, whose fields are its settings."""

    @property
    def needs(self) -> frozenset[Signal]:
        """The signals that must be in the batch before `credit`, or before `loss` where there is no credit."""
        ...


@runtime_checkable
class OnlineAlgorithm(Algorithm, Protocol):
    """Learns from responses it samples itself: PPO, REINFORCE, RLOO, GRPO ..."""

    group_size: int
    """Responses sampled per prompt."""
    epochs: int
    """Passes over each batch of rollouts."""
    minibatches: int
    """Optimizer steps per epoch."""
    target_kl: float
    """Inner epochs stop when the policy moved 1.5 times this from where it sampled (nats per token; 0: never)."""

    @property
    def needs(self) -> frozenset[Signal]:
        """The signals that must be in the batch before `credit`. "values" asks for a critic: see `ActorCritic`."""
        ...

    def start(self) -> Carry:
        """What is carried from iteration to iteration, at its start."""
        ...

    def credit(self, batch: Experience, carry: Carry) -> Credit:
        """Rewards to advantages (and returns): whole batch, on the driver, no gradient."""
        ...

    def weights(self, batch: Experience) -> Experience:
        """Fill in ``loss_weights`` for one optimizer step."""
        ...

    def loss(self, batch: Experience, out: Outputs) -> Loss:
        """Policy loss of one microbatch."""
        ...


@runtime_checkable
class Resampling(OnlineAlgorithm, Protocol):
    """An online algorithm that learns from some groups only, and has further prompts sampled for the others."""

    sampling_rounds: int
    """At most so many batches of prompts are sampled for one batch of groups that are kept."""

    def keeps(self, rewards: Tensor, group_ids: Tensor) -> Tensor:
        """``[B]`` bool: rows of groups worth learning from. Rewards are raw; NaN: scoring failed."""
        ...


@runtime_checkable
class ActorCritic(OnlineAlgorithm, Protocol):
    """An online algorithm that needs "values", and so trains a critic as well."""

    critic_lr: float
    critic_init: Literal["reward", "sft"]
    critic_warmup: int

    def while_critic_warms_up(self) -> Self:
        """The algorithm for credit and value loss while only the critic learns."""
        ...

    def value_loss(self, batch: Experience, out: Outputs) -> Loss:
        """Critic loss of one microbatch."""
        ...


@runtime_checkable
class SharingTrunk(ActorCritic, Protocol):
    """An actor-critic whose critic may be a head on the policy's trunk, where one loss of one pass trains both."""

    critic: Literal["separate", "trunk"]

    def joint_loss(self, batch: Experience, out: Outputs) -> Loss:
        """Loss of policy and critic of one microbatch."""
        ...


B = TypeVar("B", bound=Batch)
"""The batches that an offline algorithm learns from."""


@runtime_checkable
class OfflineAlgorithm(Algorithm, Protocol[B]):
    """Learns from a fixed data set in batches of one type: SFT, reward model, DPO ..."""

    def weights(self, batch: B) -> B:
        """Fill in ``loss_weights`` for one optimizer step."""
        ...

    def loss(self, batch: B, out: Outputs) -> Loss:
        """Loss of one microbatch."""
        ...


@runtime_checkable
class PreferenceAlgorithm(OfflineAlgorithm[B], Protocol[B]):
    """An offline algorithm that compares the policy with its start on preferences, or on rated responses."""

    learns_from: ClassVar[Kind]
    """"preference" or "rating"."""


@runtime_checkable
class RatingAlgorithm(PreferenceAlgorithm[Experience], Protocol):
    """One that learns from responses which are good or bad by themselves: KTO."""

    def is_good(self, rating: float) -> bool:
        """Whether a response with this rating is one to learn from."""
        ...

    def is_tie(self, rating: float) -> bool:
        """Whether a rating is neither good nor bad: such a response is left out."""
        ...

    def advice(self, ratings: Sequence[float]) -> str:
        """What to know of the ratings before training, in words."""
        ...
