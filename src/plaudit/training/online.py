"""The online loop: the whole of RLHF's third stage, top to bottom.

prompts -> rollouts -> rewards -> Experience -> + signals -> + advantages -> optimizer steps -> new weights
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch

from plaudit.config.sections import MismatchSection, SamplingSection
from plaudit.data.split import epoch_order
from plaudit.experience import Batch, Experience
from plaudit.functional.controllers import Carry, Moments
from plaudit.records import Rollout
from plaudit.rollouts.collect import Clock, Collector, describe
from plaudit.runtime import LossFunction, Runtime, TokenPrompt
from plaudit.training.mismatch import correct_mismatch
from plaudit.training.signals import fill_signals
from plaudit.training.texts import TextStream

GOOD_CRITIC = 0.5
"""Explained variance at which the critic's warm-up ends early."""
OnIteration = Callable[[int, dict[str, float], Sequence[Rollout]], None]


@dataclass
class OnlineLoop:
    """Iterations of sampling and learning. Not in it: models, files, devices, or which algorithm runs."""

    algorithm: Any  # OnlineAlgorithm; one that needs values is an ActorCritic
    runtime: Runtime
    prompts: Sequence[TokenPrompt]
    sampling: SamplingSection
    prompts_per_iteration: int
    pad_id: int
    seed: int
    on_iteration: OnIteration
    """Called after each iteration with its 1-based number; may evaluate, save, or raise to stop."""
    texts: TextStream | None = None
    """What the policy goes on imitating, for an algorithm with a ``ptx_loss``."""
    mismatch: MismatchSection = MismatchSection()
    carry: Carry = field(init=False)
    collector: Collector = field(init=False)

    def __post_init__(self) -> None:
        self.carry = self.algorithm.start()
        self.collector = Collector(
            self.algorithm, self.runtime, self.prompts, self.sampling, self.prompts_per_iteration, self.seed
        )

    def run(self, iterations: int, start: int = 0) -> None:
        """Train from the 0-based iteration ``start`` to ``iterations``."""
        for iteration in range(start, iterations):
            clock = Clock()
            collected = self.collector.collect(iteration, clock)
            batch = collected.batch(self.pad_id, self.sampling.max_new_tokens)
            batch, measured = fill_signals(
                batch, self.algorithm.needs, self.runtime, self.mismatch.reuse_below
            )
            clock.lap("time/score")
            algorithm = self._at(iteration, iterations)
            credit = algorithm.credit(batch, self.carry)
            self.carry = credit.carry
            learned, distance = self._corrected(credit.batch, batch)
            metrics = describe(collected.sampled) | collected.metrics | credit.metrics | distance | measured
            metrics |= self.update(learned, iteration, algorithm)
            self._end_warmup(iteration, metrics)
            clock.lap("time/update")
            # After the last update and before the next rollouts, evaluation's included: a generator with weights of its
            # own would otherwise go on drawing from the old ones, and nothing in the losses would show it.
            self.runtime.generator.publish(self.runtime.policy.weights(), iteration + 1)
            clock.lap("time/publish")
            tokens = sum(len(r.response_ids) for r in collected.sampled)
            metrics |= clock.laps | {"throughput/tokens_per_second": tokens / clock.total}
            self.on_iteration(iteration + 1, metrics, collected.sampled)

    def _corrected(self, learned: Batch, sampled: Experience) -> tuple[Batch, dict[str, float]]:
        """What is learned from, corrected for the sampler. Pairs have no policy gradient to correct: only measured."""
        if isinstance(learned, Experience):
            return correct_mismatch(learned, self.mismatch)
        return learned, correct_mismatch(sampled, self.mismatch)[1]

    def state(self) -> dict[str, Any]:
        """What a checkpoint must keep besides the learners; JSON-ready."""
        return {"carry": asdict(self.carry), "prompts_used": self.collector.used}

    def resume(self, state: dict[str, Any]) -> None:
        """Inverse of `state`."""
        carry = state["carry"]
        self.carry = Carry(**(carry | {"reward": Moments(**carry["reward"])}))
        self.collector.used = state["prompts_used"]

    def _at(self, iteration: int, iterations: int) -> Any:
        """The algorithm in this iteration: that of the warm-up while the critic learns alone, then the plain one."""
        if self.runtime.critic is None:
            return self.algorithm
        if self._warming_up(iteration):
            return getattr(self.algorithm, "while_critic_warms_up", lambda: self.algorithm)()
        alone = self.algorithm.critic_warmup if self.carry.warmup is None else self.carry.warmup
        steps = self.algorithm.epochs * self.algorithm.minibatches
        self.runtime.policy.plan((iterations - alone) * steps)  # its learning rate counts its own steps
        return self.algorithm

    def _warming_up(self, iteration: int) -> bool:
        alone = self.carry.warmup is None and self.runtime.critic is not None
        return alone and iteration < self.algorithm.critic_warmup

    def _end_warmup(self, iteration: int, metrics: dict[str, float]) -> None:
        """A critic that explains half the variance of what it had not seen needs no more time alone."""
        good = metrics.get("critic/explained_variance", 0.0) > GOOD_CRITIC
        if good and self._warming_up(iteration):
            self.carry = replace(self.carry, warmup=iteration + 1)

    def update(self, batch: Batch, iteration: int, algorithm: Any) -> dict[str, float]:
        """Inner epochs over shuffled minibatches, each one optimizer step of the policy and of the critic."""
        history: list[dict[str, float]] = []
        warming_up = self._warming_up(iteration)
        stopped = False
        for epoch in range(self.algorithm.epochs):
            for rows in self._minibatches(len(batch), iteration, epoch):
                minibatch = algorithm.weights(batch.select(rows))
                step: dict[str, float] = {}
                resting = stopped or warming_up
                if self.runtime.critic is not None and (resting or not self.runtime.shared_trunk):
                    step |= _critic_names(self.runtime.critic.update(minibatch, algorithm.value_loss))
                if stopped:
                    self.runtime.policy.rest()
                elif not warming_up:
                    loss = algorithm.joint_loss if self.runtime.shared_trunk else algorithm.loss
                    step |= self.runtime.policy.update(minibatch, loss, self._further(len(minibatch)))
                    limit = 1.5 * self.algorithm.target_kl
                    # The policy has left its trust region: it rests until the next rollouts, the critic goes on.
                    stopped = bool(limit) and step.get("policy/approx_kl", 0.0) > limit
                history.append(step)
        if not history:  # nothing to learn from: every prompt's responses were scored alike
            return {"policy/steps": 0.0, "policy/stopped_early": 0.0}
        steps = sum("policy/loss" in step for step in history)
        return _mean_over_steps(history) | {
            "policy/steps": float(steps),
            "policy/stopped_early": float(stopped),
        }

    def _further(self, rows: int) -> Sequence[tuple[Experience, LossFunction]]:
        """What counts in a step of the policy besides the rollouts: as many texts, under a loss of their own."""
        if self.texts is None:
            return ()
        texts = self.texts.at(self.runtime.policy.step * rows, rows)
        return [(self.algorithm.weights(texts), self.algorithm.ptx_loss)]

    def _minibatches(self, rows: int, iteration: int, epoch: int) -> Iterator[torch.Tensor]:
        order = epoch_order(rows, self.seed, iteration * self.algorithm.epochs + epoch)
        parts = torch.tensor(order).tensor_split(self.algorithm.minibatches)
        return (part for part in parts if len(part))  # few groups may be left of dynamic sampling


def _critic_names(metrics: dict[str, float]) -> dict[str, float]:
    return {
        name if name.startswith("critic/") else f"critic/{name}": value for name, value in metrics.items()
    }


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
