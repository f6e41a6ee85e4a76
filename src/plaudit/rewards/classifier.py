"""A text classifier as a reward: how sure it is of one label."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from typing import Protocol

from plaudit.errors import ConfigError, RewardError
from plaudit.jobs.reward_tables import Scale
from plaudit.records import Content, RewardResult, Rollout
from plaudit.rewards.result import to_result, with_cuts


class Classifier(Protocol):
    """A classifier with two labels or more, wherever it runs."""

    labels: Sequence[str]
    """Names of the labels, in the order of the logits."""

    @property
    def shortened(self) -> Sequence[bool]:
        """Of the texts that were read last: which of them were too long for the model, and were cut."""
        ...

    def logits(self, prompts: Sequence[Content], responses: Sequence[str]) -> list[list[float]]:
        """For each text, one logit a label."""
        ...


class ClassifierReward:
    """The reward is what a classifier thinks of one of its labels.

    Args:
        classifier: the model.
        label: the wanted label, by name or by index.
        scale: log_odds: log(p / (1 - p)), natural log, without a ceiling (Ziegler et al. 2019); logit: raw
            logit of the label; prob: its probability, which flattens out near 0 and 1.
        name: in metrics; empty: ``classifier/<label>``.

    Raises:
        ConfigError: no such label, or a classifier with one output.
    """

    def __init__(
        self, classifier: Classifier, label: str | int, *, scale: Scale = "log_odds", name: str = ""
    ) -> None:
        self._classifier = classifier
        self._index = _find(label, classifier.labels)
        self._scale: Scale = scale
        self.name = name or f"classifier/{classifier.labels[self._index]}"

    def __call__(self, rollouts: Sequence[Rollout]) -> list[RewardResult]:
        """One result per rollout; logits that are not finite become errors.

        Raises:
            RewardError: the classifier gave another number of rows or logits.
        """
        if not rollouts:
            return []
        prompts, responses = zip(*(r.conversation() for r in rollouts), strict=True)
        rows = self._classifier.logits(prompts, responses)
        labels = len(self._classifier.labels)
        if len(rows) != len(rollouts) or any(len(row) != labels for row in rows):
            raise RewardError(
                f"{self.name} did not give {labels} logits for each of {len(rollouts)} responses",
                cure="return one row for each response, in order, and one logit for each label",
            )
        results = [to_result(rescale(row, self._index, self._scale), self.name) for row in rows]
        return with_cuts(results, self._classifier.shortened, self.name)


def rescale(logits: Sequence[float], index: int, scale: Scale) -> float:
    """What the logits of one text say of label ``index``; NaN if one of them is not finite.

    >>> round(rescale([0.0, 2.0], 1, "log_odds"), 6), round(rescale([0.0, 0.0], 1, "prob"), 6)
    (2.0, 0.5)
    """
    if not all(math.isfinite(z) for z in logits):
        return math.nan
    if scale == "logit":
        return logits[index]
    # The others are summed under their maximum: exp of a large logit alone would overflow.
    others = [z for i, z in enumerate(logits) if i != index]
    peak = max(others)
    log_odds = logits[index] - peak - math.log(sum(math.exp(z - peak) for z in others))
    if scale == "log_odds":
        return log_odds
    return 1 / (1 + math.exp(-log_odds)) if log_odds > -700 else 0.0


def _find(label: str | int, labels: Sequence[str]) -> int:
    if len(labels) < 2:
        raise ConfigError(
            f"the classifier has {len(labels)} output; a classifier reward needs at least two labels",
            where="reward",
            cure="use a model with one output as a reward model instead",
        )
    if isinstance(label, int):
        if 0 <= label < len(labels):
            return label
    elif label in labels:
        return list(labels).index(label)
    near = difflib.get_close_matches(str(label), labels, n=1)
    raise ConfigError(
        f"the classifier has no label {label!r}; it has {', '.join(map(repr, labels))}",
        where="reward",
        cure=f"did you mean {near[0]!r}?" if near else "use one of its labels, or an index from 0",
    )
