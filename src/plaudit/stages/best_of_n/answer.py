"""Best-of-n at inference: the best of n responses to each prompt. With rounds it becomes fine-tuning: rejection.py."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from plaudit.data.reading.rows import Places
from plaudit.errors import Stopped
from plaudit.jobs.best_of_n import BestOfNJob
from plaudit.records import Prompt, Rollout
from plaudit.rewards.build import Given
from plaudit.rollouts.collect import judged
from plaudit.rollouts.endpoint import Endpoint, is_endpoint
from plaudit.runs.directory import announce
from plaudit.runs.files import Lines, Row, read_lines
from plaudit.runs.recorder import Recorder
from plaudit.runs.resume import Inputs
from plaudit.runtime import TokenPrompt
from plaudit.stages.best_of_n.parts import (
    Answering,
    metrics_of,
    open_endpoint,
    open_sampling,
    preferences_of,
    sampled,
)
from plaudit.stages.best_of_n.rounds import run_rejection
from plaudit.stages.online.gate import notes_on_rewards
from plaudit.stages.online.prompts import load_prompts
from plaudit.stages.said import Said
from plaudit.stages.session import OnIteration, Session, open_session, ready


def run_best_of_n(
    job: BestOfNJob, sources: Mapping[str, str] | None = None, *, reward: Given = None,
    prompts: Iterable[Any] | None = None, gold: Given = None, on_iteration: OnIteration | None = None,
) -> Path:  # fmt: skip
    """Answer every prompt with the best of n responses; returns the run directory. With ``rounds`` see `rejection`.

    best.jsonl has a row a prompt, with the scores of all its responses; pairs.jsonl the best against the worst, as
    preferences that `plaudit reward` and `plaudit dpo` read.

    Args:
        reward, prompts, gold: given as values instead of by name.
        on_iteration: called when some prompts are answered, with the number of all that are; see `OnIteration`.

    Raises:
        ConfigError, DataError, ModelError, RewardError: with the cure.
        Stopped: on SIGTERM or Ctrl-C; what was answered is kept.
    """
    job = ready(job)
    if job.rounds:
        return run_rejection(
            job, sources, reward=reward, prompts=prompts, gold=gold, on_iteration=on_iteration
        )
    said = Said()
    records, places = load_prompts(job.dataset, job.data, prompts, said, least=1)
    if is_endpoint(job.policy):
        answering, tokenised = open_endpoint(job, records, said, reward=reward, gold=gold)
    else:
        answering, tokenised = _open_model(job, records, places, said, reward=reward, gold=gold)
    announce({"prompts": f"{len(tokenised)} to answer"})
    said.note([*notes_on_rewards(job), *job.sampling.cautions])
    # No records to compare: each prompt is answered by itself, so a resumed run may well have others.
    given = {"prompts": None if prompts is None else records, "reward": reward, "gold": gold}
    with open_session(
        job, sources, total=len(tokenised), unit="prompt", inputs=Inputs((), given), said=said,
        on_iteration=on_iteration,
    ) as session:  # fmt: skip
        try:
            _answer(job, answering, tokenised, session)
        except Stopped as error:
            if read_lines(session.run / "best.jsonl"):
                error.run = session.run  # what was answered has its figures and its page
            raise
    return session.run


def _open_model(
    job: BestOfNJob, records: Sequence[Prompt], places: Places, said: Said, *, reward: Given, gold: Given
) -> tuple[Answering, list[TokenPrompt]]:
    """A policy that is loaded, with the judges of a job; and its prompts."""
    opened, reader = open_sampling(job, records, places, said, reward=reward, gold=gold)
    tokenised = reader.tokenise(records)
    if not tokenised:
        raise reader.nothing_left("answer")
    reader.tell(said)
    said.note(opened.notes)
    machines = opened.machines
    # Nothing is trained, but a generator with weights of its own has none until it is given some.
    machines.generator.publish(machines.policy.weights(), 0)
    return Answering(machines.generator, machines.reward, machines.gold, opened.format.chat.text), tokenised


def _answer(job: BestOfNJob, answering: Answering, prompts: Sequence[TokenPrompt], session: Session) -> None:
    """One row a prompt. A resumed run goes on with those that have none: samples depend on the prompt alone."""
    run, recorder, n = session.run, session.recorder, job.algorithm.group_size
    done = {row["prompt_id"] for row in read_lines(run / "best.jsonl")}
    left = [p for p in prompts if p.prompt.id not in done]
    if done:
        recorder.event("resumed", step=len(done))
    with (
        contextlib.closing(Lines(run / "best.jsonl")) as best,
        contextlib.closing(Lines(run / "pairs.jsonl")) as pairs,
        session.watch(),
    ):
        _, moved = pairs.keep(lambda row: row["id"] in done, has=("id", str))
        if moved:
            recorder.event("caution", step=len(done), message=moved)
        # One more than n: a response that was not chosen from is what the best one is compared with.
        for groups in sampled(answering, left, n + 1, job, 0, session.keeper):
            candidates = [group[:-1] for group in groups]
            for pair in preferences_of(candidates, job.algorithm):
                pairs.add(pair)
            for *group, other in (g for g in groups if job.algorithm.ranked(g[:-1])):
                row = _row(answering, job, group, other)
                best.add(row)
                _show(recorder, row, other, len(done) < job.log.samples)
                done.add(row["prompt_id"])
            rollouts = [rollout for group in candidates for rollout in group]
            spent = _spent(answering.endpoint) if answering.endpoint else {}
            session.record(len(done), metrics_of(candidates, job.algorithm) | spent, rollouts)


def _spent(endpoint: Endpoint) -> dict[str, float]:
    """What all replies in the file of an endpoint have taken so far."""
    spent = endpoint.spent
    return {"endpoint/calls": spent.calls, "endpoint/tokens": spent.tokens, "endpoint/cost": spent.cost}


def _row(answering: Answering, job: BestOfNJob, group: Sequence[Rollout], other: Rollout) -> Row:
    """All that the report card needs to know of one prompt; of a response of an endpoint also where it is from."""
    algorithm = job.algorithm
    best = algorithm.ranked(group)[0]
    row: Row = {
        "prompt_id": best.prompt.id,
        "prompt": answering.text(best.prompt.content),
        "response": best.response,
        "reward": best.reward,
        "length": len(best.response_ids),
        "finish_reason": best.finish_reason,
        "scores": [algorithm.score(r) for r in group],
        "lengths": [len(r.response_ids) for r in group],
        "best": next(i for i, r in enumerate(group) if r is best),
        "one_score": algorithm.score(other),
    }
    gold = answering.gold
    if gold is not None:
        *values, one = [result.value for result in judged(gold, [*group, other])]
        row |= {"gold_scores": values, "one_gold": one}
    if answering.endpoint:
        n = job.algorithm.group_size
        row["provenance"] = {"source": job.policy, **job.sampling.origin(n, job.seed)}
    return row


def _show(recorder: Recorder, row: Row, other: Rollout, wanted: bool) -> None:
    """One sample and the best one, as before and after."""
    if not wanted:
        return
    shown = {name: row[name] for name in ("prompt_id", "prompt")}
    recorder.sample(
        0, shown | {"response": other.response, "reward": other.reward, "finish_reason": other.finish_reason}
    )
    recorder.sample(1, shown | {name: row[name] for name in ("response", "reward", "finish_reason")})
