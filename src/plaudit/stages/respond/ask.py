"""What annotators should be asked next: items scored by reward models that were trained on what is known so far."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Literal

import numpy as np

from plaudit import backends
from plaudit.data.load import load_records
from plaudit.data.reading.transcripts import plain_text
from plaudit.errors import ConfigError, DataError
from plaudit.jobs.reward_tables import ModelTable
from plaudit.jobs.reward_texts import parse
from plaudit.preferences.annotation import Item
from plaudit.preferences.importing import items_of
from plaudit.preferences.sampling import (
    as_priorities,
    by_score,
    disagreement,
    diverse_best,
    random_order,
    small_margin,
)
from plaudit.statistics.resampling import Array

By = Literal["disagreement", "margin", "random"]
SIZE = 256
"""Dimensions of the hashed word counts that diversity is measured in."""


def ask_next(
    source: str,
    rewards: Sequence[str],
    by: By = "disagreement",
    *,
    batch: int = 0,
    seed: int = 0,
    tell: Callable[[str], None] = lambda text: None,
    fields: Mapping[str, str] | None = None,
) -> dict[str, float]:
    """Priorities by item key, from 1 (asked first) down to above 0, for `plaudit annotate prioritise`.

    Args:
        source: data that were, or will be, imported as a pairwise project.
        rewards: run directories or models; a run with members counts as each of them.
        by: "disagreement" of two reward models or more, small "margin" of their mean, or "random".
        batch: with 1 or more the first ``batch`` items also differ from each other.
        seed: breaks ties, and orders by chance.
        tell: told what was noticed in the data, and which model is at work.
        fields: which column each field is read from, where a name does not say it.

    Raises:
        ConfigError: too few reward models for what is asked.
        DataError: the source holds no pairs.
    """
    loaded = load_records(source, fields=fields)
    for note in loaded.notes:
        tell(f"note: {note}")
    items, _ = items_of(loaded.records, "pairwise")
    if not items:
        raise DataError(
            "there are no pairs of responses in it", where=source, cure="give pairs, rankings or comparisons"
        )
    keys = [item.key for item in items]
    if by == "random":
        return as_priorities(random_order(keys, seed=seed))
    models = [member for name in rewards for member in _members(name)]
    if len(models) < (2 if by == "disagreement" else 1):
        raise ConfigError(
            f"{by} needs {'two reward models or more' if by == 'disagreement' else 'a reward model'},"
            f" found {len(models)}",
            where="command line, --reward",
            cure="train several with `plaudit reward --members 3`, or name several runs",
        )
    differences = reward_differences(items, models, tell)
    scores = disagreement(differences) if by == "disagreement" else small_margin(differences)
    first: list[int] = []
    if batch:
        first = diverse_best(scores, np.array([_words(item) for item in items]), batch, seed=seed)
    taken = {keys[i] for i in first}
    rest: Mapping[str, float] = {k: float(s) for k, s in zip(keys, scores, strict=True) if k not in taken}
    return as_priorities([*(keys[i] for i in first), *by_score(rest, seed=seed)])


def _members(name: str) -> tuple[str, ...]:
    """The reward models that a name on the command line means."""
    table = parse(name, "command line, --reward")
    if isinstance(table, ModelTable):
        return table.members
    raise ConfigError(
        f"{name!r} is a {table.kind}, not a reward model",
        where="command line, --reward",
        cure="name reward models: their differences are in one unit, and other rewards are not",
    )


def reward_differences(items: Sequence[Item], models: Sequence[str], tell: Callable[[str], None]) -> Array:
    """Reward of response 0 minus reward of response 1, [models, items], in the logits of Bradley and Terry."""
    prompts = [item.prompt for item in items]
    rows = []
    for name in models:
        tell(f"{name}: {2 * len(items)} responses")
        inside = Path(name) / "model"
        source = str(inside if inside.is_dir() else name)
        scorer, std = backends.open_text_scorer(source)
        sides = [
            scorer.score_texts(
                prompts, [plain_text(item.responses[k].content) for item in items], [False] * len(items)
            )
            for k in (0, 1)
        ]
        rows.append((np.array(sides[0]) - np.array(sides[1])) * std)
    return np.array(rows)


def _words(item: Item) -> Array:
    """Hashed word counts of prompt and responses, of length 1: items about the same thing are near each other."""
    counts = np.zeros(SIZE)
    texts = (plain_text(item.prompt), *(plain_text(r.content) for r in item.responses))
    for word in " ".join(texts).casefold().split():
        digest = blake2b(word.encode("utf-8", "surrogatepass"), digest_size=4).digest()
        counts[int.from_bytes(digest, "big") % SIZE] += 1
    return np.asarray(counts / max(1.0, float(np.linalg.norm(counts))))
