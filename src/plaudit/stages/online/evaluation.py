"""Held-out evaluation during RL: the policy against its start, on the same prompts; which weights are handed out."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from plaudit.data.chat import ChatFormat
from plaudit.data.reading.transcripts import prompt_key
from plaudit.errors import RewardError, Stopped
from plaudit.evaluation.alarms.evaluations import Seen
from plaudit.evaluation.choice import ENOUGH, HINTED, Means, clearly, difference, divide, means_of
from plaudit.runs.best import BestWeights
from plaudit.runs.files import EVALUATION, Lines, read_lines
from plaudit.runs.recorder import Recorder
from plaudit.runtime import Runtime, TokenPrompt
from plaudit.stages.online.sampler import EvaluatedJob, Purpose, Sampler
from plaudit.statistics.intervals import Estimate

AUTO_EVALUATIONS, LEAST_EVALUATIONS = 8, 2
BUDGET = 0.6
"""Responses of all evaluations for one of training, at most. A response that is only sampled and scored takes about two
fifths of the time of one that is learned from as well, so evaluations take about a fifth of a run."""
FAILED = 0.2
"""Share of held-out responses without a gold value from which on it is an alarm."""
WATCHED, JUDGED = 2, 4
"""Responses to each prompt: at every evaluation, and where weights are compared or judged."""


def interval(iterations: int, learned_from: int, watched: int, judged: int) -> int:
    """Steps between evaluations: eight in a run, or fewer where they would take more than a fifth of its time.

    Args:
        iterations: of the run.
        learned_from: responses of the whole run that are learned from.
        watched: responses of one evaluation.
        judged: responses that judge start and end, which are sampled in any case.

    >>> interval(100, 3200, 64, 256), interval(10, 320, 64, 256), interval(40, 1280, 64, 256)
    (12, 5, 5)
    """
    allowed = (BUDGET * learned_from - judged) / watched
    return max(1, iterations // min(max(int(allowed), LEAST_EVALUATIONS), AUTO_EVALUATIONS))


class Evaluator:
    """Writes evaluation.jsonl and samples.jsonl, chooses the weights that are handed out, and has them judged.

    The held-out prompts are divided: by some of them weights are chosen, the others are sampled at the start and at
    the end only, and judge the chosen weights. A checkpoint keeps the best weights and the figures (`state`), so that a
    resumed run knows where it started and what was best.

    Attributes:
        is_calm: set where an alarm is acted on and there is no gold reward; told all evaluations, the one of now
            included. Then the weights of the newest one at which it was calm are kept, not the best ones: a reward that
            is exploited calls the worst weights best.
        gone: steps whose evaluations were forgotten, because the policy went back behind them.
        went_back: the step at which it did so last.
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
        self.runtime, self.job = runtime, job
        self.is_calm: Callable[[Mapping[int, Seen]], bool] | None = None
        self.sampler = Sampler(runtime, job, chat, max_staleness)
        self.selection, self.final = divide(prompts, lambda prompt: prompt_key(prompt.prompt.content))
        self.recorder = recorder
        self.path = run / EVALUATION
        auto = interval(job.iterations, self._learned_from, self._watched, self._judged)
        self.every = auto if job.eval_every == "auto" else job.eval_every
        self.judge = "gold" if runtime.gold else "reward"
        self.start = self.last = float("nan")
        self.seen: dict[int, Seen] = {}
        self.gone: list[int] = []
        self.went_back = -1
        self._told_of_gold = False
        self.best, self.weights = float("-inf"), BestWeights(run)

    @property
    def _watched(self) -> int:
        """Responses of one evaluation."""
        return WATCHED * len(self.selection)

    @property
    def _judged(self) -> int:
        """Responses that judge start and end."""
        return 2 * JUDGED * len(self.final)

    @property
    def _learned_from(self) -> int:
        return self.job.iterations * self.job.responses_per_iteration

    def _tell_of_cost(self) -> None:
        """Where a run is so short that evaluating it takes more than a fifth of its time."""
        times = 1 + math.ceil(self.job.iterations / self.every) if self.every else 2
        sampled = self._judged + times * self._watched
        if self._learned_from and sampled > BUDGET * self._learned_from:
            message = (
                f"evaluations sample {sampled} responses to held-out prompts, training {self._learned_from}: they may "
                "take more than a fifth of the time, and less with fewer --eval-prompts or a larger --eval-every"
            )
            self.recorder.event("caution", step=0, message=message)

    def _tell_of_few(self) -> None:
        """Where so few prompts are held out that nothing found on them can be told from chance."""
        if min(len(self.selection), len(self.final)) < ENOUGH:
            message = (
                f"{len(self.selection)} held-out prompts choose the weights and {len(self.final)} judge them. With "
                f"fewer than {ENOUGH} no difference is told from chance: no earlier weights are put back, and nothing "
                f"is found by comparing evaluations. Give --eval-prompts {2 * ENOUGH} or more, and as many prompts"
            )
            self.recorder.event("caution", step=0, message=message)

    def remember_start(self) -> None:
        """Keep the weights as they are now, before a checkpoint is restored: those of the start."""
        if self.selection:
            self.weights.keep_start(self.runtime.policy.weights().tensors())

    def before(self) -> None:
        """Evaluate the starting policy, on the prompts that are kept for the end too."""
        self._tell_of_cost()
        self._tell_of_few()
        self._rows(self.final, JUDGED, 0, "final")
        self.recorder.start(self.evaluate(0))

    def after(self, iteration: int) -> dict[str, float]:
        """Evaluate if it is time; metrics named ``eval/...``."""
        due = self.every > 0 and iteration % self.every == 0
        if not due and iteration != self.job.iterations:
            return {}
        began = time.perf_counter()
        return self.evaluate(iteration) | {"time/evaluate": time.perf_counter() - began}

    def evaluate(self, iteration: int) -> dict[str, float]:
        """Sample the prompts that weights are chosen by, score, and write one row a response."""
        rows = self._rows(self.selection, WATCHED, iteration, "selection")
        for row in [row for row in rows if row["k"] == 0][: self.job.log.samples]:
            self.recorder.sample(iteration, row)
        self._see(iteration, rows)
        summary = _summary(rows, self.judge)
        self._remember(iteration, summary[f"eval/{self.judge}_mean"])
        return summary

    def _rows(self, prompts: Sequence[TokenPrompt], n: int, step: int, purpose: Purpose) -> list[dict[str, Any]]:
        """Responses with their scores, written; and where the gold reward failed on many of them, an alarm, once."""
        rows = self.sampler.rows(prompts, n, step, purpose)
        self._add(rows)
        failed = self.sampler.gold_failed
        if len(failed) > FAILED * len(rows) and not self._told_of_gold:
            self._told_of_gold = True
            message = (
                f"the gold reward failed on {len(failed)} of {len(rows)} held-out responses of this evaluation: "
                f"{failed[0]}. What is said by the gold reward is about the others, and nothing where there are none"
            )
            self.recorder.alarm(step, "rewards_fail", message)
        return rows

    def _see(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Keep the means of each prompt, for what compares evaluations while the run goes."""
        self.seen[step] = Seen.of(rows)

    def go_back(self, step: int) -> int:
        """Put the best weights into the policy and forget the evaluations after them; the step that they are of.

        Args:
            step: iterations that there have been; the next responses are drawn as if the weights were of it.
        """
        best = self.weights.step
        self._put(self.weights.tensors(), step)
        self.went_back = step
        self.gone += [at for at in self.seen if at > best]
        self.seen = {at: one for at, one in self.seen.items() if at <= best}
        return best

    def finish(
        self, step: int, ended: str = "finished", *, alarmed: bool = False, between: Callable[[], None] | None = None
    ) -> None:
        """Choose the weights, put them into the policy, and judge them on the prompts kept for the end.

        Args:
            step: iterations that the policy has had.
            ended: how training ended. After an interruption nothing is sampled: somebody waits for the end.
            alarmed: an alarm was acted on. Without a gold reward the weights before it are handed out.
            between: called while responses are drawn. Where it raises `Stopped` the rest is left out, as after an
                interruption.
        """
        kept = self._before_alarm(step) if alarmed and self.is_calm else None
        self.sampler.between = between
        try:
            if ended != "interrupted":
                kept = self._chosen(step, alarmed) if kept is None else kept
                if kept:  # the start has been sampled at the start
                    self._rows(self.final, JUDGED, kept, "final")
        except (RewardError, Stopped) as error:  # what was measured before is all there is
            self.recorder.event("not judged", step=step if kept is None else kept, why=error.what)
        if kept is None:  # once weights are chosen they stay: the policy has them already
            kept = self._interim(step)
        self.weights.forget_start()
        self.recorder.summary({"model_step": kept})

    def _chosen(self, step: int, alarmed: bool) -> int:
        """The best step, if the same prompts sampled anew say that it is better than the last one; else the last. And
        the start, if they say that it is better than either: the best of many evaluations may only have been lucky.

        After an alarm that was acted on the last weights have no such advantage: those that do better anew are chosen.
        """
        best = self.weights.step
        hinted = alarmed or self._may_be_better(best, step)
        if not self.weights.file or best == step or not hinted:
            self.recorder.summary({"peak_step": step})
            return self._or_start(step, None)
        last = self._again(step)
        latest = self.runtime.policy.weights().tensors()
        chosen, means = step, last
        self._put(self.weights.tensors(), best)
        try:
            peak = self._again(best)
            gap = difference(last, peak)
            if clearly(gap) or (alarmed and gap.value > 0):
                chosen, means = best, peak
                self._tell(step, best, fmean(last.values()), fmean(peak.values()), gap, "both sampled anew")
            elif best:
                self._rows(self.final, JUDGED, best, "final")  # what the peak was, for the page
        finally:
            if chosen == step:
                self._put(latest, step)
        self.recorder.summary(
            {"peak_step": best, "peak_over_end": gap.value, "peak_over_end_ci": list(gap.interval)}
        )
        return self._or_start(chosen, means)

    def _or_start(self, chosen: int, means: Means | None) -> int:
        """The start, if the same prompts sampled anew say that it is better than the chosen weights; else these.

        Args:
            chosen: the step of the weights that the policy has.
            means: of them, sampled anew; None: they were not.
        """
        if not chosen or not self._may_be_better(0, chosen, means):
            return chosen
        means = self._again(chosen) if means is None else means
        kept, to = self.runtime.policy.weights().tensors(), chosen
        self._put(self.weights.start(), 0)
        try:
            start = self._again(0)
            gap = difference(means, start)
            if clearly(gap):
                to = 0
                self._tell(chosen, 0, fmean(means.values()), fmean(start.values()), gap, "both sampled anew")
                self.recorder.summary({"peak_step": 0})
        finally:
            if to == chosen:
                self._put(kept, chosen)
        return to

    def _may_be_better(self, best: int, step: int, means: Means | None = None) -> bool:
        """Whether it is worth to sample both anew: what was seen of the best step flatters it, and may say no more.

        Args:
            means: of ``step``, where it was sampled anew already.
        """
        if best not in self.seen or (means is None and step not in self.seen):
            return True  # training ended between two evaluations
        one = getattr(self.seen[step], self.judge) if means is None else means
        gap = difference(one, getattr(self.seen[best], self.judge), HINTED)
        return not gap.low <= 0

    def _before_alarm(self, step: int) -> int:
        """The weights of the newest evaluation at which nothing was suspicious. The reward itself is not asked."""
        kept = self.weights.step
        if kept != step:
            self._put(self.weights.tensors(), kept)
            why = "its reward seemed to be exploited after that, and there is no gold reward that would know better"
            self.recorder.event("rolled back", step=kept, to=kept, why=why)
        return kept

    def _interim(self, step: int) -> int:
        """The best step, if what was evaluated says that it is better than the last evaluation; else the last."""
        best, newest = self.weights.step, max(self.seen, default=0)
        if self.went_back == step:
            return best  # the policy has had no iteration since
        if not self.weights.file or best in (step, newest) or best not in self.seen:
            return step
        last, peak = (getattr(self.seen[at], self.judge) for at in (newest, best))
        gap = difference(last, peak)
        if not clearly(gap):
            return step
        self._put(self.weights.tensors(), best)
        self._tell(newest, best, fmean(last.values()), fmean(peak.values()), gap, "as they were evaluated")
        return best

    def _again(self, step: int) -> dict[str, float]:
        """The judge's mean of each prompt that weights are chosen by, from new samples of the policy as it is."""
        rows = self._rows(self.selection, JUDGED, step, "again")
        return means_of(rows, self.judge)

    def _put(self, tensors: dict[str, torch.Tensor], step: int) -> None:
        self.runtime.policy.put_back(tensors)
        self.runtime.generator.publish(self.runtime.policy.weights(), step)

    def _tell(self, step: int, best: int, end: float, peak: float, gap: Estimate, how: str) -> None:
        """The event of weights that were put back, with the figures that it rests on."""
        where = "at its start" if best == 0 else f"after iteration {best}"
        # After an alarm the weights before it are handed out where they only seem better: no loss was seen then.
        lost = "a loss of" if clearly(gap) else "no clear difference,"
        why = (
            f"the held-out {self.judge} was {peak:.3f} {where} and {end:.3f} after iteration {step}, {how}: {lost} "
            f"{gap.value:.3f}, 95 % interval {gap.low:.3f} to {gap.high:.3f}, over {gap.n} prompts"
        )
        self.recorder.event("rolled back", step=best, to=best, why=why)
        self.recorder.summary({"end_selection": end, "peak_selection": peak, "end_step": step})
        self.recorder.summary({"peak_over_end": gap.value, "peak_over_end_ci": list(gap.interval)})

    def state(self) -> dict[str, Any]:
        """Held-out means at the start, at the last evaluation, and at the best one; evaluations that were forgotten."""
        figures = {"start": self.start, "last": self.last, "best": self.best}
        return figures | {"gone": self.gone, "told_of_gold": self._told_of_gold}

    def resume(self, state: dict[str, Any]) -> None:
        """Inverse of `state`."""
        self.start, self.last = state["start"], state["last"]
        self.recorder.start({f"eval/{self.judge}_mean": self.start})
        self.gone = list(state.get("gone", []))
        self._told_of_gold = bool(state.get("told_of_gold", False))
        watched = [row for row in read_lines(self.path) if row.get("set") == "selection"] if self.path.is_file() else []
        for step in sorted({row["step"] for row in watched} - set(self.gone)):
            self._see(step, [row for row in watched if row["step"] == step])
        # Without the file of the best weights there is nothing to put back, so the next evaluation is the best.
        self.best = state["best"] if self.weights.file else float("-inf")

    def _remember(self, step: int, value: float) -> None:
        if step == 0:
            self.start = value
        self.last = value
        # Where the judge failed at the start, there are at least those weights to go back to.
        first = not self.weights.file and math.isnan(value)
        if first or (self.is_calm(self.seen) if self.is_calm else value > self.best):
            self.best = self.best if first else value
            self.weights.keep(step, self.runtime.policy.weights().tensors())

    def _add(self, rows: Sequence[dict[str, Any]]) -> None:
        with contextlib.closing(Lines(self.path)) as lines:
            for row in rows:
                lines.add(row)


def _summary(rows: Sequence[dict[str, Any]], judge: str) -> dict[str, float]:
    def mean(name: str) -> float:
        values = [row[name] for row in rows if row.get(name) is not None]
        return fmean(values) if values else float("nan")

    names = {"eval/reward_mean": "reward", "eval/kl": "kl", "eval/length_mean": "length"}
    if judge == "gold":
        names["eval/gold_mean"] = "gold"
    return {metric: mean(field) for metric, field in names.items()}
