"""Which words one side uses more than another: log-odds ratios with an informative Dirichlet prior, as z-scores.

A plain ratio of shares puts the rarest words first: once against never is infinite. The prior counts each word as often
as both sides together use it, so that a rare word needs more evidence (Monroe, Colaresi and Quinn 2008, "Fightin'
Words", equations 15 to 22).
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

from plaudit.statistics.resampling import Array

PRIOR = 0.2
"""Size of the prior, as a share of the mean number of words of both sides. Of a word that only one side uses, much less
would leave the ratio to chance, and much more would shrink it whatever is seen; z is near its largest around here."""


def log_odds(counts: Array, other: Array, prior: float | None = None) -> tuple[Array, Array]:
    """Log-odds ratios of words between two sides, and their z-scores; above 0 the first side uses a word more.

    With ``a[w] = prior`` times the share of ``w`` in both sides together, ``y`` the counts and ``n`` their sum, the
    odds of a word are ``(y[w] + a[w]) / (n + prior - y[w] - a[w])``, and the variance of the difference of their logs
    is about ``1 / (y[w] + a[w])``, summed over both sides.

    Args:
        counts, other: ``[words]``, how often each side uses each word; need not be whole.
        prior: pseudo-counts of all words together, added to each side; None: see `PRIOR`.

    Returns:
        Ratios and z-scores, ``[words]`` each; 0 for a word that nobody uses, and where there is one word only.

    >>> import numpy as np
    >>> ratio, z = log_odds(np.array([8.0, 2.0]), np.array([2.0, 8.0]), prior=4.0)
    >>> [round(float(x), 4) for x in (ratio[0], z[0])]  # log(10/4) - log(4/10); over the root of 1/10 + 1/4
    [1.8326, 3.0976]
    """
    both = counts + other
    whole = float(both.sum())
    used = both > 0
    if used.sum() < 2:  # one word that is all there is has no other to be compared with
        return np.zeros_like(both), np.zeros_like(both)
    prior = PRIOR * whole / 2 if prior is None else prior
    pseudo = np.where(used, prior * both / whole, 1.0)  # 1: never used, and nothing is divided by 0
    sides = [(side + pseudo, float(side.sum()) + prior) for side in (counts, other)]
    logs = [np.log(own) - np.log(size - own) for own, size in sides]
    error = np.sqrt(sum(1 / own for own, _ in sides))
    ratio = np.where(used, logs[0] - logs[1], 0.0)
    return ratio, ratio / error


def surely(tests: int, confidence: float = 0.95) -> float:
    """The z-score that the largest of so many stays below by chance alone, one-sided (Bonferroni).

    >>> round(surely(1), 2), round(surely(1000), 2)
    (1.64, 3.89)
    """
    return NormalDist().inv_cdf(1 - (1 - confidence) / max(tests, 1))
