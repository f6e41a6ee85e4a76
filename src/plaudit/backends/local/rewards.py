"""Rewards that need a model, in this process."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from plaudit.backends.local.backbone import Backbone
from plaudit.backends.local.precision import autocast, resolve_device
from plaudit.config.sections import ComputeSection
from plaudit.data.chat import ChatFormat
from plaudit.data.reading.transcripts import plain_text
from plaudit.errors import ConfigError
from plaudit.jobs.reward_tables import ClassifierTable, ModelTable
from plaudit.models.files.load import load_classifier, load_tokenizer
from plaudit.models.pairs import pair_ids, response_part
from plaudit.models.reward_model import RewardModel
from plaudit.records import Content
from plaudit.rewards.build import RewardSource, build
from plaudit.rewards.classifier import ClassifierReward
from plaudit.rewards.combine import EnsembleReward
from plaudit.rewards.model import ModelReward
from plaudit.runtime import Reward

CLASSIFIER_BATCH = 32


def build_reward(
    sources: Sequence[RewardSource],
    tokenizer: Any,
    compute: ComputeSection,
    *,
    where: str,
    columns: Collection[str] = (),
    backbone: Backbone | None = None,
) -> Reward:
    """One reward from tables, or from functions given as values; several are added up by weight.

    Args:
        sources: what is rewarded.
        tokenizer: of the policy.
        compute: where models run.
        where: the config key, for errors.
        columns: further columns of the data, which functions may ask for.
        backbone: of the policy; reward models that were trained on its base stand on it.

    Raises:
        ConfigError: see `build`.
        ModelError: a model that cannot be loaded.
    """
    return build(sources, LocalModels(tokenizer, compute, backbone), where=where, columns=columns)


def same_tokenizer(first: Any, second: Any) -> bool:
    """Do two tokenizers give every text the same ids? (Their vocabularies are equal.)"""
    return bool(first.get_vocab() == second.get_vocab())


@dataclass(frozen=True, slots=True)
class LocalModels:
    """Loads reward models and classifiers into this process: `plaudit.rewards.build.ModelRewards`."""

    tokenizer: Any
    """Of the policy."""
    compute: ComputeSection
    backbone: Backbone | None = None

    def reward_model(self, table: ModelTable) -> Reward:
        """The reward of a reward model, or of an ensemble of them."""
        name = table.name or "reward_model"
        if not table.is_ensemble:
            return self._one(table.members[0], name)
        members = [self._one(member, name) for member in table.members]
        return EnsembleReward(members, table.ensemble, table.coef, name)

    def classifier(self, table: ClassifierTable) -> Reward:
        """The reward of a classifier."""
        classifier = LocalClassifier(table.path, self.compute)
        self._remember(classifier.model)
        return ClassifierReward(classifier, table.label, scale=table.scale, name=table.name)

    def _one(self, source: str, name: str) -> ModelReward:
        tokenizer = load_tokenizer(source)
        model = (self.backbone.reward_model if self.backbone else RewardModel.load)(source, tokenizer)
        self._remember(model)
        scorer = RewardModelScorer(model, tokenizer, self.compute)
        token_in = scorer.model.trained_on != "labels" and not scorer.model.is_encoder
        return ModelReward(
            scorer, name, same_tokenizer=token_in and same_tokenizer(self.tokenizer, tokenizer)
        )

    def _remember(self, model: nn.Module) -> None:
        if self.backbone is not None:
            self.backbone.loaded.append(model)


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
            # fp64, so that normalising adds no rounding of its own to what the model computed.
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
        # A classifier of texts was trained on whole texts without a prompt, so it reads both as one finished text.
        finished = self.model.trained_on == "labels"
        if finished:
            prompt, response = "", (prompt if isinstance(prompt, str) else "") + response
        if self.chat is None:
            text = plain_text(prompt)
            ids = pair_ids(self.tokenizer, text, response)
            return ids, len(ids) - response_part(self.tokenizer, text, response)
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
