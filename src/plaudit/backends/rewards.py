"""Rewards in this process, from the names in a config.

    runs/reward/model, owner/name     a reward model
    owner/name#LABEL                  a classifier: the log-odds of one of its labels
    file.py:name, module:name         a Python function
    rule:last_number, rule:json ...   a rule
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import torch

from plaudit.config.sections import ComputeSection
from plaudit.data.chat import ChatFormat
from plaudit.data.transcripts import plain_text
from plaudit.errors import ConfigError
from plaudit.models.load import load_classifier, load_tokenizer
from plaudit.models.pairs import pair_ids
from plaudit.models.scalar import RewardModel
from plaudit.records import Content
from plaudit.rewards.classifier import ClassifierReward
from plaudit.rewards.combine import WeightedReward
from plaudit.rewards.function import FunctionReward, load_function
from plaudit.rewards.model import ModelReward
from plaudit.rewards.protocol import Reward
from plaudit.rewards.rules import load_rule
from plaudit.training.learner import autocast, resolve_device

FUNCTION = re.compile(r".+\.py:\w+|[A-Za-z_][\w.]*:\w+")
RULE = "rule:"
CLASSIFIER_BATCH = 32


def build_reward(
    sources: Sequence[str | Callable[..., Any]],
    weights: Sequence[float],
    tokenizer: Any,
    compute: ComputeSection,
    *,
    where: str,
) -> Reward:
    """One reward from names or functions; several are added up by weight.

    Raises:
        ConfigError: no reward, or another number of weights than rewards.
    """
    if not sources:
        cure = f"set --{where} to a reward model or file.py:function"
        raise ConfigError("no reward was given", where=where, cure=cure)
    if weights and len(weights) != len(sources):
        raise ConfigError(
            f"{len(weights)} weights for {len(sources)} rewards",
            where="reward_weights",
            cure="give one weight a reward",
        )
    rewards = [_reward(source, tokenizer, compute, where) for source in sources]
    if len(rewards) == 1 and not weights:
        return rewards[0]
    return WeightedReward(list(zip(rewards, weights or [1.0] * len(rewards), strict=True)))


def is_reward_model(source: str) -> bool:
    """Does the name mean a reward model, rather than a function, a rule or a classifier's label?"""
    return not (source.startswith(RULE) or "#" in source or FUNCTION.fullmatch(source))


def same_tokenizer(first: Any, second: Any) -> bool:
    """Do two tokenizers give every text the same ids? (Their vocabularies are equal.)"""
    return bool(first.get_vocab() == second.get_vocab())


def _reward(
    source: str | Callable[..., Any], policy_tokenizer: Any, compute: ComputeSection, where: str
) -> Reward:
    if not isinstance(source, str):
        return FunctionReward(source)
    if source.startswith(RULE):
        return load_rule(source.removeprefix(RULE), where=where)
    if FUNCTION.fullmatch(source):
        return FunctionReward(load_function(source, where=where))
    if "#" in source:
        name, _, label = source.partition("#")
        return ClassifierReward(LocalClassifier(name, compute), label)
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
        if self.chat is None:
            return pair_ids(self.tokenizer, plain_text(prompt), response)
        return list(self.chat.encode(prompt, response).ids)


class LocalClassifier:
    """A sequence classifier with named labels; it reads prompt and response as one text.

    Raises:
        ModelError: the name is not that of a trained classifier.
    """

    def __init__(self, source: str, compute: ComputeSection) -> None:
        self.device, self.compute = resolve_device(compute.device), compute
        self.tokenizer = load_tokenizer(source)
        loaded, fresh = load_classifier(source, tokenizer=self.tokenizer)
        model: Any = loaded  # transformers' wrapper around .to() confuses type checkers
        if fresh:
            raise ConfigError(
                f"{source} has no classification head, so it knows no labels",
                where="reward",
                cure="name a trained classifier before the #",
            )
        self.model = model.to(self.device).requires_grad_(False)
        self.labels: Sequence[str] = [model.config.id2label[i] for i in range(model.config.num_labels)]

    @torch.no_grad()
    def logits(self, prompts: Sequence[Content], responses: Sequence[str]) -> list[list[float]]:
        """``[rows][labels]`` raw logits in fp32."""
        texts = [(p if isinstance(p, str) else "") + r for p, r in zip(prompts, responses, strict=True)]
        result: list[list[float]] = []
        for first in range(0, len(texts), CLASSIFIER_BATCH):
            batch = self.tokenizer(
                texts[first : first + CLASSIFIER_BATCH], padding=True, truncation=True, return_tensors="pt"
            ).to(self.device)
            with autocast(self.compute, self.device):
                result.extend(self.model(**batch).logits.float().cpu().tolist())
        return result
