"""`plaudit evaluate policy`: a trained policy and its start answer held-out prompts anew, and all of it is measured."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, cast

from plaudit import backends
from plaudit.config.algorithm import specialise
from plaudit.config.load import Layer, algorithm_type, load_job
from plaudit.config.sections import DataSection, LogSection
from plaudit.data.reading.rows import Places
from plaudit.data.reading.transcripts import prompt_key
from plaudit.data.split import split_by_prompt
from plaudit.data.write import write_records
from plaudit.errors import ConfigError, DataError, PlauditError
from plaudit.evaluation.choice import divide
from plaudit.evaluation.responses.refusals import Request, requests
from plaudit.jobs.best_of_n import BestOfNJob
from plaudit.jobs.online import OnlineJob
from plaudit.jobs.preference import DPOJob
from plaudit.jobs.registry import COMMANDS
from plaudit.jobs.reward_texts import tables_of
from plaudit.jobs.rewarded import RewardedJob
from plaudit.jobs.sft import SFTJob
from plaudit.records import Message, Prompt
from plaudit.rollouts.turns import TurnGenerator, load_environment
from plaudit.runs.directory import announce, set_threads
from plaudit.runs.files import (
    CONFIG,
    EVALUATION,
    EVENTS,
    FORGETTING,
    JUDGED,
    METRICS,
    PAIRS,
    RED_TEAM,
    SAMPLES,
    SUMMARY,
    merge_json,
    read_json,
    read_lines,
    read_settings,
    write_lines,
)
from plaudit.runs.reading import read_run
from plaudit.runs.recorder import Recorder
from plaudit.runtime import Generator, MeasuringRuntime, TokenPrompt
from plaudit.stages.encode import Rows, readable
from plaudit.stages.online.evaluation import JUDGED as PER_PROMPT
from plaudit.stages.online.heldout import heldout_texts
from plaudit.stages.online.measured import Measurement
from plaudit.stages.online.prompts import PromptReader, columns_of, load_prompts
from plaudit.stages.said import Said

NONE = "none"
"""Instead of a file: leave this part of the measurement out."""
PER_REQUEST = 2
"""Responses of each side to each request of the red-team set."""


@dataclass(frozen=True, slots=True)
class Beside:
    """What is measured beside the rewards, each as its flag gives it; "" where it is not given."""

    judge: str = ""
    """A reward that compares two responses; asked in both orders."""
    harm: str = ""
    """A reward from 0 to 1 that says how harmful a response is."""
    heldout: str = ""
    """Texts that must not be forgotten; "": the held-out demonstrations of the run's SFT; "none"."""
    red_team: str = ""
    """Requests to be refused, and harmless ones; "": the set that ships; "none"."""


def evaluate_again(
    run: Path, *, samples: int = 0, prompts: str = "", gold: str = "", fields: dict[str, str] | None = None,
    beside: Beside | None = None, model: Path | None = None,
) -> Path:  # fmt: skip
    """Sample the start and the trained policy of a run anew, with luck that no evaluation of the run has had.

    A run of sft or dpo has no reward: ``gold`` judges both sides, or nobody does, and all else is measured; prompts are
    those of its held-out rows.

    Args:
        run: of a policy, with its ``model/``.
        samples: responses to each prompt; 0: as at the end of a run.
        prompts: other prompts, any data; "": those of the run that were kept for its end.
        gold: another gold reward, written as --gold is; "": that of the run.
        fields: which column each field of the prompts is read from.
        beside: what is measured beside the rewards.
        model: measured in place of the run's ``model/``: what was exported of it.

    Returns:
        A directory below the run with an evaluation.jsonl, which the card of a policy reads, and beside it
        judged.jsonl, forgetting.jsonl, red_team.jsonl, and pairs.jsonl for people to judge. What was left out, and
        what could not be measured, stands in its events.jsonl and summary.json.

    Raises:
        ConfigError, DataError, ModelError, RewardError: the run cannot be opened again, with the cure.
    """
    model_step = _trained_step(run)
    beside = beside or Beside()
    opened = _opened(run, gold)
    job = opened.job
    set_threads(job.compute)
    # What is cheap to check comes before a model is loaded.
    asked_of_it = [] if beside.red_team == NONE else requests(beside.red_team)
    judge, harm = (
        tables_of(text, name) if text else None for text, name in ((beside.judge, "judge"), (beside.harm, "harm"))
    )
    said = Said()
    named = {"limit": 0, "fields": fields or {}} if prompts else {}
    data = job.data.model_copy(update=named)
    records, places = load_prompts(prompts or job.dataset, data, None, said, least=1 if prompts else 2)
    runtime = backends.open_measuring(
        job, str(model or run / "model"), columns_of(records), judge=judge, harm=harm
    )
    data = readable(runtime.format, data, said)
    said.note(runtime.notes)
    own = None if prompts else job.eval_prompts
    tokenised = _tokenised(job, data, runtime, (records, places), own, said, all_judge=not opened.rewarded)
    replying = _replying(run, job, data, runtime, said)
    anew = _Anew(job, runtime, data, said, Measurement(runtime, job, model_step, replying), opened.rewarded)
    with _recorder(run, str(model or prompts)) as recorder:
        anew.measure(recorder, tokenised, samples or PER_PROMPT)
        if judge:
            anew.compare(recorder.run_dir)
        anew.forget(recorder.run_dir, beside.heldout)
        anew.provoke(recorder.run_dir, asked_of_it)
        said.record(recorder)
        known = _known(opened, runtime, tokenised)
        recorder.summary({"model_step": model_step, "not_measured": anew.not_measured, "known_prompts": known})
    return recorder.run_dir


def _trained_step(run: Path) -> int:
    """The iteration whose weights are in ``model/``.

    Raises:
        DataError: there are none, or they are those of the start.
    """
    if not (run / "config.toml").is_file() or not (run / "model").is_dir():
        raise DataError(
            "the directory is not a finished run of a policy: it needs config.toml and model/", where=str(run),
            cure="give the directory that the training command printed",
        )  # fmt: skip
    if not read_settings(run / CONFIG)[0]:
        cure = "put the file back; what the run was told stands in its manifest.json too"
        raise DataError("there are no settings in it", where=str(run / CONFIG), cure=cure)
    step = int(read_json(run / SUMMARY).get("model_step", 1))
    if step == 0:
        raise DataError(
            "the run was put back to where it started, so there is no trained policy to compare with its start",
            where=str(run), cure="its report.html says why; give another run",
        )  # fmt: skip
    return step


def evaluate_against(job: OnlineJob, run: Path, target: Path, *, samples: int = 0) -> Path:
    """Sample the start of a job and the policy of a run, measured from that start; returns ``target``.

    Args:
        job: whose policy is the start, whose rewards score both, and whose held-out prompts are answered, those kept
            for the end. It need not be the run's own: the policy of a later round is measured from the first start.
        run: of a policy, with its ``model/``.
        target: where evaluation.jsonl goes; what an earlier call left there is replaced.
        samples: responses to each prompt; 0: as at the end of a run.

    Raises:
        ConfigError, DataError, ModelError, RewardError: with the cure.
    """
    set_threads(job.compute)
    said = Said()
    given = load_prompts(job.dataset, job.data, None, said)
    runtime = backends.open_measuring(job, str(run / "model"), columns_of(given[0]))
    data = readable(runtime.format, job.data, said)
    prompts = _tokenised(job, data, runtime, given, job.eval_prompts, said)
    step = max(read_json(run / SUMMARY).get("model_step", 1), 1)
    measurement = Measurement(runtime, job, step, _replying(run, job, data, runtime, said))
    write_lines(target / EVALUATION, measurement.respond(prompts, samples or PER_PROMPT))
    merge_json(target / SUMMARY, {"command": read_run(run).command, "model_step": step})
    return target


def _tokenised(
    job: OnlineJob, data: DataSection, runtime: MeasuringRuntime, given: tuple[Sequence[Prompt], Places],
    own: int | None, said: Said, *, all_judge: bool = False,
) -> list[TokenPrompt]:  # fmt: skip
    """The prompts that are answered; ``own``: so many held-out ones of the run, of which those kept for its end.

    ``all_judge``: no held-out prompt has chosen weights, so all of them are kept.
    """
    records, places = given
    reader = PromptReader(data, job.sampling, runtime.format.chat, places)
    if own is not None:
        _, heldout = split_by_prompt(records, max(data.eval_fraction, 1e-9), job.seed)
        records = heldout[:own]
    tokenised = reader.tokenise(records)
    if own is not None and not all_judge:
        _, tokenised = divide(tokenised, lambda prompt: prompt_key(prompt.prompt.content))
    if not tokenised:
        raise reader.nothing_left("evaluate on")
    reader.tell(said)
    return tokenised


def _known(opened: _Opened, runtime: MeasuringRuntime, prompts: Sequence[TokenPrompt]) -> dict[str, int | None]:
    """How many of the prompts the run was trained on, and how many have chosen its weights; None: not known."""
    job = opened.job
    try:
        records, places = load_prompts(job.dataset, job.data, None, Said())
    except PlauditError:  # they were given in Python, or are no longer there
        return {"in_training": None, "in_choice": None}
    train, heldout = split_by_prompt(records, max(job.data.eval_fraction, 1e-9), job.seed)
    reader = PromptReader(job.data, job.sampling, runtime.format.chat, places)
    watched = reader.tokenise(heldout[: job.eval_prompts]) if opened.rewarded else []
    chosen, _ = divide(watched, lambda prompt: prompt_key(prompt.prompt.content))
    asked = {prompt_key(prompt.prompt.content) for prompt in prompts}
    sides = {"in_training": train, "in_choice": [prompt.prompt for prompt in chosen]}
    return {name: len(asked & {prompt_key(one.content) for one in side}) for name, side in sides.items()}


def _recorder(run: Path, name: str) -> Recorder:
    """Of a directory below the run, empty of what an earlier evaluation with these prompts left there."""
    target = run / "evaluations" / f"again-{re.sub(r'[^A-Za-z0-9._-]+', '-', Path(name).stem) or 'final'}"
    for file in (EVALUATION, EVENTS, FORGETTING, JUDGED, METRICS, PAIRS, RED_TEAM, SAMPLES, SUMMARY):
        (target / file).unlink(missing_ok=True)
    # No tracker: nothing is trained, so there are no curves.
    return Recorder(target, command=read_run(run).command, log=LogSection(trackers=()))


def _had_turns(run: Path) -> bool:
    """Whether an evaluation of the run has rollouts of several turns."""
    path = run / EVALUATION
    return path.is_file() and any("turns" in row for row in read_lines(path))


def _replying(
    run: Path, job: OnlineJob, data: DataSection, runtime: MeasuringRuntime, said: Said
) -> Callable[[Generator], Generator]:
    """Puts the environment that the run had around a generator, if it names one."""
    # Best of n has no such setting: it answers once.
    if not isinstance(job, OnlineJob) or not job.environment:
        if _had_turns(run):
            what = "the run had an environment that was given in Python: here all prompts are answered in one turn"
            said.note([what])
        return lambda generator: generator
    environment, chat = load_environment(job.environment), runtime.format.chat
    return lambda generator: TurnGenerator(generator, environment, chat, data.max_length)


@dataclass(slots=True)
class _Anew:
    """One evaluation, part by part; what it leaves out is said, and what it cannot measure is kept."""

    job: OnlineJob
    runtime: MeasuringRuntime
    data: DataSection
    said: Said
    measurement: Measurement
    rewarded: bool
    not_measured: list[str] = field(default_factory=list)

    def measure(self, recorder: Recorder, prompts: Sequence[TokenPrompt], n: int) -> None:
        """Responses of both sides with all that is read of them, and the pairs for people."""
        announce({"prompts": f"{len(prompts)}, {n} responses to each by the start and by the trained policy"})
        rows = self.measurement.respond(prompts, n)
        if not self.rewarded:  # nothing was trained on what scores them, so it is a gold reward
            rows = [{"gold" if name == "reward" else name: value for name, value in row.items()} for row in rows]
        write_lines(recorder.run_dir / EVALUATION, rows)
        shown = {prompt.prompt.id for prompt in prompts[: self.job.log.samples]}
        for row in rows:
            if row["prompt_id"] in shown and row["k"] == 0:
                recorder.sample(row["step"], row)
        for name in ("reward", "gold"):
            failed = sum(name in row and row[name] is None for row in rows)
            if failed:
                self.said.left_out("responses", f"{failed} of {len(rows)} have no {name}, because it failed", failed)
        pairs, same = self.measurement.pairs()
        if pairs:
            write_records(pairs, recorder.run_dir / PAIRS)
        if same:
            self.said.note([f"{same} prompts got the same response from both: people are not asked about them"])

    def compare(self, target: Path) -> None:
        """What the judge of pairs says, in both orders."""
        assert self.runtime.judge is not None, "opened with one"
        announce({"judge": "both orders of each pair"})
        rows = self.measurement.compare(self.runtime.judge)
        write_lines(target / JUDGED, rows)
        failed = sum(row["first"] is None or row["second"] is None for row in rows)
        if failed:
            self.said.left_out("judge", f"{failed} of {len(rows)} pairs could not be judged in both orders", failed)

    def forget(self, target: Path, source: str) -> None:
        """How well both sides predict texts that no reward was about."""
        texts: Rows | str = "left out on request"
        if source != NONE:
            texts = heldout_texts(self.job.policy, source, self.runtime.format, self.data, self.said)
        if isinstance(texts, str):
            self.not_measured.append(f"forgetting ({texts})")
            return
        announce({"held-out": f"{len(texts)} texts"})
        write_lines(target / FORGETTING, self.measurement.forget(texts, self.runtime.format.pad_id))

    def provoke(self, target: Path, asked: Sequence[Request]) -> None:
        """Responses to requests that should be refused, and to some that only look alike."""
        if not asked:
            self.not_measured.append("refusals and harm (left out on request)")
            return
        chat = self.runtime.format.chat
        # Asked as a user asks; a model without a template gets the bare text, as in every prompt of its run.
        prompts = [
            Prompt(each.id, (Message("user", each.prompt),) if chat.uses_template else each.prompt) for each in asked
        ]
        data = self.data.model_copy(update={"on_long": "drop"})
        reader = PromptReader(data, self.job.sampling, chat, Places("requests"))
        tokenised = reader.tokenise(prompts)
        if left := len(prompts) - len(tokenised):
            what = f"{left} of {len(prompts)} requests are longer than {reader.room} tokens"
            self.said.left_out("requests", what, left)
        if not tokenised:
            self.not_measured.append("refusals and harm (no request fits)")
            return
        if not chat.uses_template:
            self.said.note(["the model has no chat template: the requests stand as plain text, which it goes on from"])
        announce({"requests": f"{len(tokenised)}, {PER_REQUEST} responses to each"})
        write_lines(target / RED_TEAM, self.measurement.provoke(asked, tokenised, PER_REQUEST))


class _Opened(NamedTuple):
    """The settings of a run, as far as they are needed to measure what it trained."""

    job: OnlineJob
    rewarded: bool
    """It has learned from a reward. Else the reward of ``job`` is the gold reward that was asked for, if one was."""


def _opened(run: Path, gold: str) -> _Opened:
    """The settings of a run, as a job of today; ``gold``: another gold reward, "" for that of the run.

    Raises:
        ConfigError: it trains no policy.
    """
    name, config = read_run(run).command, run / "config.toml"
    command = COMMANDS.get(name)
    if command is None or command.kind == "reward":
        raise ConfigError(
            f"the run is of `{name}`, which trains no policy", where=str(run),
            cure="give a run of plaudit sft, dpo, ppo, grpo, rloo, reinforce, online-dpo or best-of-n",
        )  # fmt: skip
    job_class = specialise(command.job, *algorithm_type([Layer.read(config)]))
    if issubclass(job_class, RewardedJob):
        # A cast: a type checker does not see that all jobs with a reward sample and evaluate alike.
        job = cast("OnlineJob", load_job(job_class, [config], {"gold": [gold]} if gold else {}).job)
        return _Opened(job, True)
    offline = cast("SFTJob | DPOJob", load_job(job_class, [config]).job)
    same = {part: getattr(offline, part) for part in ("dataset", "seed", "data", "lora", "compute", "log", "sampling")}
    # A job of best-of-n has what is measured, and nothing that is trained on-line.
    judge = tables_of(gold, "gold") if gold else ()
    job = cast("OnlineJob", BestOfNJob(policy=offline.model, reward=judge, **same))
    return _Opened(job, False)
