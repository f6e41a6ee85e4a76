"""Stage 3: reinforcement learning of the policy against a reward."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from plaudit import backends
from plaudit.algorithms.protocol import ActorCritic, Cautious, LengthDependent, OnlineAlgorithm, Rehearsing
from plaudit.config.sections import DataSection
from plaudit.data.load import load_records
from plaudit.data.reading.rows import Places
from plaudit.data.split import split_by_prompt
from plaudit.errors import ConfigError, Ended, TrainingError
from plaudit.evaluation.alarms.hacking import HackingWatch
from plaudit.evaluation.alarms.sampler import SamplerWatch
from plaudit.jobs.online import OnlineJob
from plaudit.records import Demonstration, Prompt, Rollout
from plaudit.rewards.build import Given
from plaudit.rollouts.environment import Environment
from plaudit.rollouts.turns import TurnGenerator, load_environment
from plaudit.runs.directory import announce, finished
from plaudit.runs.resume import Inputs
from plaudit.runtime import OnlineRuntime, Runtime, TextFormat, TokenPrompt
from plaudit.stages.doctor.memory import check_memory
from plaudit.stages.doctor.rewards import first_rewards
from plaudit.stages.doctor.template import tell_template
from plaudit.stages.encode import demonstration_encoder, encode_rows, readable, tell_of
from plaudit.stages.online.evaluation import Evaluator
from plaudit.stages.online.gate import alarms_on_rewards, known_of_rewards, notes_on_rewards
from plaudit.stages.online.guard import Guard
from plaudit.stages.online.prompts import PromptReader, columns_of, load_prompts, room_for_prompts
from plaudit.stages.said import Said
from plaudit.stages.session import HowEnded, OnIteration, Session, open_session, ready
from plaudit.training.offline import TextStream
from plaudit.training.online import OnlineLoop


def run_rl(
    job: OnlineJob,
    sources: Mapping[str, str] | None = None,
    *,
    reward: Given = None,
    prompts: Iterable[Any] | None = None,
    gold: Given = None,
    environment: Environment | None = None,
    on_iteration: OnIteration | None = None,
) -> Path:
    """Train and save; returns the run directory.

    Args:
        reward, prompts, gold, environment: given as values instead of by name (the Python API and the quickstart do);
            a reward or gold may be several tables and functions.
        on_iteration: called after each iteration; see `OnIteration`.

    Raises:
        ConfigError, DataError, ModelError, RewardError: with the cure.
        Ended: the KL limit was exceeded, the gradients were not finite, or the reward failed; the model is saved.
        TrainingError: the generator has old weights.
        Stopped: on SIGTERM or Ctrl-C, after a checkpoint, with the model of that moment.
    """
    if done := finished(job):
        return done
    job = ready(job)
    # All that can fail does so before a file is written; and what is cheap to check, before a model is loaded.
    check_sizes(job)
    said = Said()
    job, notes = _with_time_to_learn(job)
    records, places = load_prompts(job.dataset, job.data, prompts, said)
    check_memory(job, records, said)
    opened = backends.open(job, reward=reward, gold=gold, columns=columns_of(records))
    data = readable(opened.format, job.data, said)
    rows = tokenise_prompts(job, data, records, places, opened.format)
    machines = with_environment(job, data, opened, environment)
    texts = rehearsed_texts(job, opened.format, said)
    announce({"prompts": f"{len(rows.train)} to train, {len(rows.heldout)} held out"})
    tell_template(opened.format, said)
    rows.reader.tell(said)
    said.note([*notes_on_rewards(job), *notes, *opened.notes, *cautions_of(job)])
    said.note([*job.sampling.cautions, *opened.check(rows.train)])
    used = [prompt.prompt for prompt in (*rows.train, *rows.heldout)]
    rows_given = None if prompts is None else records
    given = {"prompts": rows_given, "reward": reward, "gold": gold, "environment": environment}
    with open_session(
        job, sources, total=job.iterations, unit="iteration", inputs=Inputs(used, given), said=said,
        on_iteration=on_iteration,
    ) as session:  # fmt: skip
        session.recorder.event("memory", **opened.memory)
        session.recorder.summary(dict(opened.memory) | {"reward_models": known_of_rewards(job)})
        evaluator = Evaluator(
            session.run, machines, rows.heldout, job, opened.format.chat, session.recorder, job.mismatch.max_staleness,
        )  # fmt: skip
        session.keep(machines.learners, evaluator.weights)
        train = OnlineTraining(job, replace(opened, machines=machines), session, evaluator)
        train.run(rows.train, texts)
    return session.run


class OnlineTraining:
    """The iterations of one run, each with its metrics, evaluation, alarms and checkpoint."""

    def __init__(self, job: OnlineJob, opened: OnlineRuntime, session: Session, evaluator: Evaluator) -> None:
        self.job, self.opened, self.session, self.evaluator = job, opened, session, evaluator
        self.watch = SamplerWatch()
        # A gold reward that is asked at the end only cannot speak while it happens: then the texts do.
        self.hacking = HackingWatch(evaluator.judge == "gold" and evaluator.every > 0)
        self.guard = Guard(job.on_alarm, evaluator, self.hacking, session.recorder)

    def run(self, prompts: Sequence[TokenPrompt], texts: TextStream | None) -> None:
        """Restore or start, train, and end with the weights that are kept."""
        job = self.job
        self.loop = OnlineLoop(
            job.algorithm, self.opened.machines, prompts, job.sampling, job.prompts_per_iteration,
            self.opened.format.pad_id, job.seed, self._after, texts=texts,
            mismatch=job.mismatch.with_products(job.compute.precision),
            broken=self.session.broken,
        )  # fmt: skip
        self.evaluator.remember_start()
        start, state = self.session.restore()
        # Now and not in the loop alone: a resumed policy has other weights than it was built with, and the evaluation
        # of the start draws responses before the loop does.
        self.loop.publish(start)
        if start:
            self.loop.resume(state["loop"])
            self.evaluator.resume(state["evaluation"])
            self.watch.resume(state.get("watch", {}))  # checkpoints of the first release have none
            self.hacking.resume(state.get("hacking", {}))
            self.guard.resume(state.get("guard", {}), self.loop)
        else:
            for alarm in alarms_on_rewards(job):
                self.session.recorder.alarm(0, alarm.kind, alarm.message)
            self.evaluator.before()
        with self.session.training(self._hand_out):
            self.loop.run(job.iterations, start)

    def _hand_out(self, ended: HowEnded) -> None:
        """Choose the weights that are kept, and save them."""
        machines, text = self.opened.machines, self.opened.format
        stop = self.session.stop_if_asked
        self.evaluator.finish(self.session.trained, ended, alarmed=self.guard.acted, between=stop)
        if machines.critic and machines.shared_trunk:  # its head is of use only beside this policy
            machines.critic.export(self.session.run / "critic", text.tokenizer)
        self.session.save(machines.policy, text.tokenizer)

    def _after(self, iteration: int, metrics: dict[str, float], rollouts: Sequence[Rollout]) -> None:
        hacked = self.hacking.look(rollouts, metrics)
        evaluated = self.evaluator.after(iteration)
        metrics |= evaluated
        metrics["memory/peak"] = self.opened.peak_memory()
        try:
            self.session.record(iteration, metrics, rollouts)
            self._tell_of_first(iteration, metrics)
            if metrics.get("policy/empty_share") == 1.0:
                self.session.recorder.event("no step", step=iteration, message=_no_step(iteration, metrics))
            hacked += self.hacking.evaluated(self.evaluator.seen) if evaluated else []
            for alarm in (*self.watch.look(metrics), *hacked):
                self.session.recorder.alarm(iteration, alarm.kind, alarm.message, is_early=alarm.is_early)
            _check_kl(self.job, metrics, iteration)
            self.guard.act(iteration, hacked, self.loop)
        except TrainingError:
            self.session.keeper.save(iteration, self._state())
            raise
        self.session.after(iteration, self._state)

    def _tell_of_first(self, iteration: int, metrics: Mapping[str, float]) -> None:
        """Of the first iteration: its rewards; and where responses may be long and are short all the same."""
        if iteration > 1:
            return
        figures, caution = first_rewards(metrics, metrics.get("time/reward", 0.0))
        self.session.recorder.event("first rewards", step=iteration, **figures)
        algorithm, cautions = self.job.algorithm, [caution]
        if isinstance(algorithm, LengthDependent) and not algorithm.caution_at(self.job.sampling.max_new_tokens):
            cautions.append(algorithm.caution_at(metrics["response/length_mean"]))
        for message in filter(None, cautions):
            self.session.recorder.event("caution", step=iteration, message=message)

    def _state(self) -> dict[str, Any]:
        return {
            "loop": self.loop.state(),
            "evaluation": self.evaluator.state(),
            "watch": self.watch.state(),
            "hacking": self.hacking.state(),
            "guard": self.guard.state(),
        }


@dataclass(frozen=True, slots=True)
class PromptRows:
    """Prompts as tokens."""

    train: list[TokenPrompt]
    heldout: list[TokenPrompt]
    reader: PromptReader
    """Knows what became of prompts that were too long."""


def tokenise_prompts(
    job: OnlineJob, data: DataSection, records: Sequence[Prompt], places: Places, text: TextFormat
) -> PromptRows:
    """Training and held-out prompts; one that is too long for a response after it is handled as configured."""
    reader = PromptReader(data, job.sampling, text.chat, places)
    train, heldout = split_by_prompt(records, max(data.eval_fraction, 1e-9), job.seed)
    rows = PromptRows(reader.tokenise(train), reader.tokenise(heldout[: job.eval_prompts]), reader)
    if not rows.train or not rows.heldout:
        raise reader.nothing_left("train on" if rows.heldout else "evaluate on")
    return rows


def with_environment(
    job: OnlineJob, data: DataSection, opened: OnlineRuntime, environment: Environment | None
) -> Runtime:
    """The machines with a generator that goes on while an environment replies, if there is one."""
    replying = environment or (load_environment(job.environment) if job.environment else None)
    if replying is None:
        return opened.machines
    # In training and in evaluation alike, since both sample with this generator.
    inside = opened.machines.generator
    turns = TurnGenerator(inside, replying, opened.format.chat, data.max_length)
    return replace(opened.machines, generator=turns)


def rehearsed_texts(job: OnlineJob, text: TextFormat, said: Said) -> TextStream | None:
    """Demonstrations (their responses count) or plain texts (every token counts) that the policy must not forget.

    Raises:
        DataError: nothing readable there, or a text is longer than ``max_length`` where that is an error.
    """
    source = job.algorithm.ptx_dataset if isinstance(job.algorithm, Rehearsing) else ""
    if not source:
        return None
    loaded = load_records(source, "demonstration", limit=job.data.limit, max_gb=job.data.max_gb)
    said.loaded(loaded)
    demonstrations = [r for r in loaded.records if isinstance(r, Demonstration)]
    rows = encode_rows(demonstrations, demonstration_encoder(text.chat, True), job.data, loaded.places, text.chat)
    tell_of(rows, source, said)
    return TextStream([unit[0] for unit in rows.encoded], text.pad_id, job.seed)


def check_sizes(job: OnlineJob) -> None:
    """No minibatch is empty, and prompts have room."""
    room_for_prompts(job.data, job.sampling)
    rollouts = job.prompts_per_iteration * job.algorithm.group_size
    if job.algorithm.minibatches > rollouts:
        raise ConfigError(
            f"{job.algorithm.minibatches} minibatches of {rollouts} responses: some would be empty",
            where="[algorithm] minibatches",
            cure="lower --minibatches, or raise --prompts-per-iteration",
        )


def _with_time_to_learn(job: OnlineJob) -> tuple[OnlineJob, list[str]]:
    """The job with a warm-up of the critic that leaves iterations for the policy; what was changed, in words."""
    algorithm: OnlineAlgorithm = job.algorithm
    if "values" not in algorithm.needs or not isinstance(algorithm, ActorCritic):
        return job, []
    warmup = algorithm.critic_warmup
    if not warmup or job.iterations > warmup:
        return job, []
    shorter = job.iterations // 3
    said = f"critic_warmup {warmup} would take all {job.iterations} iterations: shortened to {shorter}"
    # A cast, because a protocol cannot say that what fulfils it is a dataclass; `with_algorithm` has made sure of it.
    changed: OnlineAlgorithm = replace(cast("Any", algorithm), critic_warmup=shorter)
    return job.model_copy(update={"algorithm": changed}), [said]


def cautions_of(job: OnlineJob) -> tuple[str, ...]:
    """What the algorithm says of its settings, and of them for the longest responses that are allowed."""
    algorithm = job.algorithm
    cautions = algorithm.cautions if isinstance(algorithm, Cautious) else ()
    if isinstance(algorithm, LengthDependent) and (
        caution := algorithm.caution_at(job.sampling.max_new_tokens)
    ):
        cautions += (caution,)
    return cautions


def _no_step(iteration: int, metrics: Mapping[str, float]) -> str:
    """Why an iteration left the policy as it was, in words."""
    if metrics.get("dyn/kept_share") == 0.0:
        rounds = f"{metrics['dyn/rounds']:.0f} rounds of sampling"
        why = f"in {rounds} no prompt had responses with different rewards"
    elif metrics.get("pairs/kept_share") == 0.0:
        why = "no prompt had two responses with different scores, so there is no pair"
    else:
        why = "every response failed to be scored or was left out of the loss"
    return f"iteration {iteration} took no step: {why}"


def _check_kl(job: OnlineJob, metrics: Mapping[str, float], iteration: int) -> None:
    kl = metrics.get("objective/kl", 0.0)
    if job.kl_limit and kl > job.kl_limit:
        raise Ended(
            f"the KL to the reference is {kl:.1f} nats per response, over the limit of {job.kl_limit:g}",
            how="limit",
            kind="kl_limit",
            where=f"iteration {iteration}",
            cure="start again with a higher --kl-coef or a lower --lr; "
            "or go on from the checkpoint that was saved now: --kl-limit N --resume",
        )
