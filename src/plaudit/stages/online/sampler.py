"""Responses to held-out prompts, drawn with luck of their own and scored: rows of evaluation.jsonl."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol, get_args

import torch

from plaudit.config.sections import LogSection, SamplingSection
from plaudit.data.chat import ChatFormat
from plaudit.data.collate import collate_rollouts
from plaudit.experience import Experience
from plaudit.records import Rollout
from plaudit.rewards.spoiled import gaps
from plaudit.rollouts.collect import judged, scored
from plaudit.runtime import Runtime, TokenPrompt
from plaudit.training.online import refuse_stale

Purpose = Literal["selection", "final", "again", "anew"]
"""What is sampled: prompts that weights are chosen by, prompts kept for the end, the first ones sampled anew to compare
two steps, and any prompts after the run (`plaudit evaluate policy`)."""
PURPOSES: tuple[Purpose, ...] = get_args(Purpose)


def draw_of(step: int, purpose: Purpose) -> int:
    """The number that stands for the iteration in the seeds of evaluation samples.

    Negative, so that training never has the same; another one for every step and purpose, so that no two evaluations
    share their luck. -1 and -2 were used by the first release.
    """
    return -3 - len(PURPOSES) * step - PURPOSES.index(purpose)


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
    def responses_per_iteration(self) -> int:
        """That are sampled to learn from, as far as the settings say."""
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


class Sampler:
    """Draws responses to held-out prompts and scores them: rows of evaluation.jsonl."""

    def __init__(self, runtime: Runtime, job: EvaluatedJob, chat: ChatFormat, max_staleness: int = 0) -> None:
        self.runtime, self.job, self.chat, self.max_staleness = runtime, job, chat, max_staleness
        self.gold_failed: list[str] = []
        """Of the newest rows: why the gold reward gave no value, once for each response without one."""
        self.between: Callable[[], None] | None = None
        """Called while responses are drawn and before they are scored; what it raises ends the drawing."""

    def rows(self, prompts: Sequence[TokenPrompt], n: int, step: int, purpose: Purpose) -> list[dict[str, Any]]:
        """``n`` responses to each prompt with their scores, as rows of evaluation.jsonl."""
        return self.rows_of(self.drawn(prompts, n, step, purpose), n, step, purpose)

    def drawn(self, prompts: Sequence[TokenPrompt], n: int, step: int, purpose: Purpose) -> list[Rollout]:
        """``n`` responses to each prompt, with their rewards."""
        return scored(self.runtime.reward, self.unscored(prompts, n, step, purpose))

    def unscored(self, prompts: Sequence[TokenPrompt], n: int, step: int, purpose: Purpose) -> list[Rollout]:
        """``n`` responses to each prompt, before any reward has seen them."""
        rollouts = self.runtime.generator.generate(
            prompts, n, self.job.sampling, seed=self.job.seed, iteration=draw_of(step, purpose), progress=self._go_on
        )
        self._go_on()
        # The row says "after this iteration", and by it weights are chosen and judged: they must be those it is of.
        refuse_stale(rollouts, step, self.max_staleness)
        return rollouts

    def rows_of(self, rollouts: list[Rollout], n: int, step: int, purpose: Purpose) -> list[dict[str, Any]]:
        """Rows of evaluation.jsonl for what was `drawn`."""
        draw = draw_of(step, purpose)
        gold: list[dict[str, float | None]] = [{}] * len(rollouts)
        if self.runtime.gold:
            results = judged(self.runtime.gold, rollouts)
            gold = [{"gold": result.value} for result in results]  # None where it failed: that there is one is known
            self.gold_failed = [result.error or "no value" for result in results if result.value is None]
        batch = collate_rollouts(rollouts, pad_id=0)  # never read: every model is given the attention mask
        named = {"set": purpose, "seed": [self.job.seed, draw]}
        rows = [
            named | self._row(step, index % n, rollout) | values | logprobs
            for index, (rollout, values, logprobs) in enumerate(zip(rollouts, gold, self._logprobs(batch), strict=True))
        ]
        if purpose == "selection":  # one response a prompt: it is looked at beside the start, as the run goes
            for row, gap in zip(rows[::n], gaps(self.runtime.reward, rollouts[::n]), strict=True):
                row.update(gap)
        return rows

    def _go_on(self, *progress: int) -> None:
        if self.between is not None:
            self.between()

    def _row(self, step: int, k: int, rollout: Rollout) -> dict[str, Any]:
        row = {
            "step": step,
            "prompt_id": rollout.prompt.id,
            "k": k,
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
        return row

    def _logprobs(self, batch: Experience) -> list[dict[str, float]]:
        """Sums over the response, in nats; ``kl`` is the sampled estimate of the KL to the reference."""
        [policy] = self.runtime.policy.read(batch, "logprobs")
        [reference] = self.runtime.reference.read(batch, "logprobs")
        sums = [torch.where(batch.response_mask, x, 0.0).sum(-1).tolist() for x in (policy, reference)]
        return [{"logprob": p, "ref_logprob": r, "kl": p - r} for p, r in zip(*sums, strict=True)]
