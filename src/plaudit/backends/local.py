"""Models, critics and rewards in this process, from the names in a config."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal

import torch

from plaudit.config.sections import ComputeSection, LoraSection
from plaudit.data.chat import ChatFormat
from plaudit.errors import ConfigError, ModelError
from plaudit.models.critic import Critic
from plaudit.models.load import load_causal_lm, load_tokenizer
from plaudit.models.lora import add_lora, quantization_options
from plaudit.models.pairs import pair_ids
from plaudit.models.policy import Policy, ReferencePolicy
from plaudit.models.scalar import RewardModel
from plaudit.records import Content
from plaudit.rewards.combine import WeightedReward
from plaudit.rewards.function import FunctionReward, load_function
from plaudit.rewards.model import ModelReward
from plaudit.rewards.protocol import Reward
from plaudit.training.learner import autocast, resolve_device

FUNCTION = re.compile(r".+\.py:\w+|[A-Za-z_][\w.]*:\w+")


def load_policy(
    source: str, lora: LoraSection, compute: ComputeSection, *, seed: int, temperature: float = 1.0,
    entropy_grad: bool = False,
) -> tuple[Any, Policy]:  # fmt: skip
    """Tokenizer and policy, with fresh adapters if ``lora.rank`` asks for them.

    Raises:
        ConfigError: no name given, or LoRA targets the model does not have.
        ModelError: the model cannot be loaded.
    """
    _require(source, "policy or model")
    tokenizer = load_tokenizer(source)
    options = quantization_options() if lora.quantize == "4bit" else {}
    lm = load_causal_lm(source, tokenizer=tokenizer, **options)
    policy = Policy(
        add_lora(lm, lora, task="causal", seed=seed),
        temperature=temperature,
        entropy_grad=entropy_grad,
        gradient_checkpointing=compute.gradient_checkpointing,
    )
    return tokenizer, policy


def load_reference(policy: Policy) -> ReferencePolicy:
    """The policy as it is now, frozen; its adapters switched off under LoRA."""
    return ReferencePolicy(policy)


def load_reward_model(
    source: str, lora: LoraSection, compute: ComputeSection, *, seed: int
) -> tuple[Any, RewardModel]:
    """Tokenizer and a reward model to train, with a fresh head unless ``source`` has one already."""
    _require(source, "model")
    tokenizer = load_tokenizer(source)
    options = quantization_options() if lora.quantize == "4bit" else {}
    plain = RewardModel.start(source, tokenizer, seed=seed, options=options)
    adapted = add_lora(plain.model, lora, task="scalar", seed=seed)
    return tokenizer, RewardModel(adapted, gradient_checkpointing=compute.gradient_checkpointing)


def build_critic(
    init: Literal["reward", "sft"], rewards: Sequence[str], policy: Policy, tokenizer: Any, lora: LoraSection,
    *, gradient_checkpointing: bool = False,
) -> Critic:  # fmt: skip
    """A critic from the first reward model, or from the policy with a zero head.

    Raises:
        ConfigError: the reward is a function, an encoder, or has another tokenizer.
    """
    if init == "sft" or not any(not is_function(source) for source in rewards):
        return Critic.from_policy(policy.lm, lora, gradient_checkpointing=gradient_checkpointing)
    source = next(source for source in rewards if not is_function(source))
    if not same_tokenizer(tokenizer, load_tokenizer(source)):
        raise ConfigError(
            f"the reward model {source} has another tokenizer than the policy, so it cannot become the critic",
            where="[algorithm] critic_init",
            cure="use critic_init = 'sft', or train the reward model from the policy's own SFT model",
        )
    model = RewardModel.load(source, tokenizer)
    return Critic.from_reward(model, lora, gradient_checkpointing=gradient_checkpointing)


def build_reward(
    sources: Sequence[str], weights: Sequence[float], tokenizer: Any, compute: ComputeSection, *, where: str
) -> Reward:
    """One reward from names: reward models, or functions as ``file.py:name`` or ``module:name``.

    Raises:
        ConfigError: no reward, or another number of weights than rewards.
    """
    if not sources:
        raise ConfigError("no reward was given", where=where, cure=f"set --{where} to a reward model or file.py:function")
    if weights and len(weights) != len(sources):
        raise ConfigError(
            f"{len(weights)} weights for {len(sources)} rewards", where="reward_weights", cure="give one weight a reward"
        )
    rewards = [_reward(source, tokenizer, compute) for source in sources]
    if len(rewards) == 1 and not weights:
        return rewards[0]
    return WeightedReward(list(zip(rewards, weights or [1.0] * len(rewards), strict=True)))


def is_function(source: str) -> bool:
    """Does the name mean a Python function rather than a model?"""
    return FUNCTION.fullmatch(source) is not None


def same_tokenizer(first: Any, second: Any) -> bool:
    """Do two tokenizers give every text the same ids? (Their vocabularies are equal.)"""
    return bool(first.get_vocab() == second.get_vocab())


def _reward(source: str, policy_tokenizer: Any, compute: ComputeSection) -> Reward:
    if is_function(source):
        return FunctionReward(load_function(source))
    tokenizer = load_tokenizer(source)
    scorer = RewardModelScorer(RewardModel.load(source, tokenizer), tokenizer, compute)
    token_in = scorer.model.trained_on == "comparisons" and not scorer.model.is_encoder
    return ModelReward(scorer, same_tokenizer=token_in and same_tokenizer(policy_tokenizer, tokenizer))


class RewardModelScorer:
    """A trained reward model that scores token rows or texts, normalised."""

    def __init__(self, model: RewardModel, tokenizer: Any, compute: ComputeSection) -> None:
        self.device, self.compute = resolve_device(compute.device), compute
        self.model, self.tokenizer = model.to(self.device).requires_grad_(False), tokenizer
        self.chat = None if model.is_encoder else ChatFormat(tokenizer, "auto")

    def score_tokens(self, rows: Sequence[Sequence[int]]) -> list[float]:
        """Normalised scores of rows of token ids."""
        with torch.no_grad(), autocast(self.compute, self.device):
            scores = torch.tensor(self.model.score_rows(rows), dtype=torch.float64)
        return [float(score) for score in self.model.normalise(scores)]

    def score_texts(self, prompts: Sequence[Content], responses: Sequence[str]) -> list[float]:
        """Normalised scores of texts, encoded with the reward model's own tokenizer."""
        return self.score_tokens([self._encode(p, r) for p, r in zip(prompts, responses, strict=True)])

    def _encode(self, prompt: Content, response: str) -> list[int]:
        if self.model.trained_on == "labels":  # a classifier of texts: reads what was written as one finished text
            prompt, response = "", (prompt if isinstance(prompt, str) else "") + response
        if self.chat is not None:
            return list(self.chat.encode(prompt, response).ids)
        return pair_ids(self.tokenizer, prompt, response)


def _require(source: str, what: str) -> None:
    if not source:
        raise ModelError(f"no {what} was given", cure="name a hub model, a directory, or a GGUF file")
