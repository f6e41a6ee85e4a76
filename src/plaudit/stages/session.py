"""The frame of a stage: one open run with its lock, its files, its checkpoints and its way to stop, and how it ends."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeVar

from plaudit import backends
from plaudit.awaited import beat
from plaudit.config.sections import Job
from plaudit.errors import ConfigError, Ended, Lost, PlauditError, RewardError, Stopped
from plaudit.jobs.registry import command_of
from plaudit.machine import writing
from plaudit.records import Rollout
from plaudit.rewards.result import shortened
from plaudit.rollouts.endpoint import is_endpoint
from plaudit.runs.bad_batches import keep_batch
from plaudit.runs.best import BestWeights
from plaudit.runs.directory import announce, check_out, open_run, precision_of, set_threads
from plaudit.runs.keeper import Keeper, Kept
from plaudit.runs.recorder import Recorder
from plaudit.runs.resume import Inputs
from plaudit.runs.watchdog import STACKS, Watchdog
from plaudit.runtime import Learner
from plaudit.stages.moving import MovingWatch
from plaudit.stages.said import Said
from plaudit.tracking.console import duration
from plaudit.training.broken import Broken, BrokenBatches

J = TypeVar("J", bound=Job)
OnIteration = Callable[[int, Mapping[str, float], Sequence[Rollout]], None]
"""Called after each iteration, or each optimizer step of a fixed data set, with its number from 1 on, with its metrics
as they stand in metrics.jsonl, and with the rollouts that were learned from (none where the data set is fixed)."""

JUDGING = "stopping as soon as the model is saved; once more ends at once, without"
TIMED = 3
"""Steps by which the time of a run is estimated, the first, which takes longer than others, not among them."""

HowEnded = Literal["finished", "limit", "alarm", "interrupted"]
"""How a run came to its end: `ended` in summary.json."""


class Session:
    """A run while it is trained: what a stage records, keeps and saves goes through here.

    Attributes:
        run: the run directory.
        recorder: for events, samples and the summary.
        trained: steps that were taken and recorded, those before a resume included.
        broken: for the loop: batches whose gradient is not finite are kept in the run.
        dog: watches that the run goes on.
    """

    def __init__(
        self, job: Job, recorder: Recorder, total: int, on_iteration: OnIteration | None = None
    ) -> None:
        self.job, self.recorder, self.run, self.total = job, recorder, recorder.run_dir, total
        self.on_iteration = on_iteration
        self.trained = 0
        self.broken = BrokenBatches(self.keep_broken)
        self.dog = Watchdog(recorder, 60 * job.checkpoint.stuck_minutes)
        self._failed = False
        self._cut: set[str] = set()
        self._was_cut = False
        self._moving = MovingWatch(total)
        self._times: list[float] = []
        self.keep({})

    def keep(self, learners: Mapping[str, Kept], best: BestWeights | None = None) -> None:
        """Say what checkpoints hold: learners by role, and the best weights where a run has them."""
        self.keeper = Keeper(self.run, self.job.checkpoint, learners, self.recorder, best)

    def restore(self) -> tuple[int, dict[str, Any]]:
        """The step and the state of the newest checkpoint if the run is resumed; (0, {}) at a fresh start.

        A stage calls it when it is done with whatever needs the weights of the start, such as what the reference says.
        """
        step, state = self.keeper.restore()
        self.trained = step
        self.broken.in_a_row = state.get("broken", 0)
        return step, state

    def keep_broken(self, step: int, broken: Broken) -> None:
        """Write a batch whose gradient was not finite into the run, and raise the alarm."""
        where = keep_batch(self.run, step, broken.batch, broken.units, broken.metrics)
        message = (
            f"the gradient was not finite in step {step}: the step was left out, with weights, optimizer and schedule "
            f"as they were; {where}"
        )
        self.recorder.alarm(step, "non_finite", message)

    def stop_if_asked(self) -> None:
        """Raise `Stopped` if SIGTERM or Ctrl-C came while what was trained is measured: the rest is left out."""
        if self.keeper.stop_requested:
            self._was_cut = True
            raise Stopped("stopped as asked while its weights were judged")

    @contextlib.contextmanager
    def watch(self) -> Iterator[None]:
        """While it lasts, SIGTERM and Ctrl-C end the run after the step that is under way, with a checkpoint."""
        with self.keeper.watch():
            yield

    @contextlib.contextmanager
    def training(self, hand_out: Callable[[HowEnded], None]) -> Iterator[None]:
        """The training of a run: however it ends, what it has reached is handed out.

        While it lasts, SIGTERM and Ctrl-C end the run after the step that is under way, with a checkpoint. While the
        weights are judged they leave out the rest of it (`stop_if_asked`), and the model is saved.

        Args:
            hand_out: evaluates the weights and saves the model. It is told how training ended: after an interruption
                somebody waits, and what takes long is left to `plaudit evaluate`.

        Raises:
            Ended, Stopped: as they came, with the run directory in them.
        """
        try:
            with self.watch(), self._writing():
                yield
        except (Ended, RewardError, Stopped) as error:
            if not self.trained or (isinstance(error, Stopped) and error.abandoned):
                raise  # there is nothing to hand out, or no time
            ended: HowEnded = "interrupted" if isinstance(error, Stopped) else "alarm"
            if isinstance(error, Ended):
                ended = error.how
            self._tell_why(error)
            self._finish(hand_out, ended)
            if isinstance(error, RewardError):
                error = Ended(error.what, how="alarm", kind="rewards_fail", where=error.where, cure=error.cure)
            error.run = self.run
            raise error
        self._finish(hand_out, "finished")
        if self._was_cut:
            cure = f"the same command with --out {self.run} --resume judges them"
            stopped = Stopped("stopped as asked while its weights were judged", where=str(self.run), cure=cure)
            stopped.run = self.run
            raise stopped

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Leaving it waits for the last checkpoint; that it failed is said, also where something else ends the run."""
        try:
            yield
        except BaseException:
            try:
                self.keeper.finish()
            except PlauditError as error:
                self.recorder.alarm(self.trained, "checkpoint", f"the last checkpoint was not written: {error.what}")
            raise
        self.keeper.finish()

    def _tell_why(self, error: PlauditError) -> None:
        """The alarm of a run that a failure or a limit ends."""
        kind = "rewards_fail" if isinstance(error, RewardError) else ""
        if isinstance(error, Ended):
            kind = error.kind
        if kind:
            self.recorder.alarm(self.trained, kind, error.what)

    def _finish(self, hand_out: Callable[[HowEnded], None], ended: HowEnded) -> None:
        # Until it is done, so that a run that is killed while it is judged does not seem to have come to its end.
        self.recorder.summary({"ended": "interrupted"})
        with self.keeper.watch(JUDGING):
            hand_out(ended)
        self.recorder.summary({"ended": "interrupted" if self._was_cut and ended == "finished" else ended})

    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        """`record` and `after`, for a stage that does nothing between the two."""
        self.record(step, metrics)
        self.after(step)

    def record(self, step: int, metrics: Mapping[str, float], rollouts: Sequence[Rollout] = ()) -> None:
        """Write the metrics of a step, and call `on_iteration`."""
        self.recorder.metrics(step, metrics)
        self.trained = self.dog.step = step
        beat()
        self._tell_of_cuts(step, metrics)
        self._tell_of_failed(step, rollouts)
        if slow := self._moving.look(step, metrics):
            self.recorder.event("caution", step=step, message=slow)
        self._tell_of_time(step)
        # Before the checkpoint: what a caller raises to end a run must not come after a file that says all went well.
        if self.on_iteration is not None:
            self.on_iteration(step, metrics, rollouts)

    def _tell_of_cuts(self, step: int, metrics: Mapping[str, float]) -> None:
        """Where a reward reads less than the whole of some texts: said once of each reward."""
        for name, share in metrics.items():
            if name.startswith("reward/") and name.endswith("_cut") and share > 0 and name not in self._cut:
                self._cut.add(name)
                reward = name.removeprefix("reward/").removesuffix("_cut")
                message = (
                    f"the reward {reward} reads less than the whole of some texts, as they are longer than it reads: "
                    f"{share:.0%} of those of step {step}; {name} is their share in each"
                )
                self.recorder.event("caution", step=step, message=message)

    def _tell_of_failed(self, step: int, rollouts: Sequence[Rollout]) -> None:
        """Rewards that failed: in every step an event with the first of them, and a caution the first time."""
        failed = [r for r in rollouts if r.reward is None and (r.reward_error or r.error)]
        if not failed:
            return
        first = failed[0]
        message = (
            f"{len(failed)} of {len(rollouts)} rewards of step {step} failed and are left out; the first, for prompt "
            f"{first.prompt.id!r}, response {shortened(first.response)}: {first.reward_error or first.error}"
        )
        self.recorder.event("rewards failed", step=step, failed=len(failed), of=len(rollouts), message=message)
        if not self._failed:
            self._failed = True
            message += "; reward/error_share is their share in each step, and events.jsonl has one of each"
            self.recorder.event("caution", step=step, message=message)

    def _tell_of_time(self, step: int) -> None:
        """After a few steps: how long the others will take. An event, since the console shows it all the time."""
        if step >= self.total or len(self._times) > TIMED:
            return
        self._times.append(time.monotonic())
        if len(self._times) <= TIMED:
            return
        each = (self._times[-1] - self._times[0]) / TIMED
        left = each * (self.total - step)
        rest = f"about {duration(left)} for the other {self.total - step}"
        message = f"{rest}, by {TIMED} steps that took {each:.2g} s each"
        self.recorder.event("estimate", step=step, seconds_per_step=each, seconds_left=left, message=message)

    def after(self, step: int, state: Callable[[], dict[str, Any]] = dict) -> None:
        """Save a checkpoint if one is due.

        Args:
            step: that has been recorded.
            state: what the trainer has to keep besides its learners, JSON-ready; asked for only if a checkpoint is due.

        Raises:
            Stopped: somebody asked the run to stop; the checkpoint is written.
        """
        whole = lambda: state() | {"broken": self.broken.in_a_row}  # noqa: E731
        self.keeper.after(step, whole, last=step == self.total)

    def save(self, learner: Learner, tokenizer: Any) -> None:
        """Write ``model/``, which `from_pretrained` loads."""
        with writing(self.run / "model", "the model"):
            learner.export(self.run / "model", tokenizer)
        self.recorder.event("saved", path=str(self.run / "model"))


def ready(job: J) -> J:
    """Everything of the machine that can be known before data are read: threads, device, run directory, precision.

    Returns:
        The job, with the precision that ``auto`` stands for here; a run that goes on keeps the one that it began with.

    Raises:
        ConfigError, MachineError: with the cure.
    """
    set_threads(job.compute)
    backends.check(job.compute)
    check_out(job)
    role = "policy" if "policy" in job.inputs else "model"
    answers = is_endpoint(job.inputs.get(role, ""))
    if answers and not job.takes_endpoint:
        raise ConfigError(
            f"{job.inputs[role]} is an endpoint, which answers and cannot be trained", where=role,
            cure="name a model that can be loaded; plaudit best-of-n without --rounds takes an endpoint",
        )  # fmt: skip
    if answers or job.compute.precision != "auto":
        return job
    begun = precision_of(job)
    precision, why = (begun, "as this run began") if begun else backends.precision(job)
    announce({"precision": f"{precision}, {why}"})
    return job.model_copy(update={"compute": job.compute.model_copy(update={"precision": precision})})


@contextlib.contextmanager
def open_session(
    job: Job,
    sources: Mapping[str, str] | None = None,
    *,
    total: int,
    unit: str = "step",
    inputs: Inputs | None = None,
    said: Said | None = None,
    on_iteration: OnIteration | None = None,
) -> Iterator[Session]:
    """Open the run directory of a job, lock it, and record; leaving it says how the run ended.

    All that can fail for reasons of settings, data or models should be done before: nothing is on disk until here.

    Args:
        job: the settings.
        sources: where each value came from, by dotted key.
        total: steps of the whole run, those of a resumed run included.
        unit: what a step is called.
        inputs: rows and values; see `open_run`.
        said: what was said of the inputs, to be recorded.
        on_iteration: of the caller.

    Raises:
        ConfigError: see `open_run`.
    """
    # The recorder inside the lock: two processes that append to the same metrics.jsonl would mix their lines. And the
    # manifest says "finished" only when the recorder has closed its files without an error.
    with (
        open_run(job, sources, inputs=inputs) as run,
        Recorder(run, command=command_of(type(job)).name, log=job.log, total=total, unit=unit) as recorder,
    ):
        if said is not None:
            said.record(recorder)
        session = Session(job, recorder, total, on_iteration)
        try:
            with session.dog.watching():  # the evaluation of the start and of the end as well
                yield session
        except Lost as error:
            _tell_of_loss(error, session)
            raise


def _tell_of_loss(error: Lost, session: Session) -> None:
    """Put into the run that a machine of it is gone, with the stacks of its processes where they hung."""
    error.run = session.run
    if error.stacks:
        with contextlib.suppress(OSError), (session.run / STACKS).open("a", encoding="utf-8") as file:
            file.write(f"{error.what}\n{error.stacks}\n")
    session.recorder.event("caution", step=session.trained, message=error.what)
