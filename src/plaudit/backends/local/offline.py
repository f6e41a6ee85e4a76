"""What runs on a fixed data set, or answers and scores what it is given, with its models in this process."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from torch import Tensor

from plaudit.backends.local.learner import LocalLearner, LocalScorer
from plaudit.backends.local.models import load_policy, load_reward_model, policy_format, reward_format
from plaudit.backends.local.precision import resolve_device
from plaudit.backends.local.rates import Trained, rated
from plaudit.backends.local.rewards import RewardModelScorer
from plaudit.config.sections import ComputeSection
from plaudit.data.chat import ChatFormat
from plaudit.errors import ConfigError
from plaudit.experience import Batch
from plaudit.generation.live import LiveGenerator
from plaudit.generation.native import NativeGenerator
from plaudit.jobs.preference import DPOJob
from plaudit.jobs.reward import RewardJob
from plaudit.jobs.sft import SFTJob
from plaudit.models.files.load import load_causal_lm, load_tokenizer
from plaudit.models.length import LengthRule
from plaudit.models.reward_extras import LastStates, set_head
from plaudit.models.reward_model import RewardModel
from plaudit.rewards.model import Scorer as TextScorer
from plaudit.runtime import (
    Generator,
    LengthRuleName,
    Normalisation,
    OfflineRuntime,
    RewardRuntime,
    ScoringRuntime,
    TrainedOn,
)

UNPLANNED = 1
"""Optimizer steps of a learner until its stage has read the data and says how many there are: `Learner.plan`."""


def build_policy(job: SFTJob | DPOJob) -> OfflineRuntime:
    """The language model that is trained, with a generator on the same tensors.

    Raises:
        ConfigError, ModelError: see `load_policy`.
    """
    tokenizer, policy = load_policy(job.model, job.lora, job.compute, seed=job.seed)
    text = policy_format(tokenizer, policy.lm, job.data.chat_template)
    trained: Trained = "sft" if isinstance(job, SFTJob) else "preference"
    optimizer, notes = rated(job.optimizer, trained, policy, adapters=job.lora.rank > 0)
    learner = LocalLearner(policy, optimizer, job.compute, total_steps=UNPLANNED)
    graphs = job.compute.packing
    generator = NativeGenerator(policy.lm, tokenizer, text.chat.ends, cuda_graphs=graphs)
    return OfflineRuntime(learner, text, generator, (*policy.notes, *generator.notes, *notes))


def build_reward_model(job: RewardJob) -> RewardRuntime:
    """The reward model that is trained, with a fresh head unless it has one already.

    Raises:
        ConfigError, ModelError: see `load_reward_model`.
    """
    algorithm = job.algorithm
    tokenizer, model = load_reward_model(
        job.model,
        job.lora,
        job.compute,
        seed=job.draw,
        attributes=algorithm.heads,
        attribute_weights=algorithm.head_weights,
        keep_lm=algorithm.lm_coef > 0,
    )
    if "heads" in algorithm.needs and model.is_encoder:
        raise ConfigError(
            f"length = 'odin' needs two linear heads on one state, and {job.model} is an encoder",
            where="[algorithm] length",
            cure="use length = 'residual', or start from a causal language model",
        )
    optimizer, notes = rated(job.optimizer, "reward", model, adapters=job.lora.rank > 0)
    learner = LocalLearner(model, optimizer, job.compute, total_steps=UNPLANNED, name="reward_model")
    text = reward_format(tokenizer, model.model, job.data.chat_template, encoder=model.is_encoder)
    return RewardRuntime(learner, text, LocalRewardHead(model, job.compute), (*model.notes, *notes))


def load_scoring(directory: Path, job: RewardJob) -> ScoringRuntime:
    """The trained reward model in a directory, as the job that trained it says: device, precision, chat template.

    Raises:
        ModelError: see `RewardModel.load`.
    """
    tokenizer = load_tokenizer(str(directory))
    model = RewardModel.load(directory, tokenizer)
    text = reward_format(tokenizer, model.model, job.data.chat_template, encoder=model.is_encoder)
    return ScoringRuntime(LocalScorer(model, job.compute), text, LocalRewardHead(model, job.compute))


def load_generator(source: str) -> tuple[Generator, ChatFormat]:
    """A trained language model to sample from, and how it reads prompts.

    Raises:
        ModelError: nothing there that can be loaded.
    """
    tokenizer = load_tokenizer(source)
    lm = load_causal_lm(source, tokenizer=tokenizer).eval()
    chat = policy_format(tokenizer, lm, "auto").chat
    return NativeGenerator(lm, tokenizer, chat.ends), chat


def load_engine(source: str, *, rows: int, context: int, queue: int) -> tuple[LiveGenerator, ChatFormat]:
    """An engine that answers requests as they come; see `plaudit.backends.open_engine`.

    Raises:
        ModelError: nothing there that can be loaded, or that can be sampled from.
        ConfigError: the model cannot read so much context.
    """
    tokenizer = load_tokenizer(source)
    lm = load_causal_lm(source, tokenizer=tokenizer).eval()
    device = resolve_device(ComputeSection().device)
    chat = policy_format(tokenizer, lm, "auto").chat
    return LiveGenerator(lm.to(device), tokenizer, chat.ends, rows=rows, context=context, queue=queue), chat


def load_text_scorer(source: str) -> tuple[TextScorer, float]:
    """A trained reward model that scores texts, and by what its raw scores were divided.

    Raises:
        ModelError: see `RewardModel.load`.
    """
    tokenizer = load_tokenizer(source)
    model = RewardModel.load(source, tokenizer)
    return RewardModelScorer(model, tokenizer, ComputeSection()), model.std


class LocalRewardHead:
    """See `RewardHead`: of a model in this process."""

    def __init__(self, model: RewardModel, compute: ComputeSection) -> None:
        self._model, self._compute = model, compute

    @cached_property
    def _trunk(self) -> LocalScorer:
        return LocalScorer(LastStates(self._model), self._compute)

    def features(self, batch: Batch) -> Tensor:
        """See `RewardHead.features`."""
        return self._trunk.read(batch, "features")[0]

    def start_at(self, weight: Tensor) -> None:
        """See `RewardHead.start_at`."""
        set_head(self._model, weight)

    def heads(self, rows: Sequence[Sequence[int]]) -> list[list[float]]:
        """See `RewardHead.heads`."""
        return self._model.score_heads(rows)

    def normalise(self, rule: LengthRuleName, coef: float, scores: Tensor, lengths: Tensor) -> Normalisation:
        """See `RewardHead.normalise`."""
        self._model.fit(LengthRule.fit(rule, coef, scores, lengths), scores, lengths)
        return self._normalisation

    def leave_raw(self) -> Normalisation:
        """See `RewardHead.leave_raw`."""
        self._model.mean, self._model.std, self._model.length_rule = 0.0, 1.0, LengthRule()
        return self._normalisation

    def describe(self, trained_on: TrainedOn, probe: Sequence[Sequence[int]]) -> None:
        """See `RewardHead.describe`."""
        self._model.trained_on, self._model.probe = trained_on, probe

    @property
    def _normalisation(self) -> Normalisation:
        rule = self._model.length_rule
        return Normalisation(self._model.mean, self._model.std, rule.kind, rule.coef)
