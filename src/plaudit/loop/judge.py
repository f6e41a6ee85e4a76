"""A language model as annotator of a loop: it is asked about each pair in both orders, at any compatible endpoint."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from plaudit.data.reading.transcripts import plain_text
from plaudit.errors import ConfigError, RewardError
from plaudit.jobs.loop import LoopJob
from plaudit.jobs.reward_tables import JudgeTable
from plaudit.jobs.reward_texts import parse
from plaudit.loop.annotators import Answer
from plaudit.records import Comparison, Judgement
from plaudit.rewards.remote.chat import Judge
from plaudit.rewards.remote.judge import compare

WHERE = "annotators.source"
ANSWERS = "judge-answers.jsonl"


class ModelJudge:
    """Asks a judge about the comparisons of a round. Its replies are kept in the loop's directory, and paid for once.

    Args:
        job: whose ``annotators.source`` is ``judge:MODEL@URL`` or the table, on one line of TOML, and says whose share
            of a round's comparisons must be answered (``enough``).

    Raises:
        ConfigError: no judge's table, or no key in the environment.
    """

    def __init__(self, job: LoopJob) -> None:
        table = parse(job.annotators.source, WHERE)
        if not isinstance(table, JudgeTable):
            raise ConfigError(f"the source is a {table.kind}, not a judge", where=WHERE, cure="write judge:MODEL@URL")
        changes = {} if "cache" in table.model_fields_set else {"cache": str(Path(job.out) / ANSWERS)}
        # Marks are no comparisons.
        self.table = table.model_copy(update=changes | ({"ask": "pairs"} if table.ask == "score" else {}))
        self.enough = job.annotators.enough

    def answer(self, asked: Sequence[Comparison], number: int) -> list[Answer]:
        """See `Annotators.answer`; where the two orders of a pair name different winners, the verdict is a tie.

        Raises:
            ConfigError: the endpoint does not answer as it should.
            RewardError: too few of the comparisons have an answer, because of a limit or faults of the endpoint.
        """
        judge = Judge(self.table, where=WHERE)
        judge.check()
        rubric = hashlib.sha256(judge.rubric.encode()).hexdigest()
        origin = {"model": self.table.model, "url": self.table.url, "ask": self.table.ask, "rubric_sha256": rubric}
        texts = [[plain_text(response) for response in row.responses] for row in asked]
        found = compare(judge, [(plain_text(row.prompt), both) for row, both in zip(asked, texts, strict=True)])
        answers, errors = [], []
        for row, both, (known, faults) in zip(asked, texts, found, strict=True):
            errors += faults
            if (one := known.get((both[0], both[1]))) is None:
                continue
            first, second = row.responses
            name = f"{row.id}/{self.table.model}"
            verdict = Judgement(name, row.prompt, first, second, -one.side, annotator=self.table.model)
            answers.append(Answer(verdict, {**origin, "by_place": one.place != 0}))
        if not answers or len(answers) < self.enough * len(asked):
            raise RewardError(
                f"the judge answered {len(answers)} of {len(asked)} comparisons of round {number}; it "
                f"{errors[0] if errors else 'was asked about equal texts'}",
                where=self.table.source,
                cure="mend that, or lower enough; then run this again: what was answered is kept, and not asked twice",
            )
        return answers
