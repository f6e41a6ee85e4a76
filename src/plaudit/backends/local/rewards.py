"""Rewards in this process, from the names in a config.

runs/reward/model, owner/name     a reward model
A,B,C  or  A,B,C@RULE             an ensemble of reward models; RULE: mean, min, mean_minus_std[=NUMBER]
runs/ensemble  or  ...@RULE       the ensemble that `plaudit reward --members M` trained
owner/name#LABEL                  a classifier: the log-odds of one of its labels; @prob or @logit after it
file.py:name, module:name         a Python function, in a process of its own
rule:last_number, rule:json ...   a rule
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from plaudit.backends.local.backbone import Backbone
from plaudit.backends.local.precision import autocast, resolve_device
from plaudit.config.sections import ComputeSection
from plaudit.data.chat import ChatFormat
from plaudit.data.reading.transcripts import plain_text
from plaudit.errors import ConfigError
from plaudit.models.files.load import load_classifier, load_tokenizer
from plaudit.models.pairs import pair_ids, response_part
from plaudit.models.reward_model import RewardModel
from plaudit.records import Content
from plaudit.rewards.classifier import ClassifierReward, Scale
from plaudit.rewards.combine import WeightedReward
from plaudit.rewards.ensemble import EnsembleReward, members_of, parse_ensemble
from plaudit.rewards.function import FunctionReward
from plaudit.rewards.isolation import TIMEOUT, IsolatedReward
from plaudit.rewards.model import ModelReward
from plaudit.rewards.rules import load_rule
from plaudit.runtime import Reward

FUNCTION = re.compile(r".+\.py:\w+|[A-Za-z_][\w.]*:\w+")
SCALED = re.compile(r"(.+)@(log_odds|logit|prob)")
RULE = "rule:"
CLASSIFIER_BATCH = 32


def build_reward(
    sources: Sequence[str | Callable[..., Any]],
    weights: Sequence[float],
    tokenizer: Any,
    compute: ComputeSection,
    *,
    where: str,
    timeout: float = TIMEOUT,
    backbone: Backbone | None = None,
) -> Reward:
    """One reward from names or functions; several are added up by weight.

    Args:
        sources: what is rewarded.
        weights: one a reward; none: all 1.
        tokenizer: of the policy.
        compute: where models run.
        where: the config key, for errors.
        timeout: seconds a call of a function may take; 0: no limit.
        backbone: of the policy; reward models that were trained on its base stand on it.

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
    rewards: list[Reward] = []
    for source in sources:
        if not isinstance(source, str):
            rewards.append(FunctionReward(source, timeout=timeout))
        elif FUNCTION.fullmatch(source) and not source.startswith(RULE):
            rewards.append(IsolatedReward(source, timeout=timeout, where=where))
        else:
            rewards.append(_named(source, tokenizer, compute, where, backbone))
    if len(rewards) == 1 and not weights:
        return rewards[0]
    return WeightedReward(list(zip(rewards, weights or [1.0] * len(rewards), strict=True)))


def is_reward_model(source: str) -> bool:
    """Does the name mean a reward model, rather than a function, a rule or a classifier's label?"""
    return not (source.startswith(RULE) or "#" in source or FUNCTION.fullmatch(source))


def same_tokenizer(first: Any, second: Any) -> bool:
    """Do two tokenizers give every text the same ids? (Their vocabularies are equal.)"""
    return bool(first.get_vocab() == second.get_vocab())


def member_sources(source: str) -> tuple[str, ...]:
    """The reward models behind a name: itself, those between commas, or the members that a directory holds."""
    members = parse_ensemble(source).members
    if len(members) > 1:
        return members
    return tuple(map(str, members_of(Path(members[0]).expanduser()))) or members


def _named(
    source: str, policy_tokenizer: Any, compute: ComputeSection, where: str, backbone: Backbone | None
) -> Reward:
    if source.startswith(RULE):
        return load_rule(source.removeprefix(RULE), where=where)
    if "#" in source:
        name, _, asked = source.partition("#")
        scaled = SCALED.fullmatch(asked)
        label, scale = (scaled[1], scaled[2]) if scaled else (asked, "log_odds")
        classifier = LocalClassifier(name, compute)
        _remember(classifier.model, backbone)
        return ClassifierReward(classifier, label, scale=cast("Scale", scale))
    ensemble, members = parse_ensemble(source), member_sources(source)
    if len(members) == 1 and members[0] == source:
        return _reward_model(source, policy_tokenizer, compute, backbone)
    rewards = [_reward_model(member, policy_tokenizer, compute, backbone) for member in members]
    return EnsembleReward(rewards, ensemble.rule, ensemble.coef)


def _reward_model(
    source: str, policy_tokenizer: Any, compute: ComputeSection, backbone: Backbone | None
) -> Reward:
    tokenizer = load_tokenizer(source)
    model = (backbone.reward_model if backbone else RewardModel.load)(source, tokenizer)
    _remember(model, backbone)
    scorer = RewardModelScorer(model, tokenizer, compute)
    token_in = scorer.model.trained_on != "labels" and not scorer.model.is_encoder
    return ModelReward(scorer, same_tokenizer=token_in and same_tokenizer(policy_tokenizer, tokenizer))


def _remember(model: nn.Module, backbone: Backbone | None) -> None:
    if backbone is not None:
        backbone.loaded.append(model)


class RewardModelScorer:
    """A trained reward model that scores token rows or texts, normalised."""

    def __init__(self, model: RewardModel, tokenizer: Any, compute: ComputeSection) -> None:
        self.device, self.compute = resolve_device(compute.device), compute
        self.model, self.tokenizer = model.to(self.device).requires_grad_(False), tokenizer
        self.chat = None if model.is_encoder else ChatFormat(tokenizer, "auto")

    def score_tokens(self, rows: Sequence[Sequence[int]], prompt_lengths: Sequence[int]) -> list[float]:
        """Normalised scores of rows of token ids."""
        lengths = torch.tensor([len(row) - n for row, n in zip(rows, prompt_lengths, strict=True)])
        with torch.no_grad(), autocast(self.compute, self.device):
            scores = torch.tensor(self.model.score_rows(rows), dtype=torch.float64)
        return [float(score) for score in self.model.normalise(scores, lengths)]

    def score_texts(
        self, prompts: Sequence[Content], responses: Sequence[str], truncated: Sequence[bool]
    ) -> list[float]:
        """Normalised scores of texts, encoded with the reward model's own tokenizer.

        A decoder sees no end token after a truncated response, as with its own tokenizer. An encoder has no such
        token: there truncation is left to the algorithm's missing_eos_penalty.
        """
        encoded = [self._encode(*row) for row in zip(prompts, responses, truncated, strict=True)]
        return self.score_tokens([ids for ids, _ in encoded], [length for _, length in encoded])

    def _encode(self, prompt: Content, response: str, truncated: bool) -> tuple[list[int], int]:
        """Token ids, and how many of them come before the response."""
        finished = (
            self.model.trained_on == "labels"
        )  # a classifier of texts reads all of it as one finished text
        if finished:
            prompt, response = "", (prompt if isinstance(prompt, str) else "") + response
        if self.chat is None:
            asked = plain_text(prompt)
            ids = pair_ids(self.tokenizer, asked, response)
            return ids, len(ids) - response_part(self.tokenizer, asked, response)
        row = self.chat.encode(prompt, response)
        return list(row.ids[:-1] if truncated and not finished else row.ids), row.prompt_length


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
