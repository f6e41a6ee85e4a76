"""Several rewards as one, and the rule for how many of them may fail."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from plaudit.errors import ConfigError, RewardError
from plaudit.records import RewardResult, Rollout
from plaudit.runtime import Reward


class WeightedReward:
    """The weighted sum of rewards.

    The parts of a result are the unweighted values by name. If a part fails, so does the sum; unless its
    weight is
    0: such a part is only watched.

    Args:
        rewards: rewards and their weights; the second and third of one name become name_2 and name_3.
        name: of the sum.

    Raises:
        ConfigError: no rewards, or a weight that is not finite.
    """

    def __init__(self, rewards: Sequence[tuple[Reward, float]], name: str = "reward") -> None:
        self.name = name
        if not rewards:
            raise ConfigError("no reward is given", where="reward", cure="name at least one")
        for reward, weight in rewards:
            if not math.isfinite(weight):
                raise ConfigError(
                    f"the weight of {reward.name} is {weight}", where="reward_weights", cure="give a number"
                )
        names = _numbered([reward.name for reward, _ in rewards])
        self._rewards = [(name, reward, w) for name, (reward, w) in zip(names, rewards, strict=True)]

    def __call__(self, rollouts: Sequence[Rollout]) -> list[RewardResult]:
        """One result per rollout."""
        columns = [reward(rollouts) for _, reward, _ in self._rewards]
        return [self._sum(row) for row in zip(*columns, strict=True)]

    def _sum(self, results: Sequence[RewardResult]) -> RewardResult:
        value = 0.0
        parts: dict[str, float] = {}
        errors: list[str] = []
        for (name, reward, weight), result in zip(self._rewards, results, strict=True):
            if result.value is None:
                errors += [result.error or f"{name} failed"] if weight else []
                continue
            value += weight * result.value
            parts[name] = result.value
            parts.update({f"{name}/{k}": v for k, v in result.parts.items() if k != reward.name})
        if errors:
            return RewardResult(None, parts, "; ".join(errors))
        return RewardResult(value, parts)


def _numbered(names: Sequence[str]) -> list[str]:
    """The names, made different from each other."""
    seen: Counter[str] = Counter()
    unique = []
    for name in names:
        seen[name] += 1
        unique.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return unique


def check_rewards(results: Sequence[RewardResult], max_error_share: float = 0.2) -> None:
    """Go on while few rewards fail; stop when many do.

    Raises:
        RewardError: more than ``max_error_share`` of the results have no value; names the first error.
    """
    failed = [r for r in results if r.value is None]
    if not results or len(failed) <= max_error_share * len(results):
        return
    raise RewardError(
        f"{len(failed)} of {len(results)} rewards failed; the first: {failed[0].error or 'no reason given'}",
        where="reward",
        cure="make the reward return a finite number for every response, and try it on a few by hand",
    )
