"""Starting a reward model's head where a linear probe of the frozen model ends, instead of at random.

First the head alone, then the head with what is below it (Kumar et al., arXiv:2202.10054, "LP-FT"): with little data a
random head costs most of the training only to be turned round, and meanwhile its gradients pull good features apart.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from plaudit.errors import ConfigError
from plaudit.experience import Batch, Experience, Pairs, Rankings
from plaudit.functional.probe import Probe, fit_probe
from plaudit.runtime import Progress, RewardRuntime

FOLDS = 5
ROWS = 64  # a batch; microbatches follow the token budget


def probe_head(
    runtime: RewardRuntime,
    collate: Callable[[Sequence[int]], Batch],
    prompt_ids: Sequence[str],
    attributes: Sequence[str] = (),
    progress: Progress | None = None,
) -> Probe:
    """Fit the head to the features of the model as it is: one forward pass over the data.

    Args:
        runtime: of a decoder; its head is changed.
        collate: row indices -> pairs, or rows with labels in [0, 1].
        prompt_ids: of each row; rows of one prompt are cross-validated together.
        attributes: qualities that have a head each; empty: one score.
        progress: told how many rows have been read, about once in a tenth of them.

    Raises:
        ConfigError: the model is an encoder, or has several heads.
    """
    if runtime.format.is_encoder or attributes:
        raise ConfigError(
            "head_init = 'probe' needs a decoder with one head, and no hidden layer in it",
            where="head_init",
            cure="use --head-init random",
        )
    features, targets, folds, told = [], [], [], 0
    for first in range(0, len(prompt_ids), ROWS):
        rows = range(first, min(first + ROWS, len(prompt_ids)))
        batch = collate(rows)
        found, wanted, units = _regression(batch, runtime.head.features(batch))
        features.append(found)
        targets.append(wanted)
        folds.append(torch.tensor([_fold(prompt_ids[i]) for i in rows])[units])
        if progress is not None and rows.stop * 10 // len(prompt_ids) > told:
            told = rows.stop * 10 // len(prompt_ids)
            progress(rows.stop, len(prompt_ids))
    probe = fit_probe(torch.cat(features), torch.cat(targets), torch.cat(folds))
    runtime.head.start_at(probe.weight)
    return probe


def _regression(batch: Batch, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of a regression, their targets, and the unit of each: differences of pairs, or single rows with labels."""
    if isinstance(batch, Experience):
        assert batch.rewards is not None, "rows without labels say nothing"
        return features, batch.rewards, torch.arange(len(batch))
    if isinstance(batch, Pairs):
        chosen, rejected = features.view(len(batch), 2, -1).unbind(1)
        return chosen - rejected, batch.targets, torch.arange(len(batch))
    better, worse = _ranked_pairs(batch)
    return features[better] - features[worse], torch.ones(len(better)), batch.groups[better]


def _ranked_pairs(batch: Rankings) -> tuple[Tensor, Tensor]:
    """Rows of every better and worse response to the same prompt."""
    same = batch.groups[:, None] == batch.groups[None]
    better, worse = (same & (batch.ranks[:, None] < batch.ranks[None])).nonzero().unbind(-1)
    return better, worse


def _fold(prompt_id: str) -> int:
    return hashlib.blake2b(prompt_id.encode(), digest_size=2).digest()[0] % FOLDS
