"""Prompts from a data source to tokens, with room for a response after them; all of it counted and said."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from plaudit.config.sections import DataSection, SamplingSection
from plaudit.data.chat import ChatFormat, Encoded
from plaudit.data.fit import FitReport, Fitted, fit_prompt, report_of
from plaudit.data.reading.rows import Places
from plaudit.data.reading.transcripts import plain_text
from plaudit.data.split import distinct
from plaudit.data.values import load_data
from plaudit.errors import DataError
from plaudit.records import Content, Prompt
from plaudit.runtime import TokenPrompt
from plaudit.stages.encode import Refused
from plaudit.stages.said import Said


def room_for_prompts(data: DataSection, sampling: SamplingSection) -> int:
    """Tokens that a prompt may have, so that the longest response fits after it.

    Raises:
        DataError: there are none.
    """
    room = data.max_length - sampling.max_new_tokens
    if room < 1:
        raise DataError(
            f"max_new_tokens {sampling.max_new_tokens} leaves no room in max_length {data.max_length}",
            where="[sampling] max_new_tokens",
            cure="raise --max-length or lower --max-new-tokens",
        )
    return room


class PromptReader:
    """Tokenises prompts, and counts what became of those that were too long.

    Args:
        data: says how long a prompt and a response may be together.
        sampling: says how long a response may be.
        places: where the prompts come from, for errors.

    Raises:
        DataError: no room is left for a prompt.
    """

    def __init__(self, data: DataSection, sampling: SamplingSection, chat: ChatFormat, places: Places) -> None:
        self.data, self.chat, self.places = data, chat, places
        self.room = room_for_prompts(data, sampling)
        self._fitted: list[Fitted] = []

    def tokenise(self, prompts: Sequence[Prompt]) -> list[TokenPrompt]:
        """The prompts that fit, after cutting where the settings say so.

        Raises:
            DataError: a prompt is too long and ``on_long`` is "error".
        """
        fitted, refused = [], Refused(self.places)
        for prompt in prompts:
            with refused.row(prompt.id):
                fitted.append(self._fit(prompt.content))
        refused.raise_if_any(len(prompts))
        self._fitted += fitted
        for prompt, fit in zip(prompts, fitted, strict=True):
            if fit.tokens > self.room and self.data.on_long == "error":
                raise DataError(
                    f"prompt {prompt.id} has {fit.tokens} tokens, {self.room} fit before the response",
                    where=self.places.of(prompt.id),
                    cure="raise --max-length, or use --on-long truncate_prompt or drop",
                )
        both = ((prompt, fit.unit) for prompt, fit in zip(prompts, fitted, strict=True))
        return [TokenPrompt(prompt, tuple(unit[0].ids)) for prompt, unit in both if unit is not None]

    def _fit(self, content: Content) -> Fitted:
        before = self.chat.counted()

        def attempt(content: Content) -> tuple[Encoded]:
            self.chat.count_from(before)  # a prompt that is cut is encoded several times, and counts once
            return (self.chat.encode_prompt(content),)

        return fit_prompt(content, attempt, self.room, self.data.on_long)

    @property
    def report(self) -> FitReport:
        """What became of long prompts."""
        return report_of(self._fitted)

    def tell(self, said: Said) -> None:
        """Tell what became of long prompts, and what the chat template does not write of some."""
        report = self.report
        if report.truncated or report.dropped:
            what = f"prompts of up to {self.room} tokens: {report}"
            said.left_out(self.places.source, what, report.dropped)
        said.note(self.chat.notes)

    def nothing_left(self, to: str) -> DataError:
        """The error to raise where no prompt fits; ``to`` says what the prompts are for."""
        return DataError(
            f"no prompts are left to {to}: {self.report.dropped} were longer than {self.room} tokens and dropped",
            where=self.places.source or "prompts",
            cure="raise --max-length, or use --on-long truncate_prompt",
        )


def load_prompts(
    source: str, data: DataSection, given: Iterable[Any] | None, said: Said, least: int = 2
) -> tuple[list[Prompt], Places]:
    """The prompts given as values, or those of a data source, and where they stand.

    ``said`` is told what is not used of them.

    Raises:
        DataError: fewer than ``least``, or fewer different ones.
    """
    loaded = load_data(source, given, "prompts", "prompt", limit=data.limit, fields=data.fields, max_gb=data.max_gb)
    said.loaded(loaded)
    records = [r for r in loaded.records if isinstance(r, Prompt)]
    different = distinct(records)
    if different < least:
        raise DataError(
            _too_few(records) + ("" if least < 2 else ": some are held out to measure what was learned"),
            where=loaded.source,
            cure="give a prompt" if least < 2 else "give at least two different prompts",
        )
    return records, loaded.places


def _too_few(records: Sequence[Prompt]) -> str:
    if len(records) < 2:
        return "there is only one prompt" if records else "there are no prompts"
    alike = "" if len({plain_text(r.content) for r in records}) == 1 else ", but for capitals and spaces"
    return f"all {len(records)} prompts are the same{alike}"


def columns_of(records: Sequence[Prompt]) -> set[str]:
    """The names of the further columns that any row of the data has."""
    return {name for prompt in records for name in prompt.columns}
