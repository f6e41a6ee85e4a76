"""The reward of a reward model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from plaudit.errors import RewardError
from plaudit.records import Content, RewardResult, Rollout
from plaudit.rewards.result import to_result, with_cuts


class Scorer(Protocol):
    """A reward model, wherever it runs. Scores are normalised, length corrected (see `RewardModel.normalise`)."""

    @property
    def shortened(self) -> Sequence[bool]:
        """Of the rows that were scored last: which of them were too long for the model, and were cut."""
        ...

    def score_tokens(self, rows: Sequence[Sequence[int]], prompt_lengths: Sequence[int]) -> list[float]:
        """Scores of whole texts given as token ids.

        ``prompt_lengths``: how many tokens of each the policy did not sample, all others being its response.
        """
        ...

    def score_texts(
        self, prompts: Sequence[Content], responses: Sequence[str], truncated: Sequence[bool]
    ) -> list[float]:
        """Scores of texts, which the scorer tokenises (and puts into its own chat template) by itself.

        A truncated response has no end: a model that reads end tokens is not shown one.
        """
        ...


class ModelReward:
    """Scores rollouts with a reward model.

    With the tokenizer of the policy it reads the sampled token ids as they are: prompt, response, and the end
    token if and only if one was sampled. Nothing is decoded and encoded again, so what is scored is what is
    trained. A model with another tokenizer, or an encoder with its own template, gets texts, and is told which
    of them were cut off by the length limit.

    Args:
        scorer: the model.
        name: in metrics.
        same_tokenizer: whether it reads the token ids of the policy.
    """

    def __init__(self, scorer: Scorer, name: str = "reward_model", *, same_tokenizer: bool = True) -> None:
        self.name = name
        self._scorer = scorer
        self._same_tokenizer = same_tokenizer

    def __call__(self, rollouts: Sequence[Rollout]) -> list[RewardResult]:
        """One score per rollout; NaN and inf become errors.

        Raises:
            RewardError: the scorer gave another number of scores.
        """
        if not rollouts:
            return []
        if self._same_tokenizer:
            rows = [r.tokens for r in rollouts]
            # The length that scores are corrected for is that of what the policy wrote, not of what it was told.
            scores = self._scorer.score_tokens(rows, [len(r.tokens) - len(r.response_ids) for r in rollouts])
        else:
            prompts, responses = zip(*(r.conversation() for r in rollouts), strict=True)
            truncated = [r.finish_reason != "stop" for r in rollouts]
            scores = self._scorer.score_texts(prompts, responses, truncated)
        if len(scores) != len(rollouts):
            raise RewardError(
                f"{self.name} gave {len(scores)} scores for {len(rollouts)} responses",
                cure="return exactly one score for each row, in order",
            )
        return with_cuts([to_result(score, self.name) for score in scores], self._scorer.shortened, self.name)
