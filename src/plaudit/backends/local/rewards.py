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
from plaudit.models.forward.reading import ANY
from plaudit.models.forward.trunk import position_limit
from plaudit.models.pairs import encoded_pair, longest_text
from plaudit.models.reward_extras import averaged
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
    """Of the policy; None: its tokens are not known, and all reward models are given texts."""
    compute: ComputeSection
    backbone: Backbone | None = None

    def reward_model(self, table: ModelTable) -> Reward:
        """The reward of a reward model, or of an ensemble of them."""
        name = table.name or "reward_model"
        if not table.is_ensemble:
            return self._one(table.members[0], name)
        if table.ensemble == "weights":
            tokenizer = load_tokenizer(table.members[0])
            return self._reward(averaged(table.members, tokenizer), tokenizer, ", ".join(table.members), name)
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
        return self._reward(model, tokenizer, source, name)

    def _reward(self, model: RewardModel, tokenizer: Any, source: str, name: str) -> ModelReward:
        self._remember(model)
        scorer = RewardModelScorer(model, tokenizer, self.compute)
        token_in = scorer.model.trained_on != "labels" and not scorer.model.is_encoder
        token_in = token_in and self.tokenizer is not None and same_tokenizer(self.tokenizer, tokenizer)
        # The policy's ids are written in the policy's template. A model with another one was trained on other tokens.
        own = token_in and self.tokenizer.chat_template != tokenizer.chat_template
        if own and self.backbone is not None:
            self.backbone.say(f"reward model {source} has a chat template of its own, and reads chats in it")
        return ModelReward(scorer, name, same_tokenizer=token_in and not own)

    def _remember(self, model: nn.Module) -> None:
        if self.backbone is not None:
            self.backbone.loaded.append(model)


class RewardModelScorer:
    """A trained reward model that scores token rows or texts, normalised.

    A row that is longer than the model can read loses the beginning of its prompt; an encoder's response that is too
    long by itself loses its end.
    """

    def __init__(self, model: RewardModel, tokenizer: Any, compute: ComputeSection) -> None:
        self.device, self.compute = resolve_device(compute.device), compute
        self.model, self.tokenizer = model.to(self.device).requires_grad_(False), tokenizer
        self.chat = None if model.is_encoder else ChatFormat(tokenizer, "auto")
        # A decoder's tokenizer may set a limit that its positions do not have.
        positions = position_limit(model.model)
        self.limit = longest_text(model.model, tokenizer) if model.is_encoder else positions or ANY
        self.shortened: list[bool] = []

    def score_tokens(self, rows: Sequence[Sequence[int]], prompt_lengths: Sequence[int]) -> list[float]:
        """Normalised scores of rows of token ids."""
        self.shortened = [len(row) > self.limit for row in rows]
        return self._scores(rows, prompt_lengths)

    def score_texts(
        self, prompts: Sequence[Content], responses: Sequence[str], truncated: Sequence[bool]
    ) -> list[float]:
        """Normalised scores of texts, encoded with the reward model's own tokenizer.

        A decoder sees no end token after a truncated response, as with its own tokenizer. An encoder has no such
        token: there truncation is left to the algorithm's missing_eos_penalty.
        """
        encoded = [self._encode(*row) for row in zip(prompts, responses, truncated, strict=True)]
        self.shortened = [cut or len(ids) > self.limit for ids, _, cut in encoded]
        return self._scores([ids for ids, _, _ in encoded], [length for _, length, _ in encoded])

    def _scores(self, rows: Sequence[Sequence[int]], prompt_lengths: Sequence[int]) -> list[float]:
        lengths = torch.tensor([len(row) - n for row, n in zip(rows, prompt_lengths, strict=True)])
        rows = [row[max(0, len(row) - self.limit) :] for row in rows]
        with torch.no_grad(), autocast(self.compute, self.device):
            # fp64, so that normalising adds no rounding of its own to what the model computed.
            scores = torch.tensor(self.model.score_rows(rows), dtype=torch.float64)
        return [float(score) for score in self.model.normalise(scores, lengths)]

    def _encode(self, prompt: Content, response: str, truncated: bool) -> tuple[list[int], int, bool]:
        """Token ids, how many of them come before the response, and whether something was left out."""
        # A classifier of texts was trained on whole texts without a prompt, so it reads both as one finished text.
        finished = self.model.trained_on == "labels"
        if finished:
            prompt, response = "", (prompt if isinstance(prompt, str) else "") + response
        if self.chat is None:
            pair = encoded_pair(self.tokenizer, plain_text(prompt), response, self.limit)
            return pair.ids, len(pair.ids) - pair.response, pair.cut
        row = self.chat.encode(prompt, response, finished=finished or not truncated)
        return row.ids, row.prompt_length, False


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
        self.limit = longest_text(model, self.tokenizer)
        self.shortened: list[bool] = []
        self.labels: Sequence[str] = [model.config.id2label[i] for i in range(model.config.num_labels)]

    @torch.no_grad()
    def logits(self, prompts: Sequence[Content], responses: Sequence[str]) -> list[list[float]]:
        """``[rows][labels]`` raw logits in fp32."""
        texts = [(p if isinstance(p, str) else "") + r for p, r in zip(prompts, responses, strict=True)]
        lengths = [len(ids) for ids in self.tokenizer(texts, truncation=False, verbose=False)["input_ids"]]
        self.shortened = [length > self.limit for length in lengths]
        cut: dict[str, Any] = {"truncation": True, "max_length": self.limit} if any(self.shortened) else {}
        result: list[list[float]] = []
        for first in range(0, len(texts), CLASSIFIER_BATCH):
            batch = self.tokenizer(
                texts[first : first + CLASSIFIER_BATCH], padding=True, return_tensors="pt", **cut
            ).to(self.device)
            with autocast(self.compute, self.device):
                result.extend(self.model(**batch).logits.float().cpu().tolist())
        return result
