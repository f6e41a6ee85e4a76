"""From a data source to encoded rows: load, split by prompt, template, fit the length; all of it counted and said."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from plaudit.config.sections import DataSection
from plaudit.data.chat import ChatFormat, Encoded
from plaudit.data.fit import FitReport, Fitted, fit_each, fit_prompt
from plaudit.data.reading.rows import Places
from plaudit.data.reading.transcripts import plain_text, prompt_key
from plaudit.data.split import split_by_prompt
from plaudit.errors import DataError
from plaudit.records import Content, Demonstration, Preference, Ranking, Rating
from plaudit.runtime import TextFormat
from plaudit.stages.said import Said

R = TypeVar("R", Demonstration, Preference, Ranking, Rating)
Scored = Preference | Ranking | Rating
"""What a reward model learns from."""
MOST_PLACES = 10


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
    records: Sequence[R],
    encode: Callable[[R], tuple[Encoded, ...]],
    data: DataSection,
    places: Places,
    chat: ChatFormat,
) -> Rows:
    """Encode each record and fit it to ``data.max_length``; a record is dropped as a whole or not at all.

    Args:
        records: of one kind.
        encode: gives the rows of a record.
        data: says how long they may be.
        places: where the records stand, for errors.
        chat: what ``encode`` uses; it counts what it does otherwise than the data say.

    Raises:
        DataError: the chat template refuses a row, a row is too long and ``on_long`` is "error", or no row is left.
    """
    fitted: list[Fitted] = []
    refused = Refused(places)
    for record in records:
        with refused.row(record.id):
            fitted.append(_fitted(record, encode, data, chat))
    refused.raise_if_any(len(records))
    trained = [(r, f) for r, f in zip(records, fitted, strict=True) if f.unit is None or _is_trained(f.unit)]
    if fitted and not trained:
        raise DataError(
            f"no turn of the assistant is trained on in any of {len(fitted)} rows: all are marked as context only",
            where=places.source,
            cure="leave out weight and train, or set them to 1 where a turn is to be learned",
        )
    names = [places.of(record.id) for record, _ in trained]
    found = [fit for _, fit in trained]
    units, report = fit_each(found, data.max_length, data.on_long, where=places.source, names=names)
    kept = [(record, unit) for (record, _), unit in zip(trained, units, strict=True) if unit is not None]
    left_out = len(fitted) - len(trained)
    return Rows([record for record, _ in kept], [unit for _, unit in kept], report, left_out)


def _is_trained(unit: tuple[Encoded, ...]) -> bool:
    return all(any(row.mask) for row in unit)


def _fitted(record: R, encode: Callable[[R], tuple[Encoded, ...]], data: DataSection, chat: ChatFormat) -> Fitted:
    """A record that fits the length."""
    before = chat.counted()

    def attempt(prompt: Content) -> tuple[Encoded, ...]:
        chat.count_from(before)  # a prompt that is cut is encoded several times, and counts once
        return encode(record if prompt is record.prompt else replace(record, prompt=prompt))

    return fit_prompt(record.prompt, attempt, data.max_length, data.on_long)


def tell_of(rows: Rows, source: str, said: Said) -> None:
    """Tell which rows were cut or left out."""
    said.fitted(source, rows.report)
    if few := rows.context_only:
        said.left_out(source, f"{few} rows left out: the turns that would be trained on are context only", few)


class Refused:
    """Rows that cannot be encoded, because the chat template refuses them for instance; raised once all are seen."""

    def __init__(self, places: Places) -> None:
        self.places = places
        self._first: DataError | None = None
        self._where: list[str] = []

    @contextmanager
    def row(self, identity: str) -> Iterator[None]:
        """Keeps the DataError of a row, with the file and line of the row that it lacks."""
        try:
            yield
        except DataError as error:
            self._first = self._first or error
            place = self.places.of(identity)
            self._where.append(f"{place} (row {identity})" if not place.endswith(identity) else place)

    def raise_if_any(self, among: int) -> None:
        """Raise the first error, with how many rows there were of ``among``, and where the first ten are."""
        if self._first is None:
            return
        first, rows = self._first, self._where
        what = first.what if len(rows) == 1 else f"{len(rows)} of {among} rows are refused. The first: {first.what}"
        more = f" and {len(rows) - MOST_PLACES} more" if len(rows) > MOST_PLACES else ""
        raise DataError(what, where=", ".join(rows[:MOST_PLACES]) + more, cure=first.cure) from first


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
