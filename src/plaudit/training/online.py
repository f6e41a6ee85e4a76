"""The online loop: the whole of RLHF's third stage, top to bottom.

prompts -> rollouts -> rewards -> Experience -> + signals -> + advantages -> optimizer steps -> new weights
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, cast

import torch

from plaudit.algorithms.parts import ImplicitReward, NearReference
from plaudit.algorithms.protocol import ActorCritic, OnlineAlgorithm, Phase, Rehearsing, SharingTrunk
from plaudit.config.sections import MismatchSection, SamplingSection
from plaudit.data.split import epoch_order
from plaudit.errors import TrainingError
from plaudit.experience import Batch, Experience
from plaudit.functional.controllers import Carry, Moments
from plaudit.records import Rollout
from plaudit.rollouts.collect import Clock, Collected, Collector, describe
from plaudit.runtime import LossFunction, Runtime, TokenPrompt
from plaudit.training.broken import BrokenBatches, is_finite
from plaudit.training.offline import TextStream
from plaudit.training.signals import OnlyUpdate, correct_mismatch, fill_signals, with_shares

FIRST_KL = 0.05
"""What a KL coefficient of 0 is raised to."""
OnIteration = Callable[[int, dict[str, float], Sequence[Rollout]], None]


@dataclass
class OnlineLoop:
    """Iterations of sampling and learning. Not in it: models, files, devices, or which algorithm runs."""

    algorithm: OnlineAlgorithm
    """One that needs "values" is an `ActorCritic`."""
    runtime: Runtime
    prompts: Sequence[TokenPrompt]
    sampling: SamplingSection
    prompts_per_iteration: int
    pad_id: int
    seed: int
    on_iteration: OnIteration
    """Called after each iteration with its 1-based number; may evaluate, save, or raise to stop."""
    texts: TextStream | None = None
    """What the policy goes on imitating, for a `Rehearsing` algorithm."""
    mismatch: MismatchSection = MismatchSection()
    broken: BrokenBatches = field(default_factory=BrokenBatches)
    carry: Carry = field(init=False)
    collector: Collector = field(init=False)
    published: int | None = field(init=False, default=None)
    """Version of the weights that the generator has; None before the first."""

    def __post_init__(self) -> None:
        self.carry = self.algorithm.start()
        self.collector = Collector(
            self.algorithm, self.runtime, self.prompts, self.sampling, self.prompts_per_iteration, self.seed
        )

    def run(self, iterations: int, start: int = 0) -> None:
        """Train from the 0-based iteration ``start`` to ``iterations``.

        Raises:
            TrainingError: a response was drawn from weights that are too old.
            Ended: the gradients of three iterations in a row were not finite.
        """
        if self.published != start:
            self.publish(start)
        for iteration in range(start, iterations):
            clock = Clock()
            collected = self.collector.collect(iteration, clock)
            drawn = [*collected.sampled, *collected.greedy.values()]
            refuse_stale(drawn, iteration, self.mismatch.max_staleness)
            metrics = describe(collected.sampled) | collected.metrics
            metrics |= self._learn(collected, iteration, self._phase(iteration, iterations), clock)
            # After the last update and before the next rollouts, evaluation's included: a generator with weights of its
            # own would otherwise go on drawing from the old ones, and nothing in the losses would show it.
            self.publish(iteration + 1)
            clock.lap("time/publish")
            tokens = sum(len(r.response_ids) for r in collected.sampled)
            metrics |= clock.laps | {"throughput/tokens_per_second": tokens / clock.total}
            self.broken.end(iteration + 1)
            self.on_iteration(iteration + 1, metrics, collected.sampled)
            self.broken.check(iteration + 1)

    def _learn(self, collected: Collected, iteration: int, phase: Phase, clock: Clock) -> dict[str, float]:
        """Signals, credit and updates from what is kept of an iteration; its metrics."""
        if not collected.kept:
            self._rest(phase)
            return dict(NOTHING_LEARNED)
        batch = collected.batch(self.pad_id, self.sampling.max_new_tokens)
        once = self._updates_once(phase)
        batch, metrics = fill_signals(
            batch, self.algorithm.needs, self.runtime, self.mismatch.reuse_limit, only_update=once
        )
        clock.lap("time/score")
        credit = phase.algorithm.credit(batch, self.carry)
        learned, distance = self._corrected(credit.batch, batch, once)
        metrics = credit.metrics | distance | metrics | self.update(learned, iteration, phase)
        if not self.broken.spoiled:  # else its figures are not to be trusted: the KL controller waits as well
            self.carry = self._carried(iteration, credit.carry, metrics)
        clock.lap("time/update")
        return metrics

    def publish(self, version: int) -> None:
        """Hand the policy's weights to the generator; ``version`` is the number of iterations they have seen."""
        self.runtime.generator.publish(self.runtime.policy.weights(), version)
        self.published = version

    def hold_tighter(self, *, restored: bool = False) -> float:
        """From the next iteration on the distance to the reference costs twice as much; the new coefficient.

        Args:
            restored: what is carried from iteration to iteration comes from a checkpoint that knows of it.
        """
        # A cast, because a protocol cannot say that what fulfils it is a dataclass.
        algorithm = cast("Any", self.algorithm)
        implicit = isinstance(self.algorithm, ImplicitReward)
        assert implicit or isinstance(self.algorithm, NearReference), "every other online algorithm has a KL"
        name = "beta" if implicit else "kl_coef"
        tighter = 2 * float(getattr(algorithm, name)) or FIRST_KL
        self.algorithm = self.collector.algorithm = replace(algorithm, **{name: tighter})
        if not implicit and not restored:
            self.carry = replace(self.carry, kl_coef=2 * self.carry.kl_coef or FIRST_KL)
        return tighter

    def _updates_once(self, phase: Phase) -> bool:
        """Does an iteration make one step of the policy, whose own log-probs can take the place of the old ones?"""
        # Not where pairs are learned from, whose loss has no old log-probs; where whole responses are dropped by them
        # before the step; or where rollouts are older than the policy, and credit by the sampler would be too.
        algorithm, section = phase.algorithm, self.mismatch
        single = algorithm.epochs * algorithm.minibatches == 1 and phase.policy_learns
        return (
            single
            and not isinstance(algorithm, ImplicitReward)
            and section.correction != "drop"
            and not section.max_staleness
        )

    def _corrected(self, learned: Batch, sampled: Experience, once: bool) -> tuple[Batch, dict[str, float]]:
        """What is learned from, corrected for the sampler. Pairs have no policy gradient to correct: only measured."""
        if isinstance(learned, Experience):
            if once:
                return learned, {}  # it is done in the step itself
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

    def _phase(self, iteration: int, iterations: int) -> Phase:
        """How this iteration learns; the schedule of the policy counts the iterations in which it does."""
        algorithm = self.algorithm
        phase = (
            algorithm.phase(iteration, self.carry) if isinstance(algorithm, ActorCritic) else Phase(algorithm)
        )
        if phase.policy_learns:
            steps = algorithm.epochs * algorithm.minibatches
            self.runtime.policy.plan((iterations - phase.rested) * steps)
        return phase

    def _carried(self, iteration: int, carry: Carry, metrics: dict[str, float]) -> Carry:
        if not isinstance(self.algorithm, ActorCritic):
            return carry
        return self.algorithm.after(iteration, carry, metrics)

    def update(self, batch: Batch, iteration: int, phase: Phase) -> dict[str, float]:
        """Inner epochs over shuffled minibatches, each one optimizer step of the policy and of the critic.

        A minibatch in which nothing counts gives no step: an optimizer with momentum would move the weights without it.
        """
        algorithm, policy, critic = phase.algorithm, self.runtime.policy, self.runtime.critic
        history: list[dict[str, float]] = []
        stopped = False
        if not len(batch):
            self._rest(phase)
            return dict(NOTHING_LEARNED)
        empty = 0
        loss = self._loss(algorithm)
        if isinstance(batch, Experience) and self._updates_once(phase):
            loss = OnlyUpdate(loss, self.mismatch)
        for epoch in range(algorithm.epochs):
            for rows in self._minibatches(len(batch), iteration, epoch):
                minibatch = algorithm.weights(batch.select(rows)) if len(rows) else None
                if minibatch is None or not (counts(minibatch) or self.texts is not None):
                    empty += 1
                    self._rest(phase, steps=1)
                    continue
                step: dict[str, float] = {}
                resting = stopped or not phase.policy_learns
                # On one trunk a step of the policy trains the critic along: it steps by itself only where the policy
                # rests, or each of its heads would be moved twice by the same rows.
                if critic is not None and (resting or not self.runtime.shared_trunk):
                    step |= _critic_names(critic.update(minibatch, _value_loss(algorithm)))
                if stopped:
                    policy.rest()
                elif phase.policy_learns:
                    step |= policy.update(minibatch, loss, self._further(len(minibatch)))
                    limit = 1.5 * algorithm.target_kl
                    # The policy has left its trust region: it rests until the next rollouts, the critic goes on.
                    stopped = bool(limit) and step.get("policy/approx_kl", 0.0) > limit
                self.broken.saw(minibatch, rows, step)
                history.append(step)
        if not history:
            return dict(NOTHING_LEARNED)
        steps = sum("policy/loss" in step for step in history)
        return with_shares(_mean_over_steps(history)) | {
            "policy/steps": float(steps),
            "policy/stopped_early": float(stopped),
            "policy/empty_share": empty / (empty + len(history)),
        }

    def _loss(self, algorithm: OnlineAlgorithm) -> LossFunction:
        """The loss of a step of the policy."""
        if not self.runtime.shared_trunk:
            return algorithm.loss
        assert isinstance(algorithm, SharingTrunk), (
            "only such an algorithm gets a critic on the policy's trunk"
        )
        return algorithm.joint_loss

    def _further(self, rows: int) -> Sequence[tuple[Experience, LossFunction]]:
        """What counts in a step of the policy besides the rollouts: as many texts, under a loss of their own."""
        if self.texts is None:
            return ()
        assert isinstance(self.algorithm, Rehearsing), "texts are for an algorithm that has a loss on them"
        texts = self.texts.at(self.runtime.policy.step * rows, rows)
        return [(self.algorithm.weights(texts), self.algorithm.ptx_loss)]

    def _minibatches(self, rows: int, iteration: int, epoch: int) -> Iterator[torch.Tensor]:
        order = epoch_order(rows, self.seed, iteration * self.algorithm.epochs + epoch)
        # Some are empty where few groups are left of dynamic sampling.
        return iter(torch.tensor(order).tensor_split(self.algorithm.minibatches))

    def _rest(self, phase: Phase, steps: int | None = None) -> None:
        """The steps of an iteration, or so many of them, are not taken; the schedules go on."""
        for _ in range(phase.algorithm.epochs * phase.algorithm.minibatches if steps is None else steps):
            if phase.policy_learns:
                self.runtime.policy.rest()
            if self.runtime.critic is not None:
                self.runtime.critic.rest()


NOTHING_LEARNED = {"policy/steps": 0.0, "policy/stopped_early": 0.0, "policy/empty_share": 1.0}
"""Metrics of an iteration in which nothing was left to learn from."""


def counts(batch: Batch) -> bool:
    """Whether any token or unit of a batch has a weight in its loss."""
    return batch.loss_weights is None or bool((batch.loss_weights != 0).any())


def refuse_stale(rollouts: Sequence[Rollout], iteration: int, max_staleness: int) -> None:
    """Stop where a response was drawn from weights that are more than ``max_staleness`` iterations old.

    Raises:
        TrainingError: one was.
    """
    oldest = min(rollouts, key=lambda rollout: rollout.policy_version)
    if iteration - oldest.policy_version > max_staleness:
        raise TrainingError(
            f"a response was drawn from the weights of iteration {oldest.policy_version}, and the policy has had "
            f"{iteration} iterations; at most {max_staleness} between them are allowed",
            where=f"iteration {iteration + 1}, prompt {oldest.prompt.id!r}",
            cure="let the generator draw from what its publish() was given last; "
            "in online commands one that samples ahead on purpose needs a higher --max-staleness",
        )


def _value_loss(algorithm: OnlineAlgorithm) -> LossFunction:
    assert isinstance(algorithm, ActorCritic), "an algorithm that needs values says how a critic learns them"
    return algorithm.value_loss


def _critic_names(metrics: dict[str, float]) -> dict[str, float]:
    return {
        name if name.startswith("critic/") else f"critic/{name}": value for name, value in metrics.items()
    }


def _mean_over_steps(history: Sequence[dict[str, float]]) -> dict[str, float]:
    """Each metric averaged over the optimizer steps that report it; maxima stay maxima.

    Steps whose gradient was not finite count in ``steps_skipped`` alone, unless there are no others.

    ``loss``, ``lr`` and ``grad_norm`` are the policy's, or the critic's while it alone learns.
    """
    finite = [step for step in history if is_finite(step)] or history
    names = sorted({name for step in finite for name in step})
    merged: dict[str, float] = {}
    for name in names:
        counted = history if name.endswith("steps_skipped") else finite
        values = [step[name] for step in counted if name in step]
        merged[name] = max(values) if name.endswith("_max") else sum(values) / len(values)
    if "policy/loss" in merged:
        return {"loss": merged["policy/loss"]} | merged
    resting = {"policy/clip_fraction": 0.0, "policy/approx_kl": 0.0}
    return {name: merged[f"critic/{name}"] for name in ("loss", "lr", "grad_norm")} | resting | merged
