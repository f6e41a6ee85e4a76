"""Which rows are trained on and which are held out, and in which order the training rows are seen."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import TypeVar

import numpy as np

from plaudit.data.reading.transcripts import plain_text, prompt_key
from plaudit.records import (
    Comparison,
    Content,
    Demonstration,
    Judgement,
    Preference,
    Prompt,
    Ranking,
    Rating,
    Record,
)

R = TypeVar("R", bound=Record)


def split_by_prompt(records: Sequence[R], eval_fraction: float, seed: int) -> tuple[list[R], list[R]]:
    """The records to train on and those held out, both in their order.

    No prompt is on both sides. Prompts that differ in case or spaces only count as the same; records without a prompt
    are split by their text. With two prompts or more and a fraction over 0 neither side is empty; a single one is
    trained on.

    Args:
        records: of any kind.
        eval_fraction: share of the prompts to hold out, from 0 to below 1.
        seed: another seed gives another split.
    """
    # By prompt and not by row: several responses to one prompt are alike, and a model that was trained on one of
    # them has an easy time with the others. By a hash and not by drawing rows: the side of a prompt then depends on
    # its words and the seed alone, so that it stays held out when rows are added, removed or sorted, and in every
    # later stage.
    if eval_fraction <= 0:
        return list(records), []
    groups = [_group_of(record) for record in records]
    order = sorted({group: _place(group, seed) for group in groups}.items(), key=lambda item: item[1])
    held_out = {group for group, place in order if place < eval_fraction}
    # With few prompts the hash can put all of them on one side: the nearest one is moved.
    if len(order) > 1 and not held_out:
        held_out = {order[0][0]}
    if order and len(held_out) == len(order):
        held_out.discard(order[-1][0])
    train = [r for r, group in zip(records, groups, strict=True) if group not in held_out]
    return train, [r for r, group in zip(records, groups, strict=True) if group in held_out]


def distinct(records: Sequence[Record]) -> int:
    """How many groups there are that a split keeps together: prompts that differ in more than case and spaces."""
    return len({_group_of(record) for record in records})


def _group_of(record: Record) -> str:
    if isinstance(record, Prompt):
        return prompt_key(record.content)
    return prompt_key(record.prompt or "\n".join(plain_text(text) for text in _texts(record)))


def _texts(record: Record) -> tuple[Content, ...]:
    """The responses of a record, by which it is split where it has no prompt."""
    match record:
        case Ranking() | Comparison():
            return record.responses
        case Demonstration() | Rating():
            return (record.response,)
        case Preference():
            return record.chosen, record.rejected
        case Judgement():
            return record.response_a, record.response_b
        case Prompt():
            return (record.content,)


def _place(group: str, seed: int) -> float:
    """A number from 0 to 1 from the words and the seed."""
    digest = blake2b(group.encode("utf-8", "surrogatepass"), digest_size=8, key=str(seed).encode()).digest()
    return int.from_bytes(digest, "big") / 2**64


@lru_cache(maxsize=4)
def epoch_order(n: int, seed: int, epoch: int) -> tuple[int, ...]:
    """The order of ``n`` rows in an epoch: a permutation, the same for the same seed and epoch on every machine.

    >>> epoch_order(3, seed=0, epoch=0) == epoch_order(3, seed=0, epoch=0)
    True
    """
    # A function of seed and epoch, not a generator with a state: a run that is resumed in the middle of an epoch
    # needs no more than the number of rows it has seen.
    return tuple(np.random.Generator(np.random.PCG64([seed, epoch])).permutation(n).tolist())
