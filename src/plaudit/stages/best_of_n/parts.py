"""What the two ways of best-of-n share: the models, and sampling some prompts at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from plaudit import backends
from plaudit.algorithms.best_of_n import BestOfN
from plaudit.data.reading.rows import Places
from plaudit.data.reading.transcripts import plain_text
from plaudit.errors import Stopped
from plaudit.jobs.best_of_n import BestOfNJob
from plaudit.records import Content, Prompt, Rollout, to_json
from plaudit.rewards.build import Given
from plaudit.rollouts.collect import scored
from plaudit.rollouts.endpoint import Endpoint
from plaudit.runs.files import Row
from plaudit.runs.keeper import Keeper
from plaudit.runtime import Generator, OnlineRuntime, Reward, Runtime, TokenPrompt
from plaudit.stages.doctor.memory import check_memory
from plaudit.stages.doctor.template import tell_template
from plaudit.stages.online.prompts import PromptReader, columns_of
from plaudit.stages.said import Said
from plaudit.training.online import refuse_stale

AT_ONCE = 32
"""Prompts that are answered between two looks at whether the run was asked to stop."""


def open_sampling(
    job: BestOfNJob, records: Sequence[Prompt], places: Places, said: Said, *, reward: Given, gold: Given
) -> tuple[OnlineRuntime, PromptReader]:
    """The model and the judges, and what turns prompts into tokens for it."""
    check_memory(job, records, said)
    opened = backends.open(job, reward=reward, gold=gold, columns=columns_of(records))
    tell_template(opened.format, said)
    return opened, PromptReader(job.data, job.sampling, opened.format.chat, places)


class Answering(NamedTuple):
    """What answers prompts and what judges the answers: the part of a run that best-of-n without rounds needs."""

    generator: Generator
    reward: Reward
    gold: Reward | None
    text: Callable[[Content], str]
    """A prompt as it is shown."""
    endpoint: Endpoint | None = None
    """The generator, where it is one."""


def open_endpoint(
    job: BestOfNJob, records: Sequence[Prompt], said: Said, *, reward: Given, gold: Given
) -> tuple[Answering, list[TokenPrompt]]:
    """A policy that is asked over HTTP, with the judges of a job; and its prompts, whose tokens nobody knows here."""
    endpoint = Endpoint(job.policy)
    judge, second, notes = backends.open_rewards(job, reward=reward, gold=gold, columns=columns_of(records))
    what = f"{job.policy} answers over HTTP and tells no tokens: lengths are those of texts, in bytes of UTF-8"
    said.note([*notes, what])
    return Answering(endpoint, judge, second, plain_text, endpoint), [TokenPrompt(one, ()) for one in records]


def sampled(
    machines: Runtime | Answering, prompts: Sequence[TokenPrompt], n: int, job: BestOfNJob, iteration: int,
    keeper: Keeper,
) -> Iterator[list[list[Rollout]]]:  # fmt: skip
    """Scored responses, n to a prompt, some prompts at a time.

    Raises:
        Stopped: the run was asked to stop.
        TrainingError: the generator has weights of an earlier round.
    """
    for first in range(0, len(prompts), AT_ONCE):
        stop_if_asked(keeper)
        some = prompts[first : first + AT_ONCE]
        rollouts = machines.generator.generate(some, n, job.sampling, seed=job.seed, iteration=iteration)
        refuse_stale(rollouts, iteration, 0)
        rollouts = scored(machines.reward, rollouts)
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
