"""From prompts to scored responses: what one iteration of the online loop learns from."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch

from plaudit.algorithms.protocol import OnlineAlgorithm, Resampling
from plaudit.awaited import awaiting
from plaudit.config.sections import SamplingSection
from plaudit.data.collate import collate_rollouts
from plaudit.data.split import epoch_order
from plaudit.experience import Experience
from plaudit.records import RewardResult, Rollout
from plaudit.rewards.combine import check_rewards
from plaudit.rewards.result import within_range
from plaudit.runtime import Reward, Runtime, TokenPrompt


@dataclass(frozen=True, slots=True)
class Collected:
    """The responses of one iteration. Group ids are the same in all of them."""

    sampled: list[Rollout]
    """Everything that was sampled and scored."""
    kept: list[Rollout]
    """What is learned from: all of it, unless the algorithm keeps some groups only. Empty where it kept none."""
    greedy: dict[int, Rollout] = field(default_factory=dict)
    """Group id -> the scored greedy response, where the algorithm asks for it."""
    metrics: dict[str, float] = field(default_factory=dict)

    def batch(self, pad_id: int, length_limit: int) -> Experience:
        """What is kept, as a batch; ``length_limit`` is the most tokens a response may have."""
        batch = collate_rollouts(self.kept, pad_id)
        batch = batch.replace(length_limits=torch.full((len(batch),), length_limit))
        if not self.greedy:
            return batch
        ordered = [self.greedy[rollout.group_id] for rollout in self.kept]
        rewards = [float("nan") if r.reward is None else r.reward for r in ordered]
        truncated = [r.finish_reason == "length" for r in ordered]
        return batch.replace(greedy_rewards=torch.tensor(rewards), greedy_truncated=torch.tensor(truncated))


class Collector:
    """Samples and scores, round after round where the algorithm keeps some groups only.

    Attributes:
        used: prompts taken so far from an endless sequence of shuffled passes over the data. With it a resumed run goes
            on with the prompts that come next.
    """

    def __init__(
        self, algorithm: OnlineAlgorithm, runtime: Runtime, prompts: Sequence[TokenPrompt], sampling: SamplingSection,
        per_round: int, seed: int,
    ) -> None:  # fmt: skip
        self.algorithm, self.runtime, self.prompts = algorithm, runtime, prompts
        self.sampling, self.per_round, self.seed = sampling, per_round, seed
        self.used = 0

    def collect(self, iteration: int, clock: Clock) -> Collected:
        """The responses of an iteration, by the current policy."""
        seen: Counter[str] = Counter()
        sampled: list[Rollout] = []
        kept: list[Rollout] = []
        chosen: list[TokenPrompt] = []
        algorithm = self.algorithm
        resampling = algorithm if isinstance(algorithm, Resampling) and algorithm.sampling_rounds > 0 else None
        rounds = 0
        for _ in range(resampling.sampling_rounds if resampling else 1):
            rounds += 1
            new = told_apart([self.prompts[i] for i in self._next_prompts()], seen)
            rollouts = self._sampled(new, algorithm.group_size, self.sampling, iteration, clock)
            rollouts = [replace(r, group_id=r.group_id + len(chosen)) for r in rollouts]
            chosen += new
            sampled += rollouts
            kept += _kept(resampling, rollouts) if resampling else rollouts
            if len({r.group_id for r in kept}) >= self.per_round:
                break
        # The share is taken before the groups are cut to a round's number: it says how much of the sampling was of use.
        share = len({r.group_id for r in kept}) / len(chosen)
        kept = self._first_groups(kept)
        greedy = self._greedy(chosen, kept, iteration, clock)
        metrics = _resampling_metrics(kept, share, rounds) if resampling else {}
        return Collected(sampled, kept, greedy, metrics)

    def _next_prompts(self) -> Iterator[int]:
        """The next prompts of the endless sequence of shuffled passes."""
        size = len(self.prompts)
        for position in range(self.used, self.used + self.per_round):
            epoch, place = divmod(position, size)
            yield epoch_order(size, self.seed, epoch)[place]
        self.used += self.per_round

    def _sampled(
        self, prompts: Sequence[TokenPrompt], n: int, sampling: SamplingSection, iteration: int, clock: Clock
    ) -> list[Rollout]:
        with awaiting(f"the generator, for {len(prompts) * n} responses"):
            rollouts = self.runtime.generator.generate(prompts, n, sampling, seed=self.seed, iteration=iteration)
        clock.lap("time/generate")
        rollouts = scored(self.runtime.reward, rollouts)
        clock.lap("time/reward")
        return rollouts

    def _first_groups(self, kept: Sequence[Rollout]) -> list[Rollout]:
        """As many groups as a round has; the last round may have brought more."""
        groups = set(list(dict.fromkeys(r.group_id for r in kept))[: self.per_round])
        return [rollout for rollout in kept if rollout.group_id in groups]

    def _greedy(
        self, prompts: Sequence[TokenPrompt], kept: Sequence[Rollout], iteration: int, clock: Clock
    ) -> dict[int, Rollout]:
        """The most likely response to each prompt that is kept, token by token."""
        if "greedy_rewards" not in self.algorithm.needs or not kept:
            return {}
        groups = list(dict.fromkeys(r.group_id for r in kept))
        # top_k of 1 leaves only the likeliest token: the same generator, without a second way to draw.
        argmax = self.sampling.model_copy(update={"top_k": 1})
        rollouts = self._sampled([prompts[g] for g in groups], 1, argmax, iteration, clock)
        return dict(zip(groups, rollouts, strict=True))


def _kept(algorithm: Resampling, rollouts: Sequence[Rollout]) -> list[Rollout]:
    rewards = torch.tensor([float("nan") if r.reward is None else r.reward for r in rollouts])
    keeps = algorithm.keeps(rewards, torch.tensor([r.group_id for r in rollouts]))
    return [rollout for rollout, keep in zip(rollouts, keeps.tolist(), strict=True) if keep]


def told_apart(prompts: Sequence[TokenPrompt], seen: Counter[str]) -> list[TokenPrompt]:
    """A prompt that comes again in an iteration gets an id of its own, hence responses of its own."""
    result: list[TokenPrompt] = []
    for each in prompts:
        again = seen[each.prompt.id]
        seen[each.prompt.id] += 1
        renamed = replace(each.prompt, id=f"{each.prompt.id}#{again + 1}") if again else each.prompt
        result.append(replace(each, prompt=renamed))
    return result


def scored(reward: Reward, rollouts: Sequence[Rollout]) -> list[Rollout]:
    """Rollouts with their rewards. A failed one has none, and is left out of every mean and baseline.

    Raises:
        RewardError: more than a fifth of the rollouts could not be scored.
    """
    results = judged(reward, rollouts)
    check_rewards(results, aborted=sum(bool(rollout.error) for rollout in rollouts))
    return [rollout.scored(result) for rollout, result in zip(rollouts, results, strict=True)]


def judged(reward: Reward, rollouts: Sequence[Rollout]) -> list[RewardResult]:
    """What a reward says of each rollout. One that its environment could not finish is not shown to it, and failed."""
    # A conversation that broke off can look good to a reward that expects no more of it.
    whole = [i for i, rollout in enumerate(rollouts) if not rollout.error]
    results = [RewardResult(None, error=rollout.error) for rollout in rollouts]
    with awaiting(f"the rewards of {len(whole)} responses"):
        found = reward([rollouts[i] for i in whole])
    for i, result in zip(whole, found, strict=True):
        # Here and not in each kind of reward: a weighted sum, an ensemble or a server can give such a number too.
        results[i] = within_range(result, rollouts[i].environment_reward or 0.0)
    return results


def describe(rollouts: Sequence[Rollout]) -> dict[str, float]:
    """Metrics of everything that was sampled, before any choice among it.

    The length of a response is the number of tokens that the policy sampled, over all turns. ``response/eos_rate`` is
    the share of rollouts that no limit and no failure ended.
    """
    rewards = torch.tensor([r.reward for r in rollouts if r.reward is not None])
    lengths = torch.tensor([float(len(r.response_ids)) for r in rollouts])
    metrics = {
        "reward/mean": float(rewards.mean()),
        "reward/std": float(rewards.std(correction=0)),
        "reward/error_share": 1 - len(rewards) / len(rollouts),
        "response/length_mean": float(lengths.mean()),
        "response/length_std": float(lengths.std(correction=0)),
        "response/eos_rate": sum(r.finish_reason == "stop" for r in rollouts) / len(rollouts),
    }
    if any(len(r.turns) != 1 or r.error for r in rollouts):
        others = [len(r.tokens) - len(r.prompt_ids) - len(r.response_ids) for r in rollouts]
        metrics |= {
            "response/turns_mean": sum(len(r.policy_turns) for r in rollouts) / len(rollouts),
            "response/environment_tokens_mean": sum(others) / len(rollouts),
            "response/aborted_share": sum(bool(r.error) for r in rollouts) / len(rollouts),
        }
    parts = sorted({name for r in rollouts for name in r.reward_parts})
    for name in parts if len(parts) > 1 else ():
        values = [r.reward_parts[name] for r in rollouts if name in r.reward_parts]
        metrics[f"reward/{name}"] = sum(values) / len(values)
    return metrics


def _resampling_metrics(kept: Sequence[Rollout], share: float, rounds: int) -> dict[str, float]:
    metrics = {"dyn/kept_share": share, "dyn/rounds": float(rounds)}
    rewards = [r.reward for r in kept if r.reward is not None]
    return metrics | ({"dyn/reward_mean": sum(rewards) / len(rewards)} if rewards else {})


class Clock:
    """Seconds between laps."""

    def __init__(self) -> None:
        self.began = self.last = time.perf_counter()
        self.laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        """Add the seconds since the last lap to ``name``."""
        now = time.perf_counter()
        self.laps[name] = self.laps.get(name, 0.0) + now - self.last
        self.last = now

    @property
    def total(self) -> float:
        """Seconds since the start."""
        return max(self.last - self.began, 1e-9)
