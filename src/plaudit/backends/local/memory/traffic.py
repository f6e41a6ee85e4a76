"""How long the rows are that pass through a run, known before any model is loaded: from its data and a tokenizer."""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

from plaudit.config.sections import Job, OfflineJob
from plaudit.data.chat import ChatFormat
from plaudit.errors import DataError, ModelError
from plaudit.jobs.best_of_n import BestOfNJob
from plaudit.jobs.online import OnlineJob
from plaudit.jobs.preference import DPOJob
from plaudit.jobs.sft import SFTJob
from plaudit.models.files.load import load_tokenizer
from plaudit.records import Comparison, Demonstration, Judgement, Preference, Prompt, Ranking, Rating, Record

SEEN, LONGEST = 256, 8
"""Records whose tokens are counted, spread over all; and of those with most characters as many more."""
READ = 64
"""Rows or units that are read at once."""
ANSWERED = 32
"""Prompts that best-of-n answers at once."""
DRAWS = 32
"""Batches that are drawn, of which the largest counts: a run draws more, and soon meets one like it."""


@dataclass(frozen=True, slots=True)
class RowLengths:
    """Tokens of one row."""

    prompt: int
    response: int
    """Of these a loss is computed."""
    group: int = -1
    """Rows of one group begin with the same prompt; -1: only the rows of one unit do."""

    @property
    def tokens(self) -> int:
        """Of the whole row."""
        return self.prompt + self.response


Unit = tuple[RowLengths, ...]


@dataclass(frozen=True, slots=True)
class Traffic:
    """The rows of a run."""

    units: Sequence[Unit]
    """Rows of some of its records, those of a record together; of prompts with the longest response after each."""
    longest: RowLengths
    group_size: int = 0
    """Responses to each prompt; 0: the data hold the responses."""
    at_once: int = 1
    """Units, or prompts, that are read together where nothing is learned."""
    records: int = 1
    """All that is learned from."""

    def prompts(self, count: int) -> list[int]:
        """Tokens of ``count`` prompts, or of all where there are fewer."""
        return [unit[0].prompt for unit in self._drawn(count)]

    def largest(self, count: int) -> list[Unit]:
        """The units of the largest of some batches of ``count``; of responses those of an iteration, in groups."""
        if not self.group_size:
            return self._drawn(count)
        groups = self._drawn(self.at_once)
        rows = [unit[0] for unit in groups]
        # A minibatch takes rows of all groups, not whole groups.
        each = (rows[i % len(rows)] for i in range(min(count, len(rows) * self.group_size)))
        members = sorted(enumerate(each), key=lambda row: row[0] % len(rows))
        return [(RowLengths(row.prompt, row.response, i % len(rows)),) for i, row in members]

    @property
    def read_at_once(self) -> int:
        """Units of a pass in which nothing is learned."""
        return self.at_once * max(1, self.group_size)

    def _drawn(self, count: int) -> list[Unit]:
        units = list(self.units)
        if len(units) < SEEN and len(units) <= count:
            return units
        draw = random.Random(0)
        batches = (
            draw.choices(units, k=count) if count > len(units) else draw.sample(units, count)
            for _ in range(DRAWS)
        )
        return max(batches, key=lambda batch: sum(row.tokens for unit in batch for row in unit))


def traffic_of(job: Job, records: Sequence[Record], source: str, positions: int | None) -> Traffic:
    """What passes through a job.

    Args:
        job: the settings.
        records: all that it learns from, prompts or rows.
        source: the model whose tokenizer counts.
        positions: most tokens that it can read; None: any number.

    Raises:
        ModelError: it has no tokenizer.
    """
    longest = min(job.data.max_length, positions or job.data.max_length)
    count = _Counter(job, ChatFormat(load_tokenizer(source), job.data.chat_template), longest)
    step = max(1, len(records) // SEEN)
    spread = list(records)[::step][:SEEN]
    by_text = sorted(records, key=_characters, reverse=True)[:LONGEST] if len(records) > len(spread) else []
    units = list(count.units(spread))
    if not units:  # nothing that can be counted: as long as the settings allow
        units = [(RowLengths(1, longest - 1),)]
    most = max((row for unit in (*units, *count.units(by_text)) for row in unit), key=lambda row: row.tokens)
    if not isinstance(job, (OnlineJob, BestOfNJob)):
        # SFT and reward models are read on held-out rows; a method with a reference reads all rows for it.
        share = job.data.eval_fraction
        heldout = len(records) if isinstance(job, DPOJob) else math.ceil(len(records) * share / (1 - share))
        return Traffic(units, most, at_once=max(1, min(READ, heldout)), records=len(records))
    if isinstance(job, BestOfNJob):  # some prompts at a time, with one response more than is chosen from
        return Traffic(units, most, job.algorithm.group_size + 1, max(1, min(ANSWERED, len(records))))
    return Traffic(units, most, job.algorithm.group_size, max(1, min(job.prompts_per_iteration, len(records))))


def as_allowed(job: Job, positions: int | None) -> Traffic:
    """What passes through a job whose data are not there yet: every row as long as the settings allow.

    Args:
        job: the settings.
        positions: most tokens that its model can read; None: any number.
    """
    longest = min(job.data.max_length, positions or job.data.max_length)
    if isinstance(job, (OnlineJob, BestOfNJob)):
        most = min(job.sampling.max_new_tokens, longest - 1)
        best = isinstance(job, BestOfNJob)
        prompts, group = ANSWERED if best else job.prompts_per_iteration, job.algorithm.group_size + best
        row = RowLengths(max(1, longest - most), most)
        return Traffic([(row,)] * min(prompts, SEEN - 1), row, group, prompts, prompts)
    row = RowLengths(1, longest - 1)
    unit = (row,) if isinstance(job, SFTJob) else (row, row)
    batch = job.batch_size if isinstance(job, OfflineJob) else READ
    return Traffic([unit] * max(READ, min(batch, SEEN)), row, at_once=READ, records=READ)


def _characters(record: Record) -> int:
    return sum(len(str(getattr(record, field.name))) for field in fields(record))


@dataclass(frozen=True, slots=True)
class _Counter:
    job: Job
    chat: ChatFormat
    longest: int

    def units(self, records: Sequence[Record]) -> Iterator[Unit]:
        """The rows of each record that can be encoded and fits; what is wrong with others is said by who trains."""
        for record in records:
            with contextlib.suppress(DataError, ModelError):
                rows = tuple(self._fitted(row) for row in self._rows(record))
                if all(row.response < self.longest for row in rows):
                    yield rows

    def _rows(self, record: Record) -> Iterator[RowLengths]:
        if isinstance(record, Prompt):
            assert isinstance(self.job, (OnlineJob, BestOfNJob)), "only these learn from prompts"
            most = self.job.sampling.max_new_tokens
            yield RowLengths(len(self.chat.prompt_ids(record.content)), most)
            return
        assert not isinstance(record, (Judgement, Comparison)), "stages turn them into preferences"
        every = isinstance(self.job, SFTJob) and self.job.algorithm.all_turns
        for response in _responses(record):
            row = self.chat.encode(record.prompt, response, all_turns=every)
            trained = sum(row.mask)
            yield RowLengths(len(row) - trained, trained)

    def _fitted(self, row: RowLengths) -> RowLengths:
        over = max(0, row.tokens - self.longest)
        return RowLengths(max(1, row.prompt - over), row.response)


def _responses(record: Demonstration | Preference | Ranking | Rating) -> tuple[Any, ...]:
    if isinstance(record, Preference):
        return (record.chosen, record.rejected)
    return record.responses if isinstance(record, Ranking) else (record.response,)
