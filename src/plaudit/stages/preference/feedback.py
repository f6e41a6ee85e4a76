"""Preferences and thumbs as batches, with what the reference says of them, computed once before training.

The reference is the model as it was loaded. So it scores all rows first, and no copy of it is kept in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from plaudit.data.chat import Encoded
from plaudit.data.collate import collate_demonstrations, collate_pairs, collate_ratings
from plaudit.data.fit import fit_length
from plaudit.data.reading.transcripts import prompt_key
from plaudit.experience import Batch
from plaudit.functional.preference_losses import row_sums
from plaudit.records import Rating
from plaudit.runtime import Scorer
from plaudit.stages.encode import Rows

CHUNK = 64
"""Rows or pairs that are collated at once where no gradient is needed."""


class Feedback:
    """Encoded preferences or rated responses.

    Args:
        rows: one encoding a rating, two a preference.
        pad_id: token of the padding.
        scorer: the policy; until `precompute` returns it must be the reference.
        max_length: of a prompt with another prompt's response.
        others: rows whose responses stand in where a batch has those of one prompt only, such as a last batch of one
            row; None: these rows themselves.
    """

    def __init__(
        self, rows: Rows, pad_id: int, scorer: Scorer, max_length: int, others: Rows | None = None
    ) -> None:
        self.rows, self.pad_id, self.scorer, self.max_length = rows, pad_id, scorer, max_length
        self.others = others or rows
        self._reference: list[Tensor] = []
        self._mismatched: dict[tuple[int, ...], float] = {}
        self._needs: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return len(self.rows)

    def precompute(self, needs: frozenset[Any], batches: Iterable[Sequence[int]]) -> None:
        """Fill the cache for the signals that the algorithm needs.

        Args:
            needs: "ref_logprobs", "mismatched_kl", both, or neither.
            batches: row indices of every batch that `collate` will be asked for.
        """
        if "ref_logprobs" in needs:
            for indices in chunks(len(self)):
                batch = self._plain(indices)
                lengths = batch.attention_mask.sum(-1).tolist()
                # A copy: a view would keep the whole chunk with its padding.
                [logprobs] = self.scorer.read(batch, "logprobs")
                self._reference += [row[:n].clone() for row, n in zip(logprobs, lengths, strict=True)]
        if "mismatched_kl" in needs:
            for chosen in batches:
                self._mismatched[tuple(chosen)] = self._mean_mismatched(chosen)
        self._needs = frozenset(needs)

    def collate(self, indices: Sequence[int]) -> Batch:
        """The rows as one batch, with the reference's log-probs and the KL on mismatched responses where needed."""
        batch = self._plain(indices)
        if "ref_logprobs" in self._needs:
            batch = batch.replace(ref_logprobs=self._padded(indices, tuple(batch.tokens.shape)))
        if "mismatched_kl" in self._needs:
            now = self._mean_mismatched(indices)
            kl = max(0.0, now - self._mismatched[tuple(indices)])
            batch = batch.replace(mismatched_kl=torch.full((len(batch),), kl))
        return batch

    def _plain(self, indices: Sequence[int]) -> Batch:
        records, encoded = [self.rows.records[i] for i in indices], [self.rows.encoded[i] for i in indices]
        if isinstance(records[0], Rating):
            return collate_ratings([e[0] for e in encoded], [r.reward for r in records], self.pad_id)
        margins, targets = [r.margin or 0.0 for r in records], [r.agreement for r in records]
        return collate_pairs([e[0] for e in encoded], [e[1] for e in encoded], margins, targets, self.pad_id)

    def _padded(self, indices: Sequence[int], shape: tuple[int, ...]) -> Tensor:
        result = torch.zeros(shape)
        a_unit = len(self.rows.encoded[0])
        kept = [self._reference[i * a_unit + side] for i in indices for side in range(a_unit)]
        for row, values in zip(result, kept, strict=True):
            row[: len(values)] = values
        return result

    def _mean_mismatched(self, indices: Sequence[int]) -> float:
        """Mean log-prob of other prompts' responses under the scorer as it is now; 0 if there are none."""
        prompts = [prompt_key(self.rows.records[i].prompt) for i in indices]
        pool = self._pool(indices[0]) if len(set(prompts)) == 1 else ()
        twos = mismatched(prompts, [self.rows.encoded[i][0] for i in indices], self.max_length, pool)
        if not twos:
            return 0.0
        batch = collate_demonstrations(twos, self.pad_id)
        return float(row_sums(self.scorer.read(batch, "logprobs")[0], batch.response_mask).double().mean())

    def _pool(self, first: int) -> Iterator[tuple[str, Encoded]]:
        """All other rows with their prompts, in a circle from a place on, so that not all batches get the same one."""
        size = len(self.others)
        for place in range(first, first + size):
            i = place % size
            yield prompt_key(self.others.records[i].prompt), self.others.encoded[i][0]


def chunks(count: int) -> list[range]:
    """``range(count)`` in parts."""
    return [range(first, min(first + CHUNK, count)) for first in range(0, count, CHUNK)]


def mismatched(
    prompts: Sequence[str],
    rows: Sequence[Encoded],
    max_length: int,
    pool: Iterable[tuple[str, Encoded]] = (),
) -> list[Encoded]:
    """Each prompt with the response of the next row, in a circle, that answers another prompt.

    A row without such a partner, here or in the pool, is left out, as is one that cannot be fitted to the length.

    Args:
        prompts: what tells prompts apart.
        rows: their encodings.
        max_length: a longer prompt is cut from the left.
        pool: further rows with their prompts, where partners are looked for if all prompts here are the same.
    """
    result = []
    outside = list(islice((row for prompt, row in pool if prompt != prompts[0]), len(rows)))
    for i, (prompt, row) in enumerate(zip(prompts, rows, strict=True)):
        circle = [*range(i + 1, len(rows)), *range(i)]
        inside = next((rows[j] for j in circle if prompts[j] != prompt), None)
        partner = outside[i % len(outside)] if inside is None and outside else inside
        if partner is None:
            continue
        answer = partner.ids[partner.prompt_length :]
        ids = row.ids[: row.prompt_length] + answer
        mask = [False] * row.prompt_length + [True] * len(answer)
        fitted = fit_length(Encoded(ids, mask, row.prompt_length, row.opening), max_length, "truncate_prompt")
        if fitted is not None:
            result.append(fitted)
    return result
