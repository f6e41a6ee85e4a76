"""Several rewards as one, a sum or an ensemble; and how many of a batch may fail."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from statistics import fmean, pstdev

from plaudit.errors import ConfigError, RewardError
from plaudit.jobs.reward_tables import EnsembleRule
from plaudit.records import RewardResult, Rollout
from plaudit.runtime import Reward

SPREAD = "ensemble_std"


class WeightedReward:
    """The weighted sum of rewards.

    The parts of a result are the unweighted values by name. If a part fails, so does the sum; unless its weight is 0:
    such a part is only watched. A part that abstains is left out of the sum, as in TRL; if all of them do, there is
    no sum.

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
                    f"the weight of {reward.name} is {weight}", where="reward", cure="give a number"
                )
        names = _numbered([reward.name for reward, _ in rewards])
        self._rewards = [(name, reward, w) for name, (reward, w) in zip(names, rewards, strict=True)]

    @property
    def parts(self) -> list[tuple[Reward, float]]:
        """The rewards and their weights."""
        return [(reward, weight) for _, reward, weight in self._rewards]

    def __call__(self, rollouts: Sequence[Rollout]) -> list[RewardResult]:
        """One result per rollout."""
        columns = [reward(rollouts) for _, reward, _ in self._rewards]
        return [self._sum(row) for row in zip(*columns, strict=True)]

    def _sum(self, results: Sequence[RewardResult]) -> RewardResult:
        value = 0.0
        parts: dict[str, float] = {}
        errors: list[str] = []
        silent: list[str] = []
        for (name, reward, weight), result in zip(self._rewards, results, strict=True):
            if result.value is None:
                # A sum without the failed part would be a number that nobody meant: a response whose check crashed
                # would be compared with responses that were checked.
                reasons = silent if result.abstains else errors
                reasons += [result.error or f"{name} failed"] if weight else []
                continue
            value += weight * result.value
            parts[name] = result.value
            parts.update({f"{name}/{k}": v for k, v in result.parts.items() if k != reward.name})
        weighted = sum(bool(weight) for _, _, weight in self._rewards)
        if weighted and len(silent) == weighted:
            return RewardResult(None, parts, "; ".join(silent), abstains=True)
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


class EnsembleReward:
    """The scores of several reward models, combined response by response.

    Each member's score is normalised by itself; otherwise the one with the largest scale would rule. ``min`` and
    ``mean_minus_std`` distrust what the members do not agree on (Coste et al. 2023, arXiv:2310.02743). The part
    ``ensemble_std`` is the disagreement (population standard deviation): its rise in RL is a sign of over-optimisation.

    Args:
        members: rewards with scores of the same unit.
        rule: how they are combined.
        coef: of mean_minus_std.
        name: in metrics.

    Raises:
        ConfigError: fewer than two members.
    """

    def __init__(
        self,
        members: Sequence[Reward],
        rule: EnsembleRule = "mean",
        coef: float = 1.0,
        name: str = "reward_model",
    ) -> None:
        if len(members) < 2:
            raise ConfigError(
                f"an ensemble has at least two members, found {len(members)}",
                where="reward",
                cure="name several reward models with commas between them, or leave the rule out",
            )
        self.name, self._members, self._rule, self._coef = name, list(members), rule, coef

    def __call__(self, rollouts: Sequence[Rollout]) -> list[RewardResult]:
        """One result per rollout; an error of a member is an error of the ensemble."""
        columns = [member(rollouts) for member in self._members]
        return [self._combined(row) for row in zip(*columns, strict=True)]

    def _combined(self, results: Sequence[RewardResult]) -> RewardResult:
        values = [result.value for result in results if result.value is not None]
        if len(values) < len(results):
            errors = [f"member {i}: {r.error}" for i, r in enumerate(results) if r.value is None]
            return RewardResult(None, error="; ".join(errors))
        spread = pstdev(values)
        value = combine(values, self._rule, self._coef)
        return RewardResult(value, {self.name: value, SPREAD: spread})


def combine(values: Sequence[float], rule: EnsembleRule, coef: float = 1.0) -> float:
    """The scores of one response as one.

    >>> [combine([1.0, 3.0], rule) for rule in ("mean", "min", "mean_minus_std")]
    [2.0, 1.0, 1.0]
    """
    if rule == "min":
        return min(values)
    mean = fmean(values)
    return mean - coef * pstdev(values) if rule == "mean_minus_std" else mean


# Some failures are part of life (a timeout, a parser that meets odd text), and the rest of the batch is still a fair
# sample. When many fail, those that are left are the responses that happen to be easy to score, and a policy trained on
# them learns that.
def check_rewards(results: Sequence[RewardResult], max_error_share: float = 0.2, *, aborted: int = 0) -> None:
    """Go on while few rewards fail; stop when many do.

    Args:
        results: of a batch.
        max_error_share: so many may have no value.
        aborted: how many of those have none because their environment failed.

    Raises:
        RewardError: more than ``max_error_share`` of the results have no value; names the first error.
    """
    failed = [r for r in results if r.value is None]
    if not results or len(failed) <= max_error_share * len(results):
        return
    cure = "make the reward, or its server, give a finite number for every response, and try it on a few by hand"
    if all(result.abstains for result in failed):
        cure = "None leaves a response to the other rewards: give one more that scores it, such as rule:length:40"
    what, where = "rewards", "reward"
    if aborted == len(failed):
        what, where = "rollouts", "environment"
        cure = "let reply(rollout) return a text, messages or Done every time, and try it on a few rollouts by hand"
    raise RewardError(
        f"{len(failed)} of {len(results)} {what} failed; the first: {failed[0].error or 'no reason given'}",
        where=where,
        cure=cure,
    )
