"""What to ask annotators next, from scores that a reward model or an ensemble has computed.

Every order is a function of its inputs and a seed.
"""

# Ties are broken by a number drawn from (seed, key) and not by the position in the input: an order must not depend on
# how the items are stored, and a stored order often follows their origin (one model's responses first).

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from plaudit.statistics.resampling import Array, uniform


def random_order(keys: Sequence[str], *, seed: int) -> list[str]:
    """The keys in random order; keys that are added later do not change the order of the others."""
    return sorted(keys, key=lambda key: uniform(seed, "order", key))


def by_score(scores: Mapping[str, float], *, seed: int) -> list[str]:
    """The keys with the highest score first, in random order among equals; NaN comes last."""

    def place(key: str) -> tuple[bool, float, float]:
        unknown = math.isnan(scores[key])
        return (unknown, 0.0 if unknown else -scores[key], uniform(seed, "order", key))

    return sorted(scores, key=place)


# Scores of pairs. differences: reward of response 0 minus reward of response 1


def small_margin(differences: Array) -> Array:
    """How unsure a reward model is of each pair: the entropy of sigmoid(difference) in nats, 0 to log 2.

    Args:
        differences: [pairs], or [members, pairs] of an ensemble, whose mean probability counts.
    """
    return _entropy(_probability(np.atleast_2d(differences)).mean(0))


def disagreement(differences: Array) -> Array:
    """How much the members of an ensemble disagree on each pair: mutual information of verdict and member, in nats.

    Entropy of the mean probability minus the mean entropy (BALD; Houlsby, Huszár, Ghahramani and Lengyel
    2011, eq. 2). If every member finds a pair equally good, its entropy is high, but asking people about it teaches
    nothing: its value is 0 here.

    Args:
        differences: [members, pairs], two members or more.

    Raises:
        ValueError: fewer than two members.

    >>> import numpy as np
    >>> disagreement(np.array([[0.0, 9.0], [0.0, -9.0]])).round(2).tolist()
    [0.0, 0.69]
    """
    if np.ndim(differences) != 2 or len(differences) < 2:
        raise ValueError(f"an ensemble has two members or more, found shape {np.shape(differences)}")
    p = _probability(differences)
    return np.maximum(0.0, _entropy(p.mean(0)) - _entropy(p).mean(0))


def _probability(differences: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-np.clip(differences, -500, 500))), dtype=np.float64)


def _entropy(p: Array) -> Array:
    p = np.clip(p, 1e-300, 1.0)
    q = np.clip(1 - p, 1e-300, 1.0)
    return np.asarray(-p * np.log(p) - q * np.log(q))


# Diversity


def farthest_first(features: Array, n: int, *, covered: Array | None = None, seed: int = 0) -> list[int]:
    """``n`` rows, each as far as possible from those before it (Gonzalez 1985; k-center, within twice the optimum).

    Args:
        features: [items, d]; distances are Euclidean.
        n: how many; all rows, if there are fewer.
        covered: [rows, d], what was asked before: rows close to it come late. Without it the first row is
            drawn with the seed.
        seed: of the first row.

    Returns:
        Indices in the order chosen.
    """
    count = min(n, len(features))
    if count < 1:
        return []
    chosen: list[int] = []
    nearest = np.full(len(features), np.inf)
    for row in covered if covered is not None else ():
        nearest = np.minimum(nearest, _distances(features, row))
    while len(chosen) < count:
        if np.isinf(nearest).all():
            pick = int(uniform(seed, "first") * len(features))
        else:
            pick = int(np.argmax(nearest))
        chosen.append(pick)
        nearest = np.minimum(nearest, _distances(features, features[pick]))
        nearest[chosen] = -1.0
    return chosen


def diverse_best(scores: Array, features: Array, n: int, *, among: float = 3.0, seed: int = 0) -> list[int]:
    """``n`` rows of high score that differ from each other: farthest-first among the best ``among * n``.

    Args:
        scores: [items], higher is better.
        features: [items, d].
        n: how many.
        among: the candidates are the best ``among * n`` rows; with 1 the best ones are taken.
        seed: breaks ties between equal scores.
    """
    # The items with the highest scores are often nearly the same question many times, and the second answer to it
    # teaches little.
    ties = np.array([uniform(seed, "tie", i) for i in range(len(scores))])
    best = np.lexsort((ties, -np.asarray(scores)))[: max(n, round(among * n))]
    rest = farthest_first(features[best[1:]], n - 1, covered=features[best[:1]]) if len(best) else []
    return [int(best[0]), *(int(best[1 + i]) for i in rest)] if n > 0 and len(best) else []


def as_priorities(order: Sequence[str]) -> dict[str, float]:
    """An order as priorities from 1 (asked first) down to above 0, as the annotation store keeps them.

    >>> as_priorities(["b", "a"])
    {'b': 1.0, 'a': 0.5}
    """
    return {key: 1 - i / len(order) for i, key in enumerate(order)}


def _distances(features: Array, row: Array) -> Array:
    return np.asarray(((features - row) ** 2).sum(1))
