"""What a reward model learns from: comparisons, rankings, ratings or labels, filtered, encoded, collated."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, pstdev
from typing import Any

import torch

from plaudit.algorithms.reward_model import RewardModel
from plaudit.data.chat import Encoded
from plaudit.data.collate import collate_pairs, collate_rankings, collate_ratings
from plaudit.data.judgements import undecided
from plaudit.data.load import Loaded, as_kind
from plaudit.data.reading.rows import Places
from plaudit.errors import DataError
from plaudit.experience import Batch
from plaudit.records import Judgement, Preference, Ranking, Rating
from plaudit.stages.encode import Refused, Rows
from plaudit.stages.said import Said

CURE = "give preferences (prompt, chosen, rejected), rankings, judgements, ratings, or texts with 0/1 labels"


@dataclass(frozen=True, slots=True)
class Source:
    """The records to learn from, and what was said about them."""

    records: list[Any]
    format: str
    places: Places


def source_of(
    loaded: Loaded,
    algorithm: RewardModel,
    said: Said,
    *,
    min_agreement: float = 0.0,
    ties: str = "drop",
) -> Source:
    """Ranked lists as lists, ratings where they are predicted, texts with 0/1 labels as they are; else preferences.

    Args:
        loaded: of any kind.
        said: is told what was left out or not used.
        min_agreement: smallest share of annotators that a preference must have.
        ties: "half" adds judgements without a majority, with their share of votes as the target.

    Raises:
        DataError: the data hold nothing to learn a score from.
    """
    dataset = loaded.source
    if algorithm.ratings == "regression":
        said.loaded(loaded)
        return Source(_rated(loaded, algorithm.attributes, dataset), loaded.format, loaded.places)
    if loaded.kind in ("demonstration", "prompt"):
        raise DataError(
            f"the data set holds {loaded.kind}s ({loaded.format}); a reward model learns from comparisons",
            where=dataset,
            cure=CURE,
        )
    labels = {r.reward for r in loaded.records if isinstance(r, Rating)}
    if labels and labels <= {0.0, 1.0} and "heads" in algorithm.needs:
        raise DataError(
            "length = 'odin' keeps length out of comparisons; the data set holds texts with 0/1 labels",
            where=dataset,
            cure="give comparisons or rankings, or set --length none",
        )
    if loaded.kind == "ranking" or (labels and labels <= {0.0, 1.0}):
        said.loaded(loaded)
        return Source(list(loaded.records), loaded.format, loaded.places)
    pairs = as_kind(loaded, "preference")
    said.loaded(pairs)
    preferences: list[Any] = list(pairs.records)
    if ties == "half":
        extra = undecided([r for r in loaded.records if isinstance(r, Judgement)])
        preferences += extra
        said.note([f"{len(extra)} comparisons without a majority, with their share of votes as target"])
    if min_agreement:
        agreed = [p for p in preferences if p.agreement >= min_agreement]
        if few := len(preferences) - len(agreed):
            said.left_out(dataset, f"{few} comparisons left out: agreement below {min_agreement:g}", few)
        preferences = agreed
    if not preferences:
        raise DataError(
            f"no comparison has an agreement of {min_agreement:g} or more",
            where=dataset,
            cure="lower --min-agreement",
        )
    return Source(preferences, loaded.format, loaded.places)


def _rated(loaded: Loaded, attributes: Sequence[str], dataset: str) -> list[Any]:
    if loaded.kind != "rating":
        raise DataError(
            f"ratings = 'regression' needs rated responses; these are {loaded.kind}s ({loaded.format})",
            where=dataset,
            cure="give rows with prompt, response and reward, or use ratings = 'pairs'",
        )
    known = {name for r in loaded.records if isinstance(r, Rating) for name in r.axes}
    for record in loaded.records:
        missing = [name for name in attributes if isinstance(record, Rating) and name not in record.axes]
        if missing:
            raise DataError(
                f"the rating {record.id} has no axis {missing[0]!r}",
                where=dataset,
                cure=f"the data have: {', '.join(sorted(known)) or 'no axes'}; rate every response on every attribute",
            )
    return list(loaded.records)


def without_long_responses(
    records: Sequence[Any], encode: Callable[[Any], tuple[Encoded, ...]], max_length: int, places: Places
) -> tuple[list[Any], int]:
    """Ranked lists without the responses that alone are too long, where two others are left; and how many they were.

    Otherwise one such response would cost the whole list. Other records stay as they are.
    """
    kept: list[Any] = []
    dropped = 0
    if not all(isinstance(record, Ranking) for record in records):
        return list(records), 0
    refused = Refused(places)
    for record in records:
        rows: tuple[Encoded, ...] = ()
        with refused.row(record.id):
            rows = encode(record)
        fits = [
            i for i, row in enumerate(rows) if row.opening + 1 + len(row) - row.prompt_length <= max_length
        ]
        if len(fits) < 2 or len(fits) == len(rows):
            kept.append(record)
            continue
        responses, ranks = tuple(record.responses[i] for i in fits), tuple(record.ranks[i] for i in fits)
        kept.append(replace(record, responses=responses, ranks=ranks))
        dropped += len(rows) - len(fits)
    refused.raise_if_any(len(records))
    return kept, dropped


@dataclass(frozen=True, slots=True)
class Scale:
    """Mean and standard deviation of the training ratings, of the reward or of each attribute."""

    means: tuple[float, ...] = (0.0,)
    stds: tuple[float, ...] = (1.0,)

    @classmethod
    def fit(cls, records: Sequence[Any], attributes: Sequence[str]) -> Scale:
        """The scale of rated records; a rating that never changes keeps its unit."""
        columns = list(zip(*(ratings_of(r, attributes) for r in records), strict=True))
        return cls(tuple(fmean(c) for c in columns), tuple(pstdev(c) or 1.0 for c in columns))

    def standardised(self, ratings: Sequence[float]) -> list[float]:
        """Ratings with mean 0 and standard deviation 1 over the training data."""
        return [(x - m) / s for x, m, s in zip(ratings, self.means, self.stds, strict=True)]


def ratings_of(record: Rating, attributes: Sequence[str]) -> tuple[float, ...]:
    """What is predicted of a rated response: its axes, or its reward."""
    return tuple(record.axes[name] for name in attributes) if attributes else (record.reward,)


@dataclass(frozen=True, slots=True)
class Collator:
    """Rows at some indices as one batch: pairs, rankings, rated or labelled rows."""

    rows: Rows
    pad_id: int
    attributes: tuple[str, ...] = ()
    scale: Scale = Scale()

    def __call__(self, indices: Sequence[int]) -> Batch:
        """One batch for one optimizer step."""
        records, encoded = [self.rows.records[i] for i in indices], [self.rows.encoded[i] for i in indices]
        first = records[0]
        if isinstance(first, Ranking):
            return collate_rankings(encoded, [r.ranks for r in records], self.pad_id)
        if isinstance(first, Preference):
            margins, targets = [r.margin for r in records], [r.agreement for r in records]
            chosen, rejected = [e[0] for e in encoded], [e[1] for e in encoded]
            return collate_pairs(chosen, rejected, margins, targets, self.pad_id)
        ratings = [self.scale.standardised(ratings_of(r, self.attributes)) for r in records]
        flat = [e[0] for e in encoded]
        if not self.attributes:
            return collate_ratings(flat, [x for (x,) in ratings], self.pad_id)
        batch = collate_ratings(flat, [math.nan] * len(flat), self.pad_id)
        return batch.replace(attributes=torch.tensor(ratings, dtype=torch.float32))


def describe(records: Sequence[Any]) -> str:
    """What the rows are, for the console: "ranked prompts with 3.1 responses each", "comparisons" ...

    >>> describe([Ranking("r", "p", ("a", "b", "c"), (1, 2, 3))])
    'ranked prompts with 3.0 responses each'
    """
    first = records[0]
    if isinstance(first, Ranking):
        return f"ranked prompts with {fmean(len(r.ranks) for r in records):.1f} responses each"
    return "comparisons" if isinstance(first, Preference) else "rated responses"
