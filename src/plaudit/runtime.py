"""The protocols of machines: everything that a run drives, wherever it runs.

A backend builds what stands behind these protocols and owns it; loops and stages know nothing else of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from torch import Tensor

from plaudit.config.sections import SamplingSection
from plaudit.data.chat import ChatFormat
from plaudit.experience import Batch, Loss, Outputs
from plaudit.records import Prompt, RewardResult, Rollout

Progress = Callable[[int, int], None]
"""Called now and then with (responses finished, responses in all)."""
LossFunction = Callable[[Any, Outputs], Loss]
"""The loss of one microbatch, from a batch of the type that the learner was given, and the outputs of the model."""
SignalName = Literal["logprobs", "values", "scores", "features", "heads", "full_kl"]
"""What a model can say of a batch: ``[B, T]``; "scores" are ``[B]``, "features" ``[B, F]``, "heads" ``[B, H]``."""
TrainedOn = Literal["comparisons", "ratings", "labels"]
"""Of a reward model. labels: it classifies whole texts, and its score is the log-odds of label 1."""
LengthRuleName = Literal["none", "divide", "residual", "penalty"]
"""How length is taken out of a reward model's scores; see `LengthRule`."""


@dataclass(frozen=True, slots=True)
class TokenPrompt:
    """A prompt and its token ids, template and beginning-of-sequence token included."""

    prompt: Prompt
    ids: tuple[int, ...]
    max_new_tokens: int = 0
    """Most tokens of its responses, where that is fewer than the sampling settings say; 0: no limit of its own."""


class Weights(Protocol):
    """The trainable weights of a learner, as a handle: a generator on the same tensors never asks for a copy."""

    def tensors(self) -> dict[str, Tensor]:
        """A copy of them as they are now, on the CPU, by the learner's names."""
        ...


class Generator(Protocol):
    """Draws responses. A response depends on the weights, the seeds and its prompt, and on nothing else."""

    def publish(self, weights: Weights, version: int) -> None:
        """From now on responses are drawn from these weights, and bear this ``policy_version``."""
        ...

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
    """A model that reads batches."""

    def read(self, batch: Batch, *signals: SignalName) -> list[Tensor]:
        """One tensor a signal, on the CPU, without gradient, all from one pass; see `SignalName` for their shapes."""
        ...


class Learner(Scorer, Protocol):
    """One trainable model with its optimizer. Only these verbs change it; nobody sets a field of it."""

    @property
    def step(self) -> int:
        """Optimizer steps that its schedule has counted, those included that it rested."""
        ...

    def update(
        self, batch: Batch, loss: LossFunction, further: Sequence[tuple[Batch, LossFunction]] = ()
    ) -> dict[str, float]:
        """One optimizer step on the whole batch, or none; the metrics of the loss, plus ``lr`` and ``grad_norm``.

        Where a model is spread over ranks, all of them take the step or none does. ``further`` batches, each with its
        own loss and weights, add to the same step. Without a finite gradient neither weights nor moments nor the
        schedule change, and ``grad_norm`` is that gradient's.
        """
        ...

    def rest(self) -> None:
        """Let one step go by: the weights stay, the learning rate goes on along its schedule."""
        ...

    def plan(self, total_steps: int, *, afresh: bool = False) -> None:
        """Say how many steps there are in all, by which the schedule of the learning rate counts.

        Args:
            afresh: a new training starts from the present weights: no step was taken, and no moments are kept.
        """
        ...

    def weights(self) -> Weights:
        """The trainable weights, as a handle."""
        ...

    def put_back(self, weights: Mapping[str, Tensor]) -> None:
        """Go back to weights that a handle gave as tensors; the optimizer stays as it is."""
        ...

    def save(self, directory: Path) -> None:
        """Write what `restore` needs: weights, moments, steps. Files of several learners may lie in one directory."""
        ...

    def snapshot(self) -> Callable[[Path], None] | None:
        """A copy of what `save` writes, as the function that writes it, in any thread; None: no memory for a copy."""
        ...

    def restore(self, directory: Path) -> None:
        """Inverse of `save`, bit for bit; a file of another model is an error."""
        ...

    def export(self, directory: Path, tokenizer: Any) -> None:
        """Write the model as others load it: what ``from_pretrained`` reads, adapters merged, and the tokenizer."""
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
    """A second reward that is never trained on: it shows whether the trained one is being exploited."""
    full_kl: Scorer | None = None
    """KL(policy || reference) of the next-token distributions at each response token, where an algorithm needs it."""
    shared_trunk: bool = False
    """The critic is a head on the policy's trunk: a step of the policy trains both, a step of the critic the head."""

    @property
    def learners(self) -> dict[str, Learner]:
        """What is trained and kept in checkpoints, by role."""
        return {"policy": self.policy} | ({"critic": self.critic} if self.critic else {})


@dataclass(frozen=True, slots=True)
class MeasuringRuntime:
    """A trained policy and its start side by side, to be measured and not trained."""

    start: Runtime
    trained: Runtime
    """Its reference is the start, its rewards are the start's, and ``full_kl`` is from it to the start."""
    plain: tuple[Scorer, Scorer]
    """Start and trained policy: "logprobs" at temperature 1, whatever temperature responses are sampled at."""
    format: TextFormat
    judge: Reward | None = None
    """A reward that compares the two responses of a group."""
    harm: Reward | None = None
    """A reward that says how harmful a response is, from 0 to 1."""
    is_scored: bool = True
    """Whether the job names a reward. Without one responses have none, and the reward of both sides is not asked."""
    notes: tuple[str, ...] = ()
    """As of `OnlineRuntime`."""


@dataclass(frozen=True, slots=True)
class TextFormat:
    """How a model reads texts."""

    tokenizer: Any
    """Of the model, a Hugging Face fast tokenizer; it writes itself beside the exported model."""
    chat: ChatFormat
    positions: int | None
    """Longest row that it can read, where it has learned one vector for each position; None: no such limit."""
    pair_length: int | None = None
    """Of an encoder, which reads prompt and response as a pair of texts: longest pair. None: it is a decoder."""

    @property
    def pad_id(self) -> int:
        """The token of the padding."""
        return int(self.tokenizer.pad_token_id)

    @property
    def is_encoder(self) -> bool:
        """Whether it reads pairs of texts, and not a prompt that is continued."""
        return self.pair_length is not None


@dataclass(frozen=True, slots=True)
class OnlineRuntime:
    """A run that samples, as a backend opens it."""

    machines: Runtime
    """What the loop drives."""
    format: TextFormat
    """Of the policy."""
    notes: tuple[str, ...] = ()
    """What was done otherwise than a reader of the settings would think, in words."""
    memory: Mapping[str, float] = field(default_factory=dict)
    """``memory/<role>``: GB that each role has to itself."""
    peak_memory: Callable[[], float] = float
    """The most GB that were ever in use so far; 0 where a backend cannot say."""
    check: Callable[[Sequence[TokenPrompt]], tuple[str, ...]] = lambda prompts: ()
    """Answers a few of these prompts and compares the log-probs of sampler and trainer, before anything is trained.

    Gives what a run should say of it, and raises a `ModelError` if they differ by more than rounding.
    """


@dataclass(frozen=True, slots=True)
class OfflineRuntime:
    """The parts of a run that trains a language model on a fixed data set."""

    learner: Learner
    format: TextFormat
    generator: Generator
    """For samples; a stage publishes the learner's weights before it draws some."""
    notes: tuple[str, ...] = ()
    """What was done otherwise than a reader of the settings would think, in words."""


@dataclass(frozen=True, slots=True)
class Normalisation:
    """What becomes of a reward model's raw scores: ``(corrected score - mean) / std``."""

    mean: float
    std: float
    length_rule: LengthRuleName = "none"
    """How length is taken out of a score before; see `LengthRule`."""
    length_coef: float = 0.0


class RewardHead(Protocol):
    """The head of a reward model, and what the model says of itself when it is exported."""

    def features(self, batch: Batch) -> Tensor:
        """``[B, D]``: what the head reads of each row; of a decoder with one head."""
        ...

    def start_at(self, weight: Tensor) -> None:
        """Let the raw score be ``features @ weight``, with bias 0."""
        ...

    def heads(self, rows: Sequence[Sequence[int]]) -> list[list[float]]:
        """Raw scores of rows of token ids, one for each quality that the model scores."""
        ...

    def normalise(self, rule: LengthRuleName, coef: float, scores: Tensor, lengths: Tensor) -> Normalisation:
        """Fit the rule for length, and mean and standard deviation, to reference responses, and keep them.

        Args:
            rule, coef: see `LengthRule.fit`.
            scores: raw, ``[N]``.
            lengths: tokens of each response, ``[N]``.
        """
        ...

    def leave_raw(self) -> Normalisation:
        """Forget any normalisation: scores are log-odds of labels, which have a unit of their own."""
        ...

    def describe(self, trained_on: TrainedOn, probe: Sequence[Sequence[int]]) -> None:
        """Say what the model was trained on, and which rows' scores are checked whenever it is loaded."""
        ...


@dataclass(frozen=True, slots=True)
class RewardRuntime:
    """The parts of a run that trains a reward model."""

    learner: Learner
    format: TextFormat
    head: RewardHead
    notes: tuple[str, ...] = ()
    """As of `OfflineRuntime`."""


@dataclass(frozen=True, slots=True)
class ScoringRuntime:
    """A trained reward model: ``scorer`` reads "scores" of batches."""

    scorer: Scorer
    format: TextFormat
    head: RewardHead


LIBRARIES = 100_000_000
"""Bytes that libraries take on a CPU when they compute for the first time."""
SLACK = 0.2
"""Share of what comes and goes that an allocator holds besides, in pieces that fit nothing. Measured on a CPU:
docs/why/memory.md."""


@dataclass(frozen=True, slots=True)
class Room:
    """Memory of the device that a run is on, in bytes."""

    total: int
    free: int
    """Now: without what this process and others hold already."""
    of: str
    """Whose it is, in words: "this machine", "the cgroup", "cuda:0"."""
    process: int
    """Held by this process before it has loaded anything, on the same device."""


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """What a run needs of its device's memory, in bytes; worked out before anything is loaded."""

    device: str
    held: Mapping[str, int]
    """By role, what stays through the whole run: weights, and the moments of the optimizer."""
    passing: Mapping[str, Mapping[str, int]]
    """By moment (sampling, an optimizer step ...) what comes and goes in it, by role: gradients, activations ..."""
    room: Room
    rough: bool = False
    """Only an upper limit was worked out, since it is far below what there is."""

    @property
    def moment(self) -> str:
        """The moment at which most is needed."""
        return max(self.passing, key=lambda name: sum(self.passing[name].values()), default="")

    @property
    def peak(self) -> int:
        """Bytes of tensors at that moment."""
        return sum(self.held.values()) + self._most

    @property
    def need(self) -> int:
        """Bytes of the device: tensors, what the process has besides them, and what its allocator cannot give back."""
        slack = 0 if self.rough else int(SLACK * self._most)
        return self.peak + slack + (self.room.process + LIBRARIES if self.room.process else 0)

    @property
    def least(self) -> int:
        """Bytes that no smaller microbatch saves: what stays, and the gradients."""
        return sum(self.held.values()) + self._gradients

    @property
    def _most(self) -> int:
        return sum(self.passing.get(self.moment, {}).values())

    @property
    def _gradients(self) -> int:
        return max((roles.get("gradients", 0) for roles in self.passing.values()), default=0)
