"""The online loop: the whole of RLHF's third stage, top to bottom.

    prompts -> rollouts -> rewards -> Experience -> + signals -> + advantages -> optimizer steps -> new weights
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from plaudit.config.sections import SamplingSection
from plaudit.data.collate import collate_rollouts
from plaudit.data.order import epoch_order
from plaudit.experience import Experience
from plaudit.functional.controllers import Carry
from plaudit.functional.statistics import masked_mean
from plaudit.generation.protocol import TokenPrompt
from plaudit.records import Rollout
from plaudit.rewards.combine import check_rewards
from plaudit.training.runtime import Reward, Runtime, TokenisedPrompt

OnIteration = Callable[[int, dict[str, float], Sequence[Rollout]], None]


@dataclass
class OnlineLoop:
    """Iterations of sampling and learning. Not in it: models, files, devices, or which algorithm runs."""

    algorithm: Any  # OnlineAlgorithm; one that needs values is an ActorCritic
    runtime: Runtime
    prompts: Sequence[TokenisedPrompt]
    sampling: SamplingSection
    prompts_per_iteration: int
    pad_id: int
    seed: int
    on_iteration: OnIteration
    """Called after each iteration with its 1-based number; may evaluate, save, or raise to stop."""
    carry: Carry = field(init=False)

    def __post_init__(self) -> None:
        self.carry = self.algorithm.start()

    def run(self, iterations: int, start: int = 0) -> None:
        """Train from the 0-based iteration ``start`` to ``iterations``."""
        for iteration in range(start, iterations):
            clock = Clock()
            rollouts = self.sample(iteration)
            clock.lap("time/generate")
            rollouts = scored(self.runtime.reward, rollouts)
            clock.lap("time/reward")
            batch = self.signals(collate_rollouts(rollouts, self.pad_id))
            clock.lap("time/score")
            credit = self.algorithm.credit(batch, self.carry)
            self.carry = credit.carry
            metrics = describe(rollouts, batch) | credit.metrics | self.update(credit.batch, iteration)
            self.runtime.generator.policy_version = iteration + 1
            clock.lap("time/update")
            tokens = sum(len(r.response_ids) for r in rollouts)
            metrics |= clock.laps | {"throughput/tokens_per_second": tokens / clock.total}
            self.on_iteration(iteration + 1, metrics, rollouts)

    def sample(self, iteration: int) -> list[Rollout]:
        """Responses to this iteration's prompts, by the current policy."""
        chosen = _told_apart([self.prompts[i] for i in self._prompt_order(iteration)])
        return self.runtime.generator.generate(
            chosen, self.algorithm.group_size, self.sampling, seed=self.seed, iteration=iteration
        )

    def _prompt_order(self, iteration: int) -> Iterator[int]:
        """The next prompts of an endless sequence of shuffled passes over the data: a function of the iteration."""
        first = iteration * self.prompts_per_iteration
        for position in range(first, first + self.prompts_per_iteration):
            epoch, place = divmod(position, len(self.prompts))
            yield epoch_order(len(self.prompts), self.seed, epoch)[place]

    def signals(self, batch: Experience) -> Experience:
        """Fill in the signals that the algorithm asked for, and no others."""
        needs = self.algorithm.needs
        if "old_logprobs" in needs:
            batch = batch.replace(old_logprobs=self.runtime.policy.score(batch))
        if "ref_logprobs" in needs:
            batch = batch.replace(ref_logprobs=self.runtime.reference.score(batch))
        if "values" in needs:
            assert self.runtime.critic is not None
            batch = batch.replace(values=self.runtime.critic.score(batch))
        return batch

    def update(self, batch: Experience, iteration: int) -> dict[str, float]:
        """Inner epochs over shuffled minibatches, each one optimizer step of the policy and of the critic."""
        history: list[dict[str, float]] = []
        warming_up = self.runtime.critic is not None and iteration < self.algorithm.critic_warmup
        stopped = False
        for epoch in range(self.algorithm.epochs):
            for rows in self._minibatches(len(batch), iteration, epoch):
                minibatch = self.algorithm.weights(batch.select(rows))
                step: dict[str, float] = {}
                if self.runtime.critic is not None:
                    step |= _critic_names(self.runtime.critic.update(minibatch, self.algorithm.value_loss))
                if stopped:
                    self.runtime.policy.step += 1  # a step it rests; its learning rate follows the plan
                elif not warming_up:
                    step |= self.runtime.policy.update(minibatch, self.algorithm.loss)
                    limit = 1.5 * self.algorithm.target_kl
                    # The policy has left its trust region: it rests until the next rollouts, the critic goes on.
                    stopped = bool(limit) and step.get("policy/approx_kl", 0.0) > limit
                history.append(step)
        steps = sum("policy/loss" in step for step in history)
        return _mean_over_steps(history) | {"policy/steps": float(steps), "policy/stopped_early": float(stopped)}

    def _minibatches(self, rows: int, iteration: int, epoch: int) -> Iterator[torch.Tensor]:
        order = epoch_order(rows, self.seed, iteration * self.algorithm.epochs + epoch)
        return iter(torch.tensor(order).tensor_split(self.algorithm.minibatches))


def _told_apart(prompts: Sequence[TokenisedPrompt]) -> list[TokenisedPrompt]:
    """A prompt that comes again in an iteration gets an id of its own, hence responses of its own."""
    seen: Counter[str] = Counter()
    result: list[TokenisedPrompt] = []
    for each in prompts:
        again = seen[each.prompt.id]
        seen[each.prompt.id] += 1
        renamed = replace(each.prompt, id=f"{each.prompt.id}#{again + 1}")
        result.append(TokenPrompt(renamed, each.ids) if again else each)
    return result


class Clock:
    """Seconds between laps."""

    def __init__(self) -> None:
        self.began = self.last = time.perf_counter()
        self.laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        """Seconds since the last lap, under ``name``."""
        now = time.perf_counter()
        self.laps[name], self.last = now - self.last, now

    @property
    def total(self) -> float:
        """Seconds since the start."""
        return max(self.last - self.began, 1e-9)


def scored(reward: Reward, rollouts: Sequence[Rollout]) -> list[Rollout]:
    """Rollouts with their rewards. A failed one has none, and is left out of every mean and baseline.

    Raises:
        RewardError: more than a fifth of the rollouts could not be scored.
    """
    results = reward(rollouts)
    check_rewards(results)
    return [rollout.scored(result) for rollout, result in zip(rollouts, results, strict=True)]


def describe(rollouts: Sequence[Rollout], batch: Experience) -> dict[str, float]:
    """Metrics of a batch of rollouts that need no model."""
    assert batch.rewards is not None
    valid = batch.rewards[~batch.rewards.isnan()]
    lengths = torch.tensor([float(len(r.response_ids)) for r in rollouts])
    metrics = {
        "reward/mean": float(valid.mean()),
        "reward/std": float(valid.std(correction=0)),
        "reward/error_share": 1 - len(valid) / len(rollouts),
        "response/length_mean": float(lengths.mean()),
        "response/length_std": float(lengths.std(correction=0)),
        "response/eos_rate": sum(r.finish_reason == "stop" for r in rollouts) / len(rollouts),
    }
    parts = sorted({name for r in rollouts for name in r.reward_parts})
    if len(parts) > 1:
        for name in parts:
            values = [r.reward_parts[name] for r in rollouts if name in r.reward_parts]
            metrics[f"reward/{name}"] = sum(values) / len(values)
    if batch.old_logprobs is not None and batch.sampled_logprobs is not None:
        gap = torch.where(batch.response_mask, batch.old_logprobs - batch.sampled_logprobs, 0.0).abs()
        metrics["rollout/logprob_diff_mean"] = float(masked_mean(gap, batch.response_mask))
        metrics["rollout/logprob_diff_max"] = float(gap.max())
    return metrics


def _critic_names(metrics: dict[str, float]) -> dict[str, float]:
    return {name if name.startswith("critic/") else f"critic/{name}": value for name, value in metrics.items()}


def _mean_over_steps(history: Sequence[dict[str, float]]) -> dict[str, float]:
    """Each metric averaged over the optimizer steps that report it; maxima stay maxima.

    ``loss``, ``lr`` and ``grad_norm`` are the policy's, or the critic's while it alone learns.
    """
    names = sorted({name for step in history for name in step})
    merged: dict[str, float] = {}
    for name in names:
        values = [step[name] for step in history if name in step]
        merged[name] = max(values) if name.endswith("_max") else sum(values) / len(values)
    if "policy/loss" in merged:
        return {"loss": merged["policy/loss"]} | merged
    resting = {"policy/clip_fraction": 0.0, "policy/approx_kl": 0.0}
    return {name: merged[f"critic/{name}"] for name in ("loss", "lr", "grad_norm")} | resting | merged


