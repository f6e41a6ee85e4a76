"""What an algorithm is: a frozen value that is its own config, made of pure functions on batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Protocol, TypeVar, runtime_checkable

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
    "heads",
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

    @property
    def group_size(self) -> int:
        """Responses sampled per prompt."""
        ...

    @property
    def epochs(self) -> int:
        """Passes over each batch of rollouts."""
        ...

    @property
    def minibatches(self) -> int:
        """Optimizer steps per epoch."""
        ...

    @property
    def target_kl(self) -> float:
        """Inner epochs stop when the policy moved 1.5 times this from where it sampled (nats per token; 0: never)."""
        ...

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

    # Of the type that `credit` of the same algorithm gives: the responses themselves, or pairs of them.
    def weights(self, batch: Any) -> Any:
        """Fill in ``loss_weights`` for one optimizer step."""
        ...

    def loss(self, batch: Any, out: Outputs) -> Loss:
        """Policy loss of one microbatch."""
        ...


@runtime_checkable
class Resampling(OnlineAlgorithm, Protocol):
    """An online algorithm that learns from some groups only, and has further prompts sampled for the others."""

    @property
    def sampling_rounds(self) -> int:
        """At most so many batches of prompts are sampled for one batch of groups that are kept; 0: all are kept."""
        ...

    def keeps(self, rewards: Tensor, group_ids: Tensor) -> Tensor:
        """``[B]`` bool: rows of groups worth learning from. Rewards are raw; NaN: scoring failed."""
        ...


@dataclass(frozen=True, slots=True)
class Phase:
    """How one iteration learns."""

    algorithm: OnlineAlgorithm
    """What gives credit and losses in it: the algorithm itself, or it with other settings."""
    policy_learns: bool = True
    """Or only the critic does."""
    rested: int = 0
    """Iterations that the policy rests in all, as far as is known: its schedule counts the others."""


@runtime_checkable
class ActorCritic(OnlineAlgorithm, Protocol):
    """An online algorithm that may need "values", and then trains a critic as well."""

    @property
    def critic_lr(self) -> float | Literal["auto"]:
        """Learning rate of the critic; auto: by the size of its model."""
        ...

    @property
    def critic_init(self) -> Literal["reward", "sft"]:
        """What the critic starts from: the reward model, or the policy with a zero head."""
        ...

    @property
    def critic_warmup(self) -> int:
        """Iterations at the start in which only the critic learns."""
        ...

    def phase(self, iteration: int, carry: Carry) -> Phase:
        """What learns in the 0-based iteration, and with which settings; asked before `credit`."""
        ...

    def after(self, iteration: int, carry: Carry, metrics: Mapping[str, float]) -> Carry:
        """What is carried on, given the metrics of the iteration: a warm-up may end early."""
        ...

    def value_loss(self, batch: Experience, out: Outputs) -> Loss:
        """Critic loss of one microbatch."""
        ...


@runtime_checkable
class SharingTrunk(ActorCritic, Protocol):
    """An actor-critic whose critic may be a head on the policy's trunk, where one loss of one pass trains both."""

    @property
    def critic(self) -> str:
        """"trunk": a head on the policy's trunk. Any other value: a model of its own."""
        ...

    def joint_loss(self, batch: Experience, out: Outputs) -> Loss:
        """Loss of policy and critic of one microbatch."""
        ...


@runtime_checkable
class Rehearsing(OnlineAlgorithm, Protocol):
    """An online algorithm that may go on imitating texts while it learns from rewards, so as not to forget them."""

    @property
    def ptx_dataset(self) -> str:
        """Where the texts are; empty: there are none."""
        ...

    def ptx_loss(self, batch: Experience, out: Outputs) -> Loss:
        """Loss of a microbatch of texts, added to each step of the policy."""
        ...


@runtime_checkable
class EntropyBonus(Protocol):
    """An algorithm that may reward entropy, whose gradient costs memory and is computed for this alone."""

    @property
    def entropy_coef(self) -> float:
        """0: no bonus."""
        ...


@runtime_checkable
class Cautious(Protocol):
    """An algorithm that can say what to know of its settings: which shift the optimum, which are probably not meant."""

    @property
    def cautions(self) -> tuple[str, ...]:
        """In words for the user."""
        ...


@runtime_checkable
class LengthDependent(Protocol):
    """An algorithm that can say what a setting of it means for responses of a length."""

    def caution_at(self, tokens: float) -> str:
        """In words for the user; empty where nothing is to be said of so many tokens a response."""
        ...


GOOD_CRITIC = 0.5
"""Share of the variance of the returns that a critic explains when it needs no more time alone."""


def warm_up(algorithm: ActorCritic, alone: OnlineAlgorithm, iteration: int, carry: Carry) -> Phase:
    """The phase of an iteration where the critic learns alone at first; ``alone`` is the algorithm in that time."""
    if "values" not in algorithm.needs:
        return Phase(algorithm)
    rested = algorithm.critic_warmup if carry.warmup is None else carry.warmup
    if iteration >= rested:
        return Phase(algorithm, rested=rested)
    return Phase(alone, policy_learns=False, rested=rested)


def end_warm_up(algorithm: ActorCritic, iteration: int, carry: Carry, metrics: Mapping[str, float]) -> Carry:
    """The carry, which says how long the warm-up was once the critic is good enough.

    Explained variance is measured before the updates of an iteration, on responses that the critic has not seen: it
    cannot be reached by learning them by heart.
    """
    warming_up = not algorithm.phase(iteration, carry).policy_learns
    if warming_up and metrics.get("critic/explained_variance", 0.0) > GOOD_CRITIC:
        return replace(carry, warmup=iteration + 1)
    return carry


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
