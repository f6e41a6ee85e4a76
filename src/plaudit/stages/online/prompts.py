"""Prompts from a data source to tokens, with room for a response after them; all of it counted and said."""

from __future__ import annotations

from collections.abc import Sequence

from plaudit.config.sections import DataSection, SamplingSection
from plaudit.data.chat import ChatFormat
from plaudit.data.fit import fit_length
from plaudit.data.load import load_records
from plaudit.data.reading.transcripts import plain_text
from plaudit.data.split import distinct
from plaudit.errors import DataError
from plaudit.records import Prompt
from plaudit.runtime import TokenPrompt
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
        source: where the prompts come from, for errors.

    Raises:
        DataError: no room is left for a prompt.
    """

    def __init__(self, data: DataSection, sampling: SamplingSection, chat: ChatFormat, source: str) -> None:
        self.data, self.chat, self.source = data, chat, source
        self.room = room_for_prompts(data, sampling)
        self.cut = self.dropped = 0

    def tokenise(self, prompts: Sequence[Prompt]) -> list[TokenPrompt]:
        """The prompts that fit, after cutting where the settings say so.

        Raises:
            DataError: a prompt is too long and ``on_long`` is "error".
        """
        result = []
        for prompt in prompts:
            whole = self.chat.encode_prompt(prompt.content)
            if len(whole) > self.room and self.data.on_long == "error":
                raise DataError(
                    f"prompt {prompt.id} has {len(whole)} tokens, {self.room} fit before the response",
                    where=self.source,
                    cure="raise --max-length, or use --on-long truncate_prompt or drop",
                )
            fitted = fit_length(whole, self.room, self.data.on_long)
            if fitted is None:
                self.dropped += 1
                continue
            self.cut += len(whole) > self.room
            result.append(TokenPrompt(prompt, tuple(fitted.ids)))
        return result

    @property
    def report(self) -> str:
        """What became of long prompts."""
        return f"{self.cut} prompts cut from the left, {self.dropped} dropped, to {self.room} tokens"

    def tell(self, said: Said) -> None:
        """Tell what became of long prompts, and what the chat template does not write of some."""
        if self.cut or self.dropped:
            said.left_out(self.source, self.report, self.dropped)
        said.note(self.chat.notes)

    def nothing_left(self, to: str) -> DataError:
        """The error to raise where no prompt fits; ``to`` says what the prompts are for."""
        return DataError(
            f"no prompts are left to {to}: {self.dropped} were longer than {self.room} tokens and dropped",
            where=self.source or "prompts",
            cure="raise --max-length, or use --on-long truncate_prompt",
        )


def load_prompts(
    source: str, limit: int, given: Sequence[Prompt] | None, said: Said, least: int = 2
) -> list[Prompt]:
    """The prompts given as values, or those of a data source; ``said`` is told what is not used of it.

    Raises:
        DataError: fewer than ``least``, or fewer different ones.
    """
    if given is not None:
        records = list(given)
    else:
        loaded = load_records(source, "prompt", limit=limit)
        said.loaded(loaded)
        records = [r for r in loaded.records if isinstance(r, Prompt)]
    different = distinct(records)
    if different < least:
        raise DataError(
            _too_few(records) + ("" if least < 2 else ": some are held out to measure what was learned"),
            where=source or "prompts",
            cure="give a prompt" if least < 2 else "give at least two different prompts",
        )
    return records


def _too_few(records: Sequence[Prompt]) -> str:
    if len(records) < 2:
        return "there is only one prompt" if records else "there are no prompts"
    alike = "" if len({plain_text(r.content) for r in records}) == 1 else ", but for capitals and spaces"
    return f"all {len(records)} prompts are the same{alike}"


def columns_of(records: Sequence[Prompt]) -> set[str]:
    """The names of the further columns that any row of the data has."""
    return {name for prompt in records for name in prompt.columns}
