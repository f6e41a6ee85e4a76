"""Rejection-sampling fine-tuning: sample, keep the best, imitate them, and again (RAFT, arXiv:2304.06767; Llama 2)."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from plaudit.algorithms.sft import SFT
from plaudit.data.chat import Encoded
from plaudit.data.collate import collate_demonstrations, encoded_rollout
from plaudit.data.split import epoch_order, split_by_prompt
from plaudit.errors import ConfigError
from plaudit.evaluation.alarms.hacking import HackingWatch
from plaudit.experience import Experience
from plaudit.functional.best_of_n import kl_bound
from plaudit.jobs.best_of_n import BestOfNJob
from plaudit.records import Prompt, Rollout, to_json
from plaudit.rewards.build import Given
from plaudit.rollouts.collect import describe
from plaudit.runs.directory import announce, finished
from plaudit.runs.files import Lines, Row, read_lines
from plaudit.runs.resume import Inputs
from plaudit.runtime import OnlineRuntime, TokenPrompt
from plaudit.stages.best_of_n.parts import metrics_of, open_sampling, preferences_of, sampled, stop_if_asked
from plaudit.stages.online.evaluation import Evaluator
from plaudit.stages.online.gate import alarms_on_rewards, notes_on_rewards
from plaudit.stages.online.prompts import load_prompts
from plaudit.stages.said import Said
from plaudit.stages.session import HowEnded, OnIteration, Session, open_session
from plaudit.training.offline import OfflineLoop


def run_rejection(
    job: BestOfNJob, sources: Mapping[str, str] | None = None, *, reward: Given = None,
    prompts: Iterable[Any] | None = None, gold: Given = None, on_iteration: OnIteration | None = None,
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
    said = Said()
    records, places = load_prompts(job.dataset, job.data, prompts, said)
    opened, reader = open_sampling(job, records, places, said, reward=reward, gold=gold)
    train, heldout = split_by_prompt(records, max(job.data.eval_fraction, 1e-9), job.seed)
    tokenised, held = reader.tokenise(train), reader.tokenise(heldout[: job.eval_prompts])
    if not tokenised or not held:
        raise reader.nothing_left("train on" if held else "evaluate on")
    announce({"prompts": f"{len(tokenised)} to train, {len(held)} held out"})
    reader.tell(said)
    said.note([*notes_on_rewards(job), *opened.notes, *job.sampling.cautions, *opened.check(tokenised)])
    used = [p.prompt for p in (*tokenised, *held)]
    given = {"prompts": None if prompts is None else records, "reward": reward, "gold": gold}
    with open_session(
        job, sources, total=job.rounds, unit="round", inputs=Inputs(used, given), said=said, on_iteration=on_iteration
    ) as session:
        Rejection(job, opened, tokenised, held, session).run()
    return session.run


class Rejection:
    """The rounds of one run."""

    def __init__(
        self, job: BestOfNJob, opened: OnlineRuntime, train: Sequence[TokenPrompt], heldout: Sequence[TokenPrompt],
        session: Session,
    ) -> None:  # fmt: skip
        self.job, self.train, self.session = job, train, session
        self.machines, self.pad_id = opened.machines, opened.format.pad_id
        self.learner, self.tokenizer = opened.machines.policy, opened.format.tokenizer
        self.base = self.learner.weights().tensors()
        self.evaluator = Evaluator(
            session.run, self.machines, heldout, job, opened.format.chat, session.recorder
        )
        self.hacking = HackingWatch(self.evaluator.judge == "gold")
        session.keep(self.machines.learners, self.evaluator.weights)

    def run(self) -> None:
        """All rounds that are left, each with a line of metrics, an evaluation and a checkpoint."""
        self.evaluator.remember_start()
        start, state = self.session.restore()
        self.machines.generator.publish(self.learner.weights(), start)
        if start:
            self.evaluator.resume(state["evaluation"])
            self.hacking.resume(state.get("hacking", {}))
        else:
            for alarm in alarms_on_rewards(self.job):
                self.session.recorder.alarm(0, alarm.kind, alarm.message)
            self.evaluator.before()
        directory = self.session.run
        with (
            contextlib.closing(Lines(directory / "kept.jsonl")) as kept,
            contextlib.closing(Lines(directory / "pairs.jsonl")) as pairs,
            self.session.training(self._hand_out),
        ):
            for file in (kept, pairs):
                _, moved = file.keep(lambda row: row["round"] <= start, has=("round", int))
                if moved:
                    self.session.recorder.event("caution", step=start, message=moved)
            for number in range(start + 1, self.job.rounds + 1):
                metrics, rollouts = self._round(number, kept, pairs)
                alarms = self.hacking.look(rollouts, metrics)
                evaluated = self.evaluator.after(number)
                self.session.record(number, metrics | evaluated, rollouts)
                alarms += self.hacking.evaluated(self.evaluator.seen) if evaluated else []
                for alarm in alarms:
                    self.session.recorder.alarm(number, alarm.kind, alarm.message, is_early=alarm.is_early)
                self.session.after(number, self._state)

    def _state(self) -> dict[str, Any]:
        return {"evaluation": self.evaluator.state(), "hacking": self.hacking.state()}

    def _hand_out(self, ended: HowEnded) -> None:
        """Choose the weights that are kept, and save them."""
        self.evaluator.finish(self.session.trained, ended, between=self.session.stop_if_asked)
        self.session.save(self.learner, self.tokenizer)

    def _round(self, number: int, kept: Lines, pairs: Lines) -> tuple[dict[str, float], list[Rollout]]:
        """Sample, keep, imitate; the metrics of the round, and all that was sampled in it."""
        job, algorithm = self.job, self.job.algorithm
        prompts = self._prompts(number)
        groups = [
            group
            for some in sampled(
                self.machines, prompts, algorithm.group_size, job, number - 1, self.session.keeper
            )
            for group in some
        ]
        earlier = [_from_row(row) for row in read_lines(kept.path)]
        new = [rollout for group in groups for rollout in algorithm.keep(group)]
        pool = algorithm.pool(earlier, new)
        if not pool:
            raise ConfigError(
                f"round {number} kept none of {sum(map(len, groups))} responses",
                where="[algorithm] threshold",
                cure="lower --threshold, or sample more with --group-size",
            )
        for pair in preferences_of(groups, algorithm):
            pairs.add({"round": number} | pair)
        for rollout in new:
            kept.add({"round": number} | _to_row(rollout))
        rollouts = [rollout for group in groups for rollout in group]
        figures = {
            "rs/accept_rate": len(new) / len(rollouts),
            "rs/kept": float(len(pool)),
            "rs/kl_bound": kl_bound(algorithm.group_size),
        }
        metrics = describe(rollouts) | metrics_of(groups, algorithm) | figures | self._imitate(number, pool)
        return metrics, rollouts

    def _prompts(self, number: int) -> list[TokenPrompt]:
        """The prompts of a round: all, or the next ones of an endless sequence of shuffled passes."""
        count = self.job.prompts_per_iteration or len(self.train)
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
            stop_if_asked(self.session.keeper)

        collate = partial(_collate, [encoded_rollout(r) for r in pool], self.pad_id)
        OfflineLoop(
            SFT(), learner, collate, len(pool), job.batch_size, job.epochs, job.seed + number, on_step,
            self.session.broken,
        ).run()  # fmt: skip
        # A generator with weights of its own would go on drawing from those of the round before.
        self.machines.generator.publish(learner.weights(), number)
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
