"""What the two ways of best-of-n share: the models, and sampling some prompts at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from plaudit.algorithms.best_of_n import BestOfN
from plaudit.backends.local.models import load_policy
from plaudit.backends.local.precision import product_dtype, resolve_device
from plaudit.data.chat import ChatFormat
from plaudit.errors import Stopped
from plaudit.generation.native import NativeGenerator
from plaudit.jobs.best_of_n import BestOfNJob
from plaudit.models.policy import Policy
from plaudit.records import Prompt, Rollout, to_json
from plaudit.rollouts.collect import scored
from plaudit.runs.files import Row
from plaudit.runs.keeper import Keeper
from plaudit.runtime import Reward, TokenPrompt
from plaudit.stages.online.prompts import PromptReader
from plaudit.stages.online.rl import Given, columns_of, open_reward

AT_ONCE = 32
"""Prompts that are answered between two looks at whether the run was asked to stop."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What a run is made of."""

    tokenizer: Any
    chat: ChatFormat
    policy: Policy
    generator: NativeGenerator
    reward: Reward
    gold: Reward | None
    reader: PromptReader


def build(job: BestOfNJob, records: Sequence[Prompt], reward: Given, gold: Given) -> Parts:
    """Load the model and the judges."""
    compute = job.compute
    tokenizer, policy = load_policy(
        job.policy, job.lora, compute, seed=job.seed, temperature=job.sampling.temperature
    )
    device = resolve_device(compute.device)
    policy.to(device)
    chat = ChatFormat(tokenizer, job.data.chat_template)
    columns = columns_of(records)
    judge = open_reward(reward or job.reward, tokenizer, compute, "reward", columns)
    second = open_reward(gold or job.gold, tokenizer, compute, "gold", columns) if gold or job.gold else None
    precision, graphs = product_dtype(compute, device), compute.cuda_graphs
    generator = NativeGenerator(policy.lm, tokenizer, chat.end_ids, precision=precision, cuda_graphs=graphs)
    reader = PromptReader(job, job.sampling, chat, job.dataset)
    return Parts(tokenizer, chat, policy, generator, judge, second, reader)


def sampled(
    parts: Parts, prompts: Sequence[TokenPrompt], n: int, job: BestOfNJob, iteration: int, keeper: Keeper
) -> Iterator[list[list[Rollout]]]:
    """Scored responses, n to a prompt, some prompts at a time.

    Raises:
        Stopped: the run was asked to stop.
    """
    for first in range(0, len(prompts), AT_ONCE):
        stop_if_asked(keeper)
        some = prompts[first : first + AT_ONCE]
        rollouts = parts.generator.generate(some, n, job.sampling, seed=job.seed, iteration=iteration)
        rollouts = scored(parts.reward, rollouts)
        yield [rollouts[i * n : (i + 1) * n] for i in range(len(some))]


def stop_if_asked(keeper: Keeper) -> None:
    """Raise `Stopped` if SIGTERM or Ctrl-C came: what is done is on disk already."""
    if keeper.stop_requested:
        run = keeper.directory.parent
        raise Stopped(
            "stopped as asked", where=str(run), cure=f"go on with the same command and --out {run} --resume"
        )


def preferences_of(groups: Sequence[Sequence[Rollout]], algorithm: BestOfN) -> list[Row]:
    """The best against the worst response to each prompt, as preferences; none where they are worth the same."""
    rows = []
    for ranked in (r for group in groups if (r := algorithm.ranked(group))):
        best, worst = ranked[0], ranked[-1]
        margin = (algorithm.score(best) or 0.0) - (algorithm.score(worst) or 0.0)
        if margin > 0 and best.response.strip() != worst.response.strip():
            texts = {"chosen": best.response, "rejected": worst.response}
            rows.append(
                {"id": best.prompt.id, "prompt": to_json(best.prompt.content), **texts, "margin": margin}
            )
    return rows


def metrics_of(groups: Sequence[Sequence[Rollout]], algorithm: BestOfN) -> dict[str, float]:
    """What choosing is worth, over some prompts."""
    ranked = [r for group in groups if (r := algorithm.ranked(group))]
    scores = [[algorithm.score(r) or 0.0 for r in group] for group in ranked]
    lengths = [[len(r.response_ids) for r in group] for group in ranked]
    count = max(len(ranked), 1)
    mean = sum(sum(s) / len(s) for s in scores) / count
    best = sum(s[0] for s in scores) / count
    return {
        "rs/mean": mean,
        "rs/best_mean": best,
        "rs/gain": best - mean,
        "rs/length_gain": sum(n[0] - sum(n) / len(n) for n in lengths) / count,
    }
