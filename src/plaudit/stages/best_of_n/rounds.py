"""Rejection-sampling fine-tuning: sample, keep the best, imitate them, and again (RAFT, arXiv:2304.06767; Llama 2)."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import fmean

from plaudit.algorithms.sft import SFT
from plaudit.backends.local.learner import LocalLearner, LocalScorer
from plaudit.backends.local.models import load_reference
from plaudit.data.chat import Encoded
from plaudit.data.collate import collate_demonstrations, encoded_rollout
from plaudit.data.split import epoch_order, split_by_prompt
from plaudit.errors import ConfigError
from plaudit.experience import Experience
from plaudit.functional.best_of_n import kl_bound
from plaudit.jobs.best_of_n import BestOfNJob
from plaudit.jobs.registry import command_of
from plaudit.records import Prompt, Rollout, to_json
from plaudit.rollouts.collect import describe
from plaudit.runs.directory import announce, finished, open_run
from plaudit.runs.files import Lines, Row, read_lines
from plaudit.runs.keeper import Keeper
from plaudit.runs.recorder import Recorder
from plaudit.runtime import Learner, Runtime, TokenPrompt
from plaudit.stages.best_of_n.parts import (
    Parts,
    build,
    metrics_of,
    preferences_of,
    sampled,
    stop_if_asked,
)
from plaudit.stages.online.evaluation import Evaluator
from plaudit.stages.online.prompts import load_prompts
from plaudit.stages.online.rl import Given
from plaudit.training.offline import OfflineLoop


def run_rejection(
    job: BestOfNJob, sources: Mapping[str, str] | None = None, *, reward: Given = None,
    prompts: Sequence[Prompt] | None = None, gold: Given = None,
) -> Path:  # fmt: skip
    """Fine-tune in ``job.rounds`` rounds and save; returns the run directory.

    kept.jsonl has what each round kept, pairs.jsonl the best against the worst responses as preferences. A checkpoint
    stands at the end of a round; a round that was interrupted is done again, and comes out the same.

    Raises:
        ConfigError: nothing was good enough to be kept.
        DataError, ModelError, RewardError, TrainingError: with the cure.
        Stopped: on SIGTERM or Ctrl-C.
    """
    if done := finished(job):
        return done
    records = load_prompts(job.dataset, job.data.limit, prompts)
    parts = build(job, records, reward, gold)
    train, heldout = split_by_prompt(records, max(job.data.eval_fraction, 1e-9), job.seed)
    tokenised, held = parts.reader.tokenise(train), parts.reader.tokenise(heldout[: job.eval_prompts])
    if not tokenised or not held:
        raise parts.reader.nothing_left()
    announce({"prompts": f"{len(tokenised)} to train, {len(held)} held out", "length": parts.reader.report})
    with (
        open_run(job, sources, records=[p.prompt for p in (*tokenised, *held)]) as run,
        Recorder(
            run, command=command_of(type(job)).name, log=job.log, total=job.rounds, unit="round"
        ) as recorder,
    ):
        rejection = Rejection(job, parts, tokenised, held, recorder)
        rejection.run()
        rejection.learner.export(run / "model", parts.tokenizer)
        recorder.event("saved", path=str(run / "model"))
    return run


class Rejection:
    """The rounds of one run."""

    def __init__(
        self, job: BestOfNJob, parts: Parts, train: Sequence[TokenPrompt], heldout: Sequence[TokenPrompt],
        recorder: Recorder,
    ) -> None:  # fmt: skip
        self.job, self.parts, self.train, self.recorder = job, parts, train, recorder
        learner = LocalLearner(parts.policy, job.optimizer, job.compute, total_steps=1)
        reference = LocalScorer(load_reference(parts.policy), job.compute)
        runtime = Runtime(parts.generator, learner, reference, parts.reward, None, parts.gold)
        self.base = learner.weights().tensors()
        self.evaluator = Evaluator(recorder.run_dir, runtime, heldout, job, parts.chat, recorder)
        self.learner: Learner = learner
        self.keeper = Keeper(
            recorder.run_dir, job.checkpoint, {"policy": learner}, recorder, self.evaluator.weights
        )

    def run(self) -> None:
        """All rounds that are left, each with a line of metrics, an evaluation and a checkpoint."""
        start, found = self.keeper.restore()
        if start:
            self.evaluator.resume(found["evaluation"])
        else:
            self.evaluator.before()
        directory = self.recorder.run_dir
        with (
            contextlib.closing(Lines(directory / "kept.jsonl")) as kept,
            contextlib.closing(Lines(directory / "pairs.jsonl")) as pairs,
            self.keeper.watch(),
        ):
            for file in (kept, pairs):
                file.keep(lambda row: row["round"] <= start)
            for number in range(start + 1, self.job.rounds + 1):
                metrics = self._round(number, kept, pairs) | self.evaluator.after(number)
                self.recorder.metrics(number, metrics)
                self.keeper.after(
                    number, lambda: {"evaluation": self.evaluator.state()}, last=number == self.job.rounds
                )
        self.evaluator.finish()

    def _round(self, number: int, kept: Lines, pairs: Lines) -> dict[str, float]:
        """Sample, keep, imitate; the metrics of the round."""
        job, algorithm = self.job, self.job.algorithm
        self.parts.generator.publish(self.learner.weights(), number - 1)
        prompts = self._prompts(number)
        groups = [
            group
            for some in sampled(self.parts, prompts, algorithm.group_size, job, number - 1, self.keeper)
            for group in some
        ]
        earlier = [_from_row(row) for row in read_lines(kept.path)]
        new = [rollout for group in groups for rollout in algorithm.keep(group)]
        pool = algorithm.pool(earlier, new)
        if not pool:
            raise ConfigError(
                f"round {number} kept none of {sum(map(len, groups))} responses",
                where="[algorithm] threshold, margin, max_kept_length",
                cure="lower --threshold or --margin, raise --max-kept-length, or sample more with --group-size",
            )
        for pair in preferences_of(groups, algorithm):
            pairs.add({"round": number} | pair)
        for rollout in new:
            kept.add({"round": number} | _to_row(rollout))
        rollouts = [rollout for group in groups for rollout in group]
        return (
            describe(rollouts)
            | metrics_of(groups, algorithm)
            | {
                "rs/accept_rate": len(new) / len(rollouts),
                "rs/kept": float(len(pool)),
                "rs/kl_bound": kl_bound(algorithm.group_size),
            }
            | self._imitate(number, pool)
        )

    def _prompts(self, number: int) -> list[TokenPrompt]:
        """The prompts of a round: all, or the next ones of an endless sequence of shuffled passes."""
        count = self.job.prompts_per_round or len(self.train)
        if count >= len(self.train):
            return list(self.train)
        order = [divmod(place, len(self.train)) for place in range((number - 1) * count, number * count)]
        return [self.train[epoch_order(len(self.train), self.job.seed, epoch)[at]] for epoch, at in order]

    def _imitate(self, number: int, pool: Sequence[Rollout]) -> dict[str, float]:
        """Fine-tune on the pool with a fresh optimizer; means of the metrics over its steps."""
        job = self.job
        learner = self.learner
        learner.plan(math.ceil(len(pool) / job.batch_size) * job.epochs, afresh=True)
        if job.algorithm.start_from == "base":
            learner.put_back(self.base)
        history: list[dict[str, float]] = []

        def on_step(step: int, metrics: dict[str, float]) -> None:
            history.append(metrics)
            stop_if_asked(self.keeper)

        collate = partial(_collate, [encoded_rollout(r) for r in pool], self.parts.tokenizer.pad_token_id)
        OfflineLoop(
            SFT(), learner, collate, len(pool), job.batch_size, job.epochs, job.seed + number, on_step
        ).run()
        names = ("loss", "lr", "grad_norm", "policy/entropy", "steps_skipped", "throughput/tokens_per_second")
        means = {name: fmean(step[name] for step in history) for name in names}
        return means | {"time/update": sum(step["time/update"] for step in history)}


def _collate(rows: Sequence[Encoded], pad_id: int, indices: Sequence[int]) -> Experience:
    return collate_demonstrations([rows[i] for i in indices], pad_id)


def _to_row(rollout: Rollout) -> Row:
    """A kept response as people and the next round read it."""
    return {
        "id": rollout.prompt.id,
        "prompt": to_json(rollout.prompt.content),
        "response": rollout.response,
        "reward": rollout.reward,
        "finish_reason": rollout.finish_reason,
        "prompt_ids": list(rollout.prompt_ids),
        "response_ids": list(rollout.response_ids),
    }


def _from_row(row: Row) -> Rollout:
    """Inverse of `_to_row`, as far as a round needs it: the tokens are the record, the prompt only a name."""
    rollout = Rollout.single(
        Prompt(row["id"], ""),
        0,
        row["prompt_ids"],
        row["response_ids"],
        (),
        row["response"],
        row["finish_reason"],
    )
    return replace(rollout, reward=row["reward"])
