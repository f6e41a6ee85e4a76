"""What one evaluation says, prompt by prompt: what the detectors of reward hacking compare."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import covariance, fmean
from typing import Any

from plaudit.evaluation.choice import Means, means_of
from plaudit.statistics.clustered import mean_over
from plaudit.statistics.intervals import Estimate


@dataclass(frozen=True, slots=True)
class Spread:
    """Of the responses to one prompt: sample variances of reward and gold reward, and their covariance."""

    reward: float
    gold: float
    both: float


@dataclass(frozen=True, slots=True)
class Seen:
    """Of one evaluation: prompt id -> a mean over the responses to it."""

    reward: Means
    gold: Means = field(default_factory=dict)
    """Empty where there is no gold reward."""
    kl: Means = field(default_factory=dict)
    """To the reference, nats per response."""
    spreads: Mapping[str, Spread] = field(default_factory=dict)
    """Prompt id -> how reward and gold reward spread among the responses to it."""
    gaps: Mapping[str, Means] = field(default_factory=dict)
    """How much more a response has than its spoiled copies, by the way they were spoiled; see `rewards.spoiled`."""

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, Any]]) -> Seen:
        """Of the rows of evaluation.jsonl of one step."""
        rows = list(rows)
        names = sorted({name for row in rows for name in row if name.startswith("gap_")})
        return cls(
            means_of(rows, "reward"),
            means_of(rows, "gold"),
            means_of(rows, "kl"),
            _spreads(rows),
            {name: means_of(rows, name) for name in names},
        )


def _spreads(rows: Sequence[Mapping[str, Any]]) -> dict[str, Spread]:
    pairs: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        if row.get("gold") is not None and row.get("reward") is not None:
            pairs.setdefault(str(row["prompt_id"]), []).append((row["reward"], row["gold"]))
    found = {}
    for prompt, each in pairs.items():
        if len(each) > 1:
            of_reward, of_gold = zip(*each, strict=True)
            found[prompt] = Spread(
                covariance(of_reward, of_reward), covariance(of_gold, of_gold), covariance(of_reward, of_gold)
            )
    return found


def agreement(evaluations: Sequence[Seen]) -> Estimate:
    """Correlation of reward and gold reward among responses to the same prompt, over several evaluations.

    Within the prompts: a prompt that both rewards find easy is no agreement about responses. The covariance is what the
    gold reward gains where a policy is tilted towards the reward, so at 0 more of the reward buys no more of the gold
    reward. Its interval is over prompts, with the variances taken as known. NaN where one of the two never differs.
    """
    prompts = sorted(set().union(*(each.spreads for each in evaluations)))
    of = [[each.spreads[prompt] for each in evaluations if prompt in each.spreads] for prompt in prompts]
    both = mean_over([fmean(one.both for one in each) for each in of])
    reward = [fmean(one.reward for one in each) for each in of]
    gold = [fmean(one.gold for one in each) for each in of]
    unit = math.sqrt(fmean(reward) * fmean(gold)) if of else 0.0
    if not unit:
        return Estimate(math.nan, math.nan, math.nan, len(prompts), len(prompts))
    return Estimate(both.value / unit, both.low / unit, both.high / unit, both.n, both.rows)
