"""Best-of-n and rejection sampling: sample n responses, keep the best, and imitate them (RAFT, arXiv:2304.06767).

There is no loss here: what is kept goes to SFT. As it stands at inference, best-of-n needs no training at all, and is
the baseline that every trained policy should be compared with.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Literal

from plaudit.algorithms import policy_gradient as pg
from plaudit.config.values import Count, settings_value
from plaudit.errors import ConfigError
from plaudit.records import Rollout


@settings_value
class BestOfN(pg.SampledSettings):
    """Keep the best of n responses to each prompt."""

    group_size: Count = 8
    """Responses sampled per prompt: n."""
    keep_best: Count = 1
    """Responses kept per prompt and round, the best ones (top-k); none that is worse than the mean of its prompt."""
    threshold: float | Literal["none"] = "none"
    """Keep only responses with at least this score."""
    max_per_prompt: Count = 4
    """Most responses of one prompt that are trained on, over all rounds: the best ones."""
    start_from: Literal["base", "latest"] = "base"
    """Fine-tune the starting model anew in each round, or go on from the last round's."""
    accumulate: bool = True
    """Train on what earlier rounds kept as well: without it rounds forget (Llama 2, arXiv:2307.09288)."""

    def __post_init__(self) -> None:
        if self.keep_best > self.group_size:
            raise ConfigError(
                f"cannot keep {self.keep_best} of {self.group_size} responses",
                where="[algorithm] keep_best, group_size",
                cure="keep_best must be at most group_size",
            )

    def score(self, rollout: Rollout) -> float | None:
        """Reward minus the penalty for a response without end; None where scoring failed."""
        if rollout.reward is None:
            return None
        return rollout.reward - self.missing_eos_penalty * (rollout.finish_reason == "length")

    def ranked(self, group: Sequence[Rollout]) -> list[Rollout]:
        """The scored responses to one prompt, best first; of equal scores the first sampled is better."""
        scored = [(r, s) for r in group if (s := self.score(r)) is not None]
        return [r for r, _ in sorted(scored, key=lambda pair: -pair[1])]

    def keep(self, group: Sequence[Rollout]) -> list[Rollout]:
        """What is kept of the responses to one prompt in one round: distinct, good enough, at most keep_best."""
        ranked = self.ranked(group)
        if not ranked:
            return []
        least = statistics.fmean(map(self._sure, ranked))
        if self.threshold != "none":
            least = max(least, self.threshold)
        good = [r for r in ranked if self._sure(r) >= least - 1e-9]
        return distinct(good)[: self.keep_best]

    def pool(self, earlier: Sequence[Rollout], new: Sequence[Rollout]) -> list[Rollout]:
        """What a round trains on: the new responses, with the earlier ones if they are accumulated.

        Duplicates go, and of each prompt the best ``max_per_prompt`` stay.
        """
        groups: dict[tuple[int, ...], list[Rollout]] = {}
        for rollout in (*(earlier if self.accumulate else ()), *new):
            groups.setdefault(rollout.prompt_ids, []).append(rollout)
        return [r for group in groups.values() for r in distinct(self.ranked(group))[: self.max_per_prompt]]

    def _sure(self, rollout: Rollout) -> float:
        score = self.score(rollout)
        assert score is not None, "only scored rollouts are ranked"
        return score


def distinct(rollouts: Sequence[Rollout]) -> list[Rollout]:
    """The first of each response that is there several times; spaces around it do not count."""
    first: dict[str, Rollout] = {}
    for rollout in rollouts:
        first.setdefault(rollout.response.strip(), rollout)
    return list(first.values())
