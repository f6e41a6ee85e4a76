"""Held-out evaluation during RL: the policy against its own start, on the same prompts with the same randomness."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import torch

from plaudit.config.sections import LogSection, SamplingSection
from plaudit.data.chat import ChatFormat
from plaudit.data.collate import collate_rollouts
from plaudit.experience import Experience
from plaudit.records import Rollout
from plaudit.rollouts.collect import judged, scored
from plaudit.runs.best import BestWeights
from plaudit.runs.files import Lines
from plaudit.runs.recorder import Recorder
from plaudit.runtime import Runtime, TokenPrompt
from plaudit.training.online import refuse_stale

EVALUATION = (
    -1
)  # the "iteration" of evaluation samples: the same uniforms at every evaluation, never used in training
AUTO_EVALUATIONS = 8


class EvaluatedJob(Protocol):
    """What an evaluation reads of a job."""

    @property
    def iterations(self) -> int:
        """Steps of the whole run."""
        ...

    @property
    def eval_every(self) -> int | Literal["auto"]:
        """Steps between evaluations; auto: about eight in the run."""
        ...

    @property
    def sampling(self) -> SamplingSection:
        """How responses are drawn."""
        ...

    @property
    def seed(self) -> int:
        """Of the run."""
        ...

    @property
    def log(self) -> LogSection:
        """How many responses are shown."""
        ...


class Evaluator:
    """Writes evaluation.jsonl and samples.jsonl, and goes back to the best weights if the last ones are worse.

    A checkpoint keeps the best weights and the figures (`state`), so that a resumed run knows where it started and what
    was best.
    """

    def __init__(
        self,
        run: Path,
        runtime: Runtime,
        prompts: Sequence[TokenPrompt],
        job: EvaluatedJob,
        chat: ChatFormat,
        recorder: Recorder,
        max_staleness: int = 0,
    ) -> None:
        self.max_staleness = max_staleness
        self.runtime, self.prompts, self.job = runtime, prompts, job
        self.chat, self.recorder = chat, recorder
        self.path = run / "evaluation.jsonl"
        self.every = (
            max(1, job.iterations // AUTO_EVALUATIONS) if job.eval_every == "auto" else job.eval_every
        )
        self.judge = "gold" if runtime.gold else "reward"
        self.start = self.last = float("nan")
        self.best, self.weights = float("-inf"), BestWeights(run)

    def before(self) -> None:
        """Evaluate the starting policy."""
        self.evaluate(0)

    def after(self, iteration: int) -> dict[str, float]:
        """Evaluate if it is time; metrics named ``eval/...``."""
        due = self.every > 0 and iteration % self.every == 0
        if not due and iteration != self.job.iterations:
            return {}
        return self.evaluate(iteration)

    def finish(self) -> None:
        """A policy that ends worse than it started is not handed out: go back to the best weights, and say so."""
        step = self.job.iterations
        if self.weights.file and self.last < self.start:
            step = self.weights.step
            self.runtime.policy.put_back(self.weights.tensors())
            self.runtime.generator.publish(self.runtime.policy.weights(), step)
            self.recorder.event(
                "rolled back",
                step=step,
                why=f"the held-out {self.judge} ended at {self.last:.3f}, below its start {self.start:.3f}",
            )
        self.recorder.summary({"model_step": step})

    def state(self) -> dict[str, float]:
        """Held-out means at the start, at the last evaluation, and at the best one."""
        return {"start": self.start, "last": self.last, "best": self.best}

    def resume(self, state: dict[str, float]) -> None:
        """Inverse of `state`."""
        self.start, self.last = state["start"], state["last"]
        # Without the file of the best weights there is nothing to put back, so the next evaluation is the best.
        self.best = state["best"] if self.weights.file else float("-inf")

    def _remember(self, step: int, value: float) -> None:
        if step == 0:
            self.start = value
        self.last = value
        if value > self.best:
            self.best = value
            self.weights.keep(step, self.runtime.policy.weights().tensors())

    def evaluate(self, iteration: int) -> dict[str, float]:
        """Sample, score, and write one row a prompt."""
        rollouts = self.runtime.generator.generate(
            self.prompts, 1, self.job.sampling, seed=self.job.seed, iteration=EVALUATION
        )
        # The row says "after this iteration", and by it the best weights are chosen: they must be the ones it is of.
        refuse_stale(rollouts, iteration, self.max_staleness)
        rollouts = scored(self.runtime.reward, rollouts)
        none = [None] * len(rollouts)
        gold = [r.value for r in judged(self.runtime.gold, rollouts)] if self.runtime.gold else none
        batch = collate_rollouts(rollouts, pad_id=0)  # never read: every model is given the attention mask
        rows = [
            self._row(iteration, rollout, value) | logprobs
            for rollout, value, logprobs in zip(rollouts, gold, self._logprobs(batch), strict=True)
        ]
        with contextlib.closing(Lines(self.path)) as lines:
            for row in rows:
                lines.add(row)
        for row in rows[: self.job.log.samples]:
            self.recorder.sample(iteration, row)
        summary = _summary(rows, self.judge)
        self._remember(iteration, summary[f"eval/{self.judge}_mean"])
        return summary

    def _row(self, iteration: int, rollout: Rollout, gold: float | None) -> dict[str, Any]:
        row = {
            "step": iteration,
            "prompt_id": rollout.prompt.id,
            "k": 0,
            "prompt": self.chat.text(rollout.prompt.content),
            "response": rollout.response,
            "reward": rollout.reward,
            "length": len(rollout.response_ids),
            "finish_reason": rollout.finish_reason,
        }
        if len(rollout.turns) > 1:
            row["turns"] = [{"author": turn.author, "text": turn.text} for turn in rollout.turns]
        if len(rollout.reward_parts) > 1:
            row["reward_parts"] = rollout.reward_parts
        return row if gold is None else row | {"gold": gold}

    def _logprobs(self, batch: Experience) -> list[dict[str, float]]:
        """Sums over the response, in nats; ``kl`` is the sampled estimate of the KL to the reference."""
        [policy] = self.runtime.policy.read(batch, "logprobs")
        [reference] = self.runtime.reference.read(batch, "logprobs")
        sums = [torch.where(batch.response_mask, x, 0.0).sum(-1).tolist() for x in (policy, reference)]
        return [{"logprob": p, "ref_logprob": r, "kl": p - r} for p, r in zip(*sums, strict=True)]


def _summary(rows: Sequence[dict[str, Any]], judge: str) -> dict[str, float]:
    def mean(name: str) -> float:
        values = [row[name] for row in rows if row.get(name) is not None]
        return statistics.fmean(values) if values else float("nan")

    names = {"eval/reward_mean": "reward", "eval/kl": "kl", "eval/length_mean": "length"}
    if judge == "gold":
        names["eval/gold_mean"] = "gold"
    return {metric: mean(field) for metric, field in names.items()}
