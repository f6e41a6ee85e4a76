"""Several reward models as one: their mean, the most doubtful of them, or the mean less their disagreement."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, pstdev
from typing import Literal, cast

from plaudit.errors import ConfigError
from plaudit.records import RewardResult, Rollout
from plaudit.runtime import Reward

Rule = Literal["mean", "min", "mean_minus_std"]
SPREAD = "ensemble_std"
_RULE = re.compile(r"(.+)@(mean|min|mean_minus_std)(?:=([0-9.]+))?")


@dataclass(frozen=True, slots=True)
class Ensemble:
    """What ``DIR,DIR,DIR@RULE`` names."""

    members: tuple[str, ...]
    rule: Rule = "mean"
    coef: float = 1.0
    """Standard deviations that mean_minus_std takes off."""


def parse_ensemble(source: str) -> Ensemble:
    """The members and the rule of a reward's name; one member and "mean" where there is neither.

    >>> parse_ensemble("runs/a,runs/b@mean_minus_std=0.5")
    Ensemble(members=('runs/a', 'runs/b'), rule='mean_minus_std', coef=0.5)

    Raises:
        ConfigError: an empty name among the members, or a coefficient without its rule.
    """
    found = _RULE.fullmatch(source)
    names, rule, coef = (found[1], found[2], found[3]) if found else (source, "mean", None)
    members = tuple(name.strip() for name in names.split(","))
    if not all(members) or (coef is not None and rule != "mean_minus_std"):
        raise ConfigError(
            f"{source!r} does not name an ensemble",
            where="reward",
            cure="write DIR,DIR,DIR@RULE with the rule mean, min, mean_minus_std or mean_minus_std=NUMBER",
        )
    return Ensemble(members, cast("Rule", rule), float(coef or 1.0))


def members_of(directory: Path) -> list[Path]:
    """The members' directories in a run of an ensemble, in their order; none in any other directory."""
    return sorted(directory.glob("member-*"), key=lambda path: (len(path.name), path.name))


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
        self, members: Sequence[Reward], rule: Rule = "mean", coef: float = 1.0, name: str = "reward_model"
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


def combine(values: Sequence[float], rule: Rule, coef: float = 1.0) -> float:
    """The scores of one response as one.

    >>> [combine([1.0, 3.0], rule) for rule in ("mean", "min", "mean_minus_std")]
    [2.0, 1.0, 1.0]
    """
    if rule == "min":
        return min(values)
    mean = fmean(values)
    return mean - coef * pstdev(values) if rule == "mean_minus_std" else mean
