"""A language model as a judge of responses: the reward of kind ``judge``."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from statistics import fmean
from typing import Any

from plaudit.config.fields import nearest
from plaudit.data.reading.transcripts import as_messages, plain_text, write_transcript
from plaudit.errors import ConfigError
from plaudit.jobs.reward_tables import JudgeTable
from plaudit.records import Message, RewardResult, Rollout
from plaudit.rewards.remote.chat import Judge, Verdict
from plaudit.rewards.remote.questions import (
    MOST,
    MOST_IN_A_GROUP,
    Question,
    both_orders,
    preferences,
)

ANSWER = "answer"
"""The column of the known answer, which prompts keep by itself."""
LEAST_KNOWN = 0.5
"""Share of a response's comparisons that must have an answer; with fewer there is no reward."""
Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Compared:
    """What a judge said of two responses in both orders: 1: the first is better, -1, or 0; and whether they agreed."""

    side: int = 0
    place: int = 0
    """Where the two orders named different winners, so that the place decided: 1: the first place, -1: the second."""


class JudgeReward:
    """Asks a language model for the worth of each response, between 0 and 1.

    ``ask = "score"``: its mark, divided by the best one. ``"pairs"`` and ``"group"``: the share of the comparisons with
    the other responses to the same prompt that it wins, a tie counting one half. Each comparison is asked in both
    orders, and is a tie unless both name the same winner, so that a liking for the first place wins nothing. With
    ``against`` each response is compared with the text in that column, and not with the others.

    What got no answer is an error of its response, with the reason, and never a reward of 0. A response needs an answer
    to half of its comparisons. The parts ``NAME_calls``, ``NAME_tokens`` and ``NAME_cost`` are what all answers in the
    file of answers have taken so far, the same for each response; ``NAME_flips`` is the share of a response's
    comparisons whose two orders named different winners.

    Args:
        table: of the judge.
        where: the config key, for errors.
        sleep: waits so many seconds; a test gives its own.

    Raises:
        ConfigError: see `Judge`; or a gold reward that would compare a policy with itself only.
    """

    def __init__(
        self, table: JudgeTable, *, where: str = "reward", sleep: Callable[[float], None] = time.sleep
    ) -> None:
        if where == "gold" and table.ask != "score" and not table.against:
            raise ConfigError(
                f'a gold reward with ask = "{table.ask}" compares the responses of a policy with each other only, so '
                "that each policy has a mean of 0.5",
                where=where,
                cure='write ask = "score", or name a column of the data with the text to compare with: against = "..."',
            )
        self.name = table.name or "judge"
        self.judge = Judge(table, where=where, sleep=sleep)
        self._table = table

    @classmethod
    def checked(cls, table: JudgeTable, columns: Collection[str], where: str) -> JudgeReward:
        """The reward of a judge that has been seen to answer, about data with these further columns.

        Raises:
            ConfigError: as of the class and of `Judge.check`; or the data have no such column to compare with.
        """
        if table.against not in ("", ANSWER, *columns):
            close = nearest(table.against, columns)
            raise ConfigError(
                f"the data have no column {table.against} to compare with",
                where=where,
                cure=(f"did you mean {close}? " if close else "")
                + "It stands beside the prompt in each row of a file of prompts; preferences keep their prompts only",
            )
        reward = cls(table, where=where)
        reward.judge.check()
        return reward

    def __call__(self, rollouts: Sequence[Rollout]) -> list[RewardResult]:
        """One result per rollout."""
        scores = self._scores(rollouts) if self._table.ask == "score" else self._comparisons(rollouts)
        spent = self.judge.answers.spent
        totals = {"calls": float(spent.calls), "tokens": float(spent.tokens)}
        totals |= {"cost": spent.cost} if any(self._table.prices) else {}
        parts = {f"{self.name}_{what}": total for what, total in totals.items()}
        return [
            score if score.value is None else RewardResult(score.value, {**score.parts, **parts})
            for score in scores
        ]

    def _scores(self, rollouts: Sequence[Rollout]) -> list[RewardResult]:
        questions = [self._question(rollout, (response_of(rollout),)) for rollout in rollouts]
        verdicts = self.judge.ask_all(questions)
        return [self._score(verdicts[question.digest]) for question in questions]

    def _score(self, verdict: Verdict) -> RewardResult:
        if verdict.error:
            return self._failed(verdict.error)
        value = verdict.numbers[0] / MOST
        return RewardResult(value, {self.name: value})

    def _comparisons(self, rollouts: Sequence[Rollout]) -> list[RewardResult]:
        """The results of all groups; the questions of all of them are asked at the same time."""
        groups: dict[Any, list[int]] = {}
        for i, rollout in enumerate(rollouts):
            groups.setdefault((rollout.group_id, plain_text(rollout.prompt.content)), []).append(i)
        units = [[rollouts[i] for i in indices] for indices in groups.values()]
        planned = [self._planned(unit) for unit in units]
        verdicts = self.judge.ask_all(q for plan in planned for question in plan for q in both_orders(question))
        results: dict[int, RewardResult] = {}
        for indices, unit, plan in zip(groups.values(), units, planned, strict=True):
            compared, errors = together(plan, verdicts)
            for i, rollout in zip(indices, unit, strict=True):
                results[i] = self._share(rollout, unit, compared, errors)
        return [results[i] for i in range(len(rollouts))]

    def _planned(self, unit: Sequence[Rollout]) -> list[Question]:
        """What is asked about the responses to one prompt. Equal texts are a tie, and nothing is asked about them."""
        references = [text for rollout in unit if (text := self._reference(rollout))][:1]
        texts = list(dict.fromkeys([*map(response_of, unit), *references]))
        if len(texts) < 2 or (self._table.against and not references):
            return []
        if self._table.ask == "pairs" and references:
            return [self._question(unit[0], (text, references[0])) for text in texts if text != references[0]]
        return parts_of(self._question(unit[0], tuple(texts)))

    def _share(
        self,
        rollout: Rollout,
        unit: Sequence[Rollout],
        compared: Mapping[Pair, Compared],
        errors: Sequence[str],
    ) -> RewardResult:
        """The share of its comparisons that a response wins."""
        own = response_of(rollout)
        if self._table.against:
            reference = self._reference(rollout)
            if not reference:
                return self._failed(f"has nothing to compare with: the column {self._table.against} holds no text")
            others = [reference]
        else:
            others = [response_of(other) for other in unit if other is not rollout]
        if not others:
            return self._failed(
                'compares two responses to a prompt or more, and there is one; raise group_size, or write ask = "score"'
            )
        if self._table.ask == "group" and len({own, *others}) > MOST_IN_A_GROUP:
            return self._failed(f'compares at most {MOST_IN_A_GROUP} responses in one question; write ask = "pairs"')
        known = [Compared() if own == other else compared.get((own, other)) for other in others]
        answered = [one for one in known if one is not None]
        if len(answered) < LEAST_KNOWN * len(others) or not answered:
            return self._failed(errors[0] if errors else "gave no answer")
        value = fmean((1 + one.side) / 2 for one in answered)
        flips = fmean(float(one.place != 0) for one in answered)
        return RewardResult(value, {self.name: value, f"{self.name}_flips": flips})

    def _reference(self, rollout: Rollout) -> str:
        """The text that a response is compared with, if there is one."""
        value = rollout.prompt.columns.get(self._table.against) if self._table.against else None
        if value is None and self._table.against == ANSWER:
            value = rollout.prompt.answer
        return value if isinstance(value, str) and value.strip() else ""

    def _question(self, rollout: Rollout, responses: tuple[str, ...]) -> Question:
        prompt, answer = plain_text(rollout.prompt.content), rollout.prompt.answer
        # The text that is compared with must not be marked as the right one as well.
        answer = None if self._table.against == ANSWER else answer
        return Question(self._table.ask, prompt, responses, answer, self.judge.rubric)

    def _failed(self, reason: str) -> RewardResult:
        return RewardResult(None, error=f"{self.name} {reason}")


def response_of(rollout: Rollout) -> str:
    """What is judged: a single response as it is; of several turns all, with who wrote each."""
    if len(rollout.turns) < 2:
        return rollout.response
    messages: list[Message] = []
    for turn in rollout.turns:
        if turn.author == "policy":
            messages.append(Message("assistant", turn.text))
        else:
            messages += as_messages(turn.content, "user")
    return write_transcript(messages).strip("\n")


def compare(
    judge: Judge, prompts: Sequence[tuple[str, Sequence[str]]]
) -> list[tuple[dict[Pair, Compared], list[str]]]:
    """What a judge says of each two responses to each of several prompts, all asked at the same time.

    Args:
        judge: one that compares: its table asks for pairs or groups.
        prompts: each with its responses. Equal texts are not compared.

    Returns:
        For each prompt what is known, by the two texts, and the reasons for what is not.
    """
    rubric = judge.rubric
    wholes = [Question(judge.table.ask, p, tuple(dict.fromkeys(texts)), rubric=rubric) for p, texts in prompts]
    plans = [parts_of(whole) if len(whole.responses) > 1 else [] for whole in wholes]
    verdicts = judge.ask_all(order for plan in plans for question in plan for order in both_orders(question))
    return [together(plan, verdicts) for plan in plans]


def parts_of(question: Question) -> list[Question]:
    """The questions that a comparison of several responses is made of; none for a group that is too large."""
    if question.ask == "group":
        return [question] if len(question.responses) <= MOST_IN_A_GROUP else []
    return [replace(question, responses=pair) for pair in combinations(question.responses, 2)]


def together(
    questions: Sequence[Question], verdicts: Mapping[str, Verdict]
) -> tuple[dict[Pair, Compared], list[str]]:
    """What both orders of each question say together of each two texts, and the reasons where one has no answer."""
    compared: dict[Pair, Compared] = {}
    errors: list[str] = []
    for question in questions:
        orders = both_orders(question)
        both = [verdicts[order.digest] for order in orders]
        if failed := [verdict.error for verdict in both if verdict.error]:
            errors += failed
            continue
        first, second = (preferences(o, v.numbers) for o, v in zip(orders, both, strict=True))
        places = {text: place for place, text in enumerate(orders[0].responses)}
        for pair, side in first.items():
            other = second[pair]
            ahead = 1 if places[pair[0]] < places[pair[1]] else -1
            compared[pair] = Compared(side if side == other else 0, side * ahead if side * other < 0 else 0)
    return compared, errors
