"""Which rows are trained on and which are held out, and in which order the training rows are seen."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import TypeVar

import numpy as np

from plaudit.data.reading.transcripts import plain_text, prompt_key
from plaudit.records import Comparison, Content, Prompt, Ranking, Rating, Record

R = TypeVar("R", bound=Record)


def split_by_prompt(records: Sequence[R], eval_fraction: float, seed: int) -> tuple[list[R], list[R]]:
    """The records to train on and those held out, both in their order.

    The side of a prompt depends on its words and the seed alone: it stays where it is when data are added.
    Prompts that differ in case or spaces only are the same one; texts without a prompt are told apart by
    their words. With two prompts or more and a fraction over 0 neither side is empty.

    Args:
        records: of any kind.
        eval_fraction: share of the prompts to hold out, from 0 to below 1.
        seed: another seed gives another split.
    """
    if eval_fraction <= 0:
        return list(records), []
    groups = [_group_of(record) for record in records]
    order = sorted({group: _place(group, seed) for group in groups}.items(), key=lambda item: item[1])
    held_out = {group for group, place in order if place < eval_fraction}
    if len(order) > 1 and not held_out:
        held_out = {order[0][0]}
    if len(order) > 1 and len(held_out) == len(order):
        held_out.discard(order[-1][0])
    train = [r for r, group in zip(records, groups, strict=True) if group not in held_out]
    return train, [r for r, group in zip(records, groups, strict=True) if group in held_out]


def _group_of(record: Record) -> str:
    if isinstance(record, Prompt):
        return prompt_key(record.content)
    return prompt_key(record.prompt or _first_response(record))


def _first_response(record: Record) -> Content:
    """What stands for the prompt where there is none."""
    if isinstance(record, (Ranking, Comparison)):
        return "\n".join(plain_text(r) for r in record.responses)
    if isinstance(record, Rating):
        return record.response
    said = [
        getattr(record, name, "") for name in ("response", "chosen", "rejected", "response_a", "response_b")
    ]
    return "\n".join(plain_text(s) for s in said)


def _place(group: str, seed: int) -> float:
    """A number from 0 to 1 that looks random, from the words and the seed."""
    digest = blake2b(group.encode("utf-8", "surrogatepass"), digest_size=8, key=str(seed).encode()).digest()
    return int.from_bytes(digest, "big") / 2**64


@lru_cache(maxsize=4)
def epoch_order(n: int, seed: int, epoch: int) -> tuple[int, ...]:
    """A permutation of ``range(n)``, the same for the same seed and epoch on every machine.

    >>> epoch_order(3, seed=0, epoch=0) == epoch_order(3, seed=0, epoch=0)
    True
    """
    return tuple(np.random.Generator(np.random.PCG64([seed, epoch])).permutation(n).tolist())
