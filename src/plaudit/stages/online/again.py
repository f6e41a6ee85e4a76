"""`plaudit evaluate policy`: a trained policy and its start answer held-out prompts anew, more often or other ones."""

from __future__ import annotations

import contextlib
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from plaudit import backends
from plaudit.config.algorithm import specialise
from plaudit.config.load import Layer, algorithm_type, load_job
from plaudit.data.reading.transcripts import prompt_key
from plaudit.data.split import split_by_prompt
from plaudit.errors import ConfigError, DataError
from plaudit.evaluation.choice import divide
from plaudit.jobs.online import OnlineJob
from plaudit.jobs.registry import COMMANDS
from plaudit.runs.directory import set_threads
from plaudit.runs.files import EVALUATION, SUMMARY, Lines, merge_json, read_json
from plaudit.runs.reading import read_run
from plaudit.runtime import OnlineRuntime, TokenPrompt
from plaudit.stages.encode import readable
from plaudit.stages.online.evaluation import JUDGED
from plaudit.stages.online.prompts import PromptReader, columns_of, load_prompts
from plaudit.stages.online.sampler import Sampler
from plaudit.stages.said import Said


def evaluate_again(
    run: Path, *, samples: int = 0, prompts: str = "", gold: str = "", fields: dict[str, str] | None = None
) -> Path:
    """Sample the start and the trained policy of a run anew, with luck that no evaluation of the run has had.

    Args:
        run: of a policy, with its ``model/``.
        samples: responses to each prompt; 0: as at the end of a run.
        prompts: other prompts, any data; "": those of the run that were kept for its end.
        gold: another gold reward, written as --gold is; "": that of the run.
        fields: which column each field of the prompts is read from.

    Returns:
        A directory below the run with an evaluation.jsonl, which the card of a policy reads.

    Raises:
        ConfigError, DataError, ModelError, RewardError: the run cannot be opened again, with the cure.
    """
    if not (run / "config.toml").is_file() or not (run / "model").is_dir():
        raise DataError(
            "the directory is not a finished run of a policy: it needs config.toml and model/", where=str(run),
            cure="give the directory that the training command printed",
        )  # fmt: skip
    job = _job_of(run, {"gold": [gold]} if gold else {})
    set_threads(job.compute)
    said = Said()
    named = {"limit": 0, "fields": fields or {}} if prompts else {}
    data = job.data.model_copy(update=named)
    records, places = load_prompts(prompts or job.dataset, data, None, said, least=1 if prompts else 2)
    start = backends.open(job, reward=None, gold=None, columns=columns_of(records))
    data = readable(start.format, data, said)
    reader = PromptReader(data, job.sampling, start.format.chat, places)
    asked = records
    if not prompts:
        _, heldout = split_by_prompt(records, max(data.eval_fraction, 1e-9), job.seed)
        asked = heldout[: job.eval_prompts]
    tokenised = reader.tokenise(asked)
    if not prompts:
        _, tokenised = divide(tokenised, lambda prompt: prompt_key(prompt.prompt.content))
    if not tokenised:
        raise reader.nothing_left("evaluate on")
    reader.tell(said)
    return _sampled(run, job, start, tokenised, samples or JUDGED, prompts)


def _sampled(
    run: Path, job: OnlineJob, start: OnlineRuntime, prompts: list[TokenPrompt], samples: int, name: str
) -> Path:
    model_step = read_json(run / SUMMARY).get("model_step", 1)
    trained = job.model_copy(update={"policy": str(run / "model")})
    ended = backends.open(trained, reward=None, gold=None, columns=columns_of([p.prompt for p in prompts]))
    # Both sides are measured from the start of the run, and by the same rewards.
    machines = replace(ended.machines, reference=start.machines.reference, reward=start.machines.reward,
                       gold=start.machines.gold)  # fmt: skip
    target = run / "evaluations" / f"again-{re.sub(r'[^A-Za-z0-9._-]+', '-', Path(name).stem) or 'final'}"
    target.mkdir(parents=True, exist_ok=True)
    (target / EVALUATION).unlink(missing_ok=True)
    with contextlib.closing(Lines(target / EVALUATION)) as lines:
        for step, side in ((0, start.machines), (max(model_step, 1), machines)):
            side.generator.publish(side.policy.weights(), step)
            for row in Sampler(side, job, start.format.chat).rows(prompts, samples, step, "anew"):
                lines.add(row | {"set": "final"})
    merge_json(target / SUMMARY, {"command": read_run(run).command, "model_step": max(model_step, 1)})
    return target


def _job_of(run: Path, changes: dict[str, Any]) -> OnlineJob:
    """The settings of a run, as a job of today."""
    command = COMMANDS.get(read_run(run).command)
    if command is None or command.kind not in ("policy", "best_of_n"):
        raise ConfigError(
            f"the run is of `{read_run(run).command}`, which trains no policy on a reward", where=str(run),
            cure="give a run of plaudit ppo, grpo, rloo, reinforce, online-dpo or best-of-n",
        )  # fmt: skip
    config = run / "config.toml"
    job_class = specialise(command.job, *algorithm_type([Layer.read(config)]))
    # A cast: that the kinds above have jobs of policies stands in the registry, which a type checker does not read.
    return cast("OnlineJob", load_job(job_class, [config], changes).job)
