"""Who answers the comparisons of a round: simulated annotators, people through the annotation app, or a judge model."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import cast

from plaudit.data.reading.transcripts import plain_text
from plaudit.errors import ConfigError, DataError
from plaudit.jobs.loop import AnnotatorsSection, LoopJob
from plaudit.loop.annotators import Annotators, Answer
from plaudit.loop.judge import ModelJudge
from plaudit.loop.simulated import judge_pairs, panel, to_preferences
from plaudit.records import Comparison, Preference
from plaudit.rewards.function import load_function


@dataclass(frozen=True)
class Simulated:
    """Simulated annotators who see a known true score with noise, and err at a known rate; see `simulated`."""

    source: str
    error_rate: float
    per_comparison: int
    seed: int

    def answer(self, asked: Sequence[Comparison], number: int) -> list[Answer]:
        """See `Annotators.answer`. A function of seed and round alone."""
        true_score = load_function(self.source, where="annotators.source")
        pairs = [(plain_text(c.prompt), *(plain_text(r) for r in c.responses)) for c in asked]
        people = panel(max(5, self.per_comparison), error_rate=self.error_rate)
        judged = judge_pairs(
            cast("list[tuple[str, str, str]]", pairs), people, true_score,
            seed=self.seed + 1_000_003 * number, annotators_per_item=self.per_comparison,
        )  # fmt: skip
        answers = []
        for index, judgement in enumerate(judged):
            comparison = asked[index // self.per_comparison]
            first, second = comparison.responses
            turned = judgement.response_a != plain_text(first)
            own = replace(
                judgement, id=f"{comparison.id}/{judgement.annotator}", prompt=comparison.prompt,
                response_a=second if turned else first, response_b=first if turned else second,
            )  # fmt: skip
            answers.append(Answer(own, {"simulated": self.source, "error_rate": self.error_rate}))
        return answers


def _simulated(section: AnnotatorsSection, job: LoopJob) -> Annotators:
    return Simulated(section.source, section.error_rate, section.per_comparison, job.seed)


def _app(section: AnnotatorsSection, job: LoopJob) -> Annotators:
    try:
        from plaudit.loop.app import App
    except ModuleNotFoundError as error:
        what = f"the annotation app needs the package {error.name}"
        raise ConfigError(what, where="annotators.kind", cure="pip install 'plaudit[annotate]'") from error
    return App(section, job)


def _judge(section: AnnotatorsSection, job: LoopJob) -> Annotators:
    """A model at an endpoint, or the object that a name stands for; a class or a function is called, and gives it."""
    if section.source.startswith(("judge:", "{")):
        return ModelJudge(job)
    module, _, name = section.source.rpartition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"there is no judge {section.source!r}: {error}", where="annotators.source",
            cure="write module:object; the module must be in the current directory or be installed",
        ) from error  # fmt: skip
    judge: Annotators = found if hasattr(type(found), "answer") else found()
    return judge


KINDS: dict[str, Callable[[AnnotatorsSection, LoopJob], Annotators]] = {
    "simulated": _simulated,
    "app": _app,
    "judge": _judge,
}


def open_annotators(job: LoopJob) -> Annotators:
    """The annotators that a loop's settings name.

    Raises:
        ConfigError: a name that leads nowhere, or a package that is missing.
    """
    return KINDS[job.annotators.kind](job.annotators, job)


def majority(answers: Sequence[Answer], number: int) -> list[Preference]:
    """One preference for each comparison that has a majority, with the id of its comparison.

    Raises:
        DataError: no comparison has one.
    """
    made = to_preferences([answer.judgement for answer in answers])
    if not made:
        raise DataError(
            f"of {len(answers)} answers of round {number} none says which response is better",
            where="annotators", cure="ask for more comparisons, or of more annotators each",
        )  # fmt: skip
    return [replace(one, id=one.id.rpartition("/")[0] or one.id) for one in made]
