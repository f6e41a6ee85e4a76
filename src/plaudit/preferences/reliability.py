"""Who is right when annotators disagree: their error rates and the truth, estimated together by EM.

Source: Dawid and Skene, Maximum likelihood estimation of observer error-rates using the EM algorithm (1979).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from plaudit.preferences.votes import Vote
from plaudit.statistics.resampling import Array

ASSUMED = 0.8
"""Accuracy that is assumed of an annotator before any vote: better than guessing."""
PRIOR = 2.0
"""How many votes for each true label this assumption counts as."""
# Without the prior, one vote against the majority would make somebody's estimated accuracy 0, and the method would turn
# all their other votes round. Somebody who shares no unit with others keeps the assumed accuracy.
MOST_STEPS = 500
TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True)
class Truth:
    """The estimates of Dawid and Skene's model."""

    units: tuple[str, ...]
    labels: tuple[float, ...]
    posterior: Array
    """[units, labels]: the probability of each label being the true one, from all votes."""
    annotators: tuple[str, ...]
    confusion: Array
    """[annotators, true label, label of the vote]: probabilities; rows sum to 1."""
    shares: Array
    """[labels]: how common each true label is."""

    def accuracy(self) -> dict[str, float]:
        """The probability of each annotator giving the true label, over the estimated shares of labels."""
        right = np.einsum("l,all->a", self.shares, self.confusion)
        return dict(zip(self.annotators, right.tolist(), strict=True))


def dawid_skene(votes: Sequence[Vote], *, symmetric: bool = False) -> Truth:
    """True labels and confusion matrices by EM, started from the share of votes (Dawid and Skene 1979).

    Args:
        votes: at least one. The true label is assumed to be one of the labels that occur.
        symmetric: one accuracy for each annotator, with errors spread evenly (the one-coin model): for few votes.

    Returns:
        The posterior of each unit, and each annotator's confusion.

    Raises:
        ValueError: no votes.
    """
    if not votes:
        raise ValueError("no votes to weigh")
    units = tuple(dict.fromkeys(vote.unit for vote in votes))
    names = tuple(dict.fromkeys(vote.annotator for vote in votes))
    values = tuple(sorted({vote.label for vote in votes}))
    at = [{key: i for i, key in enumerate(keys)} for keys in (units, names, values)]
    unit = np.array([at[0][v.unit] for v in votes])
    name = np.array([at[1][v.annotator] for v in votes])
    label = np.array([at[2][v.label] for v in votes])
    posterior = np.zeros((len(units), len(values)))
    np.add.at(posterior, (unit, label), 1.0)
    posterior /= posterior.sum(1, keepdims=True)
    # The start matters: EM finds the nearest maximum, and from the shares of votes it is the one in which most people
    # are right. A mirrored solution, in which everybody is wrong, fits the votes nearly as well.
    for _ in range(MOST_STEPS):
        # M step: shares and confusions that fit the posterior. E step: the posterior that fits these, in logarithms.
        shares = posterior.mean(0)
        counts = np.zeros((len(names), len(values), len(values)))
        np.add.at(counts.transpose(0, 2, 1), (name, label), posterior[unit])
        confusion = _confusion(counts, symmetric)
        likelihood = np.tile(np.log(np.maximum(shares, 1e-300)), (len(units), 1))
        np.add.at(likelihood, unit, np.log(confusion[name, :, label]))
        likelihood -= likelihood.max(1, keepdims=True)
        updated = np.exp(likelihood)
        updated /= updated.sum(1, keepdims=True)
        moved = float(np.abs(updated - posterior).max())
        posterior = updated
        if moved < TOLERANCE:
            break
    return Truth(units, values, posterior, names, confusion, shares)


def _confusion(counts: Array, symmetric: bool) -> Array:
    """Expected counts [A, true, voted] to probabilities, with the prior added."""
    size = counts.shape[1]
    if size < 2:
        return np.ones_like(counts)
    same = np.eye(size)
    if not symmetric:
        prior = PRIOR * (ASSUMED * same + (1 - ASSUMED) / (size - 1) * (1 - same))
        return np.asarray((counts + prior) / (counts.sum(2, keepdims=True) + PRIOR))
    right = np.einsum("all->a", counts) + PRIOR * ASSUMED
    share = (right / (counts.sum((1, 2)) + PRIOR))[:, None, None]
    return np.asarray(share * same + (1 - share) / (size - 1) * (1 - same))
