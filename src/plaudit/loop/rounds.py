"""`plaudit loop`: rounds of sample, ask, train a reward model, train a policy, evaluate; one object that goes on.

Each step reads files that earlier steps wrote, and writes files of its own; when it is done, `State.finish` says so in
one file. So a loop that is killed at any moment goes on with the step that was under way, and every random draw is a
function of seed, round and row: it ends where it would have ended anyway.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from plaudit.config.sections import Job
from plaudit.data.load import load_records
from plaudit.data.write import row_of
from plaudit.errors import DataError, Ended, Stopped
from plaudit.evaluation import kinds
from plaudit.evaluation.kinds.policy_card import card as policy_card
from plaudit.evaluation.looping import accuracy_by_round, write_loop_page
from plaudit.evaluation.report import write_report
from plaudit.jobs.reward_tables import members_of
from plaudit.loop import choice
from plaudit.loop.annotators import Annotators, Waiting
from plaudit.loop.answers import majority, open_annotators
from plaudit.loop.implicit import preferences_of, read_feedback
from plaudit.loop.plan import Plan
from plaudit.loop.state import State, check_free
from plaudit.machine import check_writable, make_folder
from plaudit.records import Prompt
from plaudit.runs.directory import announce, set_threads
from plaudit.runs.files import (
    CONFIG,
    EVENTS,
    SUMMARY,
    Row,
    merge_json,
    read_json,
    read_lines,
    write_lines,
    write_text,
)
from plaudit.runs.lock import MANIFEST, only_writer, sign
from plaudit.stages.anew import carried_through
from plaudit.stages.online.again import evaluate_against
from plaudit.stages.online.gate import refuse_coins

STEPS = ("sample", "choose", "ask", "mix", "reward", "policy", "evaluate")
AGAIN = "the same command goes on from there"


def run_loop(plan: Plan, *, annotators: Annotators | None = None, anyway: bool = False) -> Path:
    """Carry out the rounds of a loop, or go on with them; returns its directory.

    Args:
        plan: what is to be done; see `read_plan`.
        annotators: given as an object instead of by name.
        anyway: train on a reward model even if its own report card says that it may be no better than a coin.

    Raises:
        ConfigError, DataError, ModelError, RewardError, Refused: with the cure.
        Waiting: people have not answered enough yet; the same call goes on.
        Stopped: on SIGTERM or Ctrl-C; the same call goes on.
    """
    job = plan.job
    out = Path(job.out)
    check_writable(out)
    check_free(out)
    set_threads(job.compute)
    make_folder(out)
    with only_writer(out):
        state = State.open(plan)
        sign(out)
        write_text(out / CONFIG, plan.as_toml())
        loop = Loop(plan, state, annotators or open_annotators(job), anyway)
        try:
            for number in range(1, job.rounds + 1):
                loop.round(number)
        except Waiting as waiting:
            state.wait(waiting.what)
            write_loop_page(out)
            raise
        except (Stopped, KeyboardInterrupt) as stop:
            what = stop.what if isinstance(stop, Stopped) else "interrupted"
            raise Stopped(what, where=str(out), cure=AGAIN) from stop
        state.end()
        write_loop_page(out)
    return out


class Loop:
    """The rounds of one loop, each step of which is a method that returns its figures, JSON-ready."""

    def __init__(self, plan: Plan, state: State, annotators: Annotators, anyway: bool) -> None:
        self.plan, self.job, self.state = plan, plan.job, state
        self.annotators, self.anyway = annotators, anyway
        self.out = Path(plan.job.out)
        self.steps: dict[str, Callable[[int], Row]] = {
            "sample": self.sample, "choose": self.choose, "ask": self.ask, "mix": self.mix,
            "reward": self.reward, "policy": self.policy, "evaluate": self.evaluate,
        }  # fmt: skip

    def round(self, number: int) -> None:
        """The steps of a round that are not done yet."""
        todo = [step for step in STEPS if not self.state.has(number, step)]
        if not todo:
            return
        print(f"\nround {number} of {self.job.rounds}", flush=True)
        for step in todo:
            figures = self.steps[step](number)
            self.state.finish(number, step, figures)
            announce({step: _words(figures)})
        write_loop_page(self.out)

    def folder(self, number: int) -> Path:
        """Where the files and runs of a round lie."""
        return self.out / f"round-{number}"

    def policy_before(self, number: int) -> str:
        """The policy that a round starts with: that of the round before, or the SFT model."""
        return str(self.folder(number - 1) / self.plan.command) if number > 1 else self.job.model

    @cached_property
    def prompts(self) -> list[Prompt]:
        """All prompts, in the order of the data."""
        data = self.job.data
        loaded = load_records(self.job.dataset, "prompt", limit=data.limit, fields=data.fields, max_gb=data.max_gb)
        found = [record for record in loaded.records if isinstance(record, Prompt)]
        if not found:
            raise DataError("there are no prompts in it", where=self.job.dataset, cure="give a file of prompts")
        return found

    def sample(self, number: int) -> Row:
        """Two responses of the policy to each prompt of the round."""
        policy, folder = self.policy_before(number), self.folder(number)
        train, heldout = choice.prompts_of(self.job, self.prompts, number)
        made, same = choice.sample(self.job, policy, train, folder / "candidates.jsonl", _tell)
        more, too = choice.sample(self.job, policy, heldout, folder / "candidates-heldout.jsonl", _tell)
        return {"policy": policy, "pairs": made + more, "same": same + too}

    def choose(self, number: int) -> Row:
        """Which of the pairs are asked."""
        folder = self.folder(number)
        if not self.job.comparisons:
            write_lines(folder / "asked.jsonl", [])
            return {"asked": 0, "by": "none"}
        before = self.folder(number - 1) / "reward"
        rewards = [str(before)] if members_of(before) else [str(before / "model")]
        files = folder / "candidates.jsonl", folder / "candidates-heldout.jsonl"
        asked = choice.choose(self.job, number, rewards, *files)
        write_lines(folder / "asked.jsonl", map(row_of, asked))
        by = self.job.choose if choice.is_active(self.job, number) else "random"
        heldout = sum(row.id.startswith(f"{choice.prefix(number)}h") for row in asked)
        return {"asked": len(asked), "heldout": heldout, "by": by}

    def ask(self, number: int) -> Row:
        """The answers of the annotators, and implicit feedback that is new."""
        folder = self.folder(number)
        asked = choice.comparisons_in(folder / "asked.jsonl")
        answers = self.annotators.answer(asked, number) if asked else []
        write_lines(
            folder / "answers.jsonl",
            ({**row_of(one.judgement), "provenance": dict(one.provenance)} for one in answers),
        )
        preferences = majority(answers, number) if answers else []
        write_lines(folder / "preferences.jsonl", map(row_of, preferences))
        people = Counter(one.judgement.annotator for one in answers)
        figures: Row = {"answers": len(answers), "decided": len(preferences), "annotators": dict(people)}
        return figures | self._feedback(number)

    def _feedback(self, number: int) -> Row:
        """Write the preferences that the files of feedback hold and that no earlier round has learned from."""
        if not self.job.feedback:
            return {}
        found = read_feedback(self.job.feedback)
        known = {one.id.partition("-")[2] for earlier in range(1, number) for one in self._implicit(earlier)}
        fresh = [one for one in preferences_of(found) if one.id not in known]
        rows = [replace(one, id=f"{choice.prefix(number)}{one.id}") for one in fresh]
        write_lines(self.folder(number) / "feedback.jsonl", map(row_of, rows))
        return {"implicit": len(rows), "events": found.events, "unused": found.unused}

    def _implicit(self, number: int) -> list[Any]:
        return choice.preferences_in(self.folder(number) / "feedback.jsonl")

    def mix(self, number: int) -> Row:
        """What the reward model learns from."""
        rounds = [
            [*choice.preferences_in(self.folder(one) / "preferences.jsonl"), *self._implicit(one)]
            for one in range(1, number + 1)
        ]
        rows, figures = choice.mixed(self.job, rounds)
        if not rows:
            raise DataError(
                f"there is nothing to learn from in round {number}", where=str(self.folder(number)),
                cure="ask for comparisons, or wait for feedback",
            )  # fmt: skip
        write_lines(self.folder(number) / "data.jsonl", map(row_of, rows))
        return dict(figures)

    def reward(self, number: int) -> Row:
        """The reward model, trained anew from the SFT model."""
        folder = self.folder(number)
        loaded = self.plan.reward(folder / "data.jsonl", folder / "reward")
        carried_out(loaded.job, loaded.sources)
        accuracy = {str(one): value for one, value in accuracy_by_round(folder / "reward").items()}
        return {"members": loaded.job.members, "accuracy": accuracy}

    def policy(self, number: int) -> Row:
        """The policy, trained on the reward model of the round, or on its comparisons."""
        folder = self.folder(number)
        begins = self.job.model if self.job.start == "sft" else self.policy_before(number)
        loaded = self.plan.policy(model_of(begins), folder / "reward", folder / self.plan.command)
        refuse_coins(loaded.job, self.anyway)
        ended = carried_out(loaded.job, loaded.sources, may_end=True)
        card = read_json(folder / self.plan.command / SUMMARY)
        names = ("verdict", "kl", "reward_difference", "reward_difference_ci", "model_step")
        told = {"command": self.plan.command, "ended": ended, "start": begins}
        return told | {name: card.get(name) for name in names}

    def evaluate(self, number: int) -> Row:
        """The policy against the SFT model, and the KL to it, on held-out prompts by which no weights were chosen."""
        run = self.folder(number) / self.plan.command
        target = run / "evaluations" / "against-sft"
        evaluate_against(self.plan.judged(self.folder(number) / "reward", run).job, run, target)
        card = policy_card(target)
        names = ("prompts", "kl", "kl_exact", "win_rate", "win_rate_judge",
                 "gold_mean", "gold_mean_before", "gold_difference",
                 "reward_mean", "reward_mean_before", "reward_difference", "length_mean", "eos_rate")  # fmt: skip
        ends = [f"{name.removesuffix('_mean')}_ci" if name.endswith("_mean") else f"{name}_ci" for name in names]
        figures = {name: card[name] for name in (*names, *ends, "gold_ci_before", "reward_ci_before") if name in card}
        merge_json(self.out / SUMMARY, {"command": "loop", "round": number, **figures})
        return figures


def carried_out(job: Job, sources: dict[str, str], may_end: bool = False) -> str:
    """Train, or go on, or take what has ended already; then the figures and the page of the run. How it ended.

    Args:
        job: with the run directory in it.
        sources: where its settings came from.
        may_end: a limit or an alarm may end it. A policy has handed out its best verified weights then, and the loop
            goes on with them; a reward model whose gradients were not finite is none.
    """
    run = Path(job.out)
    how = ended_before(run)
    if not how:
        if is_half_handed_out(run):
            checkpoint = job.checkpoint.model_copy(update={"resume": False})
            job = job.model_copy(update={"overwrite": True, "checkpoint": checkpoint})
        try:
            carried_through(job, sources)
            how = "finished"
        except Ended as end:
            if end.run is None or not may_end:
                raise
            how = end.how
    kinds.card(run)
    write_report(run)
    return how


def ended_before(run: Path) -> str:
    """How a run ended that a limit or an alarm ended and that has handed everything out; empty for any other."""
    ended = read_json(run / SUMMARY).get("ended") if run.is_dir() else None
    events = read_lines(run / EVENTS)
    whole = bool(events) and events[-1].get("event") == "stopped" and str(events[-1]["reason"]).startswith(Ended.code)
    return str(ended) if ended in ("limit", "alarm") and whole else ""


def is_half_handed_out(run: Path) -> bool:
    """Whether a run was killed after a limit or an alarm had ended it, and before all was saved.

    Its last checkpoint is of the step that ended it: resumed, it would train past its own end. So it starts anew.
    """
    finished = read_json(run / MANIFEST).get("finished", False) if run.is_dir() else True
    return not finished and read_json(run / SUMMARY).get("ended") in ("limit", "alarm")


def model_of(place: str) -> str:
    """The model of a run directory, or the name as it is."""
    inside = Path(place) / "model"
    return str(inside) if inside.is_dir() else place


def _words(figures: Row) -> str:
    """The plain figures of a step on one line, for the console."""
    plain = {name: value for name, value in figures.items() if isinstance(value, (int, float, str))}
    return ", ".join(f"{name} {v:.3g}" if isinstance(v, float) else f"{name} {v}" for name, v in plain.items())


def _tell(text: str) -> None:
    announce({"sample": text})
