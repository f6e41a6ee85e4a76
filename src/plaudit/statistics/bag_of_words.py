"""What the words of a response tell by themselves: the baseline that a reward model has to beat.

Logistic regression on the difference of the word counts of two responses: Bradley and Terry's model with a weight for
each word, blind to the order of the words and to the prompt. A reward model that does no better has learned no more.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, sparse

from plaudit.statistics.resampling import uniform

Array = NDArray[np.float64]
Counts = Mapping[str, float]
"""Word -> how often it stands in a text, or how much more often than in another."""
PENALTIES = (0.1, 0.03, 0.01, 0.003)
FOLDS = 4
LEAST_ROWS = 3
"""A word of fewer rows gets no weight: it says more of these rows than of others."""
MOST_WORDS, MOST_ROWS = 20_000, 20_000
_WORD = re.compile(r"\w+|[^\w\s]")


def word_counts(text: str) -> Counter[str]:
    """How often each word and each mark stands in a text, whatever its case.

    >>> sorted(word_counts("No, no!").items())
    [('!', 1), (',', 1), ('no', 2)]
    """
    return Counter(_WORD.findall(text.casefold()))


def word_difference(one: str, other: str) -> dict[str, float]:
    """How much more often each word stands in one text than in the other; words with no difference are left out.

    >>> word_difference("good good film", "bad film") == {"good": 2, "bad": -1}
    True
    """
    counts = word_counts(one)
    counts.subtract(word_counts(other))
    return {word: float(count) for word, count in counts.items() if count}


@dataclass(frozen=True, slots=True)
class WordModel:
    """A weight for each word, and the penalty they were fitted with."""

    weights: Mapping[str, float]
    penalty: float

    def score(self, counts: Counts) -> float:
        """The log-odds that these counts speak for; a word without a weight says nothing.

        >>> WordModel({"good": 0.5}, 0.1).score({"good": 2, "film": 1})
        1.0
        """
        return float(sum(self.weights.get(word, 0.0) * count for word, count in counts.items()))


def fit_words(
    rows: Sequence[Counts], targets: Sequence[float], groups: Sequence[Hashable], penalties: Sequence[float] = PENALTIES
) -> WordModel | None:
    """Minimise ``mean(-t log sigmoid(x w) - (1 - t) log sigmoid(-x w)) + penalty |w|^2`` over the weights ``w``.

    Args:
        rows: ``x``: differences of counts where responses are compared, or the counts of a text.
        targets: ``t``: probability that the log-odds are positive; 1 for a chosen minus a rejected response.
        groups: the prompt of each row. The penalty is the one with the best loss on prompts that were left out.
        penalties: that are tried.

    Returns:
        None where there are fewer than two prompts, or no word in enough rows.
    """
    assert len(rows) == len(targets) == len(groups), "one row, one target, one group each"
    if len(rows) > MOST_ROWS:
        rows, targets, groups = rows[:MOST_ROWS], targets[:MOST_ROWS], groups[:MOST_ROWS]
    names = _vocabulary(rows)
    # Prompts in an order of their own, then dealt out: with few of them a hash alone could leave folds empty.
    order = sorted(set(map(str, groups)), key=lambda name: uniform("words", name))
    if len(order) < 2 or not names:
        return None
    x, y = _matrix(rows, names), np.asarray(targets, dtype=np.float64)
    place = {name: index % FOLDS for index, name in enumerate(order)}
    folds = np.array([place[str(group)] for group in groups])
    losses = [_cross_validated(x, y, folds, penalty) for penalty in penalties]
    penalty = penalties[int(np.argmin(losses))]
    weights = _fit(x, y, penalty)
    return WordModel({name: float(weights[column]) for name, column in names.items()}, penalty)


def _vocabulary(rows: Sequence[Counts]) -> dict[str, int]:
    counted = Counter(word for row in rows for word in row)
    kept = [word for word, count in counted.most_common(MOST_WORDS) if count >= LEAST_ROWS]
    return {word: column for column, word in enumerate(sorted(kept))}


def _matrix(rows: Sequence[Counts], names: Mapping[str, int]) -> Any:
    cells = [(i, names[word], count) for i, row in enumerate(rows) for word, count in row.items() if word in names]
    lines, columns, values = zip(*cells, strict=True)
    return sparse.csr_matrix((values, (lines, columns)), shape=(len(rows), len(names)))


def _cross_validated(x: Any, y: Array, folds: NDArray[np.int64], penalty: float) -> float:
    scores = np.zeros_like(y)
    for fold in np.unique(folds):
        out = folds == fold
        scores[out] = x[out] @ _fit(x[~out], y[~out], penalty)
    return float(_losses(scores, y).mean())


def _losses(scores: Array, y: Array) -> Array:
    losses: Array = np.logaddexp(0.0, scores) - y * scores
    return losses


def _fit(x: Any, y: Array, penalty: float) -> Array:
    rows, columns = x.shape

    def objective(w: Array) -> tuple[float, Array]:
        scores = x @ w
        gradient = x.T @ (1 / (1 + np.exp(-np.clip(scores, -500, 500))) - y) / rows + 2 * penalty * w
        return float(_losses(scores, y).mean() + penalty * w @ w), gradient

    found: Array = optimize.minimize(objective, np.zeros(columns), jac=True, method="L-BFGS-B").x
    return found
