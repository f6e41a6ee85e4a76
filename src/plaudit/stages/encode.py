"""From a data source to encoded rows: load, split by prompt, template, fit the length; all of it counted and said."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from plaudit.config.sections import DataSection
from plaudit.data.chat import ChatFormat, Encoded
from plaudit.data.fit import FitReport, fit_each
from plaudit.data.reading.transcripts import plain_text, prompt_key
from plaudit.data.split import split_by_prompt
from plaudit.errors import DataError
from plaudit.records import Content, Demonstration, Preference, Ranking, Rating
from plaudit.runtime import TextFormat
from plaudit.stages.said import Said

R = TypeVar("R", Demonstration, Preference, Ranking, Rating)
Scored = Preference | Ranking | Rating
"""What a reward model learns from."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Encoded rows with the records they came from, one to one (a preference has two encodings)."""

    records: list[Any]
    encoded: list[tuple[Encoded, ...]]
    report: FitReport
    context_only: int = 0
    """Records left out because a response of theirs has no turn that is trained on."""

    def __len__(self) -> int:
        return len(self.records)


def encode_rows(
    records: Sequence[R], encode: Callable[[R], tuple[Encoded, ...]], data: DataSection, source: str
) -> Rows:
    """Encode each record and fit it to ``data.max_length``; a record is dropped as a whole or not at all.

    Raises:
        DataError: a row is too long and ``on_long`` is "error", or no row is left.
    """
    every = [(record, encode(record)) for record in records]
    trained = [(record, unit) for record, unit in every if all(any(row.mask) for row in unit)]
    if every and not trained:
        raise DataError(
            f"no turn of the assistant is trained on in any of {len(every)} rows: all are marked as context only",
            where=source,
            cure="leave out weight and train, or set them to 1 where a turn is to be learned",
        )
    fitted, report = fit_each([unit for _, unit in trained], data.max_length, data.on_long, where=source)
    kept = [(record, unit) for (record, _), unit in zip(trained, fitted, strict=True) if unit is not None]
    left_out = len(every) - len(trained)
    return Rows([record for record, _ in kept], [unit for _, unit in kept], report, left_out)


def tell_of(rows: Rows, source: str, said: Said) -> None:
    """Tell which rows were cut or left out."""
    said.fitted(source, rows.report)
    if few := rows.context_only:
        said.left_out(source, f"{few} rows left out: the turns that would be trained on are context only", few)


def demonstration_encoder(
    chat: ChatFormat, all_turns: bool
) -> Callable[[Demonstration], tuple[Encoded, ...]]:
    """Prompt and response; the response (or every assistant turn) is trained on."""
    return lambda d: (chat.encode(d.prompt, d.response, all_turns=all_turns),)


def preference_encoder(chat: ChatFormat) -> Callable[[Preference], tuple[Encoded, ...]]:
    """Chosen and rejected, each after the prompt."""
    return lambda p: (chat.encode(p.prompt, p.chosen), chat.encode(p.prompt, p.rejected))


def rating_encoder(chat: ChatFormat) -> Callable[[Rating], tuple[Encoded, ...]]:
    """One rated response."""
    return lambda r: (chat.encode(r.prompt, r.response),)


def ranking_encoder(chat: ChatFormat) -> Callable[[Ranking], tuple[Encoded, ...]]:
    """Every response, each after the prompt."""
    return lambda r: tuple(chat.encode(r.prompt, response) for response in r.responses)


def pair_encoder(tokenizer: Any) -> Callable[[Any], tuple[Encoded, ...]]:
    """As an encoder reads them (see `pair_ids`), with the prompt marked as what may be cut."""

    def encode(prompt: Content, response: Content) -> Encoded:
        texts = (plain_text(prompt), plain_text(response)) if prompt else (plain_text(response),)
        read = tokenizer(*texts, truncation=False)
        parts = list(read.sequence_ids())  # 0: the first text, 1: the second, None: a special token
        opening = parts.index(0) if prompt and 0 in parts else 0
        length = len(parts) - parts[::-1].index(0) if prompt and 0 in parts else 0
        return Encoded(list(read["input_ids"]), [i >= length for i in range(len(parts))], length, opening)

    def responses(record: Any) -> tuple[Content, ...]:
        if isinstance(record, Ranking):
            return record.responses
        return (record.response,) if isinstance(record, Rating) else (record.chosen, record.rejected)

    return lambda record: tuple(encode(record.prompt, response) for response in responses(record))


def reward_encoder(text: TextFormat, first: Scored) -> Callable[[Any], tuple[Encoded, ...]]:
    """How a reward model reads records like ``first``."""
    if text.is_encoder:
        return pair_encoder(text.tokenizer)
    if isinstance(first, Ranking):
        return ranking_encoder(text.chat)
    return rating_encoder(text.chat) if isinstance(first, Rating) else preference_encoder(text.chat)


def within_positions(positions: int | None, data: DataSection, said: Said) -> DataSection:
    """The settings with a max_length that fits a model's table of positions; said where it was lowered.

    GPT-2 and others have learned one vector for each position and none beyond: a longer row is no row to them.
    """
    if positions is None or data.max_length <= positions:
        return data
    said.note([f"max_length is {positions}, not {data.max_length}: the model has {positions} positions"])
    return data.model_copy(update={"max_length": positions})


def readable(text: TextFormat, data: DataSection, said: Said) -> DataSection:
    """The settings with a max_length that the model can read; an encoder's pairs may have a limit of their own."""
    data = within_positions(text.positions, data, said)
    if text.pair_length is None or data.max_length <= text.pair_length:
        return data
    said.note(
        [
            f"max_length is {text.pair_length}, not {data.max_length}: "
            "as much as the model reads of a prompt and its response"
        ]
    )
    return data.model_copy(update={"max_length": text.pair_length})


def prompt_id(record: Preference | Ranking | Rating) -> str:
    """The same for all rows about one prompt, so that intervals count prompts and not rows."""
    if not record.prompt:
        return str(record.id)
    return hashlib.blake2b(prompt_key(record.prompt).encode(), digest_size=8).hexdigest()


def split(
    records: Sequence[Any], data: DataSection, seed: int, source: str, said: Said
) -> tuple[list[Any], list[Any]]:
    """Training and held-out records, split by prompt; ``said`` is told where there is nothing to hold out.

    Raises:
        DataError: nothing is left to train on.
    """
    train, heldout = split_by_prompt(records, data.eval_fraction, seed)
    if not train:
        raise DataError(
            f"no rows are left to train on ({len(records)} rows, {len(heldout)} held out)",
            where=source,
            cure="give more data or lower --eval-fraction",
        )
    if data.eval_fraction > 0 and not heldout:
        said.note([f"nothing is held out: all {len(train)} rows have the same prompt"])
    return train, heldout
