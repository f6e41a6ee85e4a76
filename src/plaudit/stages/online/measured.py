"""What an evaluation after the run measures of a policy and its start, side by side: rows for its files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from plaudit.data.collate import collate_demonstrations, collate_rollouts
from plaudit.data.reading.transcripts import plain_text
from plaudit.evaluation.responses.refusals import Request
from plaudit.evaluation.responses.winning import START, TRAINED
from plaudit.experience import Experience
from plaudit.records import Comparison, Rollout
from plaudit.rewards.combine import check_rewards
from plaudit.rollouts.collect import judged
from plaudit.runs.files import Row
from plaudit.runtime import Generator, MeasuringRuntime, Reward, Scorer, SignalName, TokenPrompt
from plaudit.stages.encode import Rows, prompt_id
from plaudit.stages.online.sampler import EvaluatedJob, Sampler, draw_of
from plaudit.statistics.clustered import outcomes
from plaudit.statistics.resampling import uniform

BATCH = 64
"""Texts that are read together."""


class Measurement:
    """Responses of both sides to the same prompts, and what follows from them.

    Args:
        runtime: both sides.
        job: of the run; both sides are sampled as it says.
        step: the iteration whose weights the trained side has, at least 1.
        replying: puts an environment around a generator where the prompts are answered in several turns.

    Attributes:
        rollouts: what `respond` drew: of the start, then of the trained policy, in the same order.
    """

    def __init__(
        self, runtime: MeasuringRuntime, job: EvaluatedJob, step: int,
        replying: Callable[[Generator], Generator] = lambda generator: generator,
    ) -> None:  # fmt: skip
        self.runtime, self.job, self.step, self.replying = runtime, job, step, replying
        self.rollouts: tuple[list[Rollout], list[Rollout]] = ([], [])
        for side, version in ((runtime.start, 0), (runtime.trained, step)):
            side.generator.publish(side.policy.weights(), version)

    def respond(self, prompts: Sequence[TokenPrompt], n: int) -> list[Row]:
        """``n`` responses of each side to each prompt: rows of evaluation.jsonl.

        Beside the columns of every evaluation, those of the trained policy have ``full_kl``, the KL to the start along
        the sampled prefixes summed over positions, and those of the start ``trained_logprob``, in nats. Without a
        reward there is no column "reward".
        """
        chat, rows = self.runtime.format.chat, []
        sides = ((self.runtime.start, 0), (self.runtime.trained, self.step))
        drawn = []
        for side, step in sides:
            sampler = Sampler(replace(side, generator=self.replying(side.generator)), self.job, chat)
            draw = sampler.drawn if self.runtime.is_scored else sampler.unscored
            drawn.append(draw(prompts, n, step, "anew"))
            rows.append(sampler.rows_of(drawn[-1], n, step, "anew"))
        self.rollouts = (drawn[0], drawn[1])
        crossed = _sums(self.runtime.trained.policy, drawn[0], "logprobs")
        assert self.runtime.trained.full_kl is not None, "a backend gives it for measuring"
        exact = _sums(self.runtime.trained.full_kl, drawn[1], "full_kl")
        before = [row | {"trained_logprob": value} for row, value in zip(rows[0], crossed, strict=True)]
        after = [row | {"full_kl": value} for row, value in zip(rows[1], exact, strict=True)]
        left_out = () if self.runtime.is_scored else ("reward",)
        return [
            {name: value for name, value in row.items() if name not in left_out} | {"set": "final"}
            for row in (*before, *after)
        ]

    def compare(self, judge: Reward) -> list[Row]:
        """Rows of judged.jsonl: each response of the trained policy beside one of the start, in both orders.

        The judge is a reward that compares: it is shown groups of two, and the response with the higher value wins.

        Raises:
            RewardError: more than a fifth of the responses could not be judged.
        """
        pairs = list(zip(*self.rollouts, strict=True))
        shown: list[Rollout] = []
        for i, (start, trained) in enumerate(pairs):
            for group, order in ((2 * i, (trained, start)), (2 * i + 1, (start, trained))):
                shown += [replace(each, group_id=group) for each in order]
        results = judged(judge, shown)
        check_rewards(results, aborted=sum(bool(rollout.error) for rollout in shown))
        rows = []
        for i, (start, trained) in enumerate(pairs):
            values = [result.value for result in results[4 * i : 4 * i + 4]]
            row = {
                "prompt_id": trained.prompt.id,
                "first": _outcome(values[0], values[1]),
                "second": _outcome(values[3], values[2]),
                "length": len(trained.response_ids),
                "start_length": len(start.response_ids),
            }
            rows.append(row)
        return rows

    def pairs(self) -> tuple[list[Comparison], int]:
        """For each prompt the first response of each side, for people to compare blind; and how many are the same text.

        The order in which they stand is a function of seed and prompt.
        """
        comparisons: list[Comparison] = []
        seen: set[str] = set()
        same = 0
        for start, trained in zip(*self.rollouts, strict=True):
            prompt = trained.prompt
            if prompt.id in seen:
                continue
            seen.add(prompt.id)
            if start.response == trained.response:
                same += 1
                continue
            sides = [(start.response, START), (trained.response, TRAINED)]
            if uniform(self.job.seed, "order", prompt.id) < 0.5:
                sides.reverse()
            # A byte-level model can say NUL, which no reader of data takes.
            texts = tuple(text.replace("\x00", "\ufffd") for text, _ in sides)
            comparisons.append(Comparison(prompt.id, prompt.content, texts, tuple(name for _, name in sides)))
        return comparisons, same

    def forget(self, texts: Rows, pad_id: int) -> Iterator[Row]:
        """Rows of forgetting.jsonl: the negative log-likelihood of held-out texts by both sides, at temperature 1."""
        encoded = [unit[0] for unit in texts.encoded]
        for first in range(0, len(encoded), BATCH):
            batch = collate_demonstrations(encoded[first : first + BATCH], pad_id)
            sums = [_masked(scorer, batch, "logprobs") for scorer in self.runtime.plain]
            tokens = batch.response_mask.sum(-1).tolist()
            for i, record in enumerate(texts.records[first : first + BATCH]):
                yield {
                    "id": record.id, "prompt_id": prompt_id(record), "tokens": tokens[i],
                    "start": -sums[0][i], "trained": -sums[1][i],
                }  # fmt: skip

    def provoke(self, requests: Sequence[Request], prompts: Sequence[TokenPrompt], n: int) -> list[Row]:
        """Rows of red_team.jsonl: ``n`` responses of each side to each request, and how harmful a judge calls them.

        Args:
            requests: by the ids of ``prompts``.

        Raises:
            RewardError: more than a fifth of the responses could not be judged.
        """
        by_id = {request.id: request for request in requests}
        rows: list[Row] = []
        sides = ((START, self.runtime.start, 0), (TRAINED, self.runtime.trained, self.step))
        for name, side, step in sides:
            rollouts = side.generator.generate(
                prompts, n, self.job.sampling, seed=self.job.seed, iteration=draw_of(step, "anew")
            )
            harm: list[dict[str, Any]] = [{} for _ in rollouts]
            if self.runtime.harm is not None:
                results = judged(self.runtime.harm, rollouts)
                check_rewards(results)
                harm = [{"harm": result.value} for result in results]
            for index, (rollout, value) in enumerate(zip(rollouts, harm, strict=True)):
                request = by_id[rollout.prompt.id]
                row = {
                    "side": name, "prompt_id": request.id, "k": index % n, "kind": request.kind,
                    "harmful": request.harmful, "prompt": plain_text(rollout.prompt.content),
                    "response": rollout.response, "finish_reason": rollout.finish_reason,
                }  # fmt: skip
                rows.append(row | value)
        return rows


def _outcome(own: float | None, other: float | None) -> float | None:
    """1 where the trained policy's response has the higher value, 0 where the lower, 1/2 at a tie."""
    return None if own is None or other is None else float(outcomes([own - other])[0])


def _sums(scorer: Scorer, rollouts: Sequence[Rollout], signal: SignalName) -> list[float]:
    """A signal summed over each response, in nats."""
    return _masked(scorer, collate_rollouts(rollouts, pad_id=0), signal)


def _masked(scorer: Scorer, batch: Experience, signal: SignalName) -> list[float]:
    [values] = scorer.read(batch, signal)
    sums: list[float] = torch.where(batch.response_mask, values, 0.0).sum(-1).tolist()
    return sums
